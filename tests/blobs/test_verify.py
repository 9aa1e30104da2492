"""What a disk changed is found, and fetched again: that and no more."""

from __future__ import annotations

from random import Random

import pytest
from tidings.blobs import Hash, NotFound

DATA = Random(4).randbytes(5_000_000)


async def damaged(blobs) -> dict[Hash, int]:
    return {checked.hash: checked.bad async for checked in blobs.verify() if checked.bad}


@pytest.mark.parametrize("size", [1_000_000, 5_000_000])  # with the outboard in the row, and in a file
async def test_a_damaged_blob_is_mended_by_a_fetch(peers, size: int) -> None:
    a, b = await peers(), await peers()
    data = DATA[:size]
    hash = (await a.blobs.add_bytes(data)).hash
    await b.blobs.fetch(hash, [a.endpoint.addr()])
    small = await b.blobs.add_bytes(b"small")
    assert await damaged(b.blobs) == {}
    with b.blobs._store.stem(hash).with_suffix(".data").open("r+b") as file:
        for at in (20_000, 700_000):
            file.seek(at)
            file.write(b"not what it was")
    assert await damaged(b.blobs) == {hash: 2 * 16384}
    assert await damaged(b.blobs) == {}, "it is partial now"
    with pytest.raises(NotFound):
        await b.blobs.read(hash)
    before = a.blobs.served.bytes_sent
    await b.blobs.fetch(hash, [a.endpoint.addr()])
    assert a.blobs.served.bytes_sent - before < 70_000
    assert await b.blobs.read(hash) == data
    assert await b.blobs.read(small.hash) == b"small"


async def test_a_blob_whose_file_is_gone_is_forgotten(peers) -> None:
    a = await peers()
    hash = (await a.blobs.add_bytes(DATA)).hash
    a.blobs._store.stem(hash).with_suffix(".data").unlink()
    assert await damaged(a.blobs) == {hash: len(DATA)}
    assert await a.blobs.list() == []
    await a.blobs.add_bytes(DATA)
    assert await a.blobs.read(hash) == DATA
