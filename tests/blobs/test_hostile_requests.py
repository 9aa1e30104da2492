"""Requests that are meant to hurt a provider, and files that change while they are served."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from tidings.blobs import ALPN, Hash, ProvidersExhausted
from tidings.blobs.messages import GetRequest
from tidings.blobs.ranges import ChunkRanges, ChunkRangesSeq
from tidings.transport.errors import StreamReset
from tidings.transport.postcard import Writer

from .peers import MakePeer, Peer
from .peers import peers as peers
from .tree import pattern

MANY = 1_000_000


async def ask(asking: Peer, provider: Peer, request: bytes) -> bytes | None:
    """The answer, None where there is none."""
    connection = await asking.endpoint.connect(provider.endpoint.addr(), ALPN)
    stream = await connection.open_bi()
    await stream.send.write(request)
    await stream.send.finish()
    try:
        return await stream.recv.read_to_end(64 << 20)
    except StreamReset:
        return None
    finally:
        connection.close()


def widths(hash: Hash, widths: list[int]) -> bytes:
    """A Get for ranges as they stand."""
    out = Writer().u8(0).raw(bytes(hash)).varint(2).varint(0).varint(len(widths))
    for width in widths:
        out.varint(width)
    return out.varint(1).varint(0).finish()


@pytest.mark.parametrize("width", [0, 1], ids=["overlapping", "every second chunk"])
async def test_a_million_ranges(peers: MakePeer, width: int) -> None:
    """They are as many as a request may hold; others are answered all the while."""
    a, b, c = await peers(), await peers(), await peers()
    data = pattern(3_000_000)
    blob = await a.blobs.add_bytes(data)
    answer, fetched = await asyncio.gather(
        ask(b, a, widths(blob.hash, [width] * MANY)), c.blobs.fetch(blob.hash, [a.endpoint.addr()])
    )
    assert answer is None or len(answer) < 2 * len(data)
    assert fetched == blob


async def test_ranges_past_the_end_prove_the_size(peers: MakePeer) -> None:
    a, b = await peers(), await peers()
    blob = await a.blobs.add_bytes(pattern(100_000))
    far = ChunkRanges.of(1 << 40, 1 << 50)
    answer = await ask(b, a, GetRequest(blob.hash, ChunkRangesSeq.blob(far)).encode())
    assert answer is not None
    assert answer[:8] == (100_000).to_bytes(8, "little")
    assert answer.endswith(pattern(100_000)[97 * 1024 :])
    assert len(answer) < 20_000


async def test_a_file_that_changes_while_it_is_served(peers: MakePeer, tmp_path: Path) -> None:
    a, b, c = await peers(upload_rate=2_000_000), await peers(), await peers()
    path, data = tmp_path / "film", pattern(4_000_000)
    path.write_bytes(data)
    blob = await a.blobs.add_path(path, refer=True)
    came = asyncio.Event()
    fetching = asyncio.create_task(
        b.blobs.fetch(blob.hash, [a.endpoint.addr()], progress=lambda *_: came.set(), retries=0)
    )
    await came.wait()
    with path.open("r+b") as file:
        file.seek(3_900_000)
        file.write(b"another end")
    with pytest.raises(ProvidersExhausted, match=r"do not belong|does not have"):
        await fetching
    path.write_bytes(data)
    honest = await c.blobs.add_bytes(data)
    before = c.blobs.served.bytes_sent
    assert honest == await b.blobs.fetch(blob.hash, [c.endpoint.addr()])
    assert c.blobs.served.bytes_sent - before < 4_000_000, "what was right was kept"
    with contextlib.suppress(Exception):
        await a.blobs.read(blob.hash)
    assert not await a.blobs.has(blob.hash), "its time of change is another: it is no longer vouched for"
