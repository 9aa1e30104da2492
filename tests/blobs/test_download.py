"""Several providers for one blob, what is kept of a broken fetch, reading on demand, Observe and Push."""

from __future__ import annotations

import asyncio
import contextlib
import io
from pathlib import Path
from random import Random

import pytest
from tidings.blobs import Blobs, Hash, HashMismatch, NotProvided, ProvidersExhausted, Refused
from tidings.blobs.geometry import chunk_count
from tidings.blobs.ranges import ChunkRanges
from tidings.errors import UsageError
from tidings.storage import Database
from tidings.transport import Endpoint, EndpointAddr, SecretKey
from tree import response

SIZE = 6_000_000
DATA = Random(2).randbytes(SIZE)
HASH = Hash.of(DATA)
CHUNKS = chunk_count(SIZE)


def here(blobs: Blobs) -> Path:
    return blobs._store.stem(HASH)


async def test_four_slow_providers_share_the_work(peers) -> None:
    rate = 2_000_000
    providers = [await peers(upload_rate=rate) for _ in range(4)]
    for provider in providers:
        await provider.blobs.add_bytes(DATA)
    b = await peers()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await b.blobs.fetch(HASH, [provider.endpoint.addr() for provider in providers])
    seconds = loop.time() - begun
    assert await b.blobs.read(HASH) == DATA
    sent = [provider.blobs.served.bytes_sent for provider in providers]
    assert min(sent) > SIZE / 16, "each did its part"
    assert sum(sent) < 1.5 * SIZE
    assert seconds < 0.7 * SIZE / rate


async def test_the_slow_one_is_not_waited_for(peers) -> None:
    fast, slow = await peers(), await peers(upload_rate=100_000)
    for provider in (fast, slow):
        await provider.blobs.add_bytes(DATA)
    b = await peers()
    async with asyncio.timeout(15):
        await b.blobs.fetch(HASH, [slow.endpoint.addr(), fast.endpoint.addr()])
    assert await b.blobs.read(HASH) == DATA


async def test_a_broken_fetch_goes_on_where_it_was(peers) -> None:
    a, b = await peers(), await peers()
    await a.blobs.add_bytes(DATA)
    half = asyncio.Event()

    def progress(done: int, total: int) -> None:
        if done > SIZE / 2:
            half.set()

    fetching = asyncio.create_task(b.blobs.fetch(HASH, [a.endpoint.addr()], progress=progress))
    await half.wait()
    fetching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await fetching
    assert await b.blobs.size(HASH) is None
    assert await b.blobs.list() == []
    with pytest.raises(ProvidersExhausted):
        await b.blobs.fetch(HASH, [SecretKey.generate().public], retries=0)
    c = await peers()
    await c.blobs.add_bytes(DATA)
    seen: list[int] = []
    await b.blobs.fetch(HASH, [c.endpoint.addr()], progress=lambda done, total: seen.append(done))
    assert await b.blobs.read(HASH) == DATA
    assert c.blobs.served.bytes_sent < 0.55 * SIZE and seen[0] > SIZE / 2
    assert [path.suffix for path in here(b.blobs).parent.iterdir()].count(".have") == 0


async def test_a_provider_that_dies_is_replaced(peers) -> None:
    a, b, c = await peers(upload_rate=3_000_000), await peers(), await peers(upload_rate=3_000_000)
    for provider in (a, c):
        await provider.blobs.add_bytes(DATA)
    fetching = asyncio.create_task(b.blobs.fetch(HASH, [a.endpoint.addr(), c.endpoint.addr()]))
    while not (a.connections and a.blobs.served.bytes_sent > 100_000):
        await asyncio.sleep(0.01)
    await a.endpoint.aclose()
    async with asyncio.timeout(20):
        await fetching
    assert await b.blobs.read(HASH) == DATA


