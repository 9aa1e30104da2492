"""File systems that are full, and some that share blocks between files: mounted for real, where this may be done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tidings.blobs import Blobs, Hash
from tidings.storage import Database
from tidings.storage.errors import DiskFull
from tidings.storage.files import clone_file
from tidings.transport import Endpoint, Router

from .tree import pattern


def mounted(place: Path, *arguments: str) -> Iterator[Path]:
    place.mkdir()
    if os.getuid() or subprocess.run(["mount", *arguments, str(place)], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    yield from mounted(tmp_path / "tiny", "-t", "tmpfs", "-o", "size=3m", "tmpfs")


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Path]:
    """One that shares blocks: btrfs."""
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("there is no mkfs.btrfs here")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    yield from mounted(tmp_path / "sharing", "-o", "loop", str(image))


async def test_a_disk_that_is_full(tmp_path: Path, tiny: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        made: list[tuple[Endpoint, Blobs]] = []
        for place in (tmp_path / "a", tiny / "b"):
            database = await Database.open(tmp_path / f"{place.name}.db")
            stack.push_async_callback(database.aclose)
            endpoint = await stack.enter_async_context(Endpoint.bind(bind=["127.0.0.1:0"]))
            blobs = Blobs(endpoint, database, place)
            stack.push_async_callback(blobs.aclose)
            await stack.enter_async_context(Router(endpoint, {Blobs.ALPN: blobs.handle}))
            made.append((endpoint, blobs))
        (source, a), (_, b) = made
        data = pattern(5_000_000)
        (tmp_path / "file").write_bytes(data)
        kept = await b.add_bytes(data[:1_000_000])
        for add in (b.add_bytes(data), b.add_path(tmp_path / "file")):
            with pytest.raises(DiskFull):
                await add
            assert not names(tiny / "b" / "temp")
        blob = await a.add_path(tmp_path / "file")
        folder = await a.add_collection([("film", blob.hash)])
        for fetch in (b.fetch(blob.hash, [source.addr()]), b.fetch_collection(folder.hash, [source.addr()])):
            with pytest.raises(DiskFull):
                await fetch
        with pytest.raises(DiskFull):
            await a.export(blob.hash, tiny / "film")
        assert names(tiny) == ["b"]
        assert await b.read(kept.hash) == data[:1_000_000]
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=20m", str(tiny)], check=True)
        before = a.served.bytes_sent
        await b.fetch(blob.hash, [source.addr()])
        assert await b.read(blob.hash) == data
        assert a.served.bytes_sent - before < len(data) - 1_000_000, "what had come was kept"


async def test_blocks_are_shared(sharing: Path) -> None:
    """With a free space that would not hold a second copy."""
    source, target = sharing / "source", sharing / "target"
    data = os.urandom(1 << 20) * 90
    source.write_bytes(data)
    os.sync()
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint, opened(sharing) as database:
        blobs = Blobs(endpoint, database, sharing / "blobs")
        blob = await blobs.add_path(source)
        assert blob.hash == Hash.of(data)
        source.write_bytes(b"another film")
        await blobs.export(blob.hash, target)
        assert target.read_bytes() == data == await blobs.read(blob.hash)
        await blobs.aclose()


def test_no_sharing_across_file_systems(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with (tmp_path / "a").open("rb") as source, (tiny / "b").open("wb") as target:
        assert not clone_file(source.fileno(), target.fileno())
    assert (tiny / "b").read_bytes() == b""


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_export_by_reference(tmp_path: Path, tiny: Path, elsewhere: bool) -> None:
    target = (tiny if elsewhere else tmp_path) / "target"
    data = pattern(1_000_000)
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint, opened(tmp_path) as database:
        blobs = Blobs(endpoint, database, tmp_path / "blobs")
        blob, small = await blobs.add_bytes(data), await blobs.add_bytes(b"small")
        await blobs.export(blob.hash, target, refer=True)
        await blobs.export(small.hash, tmp_path / "small", refer=True)
        assert not list((tmp_path / "blobs").rglob("*.data")), "it is there once"
        assert target.read_bytes() == data == await blobs.read(blob.hash)
        await blobs.export(blob.hash, tmp_path / "second", refer=True)
        assert (tmp_path / "second").read_bytes() == data
        (tmp_path / "second").unlink()
        assert await blobs.read(blob.hash) == data, "the first stays the one that is referred to"
        target.unlink()
        assert not await _readable(blobs, blob.hash)
        assert await blobs.read(small.hash) == b"small"
        await blobs.aclose()


@contextlib.asynccontextmanager
async def opened(place: Path) -> AsyncIterator[Database]:
    database = await Database.open(place / "node.db")
    try:
        yield database
    finally:
        await database.aclose()


async def _readable(blobs: Blobs, hash: Hash) -> bool:
    try:
        return bool(await blobs.read(hash))
    except Exception:
        return False
