"""Blobs of ``aster`` (iroh-blobs 0.99) and of tidings, in both directions."""

import asyncio

import pytest
from tidings.blobs import ALPN, Blobs, BlobSettings, BlobTicket, Hash, NotProvided, ProvidersExhausted
from tidings.blobs.answers import get_ranges
from tidings.blobs.bao import Leaf, encode
from tidings.blobs.messages import GetRequest
from tidings.blobs.ranges import ChunkRanges, ChunkRangesSeq
from tidings.storage import Database
from tidings.transport import Endpoint, EndpointAddr, EndpointId, IpAddr, Router

from .rust import Rust, RustError, needs

pytestmark = [pytest.mark.interop, needs("aster")]
SIZES = [0, 1, 1024, 16384, 16385, 1 << 20, 20 << 20]


def pattern(size):
    block = bytes(i % 251 for i in range(251))
    return (block * (size // 251 + 1))[:size]


@pytest.fixture
async def rust():
    async with Rust("aster") as rust:
        yield rust


@pytest.fixture
async def ours(tmp_path):
    """(endpoint, blobs) that serves."""
    database = await Database.open(tmp_path / "node.db")
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint:
        blobs = Blobs(endpoint, database, tmp_path / "blobs")
        async with Router(endpoint, {ALPN: blobs.handle}):
            yield endpoint, blobs
        await blobs.aclose()
    await database.aclose()


async def started(rust):
    info = await rust.do("start")
    return EndpointAddr.of(EndpointId.parse(info["id"]), map(IpAddr.parse, info["addrs"]))


async def test_we_fetch_from_rust(rust, ours):
    _, blobs = ours
    peer = await started(rust)
    for size in SIZES:
        hash = await rust.do("blob_add_pattern", size=size)
        assert Hash.parse(hash) == Hash.of(pattern(size))
        assert (await blobs.fetch(hash, [peer])).size == size
        assert await blobs.read(hash) == pattern(size)


async def test_rust_fetches_from_us(rust, ours):
    _, blobs = ours
    await started(rust)
    for size in SIZES:
        blob = await blobs.add_bytes(pattern(size))
        answer = await rust.do("blob_download", ticket=str(blobs.ticket(blob.hash)), check_pattern=size)
        assert answer["same"], size


async def test_tickets_of_rust(rust, ours):
    _, blobs = ours
    await started(rust)
    hash = await rust.do("blob_add", data=b"by ticket".hex())
    text = await rust.do("blob_ticket", hash=hash)
    ticket = BlobTicket.parse(text)
    assert str(ticket.hash) == hash
    assert str(ticket) == text
    await blobs.fetch(text)
    assert await blobs.read(hash) == b"by ticket"


async def test_a_blob_that_is_not_there(rust, ours):
    _, blobs = ours
    peer = await started(rust)
    with pytest.raises(ProvidersExhausted) as caught:
        await blobs.fetch(Hash.of(b"nobody has this"), [peer])
    assert isinstance(caught.value.reasons[str(peer.id)], NotProvided)
    with pytest.raises(RustError):
        await rust.do("blob_download", ticket=str(blobs.ticket(Hash.of(b"nor this"))))


@pytest.mark.parametrize(
    "boundaries",
    [
        (0,),
        (1, 2),
        (0, 17),
        (3, 5, 20, 21, 40),
        (16, 20),
        (24, 33),
        (0, 5, 100, 200),
        (3, 98, 100, 200),
        (96, 97, 99, 120),
        ((1 << 64) - 1,),
        (),
    ],
)
async def test_ranges_are_encoded_alike(rust, ours, boundaries):
    endpoint, blobs = ours
    peer = await started(rust)
    for size in (100_000, 4096, 5 * 16384):
        await rust.do("blob_add_pattern", size=size)
        hash = (await blobs.add_bytes(pattern(size))).hash
        async with await blobs.reader(hash) as reader:
            expected = b"".join(encode(size, ChunkRanges(boundaries), reader.data_at, reader.outboard_at))
        connection = await endpoint.connect(peer, ALPN)
        stream = await connection.open_bi()
        await stream.send.write(GetRequest(hash, ChunkRangesSeq.blob(ChunkRanges(boundaries))).encode())
        await stream.send.finish()
        assert await stream.recv.read_to_end(1 << 20) == (expected if boundaries else b"")
        connection.close()


async def test_collections_of_rust(rust, ours):
    _, blobs = ours
    await started(rust)
    entries = [("a", b"one"), ("folder/b", pattern(100_000)), ("empty", b""), ("again", b"one")]
    hash = await rust.do("collection_add", entries=[(name, data.hex()) for name, data in entries])
    ticket = await rust.do("collection_ticket", hash=hash)
    collection = await blobs.fetch_collection(ticket)
    assert [(name, await blobs.read(child)) for name, child in collection] == entries


async def test_rust_fetches_our_collections(rust, ours):
    endpoint, blobs = ours
    await started(rust)
    entries = [("a", b"one"), ("folder/b", pattern(100_000)), ("empty", b""), ("again", b"one")]
    info = await blobs.add_collection([(name, (await blobs.add_bytes(data)).hash) for name, data in entries])
    small = await blobs.add_bytes(b"so that it knows our address")
    await rust.do("blob_download", ticket=str(blobs.ticket(small.hash)))
    found = await rust.do("collection_download", hash=str(info.hash), node=str(endpoint.id), timeout=60)
    assert [(name, bytes.fromhex(data)) for name, data in found] == entries


async def test_a_sequence_of_five_hundred(rust, ours):
    _, blobs = ours
    await started(rust)
    sizes = [at * 37 % 20_000 for at in range(500)]
    hash = await rust.do("collection_add_patterns", sizes=sizes, timeout=60)
    collection = await blobs.fetch_collection(await rust.do("collection_ticket", hash=hash))
    for (_, child), size in zip(collection, sizes, strict=True):
        assert await blobs.read(child) == pattern(size)


async def test_what_rust_says_that_it_has(rust, ours):
    _, blobs = ours
    peer = await started(rust)
    for size in (100, 16384, 16385, 1 << 20):
        hash = await rust.do("blob_add_pattern", size=size)
        items = blobs.observe(hash, peer)
        there, have = await anext(items)
        assert there == size and have.contains(0, -(-size // 1024))
        await items.aclose()
    items = blobs.observe(Hash.of(b"nobody has this"), peer)
    _, have = await anext(items)
    assert not have
    await items.aclose()


async def test_rust_has_a_part_of_ours(rust, ours, tmp_path):
    """It says which, and we get that part from it."""
    peer = await started(rust)
    _, blobs = ours
    size = 8 << 20
    database = await Database.open(None)
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint:
        slow = Blobs(endpoint, database, tmp_path / "slow", BlobSettings(upload_rate=2 << 20))
        hash = (await slow.add_bytes(pattern(size))).hash
        async with Router(endpoint, {ALPN: slow.handle}):
            await rust.do("blob_begin_download", ticket=str(slow.ticket(hash)))
            while slow.served.bytes_sent < size // 2:
                await asyncio.sleep(0.05)
        await slow.aclose()
    await database.aclose()
    async with asyncio.timeout(20):
        items = blobs.observe(hash, peer)
        there, have = await anext(items)
        await items.aclose()
    chunks = size // 1024
    assert 0 < have.count(chunks) < chunks, (there, have)
    first = next(iter(have.spans(chunks)))
    connection = await ours[0].connect(peer, ALPN)
    wanted = ChunkRanges.of(first[0], min(first[1], first[0] + 64))
    got = bytearray()
    async for _, items in get_ranges(connection, hash, wanted, max_size=None, stall_timeout=10):
        for item in items:
            if isinstance(item, Leaf):
                got += item.data
    assert got == pattern(size)[first[0] * 1024 :][: len(got)] and len(got) == wanted.count(chunks) * 1024
    connection.close()


async def test_we_fetch_many_small_ones_from_rust(rust, ours):
    _, blobs = ours
    peer = await started(rust)
    sizes = [*range(1, 200), 1024, 16384]
    wanted = [(Hash.parse(await rust.do("blob_add_pattern", size=size)), size) for size in sizes]
    delivery = await blobs.fetch_small(wanted, peer)
    assert delivery.error is None
    assert await blobs.read(wanted[-1][0]) == pattern(16384)
    missing = [(Hash.of(b"not there"), 9)]
    for some in (missing, [(Hash.parse(await rust.do("blob_add", data=b"new".hex())), 3), *missing]):
        delivery = await blobs.fetch_small(some, peer)
        assert isinstance(delivery.error, NotProvided)