async def test_who_lies_is_left_and_what_was_right_stays(peers, liar) -> None:
    a, b = await peers(), await peers()
    await a.blobs.add_bytes(DATA)
    whole = response(DATA)
    at = 3_000_000

    async def lies(stream) -> None:
        with contextlib.suppress(Exception):
            await stream.send.write(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
            await stream.send.finish()

    bad = await liar(lies)
    with pytest.raises(ProvidersExhausted) as caught:
        await b.blobs.fetch(HASH, [bad])
    assert isinstance(caught.value.reasons[str(bad.id)], HashMismatch)
    await b.blobs.fetch(HASH, [bad, a.endpoint.addr()])
    assert await b.blobs.read(HASH) == DATA
    assert a.blobs.served.bytes_sent < 0.6 * SIZE, "at most a batch was thrown away"


@pytest.mark.parametrize("size", [17_000, 49_153])
async def test_no_byte_can_be_changed(peers, liar, size: int) -> None:
    """Every group is right or not there; whoever changed it is blamed."""
    data = Random(size).randbytes(size)
    whole, b = response(data), await peers()
    position = 0

    async def lies(stream) -> None:
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        with contextlib.suppress(Exception):
            await stream.send.write(bytes(changed))
            await stream.send.finish()

    bad = await liar(lies)
    for each in [*range(80), *range(80, len(whole), 997), len(whole) - 1]:
        position = each
        with pytest.raises(ProvidersExhausted) as caught:
            await b.blobs.fetch(Hash.of(data), [bad], max_size=1 << 20, retries=0)
        assert str(bad.id) in caught.value.reasons
        assert await b.blobs.size(Hash.of(data)) is None


async def test_providers_may_be_found_one_after_another(peers) -> None:
    a, b = await peers(), await peers()
    await a.blobs.add_bytes(DATA)

    async def found():
        yield SecretKey.generate().public
        await asyncio.sleep(0.1)
        yield a.endpoint.addr()
        await asyncio.Event().wait()

    async with asyncio.timeout(20):
        await b.blobs.fetch(HASH, found())
    assert await b.blobs.read(HASH) == DATA


async def test_a_part_is_served_and_observed(peers) -> None:
    a, b, c = await peers(), await peers(), await peers()
    await a.blobs.add_bytes(DATA)
    async with b.blobs.open(HASH, [a.endpoint.addr()]) as file:
        assert file.size == SIZE
        await file.seek(1_000_000)
        assert await file.read(500_000) == DATA[1_000_000:1_500_000]
        items = c.blobs.observe(HASH, b.endpoint.addr())
        size, have = await anext(items)
        assert size == SIZE and have.contains(1_000_000 // 1024, 1_500_000 // 1024) and not have.contains(0, 100)
        await file.seek(0)
        await file.read(10)
        async with asyncio.timeout(5):
            while not have.contains(0, 16):
                size, have = await anext(items)
        await items.aclose()
        with pytest.raises(ProvidersExhausted) as caught:
            await c.blobs.fetch(HASH, [b.endpoint.addr()], retries=0)
        assert isinstance(caught.value.reasons[str(b.endpoint.id)], NotProvided)
        await c.blobs.fetch(HASH, [b.endpoint.addr(), a.endpoint.addr()])
        assert await c.blobs.read(HASH) == DATA
    complete = c.blobs.observe(HASH, a.endpoint.addr())
    assert await anext(complete) == (SIZE, ChunkRanges.ALL)
    await complete.aclose()
    absent = c.blobs.observe(Hash.of(b"nobody has this"), a.endpoint.addr())
    assert await anext(absent) == (0, ChunkRanges.NONE)
    await absent.aclose()


async def test_two_who_have_parts_make_a_whole(peers) -> None:
    a, b, c, d = await peers(), await peers(), await peers(), await peers()
    await a.blobs.add_bytes(DATA)
    async with (
        b.blobs.open(HASH, [a.endpoint.addr()]) as first,
        c.blobs.open(HASH, [a.endpoint.addr()]) as second,
    ):
        await first.read(3_500_000)
        await second.seek(3_000_000)
        await second.read()
        async with asyncio.timeout(20):
            await d.blobs.fetch(HASH, [b.endpoint.addr(), c.endpoint.addr()])
    assert await d.blobs.read(HASH) == DATA


async def test_reading_on_demand_fetches_what_is_read(peers) -> None:
    a, b = await peers(), await peers()
    await a.blobs.add_bytes(DATA)
    async with b.blobs.open(str(a.blobs.ticket(HASH))) as file:
        await file.seek(-100, io.SEEK_END)
        assert await file.read() == DATA[-100:] and file.tell() == SIZE
        assert await file.read(5) == b""
        await file.seek(2_000_000)
        before = a.blobs.served.bytes_sent
        assert await file.read(1_000_000) == DATA[2_000_000:3_000_000]
        assert a.blobs.served.bytes_sent - before < 1_060_000
        await file.seek(-10, io.SEEK_CUR)
        before = a.blobs.served.bytes_sent
        assert await file.read(10) == DATA[2_999_990:3_000_000]
        assert a.blobs.served.bytes_sent == before, "it was here"
        with pytest.raises(UsageError):
            await file.seek(-1)
        await file.seek(0)
        assert await file.read() == DATA
    assert await b.blobs.has(HASH), "all of it came"
    async with b.blobs.open(HASH) as file:
        assert await file.read(10) == DATA[:10]
    small = await a.blobs.add_bytes(b"small")
    async with b.blobs.open(small.hash, [a.endpoint.addr()]) as file:
        assert await file.read() == b"small"
    with pytest.raises(ProvidersExhausted):
        async with b.blobs.open(Hash.of(b"nobody"), [a.endpoint.addr()]):
            pass


async def test_push_is_refused_unless_allowed(peers) -> None:
    a = await peers()
    b = await peers(allow_push=lambda peer, what: peer == a.endpoint.id and what != Hash.of(b"no"))
    await a.blobs.add_bytes(DATA)
    await a.blobs.push(HASH, b.endpoint.addr())
    assert await b.blobs.read(HASH) == DATA and b.blobs.served.blobs_pushed == 1
    small = await a.blobs.add_bytes(b"small")
    await a.blobs.push(small.hash, b.endpoint.addr())
    assert await b.blobs.read(small.hash) == b"small"
    await a.blobs.add_bytes(b"no")
    with pytest.raises(Refused):
        await a.blobs.push(Hash.of(b"no"), b.endpoint.addr())
    with pytest.raises(Refused):
        await b.blobs.push(HASH, a.endpoint.addr())
    assert await a.blobs.has(HASH)


async def test_a_part_survives_a_restart(tmp_path: Path) -> None:
    async def node(name: str):
        database = await Database.open(tmp_path / name / "node.db")
        endpoint = await Endpoint.bind(bind=["127.0.0.1:0"])
        return database, endpoint, Blobs(endpoint, database, tmp_path / name / "blobs")

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    from tidings.blobs import ALPN
    from tidings.transport import Router

    database, endpoint, blobs = await node("a")
    await blobs.add_bytes(DATA)
    async with Router(endpoint, {ALPN: blobs.handle}):
        addr: EndpointAddr = endpoint.addr()
        first = await node("b")
        async with first[2].open(HASH, [addr]) as file:
            await file.read(3_000_000)
        for each in (first[2], first[1], first[0]):
            await each.aclose()
        again = await node("b")
        before = blobs.served.bytes_sent
        await again[2].fetch(HASH, [addr])
        assert blobs.served.bytes_sent - before < SIZE - 2_900_000
        assert await again[2].read(HASH) == DATA
        for each in (again[2], again[1], again[0]):
            await each.aclose()
    await blobs.aclose()
    await endpoint.aclose()
    await database.aclose()
