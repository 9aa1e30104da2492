"""Provider, fetch, pool and the public class, over real endpoints on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from peers import Answer, MakePeer
from tidings.blobs import (
    ALPN,
    BlobFormat,
    BlobTicket,
    Busy,
    Hash,
    HashMismatch,
    NotProvided,
    ProvidersExhausted,
    Refused,
    Stalled,
    TooLarge,
    Truncated,
)
from tidings.blobs import pool as pool_module
from tidings.blobs import provider as provider_module
from tidings.blobs.messages import GetRequest
from tidings.blobs.ranges import ChunkRanges, ChunkRangesSeq
from tidings.errors import UsageError
from tidings.transport import BiStream, Connection, Endpoint, EndpointAddr, SecretKey
from tidings.transport.errors import (
    ConnectionClosed,
    DecodeError,
    InvalidTicket,
    StreamReset,
    StreamStopped,
    Unreachable,
)
from tree import pattern, response


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 3 << 20])
async def test_whole_blobs(peers: MakePeer, size: int) -> None:
    a, b = await peers(), await peers()
    info = await a.blobs.add_bytes(pattern(size))
    steps: list[tuple[int, int]] = []
    got = await b.blobs.fetch(str(a.blobs.ticket(info.hash)), progress=lambda *step: steps.append(step))
    assert got == info
    assert await b.blobs.read(str(info.hash)) == pattern(size)
    assert await b.blobs.has(info.hash)
    if size:
        assert steps[-1] == (size, size)
        assert steps == sorted(steps)
    c = await peers()
    assert await c.blobs.fetch(info.hash, [b.endpoint.addr()]) == info


async def test_connections_are_shared_and_closed_when_idle(peers: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE", 0.05)
    a, b = await peers(), await peers()
    infos = [await a.blobs.add_bytes(b"%d" % number) for number in range(50)]
    await asyncio.gather(*(b.blobs.fetch(info.hash, [a.endpoint.addr()]) for info in infos))
    assert len(a.connections) == 1
    async with asyncio.timeout(5):
        await a.connections[0].wait_closed()
    more = await a.blobs.add_bytes(b"more")
    await b.blobs.fetch(more.hash, [a.endpoint.addr()])
    assert len(a.connections) == 2


async def test_a_pooled_connection_that_the_peer_closed_is_dialled_again(peers: MakePeer) -> None:
    a, b = await peers(), await peers()
    for number in range(3):
        info = await a.blobs.add_bytes(b"%d" % number)
        await b.blobs.fetch(info.hash, [a.endpoint.addr()])
        a.connections[-1].close()
    assert len(a.connections) == 3


async def test_a_dead_provider_costs_one_dial(peers: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    b = await peers()
    dials = 0

    async def connect(target: object, alpn: bytes, *, timeout: float) -> Connection:
        nonlocal dials
        dials += 1
        await asyncio.sleep(0.05)
        raise Unreachable("nobody answered")

    monkeypatch.setattr(b.endpoint, "connect", connect)
    dead = SecretKey.generate().public
    fetches = [b.blobs.fetch(Hash.of(b"%d" % number), [dead], retries=0) for number in range(20)]
    results = await asyncio.gather(*fetches, return_exceptions=True)
    assert all(isinstance(result, ProvidersExhausted) for result in results)
    assert dials == 1


async def test_two_fetches_of_one_blob_share_the_work(peers: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await peers(), await peers()
    info = await a.blobs.add_bytes(pattern(300_000))
    asked = 0
    decode = provider_module.decode_request

    def counting(data: bytes) -> GetRequest:
        nonlocal asked
        asked += 1
        return decode(data)

    monkeypatch.setattr(provider_module, "decode_request", counting)
    got = await asyncio.gather(*(b.blobs.fetch(info.hash, [a.endpoint.addr()]) for _ in range(5)))
    assert got == [info] * 5
    assert asked == 1


async def test_the_next_provider_is_asked(peers: MakePeer, liar: Callable[[Answer], Awaitable[EndpointAddr]]) -> None:
    a, b, empty = await peers(), await peers(), await peers()
    info = await a.blobs.add_bytes(pattern(200_000))

    async def wrong(stream: BiStream) -> None:
        await stream.send.write(response(pattern(200_001)))
        await stream.send.finish()

    nobody = SecretKey.generate().public
    providers = [nobody, await liar(wrong), empty.endpoint.addr(), a.endpoint.addr()]
    assert await b.blobs.fetch(info.hash, providers) == info
    assert await b.blobs.read(info.hash) == pattern(200_000)


async def test_why_each_provider_failed(
    peers: MakePeer, liar: Callable[[Answer], Awaitable[EndpointAddr]], tmp_path: Path
) -> None:
    data = pattern(100_000)
    whole = response(data)

    async def changed(stream: BiStream) -> None:
        await stream.send.write(whole[:50_000] + bytes([whole[50_000] ^ 1]) + whole[50_001:])
        await stream.send.finish()

    async def short(stream: BiStream) -> None:
        await stream.send.write(whole[:-1])
        await stream.send.finish()

    async def silent(stream: BiStream) -> None:
        await stream.send.write(whole[:30_000])

    async def huge(stream: BiStream) -> None:
        await stream.send.write((1 << 63).to_bytes(8, "little") + whole[8:])
        await stream.send.finish()

    async def nothing(stream: BiStream) -> None:
        await stream.send.finish()

    def refuses(code: int) -> Answer:
        async def answer(stream: BiStream) -> None:
            stream.send.reset(code)

        return answer

    expected = {
        await liar(changed): HashMismatch,
        await liar(short): Truncated,
        await liar(silent): Stalled,
        await liar(huge): TooLarge,
        await liar(nothing): NotProvided,
        await liar(refuses(1)): Refused,
        await liar(refuses(2)): Busy,
        await liar(refuses(3)): NotProvided,
        EndpointAddr(SecretKey.generate().public): Unreachable,
    }
    for provider, kind in expected.items():
        b = await peers()
        with pytest.raises(ProvidersExhausted) as caught:
            await b.blobs.fetch(Hash.of(data), [provider], max_size=1 << 30, stall_timeout=0.3, retries=0)
        (reason,) = caught.value.reasons.values()
        assert type(reason) is kind and caught.value.reasons.keys() == {str(provider.id)}
        if kind is HashMismatch:
            assert isinstance(reason, HashMismatch) and reason.peer == str(provider.id)
        assert await b.blobs.list() == []
        assert not list((tmp_path / b.endpoint.id.short() / "temp").iterdir())


async def test_a_provider_that_sends_a_byte_now_and_then_has_stalled(
    peers: MakePeer, liar: Callable[[Answer], Awaitable[EndpointAddr]]
) -> None:
    data = pattern(1000)

    async def trickle(stream: BiStream) -> None:
        with contextlib.suppress(StreamStopped, ConnectionClosed):
            for byte in response(data):
                await stream.send.write(bytes((byte,)))
                await asyncio.sleep(0.02)

    b = await peers()
    async with asyncio.timeout(5):
        with pytest.raises(ProvidersExhausted) as error:
            await b.blobs.fetch(Hash.of(data), [await liar(trickle)], stall_timeout=0.3)
    assert all(isinstance(reason, Stalled) for reason in error.value.reasons.values())


async def test_nobody_to_ask(peers: MakePeer) -> None:
    a = await peers()
    with pytest.raises(ProvidersExhausted, match="name at least one provider"):
        await a.blobs.fetch(Hash.of(b"x"))
    with pytest.raises(ProvidersExhausted):
        await a.blobs.fetch(Hash.of(b"x"), ["not an id", a.endpoint.id])
    with pytest.raises(InvalidTicket):
        await a.blobs.fetch("blobby")
    with pytest.raises(UsageError, match="collection"):
        await a.blobs.fetch(BlobTicket(a.endpoint.addr(), Hash.of(b"x"), BlobFormat.HASH_SEQ))


async def test_a_cancelled_fetch_leaves_nothing(peers: MakePeer, tmp_path: Path) -> None:
    a, b = await peers(), await peers()
    info = await a.blobs.add_bytes(pattern(4 << 20))
    begun = asyncio.Event()
    task = asyncio.create_task(b.blobs.fetch(info.hash, [a.endpoint.addr()], progress=lambda done, total: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list((tmp_path / b.endpoint.id.short() / "temp").iterdir())
    assert await b.blobs.fetch(info.hash, [a.endpoint.addr()]) == info


async def test_permission(peers: MakePeer) -> None:
    b = await peers()
    a = await peers(allow=lambda peer, _: peer != b.endpoint.id)
    c = await peers()
    info = await a.blobs.add_bytes(b"not for b")
    with pytest.raises(ProvidersExhausted) as caught:
        await b.blobs.fetch(info.hash, [a.endpoint.addr()])
    assert isinstance(caught.value.reasons[str(a.endpoint.id)], Refused)
    assert await c.blobs.fetch(info.hash, [a.endpoint.addr()]) == info


async def ask(connection: Connection, request: bytes) -> bytes:
    stream = await connection.open_bi()
    await stream.send.write(request)
    await stream.send.finish()
    return await stream.recv.read_to_end(1 << 22)


async def test_bad_requests_cost_their_stream_alone(peers: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "REQUEST_TIMEOUT", 0.2)
    a, b = await peers(), await peers()
    info = await a.blobs.add_bytes(b"hello")
    good = GetRequest(info.hash, ChunkRangesSeq.blob()).encode()
    connection = await b.endpoint.connect(a.endpoint.addr(), ALPN)
    for bad in (b"", b"\xff", good[:-1], good + b"x", b"\x01" + good[1:], b"\x08" + good, b"\x09", bytes(2 << 20)):
        with pytest.raises((StreamReset, StreamStopped, DecodeError)) as caught:  # stopped: while it still writes
            await ask(connection, bad)
        assert getattr(caught.value, "code", 3) == 3
    slow = await connection.open_bi()
    await slow.send.write(good)  # and never finishes
    with pytest.raises(StreamReset):
        await slow.recv.read()
    assert await ask(connection, good) == response(b"hello")
    connection.close()


async def test_one_peer_cannot_use_up_what_is_for_all(peers: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "REQUESTS", 6)
    monkeypatch.setattr(provider_module, "REQUESTS_OF_PEER", 4)
    a, b = await peers(), await peers()
    info = await a.blobs.add_bytes(b"for all")
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as hog:
        for _ in range(3):
            connection = await hog.connect(a.endpoint.addr(), ALPN)
            for _ in range(3):
                stream = await connection.open_bi()
                await stream.send.write(b"\0")  # and never the rest
        await asyncio.sleep(0.1)
        async with asyncio.timeout(3):
            assert await b.blobs.fetch(info.hash, [a.endpoint.addr()]) == info


async def test_while_others_wait_slow_peers_get_less_time(peers: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "REQUESTS", 4)
    monkeypatch.setattr(provider_module, "CROWDED", 100)
    a, b = await peers(), await peers()
    info = await a.blobs.add_bytes(b"for all")
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as hog:
        connection = await hog.connect(a.endpoint.addr(), ALPN)
        for n in range(20):
            stream = await connection.open_bi()
            await stream.send.write(b"\0")
            if n == 3:
                await asyncio.sleep(0.1)
        async with asyncio.timeout(14):
            assert await b.blobs.fetch(info.hash, [a.endpoint.addr()]) == info


async def test_ranges_and_children(peers: MakePeer) -> None:
    a, b = await peers(), await peers()
    data = pattern(4096)
    info = await a.blobs.add_bytes(data)
    hello = await a.blobs.add_bytes(b"hello")
    sequence = await a.blobs.add_bytes(bytes(hello.hash) + bytes(info.hash))
    connection = await b.endpoint.connect(a.endpoint.addr(), ALPN)
    part = await ask(connection, GetRequest(info.hash, ChunkRangesSeq.blob(ChunkRanges((1, 2)))).encode())
    assert len(part) == 1160
    assert part.endswith(data[1024:2048])
    everything = await ask(connection, GetRequest(sequence.hash, ChunkRangesSeq.EVERYTHING).encode())
    assert everything == response(bytes(hello.hash) + bytes(info.hash)) + response(b"hello") + response(data)
    none = ChunkRangesSeq(())
    assert await ask(connection, GetRequest(info.hash, none).encode()) == b""
    connection.close()


MEMORY = '''
import asyncio, resource, sys, tempfile
from tidings.blobs import ALPN, Blobs
from tidings.storage import Database
from tidings.transport import Endpoint, Router

async def pieces(mib, byte):
    for _ in range(mib):
        yield bytes([byte]) * (1 << 20)

def most():
    """Bytes. Linux keeps the parent's for getrusage where the process was spawned by vfork."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))

async def main():
    database, other = await Database.open(None), await Database.open(None)
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as a, Endpoint.bind(bind=["127.0.0.1:0"]) as b:
        with tempfile.TemporaryDirectory() as place:
            ours, theirs = Blobs(a, database, place + "/a"), Blobs(b, other, place + "/b")
            async with Router(a, {ALPN: ours.handle}):
                for mib in (10, 40):
                    info = await ours.add_stream(pieces(mib, mib))
                    await theirs.fetch(ours.ticket(info.hash))
                    print(most())
            await ours.aclose()
            await theirs.aclose()
    await database.aclose()
    await other.aclose()

asyncio.run(main())
'''


async def test_memory_does_not_grow_with_the_blob() -> None:
    process = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=50, check=False
    )
    assert process.returncode == 0, process.stderr
    small, large = map(int, process.stdout.split())
    assert large - small < 12 << 20
    assert large < 150 << 20
