"""Collecting garbage: what is kept stays, what is not goes with its files, and naming never crosses it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tidings.blobs import BlobFormat, Blobs, Collected, Hash, NotFound
from tidings.errors import UsageError
from tidings.storage import Database
from tidings.transport import Endpoint


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[Blobs]:
    database = await Database.open(tmp_path / "node.db")
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint:
        made = Blobs(endpoint, database, tmp_path / "blobs")
        yield made
        await made.aclose()
        await database.aclose()


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


async def test_what_nothing_keeps_goes_with_its_files(blobs: Blobs, tmp_path: Path) -> None:
    small = await blobs.add_bytes(b"small", tag=False)
    large = await blobs.add_bytes(os.urandom(5 << 20), tag=False)
    assert len(files(tmp_path)) == 2
    assert await blobs.collect() == Collected(0, 0), "they have just come"
    assert await blobs.collect(grace=-1) == Collected(2, small.size + large.size)
    assert not files(tmp_path) and not await blobs.list()
    with pytest.raises(NotFound):
        await blobs.read(large.hash)
    assert (await blobs.add_bytes(b"small")).hash == small.hash


async def test_tags_keep_and_can_be_taken_away(blobs: Blobs) -> None:
    kept = await blobs.add_bytes(b"kept", tag="mine")
    automatic = await blobs.add_bytes(b"by default")
    assert await blobs.collect(grace=-1) == Collected(0, 0)
    (tag,) = await blobs.tags.list("auto-")
    assert tag.hash == automatic.hash
    assert (await blobs.tags.get("mine")) is not None
    renamed = await blobs.tags.rename("mine", "ours")
    assert renamed.hash == kept.hash and await blobs.tags.get("mine") is None
    with pytest.raises(UsageError):
        await blobs.tags.rename("mine", "ours")
    assert await blobs.tags.delete("ours") and not await blobs.tags.delete("ours")
    assert await blobs.tags.delete(tag.name)
    assert (await blobs.collect(grace=-1)).blobs == 2
    for name in ("", "x" * 256, "\ud800"):
        with pytest.raises(UsageError):
            await blobs.tags.set(name, kept.hash)


async def test_a_sequence_keeps_its_children(blobs: Blobs) -> None:
    children = [await blobs.add_bytes(b"child %d" % number, tag=False) for number in range(3)]
    stray = await blobs.add_bytes(b"stray", tag=False)
    sequence = await blobs.add_bytes(b"".join(bytes(child.hash) for child in children), tag=False)
    await blobs.tags.set("folder", sequence.hash, BlobFormat.HASH_SEQ)
    assert await blobs.collect(grace=-1) == Collected(1, stray.size)
    await blobs.tags.set("elsewhere", Hash.of(b"not here"), BlobFormat.HASH_SEQ)
    await blobs.tags.delete("folder")
    assert (await blobs.collect(grace=-1)).blobs == 4


async def test_what_is_held_stays_while_it_is(blobs: Blobs) -> None:
    info = await blobs.add_bytes(b"held", tag=False)
    async with blobs.hold(info.hash), blobs.hold(str(info.hash)):
        assert (await blobs.collect(grace=-1)).blobs == 0
    assert (await blobs.collect(grace=-1)).blobs == 1


async def test_more_than_one_batch(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.blobs.collect.BATCH", 7)
    for number in range(50):
        await blobs.add_bytes(b"%d" % number, tag=number % 5 == 0)
    assert (await blobs.collect(grace=-1)).blobs == 40
    assert len(await blobs.list()) == 10


async def test_naming_and_adding_never_cross_a_collection(blobs: Blobs) -> None:
    """Large blobs come and go while collections run: what was named after it was added is there, whole."""
    contents = [os.urandom(20_000) for _ in range(6)]
    ended = False

    async def collect() -> None:
        while not ended:
            await blobs.collect(grace=-1)

    async def use(number: int) -> None:
        for turn in range(15):
            content = contents[(number + turn) % len(contents)]
            async with blobs.hold(Hash.of(content)):
                info = await blobs.add_bytes(content, tag=False)
                name = f"{number}"
                await blobs.tags.set(name, info.hash)
            assert await blobs.read(info.hash) == content
            await blobs.tags.delete(name)

    collecting = asyncio.create_task(collect())
    await asyncio.gather(*(use(number) for number in range(4)))
    ended = True
    await collecting
    await blobs.collect(grace=-1)
    assert await blobs.list() == []


async def test_a_batch_keeps_what_comes_while_it_lasts(blobs: Blobs) -> None:
    before = await blobs.add_bytes(b"before", tag=False)
    again = await blobs.add_bytes(b"again", tag=False)
    await asyncio.sleep(0.001)
    async with blobs.batch():
        during = await blobs.add_bytes(b"during", tag=False)
        await blobs.add_bytes(b"again", tag=False)
        assert (await blobs.collect(grace=-1)).blobs == 1
        assert not await blobs.has(before.hash)
        assert await blobs.has(during.hash) and await blobs.has(again.hash)
    assert (await blobs.collect(grace=-1)).blobs == 2
