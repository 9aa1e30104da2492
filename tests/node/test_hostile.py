"""Peers that send what no protocol says, to a whole node: it costs them their stream or connection, and nobody else."""

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable

import pytest
from nodes import LOOPBACK, until
from tidings import Blobs, Connection, Doc, Docs, DocTicket, Endpoint, EndpointAddr, Gossip, Node, SecretKey
from tidings.docs_sync.errors import SyncTimeout
from tidings.errors import NetworkError, PeerError
from tidings.transport import frame
from tidings.transport.errors import ProtocolRefused

ALPNS = [Blobs.ALPN, Docs.ALPN, Gossip.ALPN]


def garbage(rng: random.Random, openings: list[bytes]) -> bytes:
    """Random bytes at the start of a stream, in a frame, behind a good opening; frames cut or larger than allowed."""
    noise = rng.randbytes(rng.choice([0, 1, 3, 4, 5, 33, 200, 5000]))
    opening = rng.choice(openings)
    cut = bytearray(opening)
    if cut:
        cut[rng.randrange(len(cut))] ^= 1 << rng.randrange(8)
    return rng.choice(
        [
            noise,
            frame(noise),
            opening + noise,
            opening + frame(noise),
            opening + frame(noise)[:-1],
            opening + (0xFFFF_FFFF).to_bytes(4, "big") + noise,
            opening[: rng.randrange(len(opening) + 1)],
            bytes(cut),
        ]
    )


async def pour(connection: Connection, rng: random.Random, openings: list[bytes]) -> None:
    """Garbage on a few streams of either kind and in datagrams; some streams are finished, reset, or left open."""
    try:
        async with asyncio.timeout(10):
            for _ in range(rng.randint(1, 4)):
                data = garbage(rng, openings)
                if rng.random() < 0.5:
                    stream = await connection.open_bi()
                    send, recv = stream.send, stream.recv
                else:
                    send, recv = await connection.open_uni(), None
                await send.write(data)
                match rng.randrange(4):
                    case 0:
                        send.reset(rng.randrange(1 << 40))
                    case 1:
                        pass
                    case _:
                        await send.finish()
                if recv is not None and rng.random() < 0.3:
                    recv.stop(rng.randrange(1 << 40))
                connection.send_datagram(rng.randbytes(rng.randint(0, 900)))
            await asyncio.sleep(rng.random() * 0.05)
    except (PeerError, NetworkError):
        pass  # it threw us out, as it may
    finally:
        connection.close(rng.randrange(1 << 40), "the end")


def tasks_of(before: set[asyncio.Task[object]]) -> list[str]:
    return sorted(task.get_name() for task in asyncio.all_tasks() - before)


