"""Blobs of ``aster`` (iroh-blobs 0.99) and of tidings, in both directions."""

import pytest
from tidings.blobs import ALPN, Blobs, BlobTicket, Hash, NotProvided, ProvidersExhausted
from tidings.blobs.bao import encode
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