@pytest.fixture
async def victim(caplog: pytest.LogCaptureFixture):
    """A node with a live document, a topic and a blob. Afterwards: nothing alarming logged, and the same tasks."""
    caplog.set_level(logging.INFO)
    async with Node.open(None, bind=LOOPBACK) as node:
        doc = await node.docs.create()
        await doc.set("key", b"value")
        blob = await node.blobs.add_bytes(bytes(100_000))
        yield node, doc, blob.hash
        await until(lambda: not node.endpoint.connections(), explain=node.endpoint.connections)
    loud = [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    assert not loud


async def usable(node: Node, doc: Doc, hash: object) -> None:
    """Another node joins the document, fetches the blob, and hears an edit."""
    async with Node.open(None, bind=LOOPBACK) as other:
        theirs = await other.docs.join(doc.ticket(write=True), timeout=20)
        entry = await theirs.get("key")
        assert entry is not None and await entry.content(20) == b"value"
        assert (await other.blobs.fetch(str(node.blobs.ticket(hash)))).size == 100_000  # type: ignore[arg-type]
        await until(lambda: doc.neighbors)
        await theirs.set("answer", b"live")
        await until(lambda: doc.get("answer"))


@pytest.mark.parametrize("alpn", ALPNS, ids=lambda alpn: alpn.decode())
async def test_random_bytes_at_the_start_of_streams_and_inside_frames(victim, alpn: bytes) -> None:
    node, doc, hash = victim
    openings = {
        Blobs.ALPN: [b"", b"\0" + bytes(hash), b"\0" + bytes(hash) + b"\x01\x00", b"\x01", b"\x08", b"\x09"],
        Docs.ALPN: [b"", frame(b"\0" + bytes(doc.id) + b"\0"), b"\0\0\0\x40\0" + bytes(doc.id)],
        Gossip.ALPN: [b"", frame(bytes(doc.id)), frame(bytes(doc.id)) + frame(b"\1\0\0")],
    }[alpn]
    rng = random.Random(alpn)
    before = asyncio.all_tasks()
    async with Endpoint.bind(bind=LOOPBACK) as stranger:
        for _ in range(8):
            dials = [stranger.connect(node.addr(), alpn) for _ in range(5)]
            await asyncio.gather(*(pour(connection, rng, openings) for connection in await asyncio.gather(*dials)))
    await until(lambda: not node.endpoint.connections(), explain=node.endpoint.connections)
    await until(lambda: not tasks_of(before), explain=lambda: tasks_of(before))
    await usable(node, doc, hash)


async def test_streams_that_stay_silent_delay_nobody(victim) -> None:
    node, doc, hash = victim
    async with Endpoint.bind(bind=LOOPBACK) as stranger:
        for alpn in ALPNS:
            connection = await stranger.connect(node.addr(), alpn)
            for _ in range(20):
                await (await connection.open_uni()).write(b"\0")
                await (await connection.open_bi()).send.write(b"\0")
        await usable(node, doc, hash)


async def test_an_unknown_protocol_is_refused_by_name(victim) -> None:
    node, doc, hash = victim
    async with Endpoint.bind(bind=LOOPBACK) as stranger:
        with pytest.raises(ProtocolRefused):
            await stranger.connect(node.addr(), b"/nobody-speaks-this/1")
    await usable(node, doc, hash)


async def test_handlers_of_strangers_that_vanish_end(victim) -> None:
    """Connections that end in the middle of an answer leave no task behind."""
    node, doc, hash = victim
    before = asyncio.all_tasks()
    requests: dict[bytes, Callable[[Connection], Awaitable[None]]] = {}

    async def ask_blob(connection: Connection) -> None:
        stream = await connection.open_bi()
        await stream.send.write(b"\0" + bytes(hash) + b"\x01\x00\x01\x00")
        await stream.send.finish()

    async def start_sync(connection: Connection) -> None:
        stream = await connection.open_bi()
        await stream.send.write(frame(b"\0" + bytes(doc.id) + b"\0"))

    async def name_topic(connection: Connection) -> None:
        await (await connection.open_uni()).write(frame(bytes(doc.id)))

    requests.update({Blobs.ALPN: ask_blob, Docs.ALPN: start_sync, Gossip.ALPN: name_topic})
    async with Endpoint.bind(bind=LOOPBACK) as stranger:
        for alpn, request in requests.items():
            for _ in range(3):
                connection = await stranger.connect(node.addr(), alpn)
                await request(connection)
                connection.close(0, "gone")
    await until(lambda: not tasks_of(before), explain=lambda: tasks_of(before))
    await usable(node, doc, hash)


async def test_random_bytes_on_the_udp_port(victim) -> None:
    node, doc, hash = victim
    rng = random.Random(9)
    bound = node.endpoint.bound()[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(500):
            first = rng.choice([b"", b"\xc0\0\0\0\x01\x08", b"\xe0\0\0\0\x01", b"\x40"])  # QUIC headers, long and short
            stranger.sendto(first + rng.randbytes(rng.choice([0, 1, 20, 1200, 1400])), (str(bound.ip), bound.port))
    await usable(node, doc, hash)


async def test_a_ticket_with_another_key_than_answers_there(victim) -> None:
    """The join says so; the document is kept, and comes as soon as somebody has a true ticket."""
    node, doc, _ = victim
    true = doc.ticket(write=True)
    impostor = EndpointAddr.of(SecretKey.generate().public, node.endpoint.bound())
    async with Node.open(None, bind=LOOPBACK) as other:
        with pytest.raises(SyncTimeout, match=r"another key|other key|identity"):
            await other.docs.join(DocTicket(true.capability, (impostor,)), timeout=2)
        theirs = await other.docs.join(true, timeout=20)
        entry = await theirs.get("key")
        assert entry is not None and await entry.content(20) == b"value"
