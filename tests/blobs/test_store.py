from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tidings.blobs import BlobDamaged, FileChanged, Hash, NotFound, UnreadableFile
from tidings.blobs import store as store_module
from tidings.blobs.exporting import export
from tidings.blobs.reader import BlobInfo
from tidings.blobs.store import BlobStore, Filter
from tidings.errors import UsageError
from tidings.storage import Database
from tree import outboard, pattern

GROUP = 16384
LARGE = 5 << 20  # its outboard has a file of its own


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "node.db")
    yield database
    await database.aclose()


@pytest.fixture
async def store(database: Database, tmp_path: Path) -> AsyncIterator[BlobStore]:
    store = BlobStore(database, tmp_path / "blobs")
    yield store
    await store.aclose()
    assert not list((tmp_path / "blobs" / "temp").iterdir())


def files(tmp_path: Path) -> list[str]:
    return sorted(path.suffix for path in (tmp_path / "blobs" / "data").glob("*/*"))


async def read(store: BlobStore, hash: Hash, offset: int = 0, size: int | None = None) -> bytes:
    async with await store.reader(hash) as reader:
        return await reader.read(offset, size)


@pytest.mark.parametrize(
    ("size", "kept"),
    [(0, []), (1, []), (GROUP, []), (GROUP + 1, [".data"]), (LARGE, [".data", ".obao4"])],
)
async def test_bytes(store: BlobStore, tmp_path: Path, size: int, kept: list[str]) -> None:
    data = pattern(size)
    for _ in range(2):
        info = await store.add_bytes(data)
        assert info == BlobInfo(Hash.of(data), size)
        assert files(tmp_path) == kept
    assert await store.size(info.hash) == size
    assert await store.list() == ([info] if size else [])  # the empty blob is everywhere and needs no row
    assert await read(store, info.hash) == data
    assert await read(store, info.hash, size - 1 if size else 0, 10) == data[-1:]
    assert await read(store, info.hash, size + 5) == b""
    async with await store.reader(info.hash) as reader:
        assert b"".join([piece async for piece in reader]) == data
        if 0 < size < LARGE:
            assert reader.outboard_at(0, len(outboard(data)[1])) == outboard(data)[1]


async def test_nothing_there(store: BlobStore) -> None:
    assert await store.size(Hash.of(b"x")) is None
    assert await read(store, Hash.EMPTY) == b""
    with pytest.raises(NotFound, match="fetch it first"):
        await store.reader(Hash.of(b"x"))
    with pytest.raises(UsageError):
        await read(store, Hash.EMPTY, -1)


async def test_path(store: BlobStore, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for size in (0, 10, LARGE):
        (tmp_path / "file").write_bytes(pattern(size))
        info = await store.add_path(tmp_path / "file", lambda done, total: seen.append((done, total)))
        assert info == BlobInfo(Hash.of(pattern(size)), size)
        assert seen[-1] == (size, size)


async def test_paths_that_cannot_be_read(store: BlobStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "pipe", ".", "node.db/x"):
        with pytest.raises(UnreadableFile):
            await store.add_path(tmp_path / name)


@pytest.mark.parametrize("through", [None, lambda pieces: pieces], ids=["as it is", "filtered"])
@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
async def test_a_file_that_changes_while_it_is_read(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, through: Filter | None
) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(3_000_000))
    os.utime(path, (1, 1))
    monkeypatch.setattr(store_module, "PIECE", 10_000)
    monkeypatch.setattr(store_module, "AT_ONCE", 1)
    run = store.run
    changed = False

    async def meddle(work, *args):  # type: ignore[no-untyped-def]
        nonlocal changed
        result = await run(work, *args)
        if getattr(work, "__name__", "") in ("keep", "step") and not changed:
            changed = True
            if change == "grow":
                with path.open("ab") as file:
                    file.write(b"more")
            elif change == "shrink":
                os.truncate(path, 1_500_000)
            else:
                path.write_bytes(pattern(3_000_000)[::-1])
        return result

    monkeypatch.setattr(store, "run", meddle)
    with pytest.raises(FileChanged, match="add it again"):
        await store.add_path(path, through=through)
    assert await store.list() == []


async def test_a_stream_that_fails_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(50_000)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="source broke"):
        await store.add_stream(pieces())
    assert await store.list() == []
    assert files(tmp_path) == []


async def test_cancelled_while_hashing(store: BlobStore, tmp_path: Path) -> None:
    hashing = asyncio.Event()
    (tmp_path / "file").write_bytes(bytes(24 << 20))
    task = asyncio.create_task(store.add_path(tmp_path / "file", lambda done, total: hashing.set()))
    await hashing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.list() == []
    assert not list((tmp_path / "blobs" / "temp").iterdir())


async def test_the_same_blob_added_many_times_at_once(store: BlobStore, tmp_path: Path) -> None:
    for data in (b"small", pattern(100_000)):
        infos = await asyncio.gather(*(store.add_bytes(data) for _ in range(8)))
        assert set(infos) == {BlobInfo(Hash.of(data), len(data))}
        assert await read(store, infos[0].hash) == data
    assert files(tmp_path) == [".data"]


async def test_the_row_comes_last_and_the_files_before_it_are_whole(
    store: BlobStore, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pattern(LARGE)

    async def power_cut(work):  # type: ignore[no-untyped-def]
        assert files(tmp_path) == [".data", ".obao4"]
        assert next((tmp_path / "blobs" / "data").glob("*/*.data")).read_bytes() == data
        raise OSError("the lights went out")

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", power_cut)
        with pytest.raises(OSError, match="lights"):
            await store.add_bytes(data)
    assert await store.size(Hash.of(data)) is None
    info = await store.add_bytes(data)
    assert await read(store, info.hash) == data


async def test_leftovers_are_swept_and_blobs_survive(database: Database, tmp_path: Path) -> None:
    for _ in range(2):
        store = BlobStore(database, tmp_path / "blobs")
        assert not list((tmp_path / "blobs" / "temp").iterdir())
        info = await store.add_bytes(pattern(70_000))
        assert await read(store, info.hash) == pattern(70_000)
        await store.aclose()
        (tmp_path / "blobs" / "temp" / "half.temp").write_bytes(b"half")


@pytest.mark.parametrize(("kind", "damage"), [("data", "cut"), ("data", "gone"), ("obao4", "gone")])
async def test_damage_is_told_once_and_the_blob_can_be_added_again(
    store: BlobStore, tmp_path: Path, kind: str, damage: str
) -> None:
    size = 5 << 20  # large enough for an outboard in a file
    info = await store.add_bytes(pattern(size))
    (file,) = (tmp_path / "blobs" / "data").glob(f"*/*.{kind}")
    if damage == "cut":
        os.truncate(file, 100)
    else:
        file.unlink()
    with pytest.raises(BlobDamaged, match="fetch it again"):
        await store.reader(info.hash)
    assert await store.size(info.hash) is None
    await store.add_bytes(pattern(size))
    assert await read(store, info.hash) == pattern(size)


async def test_a_file_that_shrinks_while_it_is_open_is_told(store: BlobStore, tmp_path: Path) -> None:
    info = await store.add_bytes(pattern(LARGE))
    (file,) = (tmp_path / "blobs" / "data").glob("*/*.data")
    async with await store.reader(info.hash) as reader:
        os.truncate(file, 100)
        with pytest.raises(BlobDamaged, match="too short"):
            await reader.read()


async def test_export(store: BlobStore, tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    for size in (0, 5, LARGE):
        info = await store.add_bytes(pattern(size))
        await export(store, info.hash, target)
        assert target.read_bytes() == pattern(size)
    with pytest.raises(UnreadableFile):
        await export(store, info.hash, tmp_path / "missing" / "out.bin")
    with pytest.raises(NotFound):
        await export(store, Hash.of(b"x"), tmp_path / "never")
    assert {name for name in os.listdir(tmp_path) if not name.startswith("node.db")} == {"blobs", "out.bin"}  # noqa: PTH208


@pytest.mark.parametrize("size", [GROUP, 100_000, LARGE])
async def test_a_file_that_is_referred_to(store: BlobStore, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(size))
    info = await store.add_path(path, refer=True)
    assert info == BlobInfo(Hash.of(pattern(size)), size)
    assert await read(store, info.hash) == pattern(size)
    assert ".data" not in files(tmp_path)
    if size == GROUP:
        return
    for change in (lambda: path.write_bytes(pattern(size + 1)[1:]), lambda: path.write_bytes(b"short"), path.unlink):
        change()
        with pytest.raises(BlobDamaged):
            await read(store, info.hash)
        assert await store.size(info.hash) is None
        path.write_bytes(pattern(size))
        await store.add_path(path, refer=True)
        assert await read(store, info.hash) == pattern(size)
    path.unlink()
    path.mkdir()
    with pytest.raises(BlobDamaged):
        await read(store, info.hash)
    path.rmdir()
    path.write_bytes(pattern(size))
    await store.add_path(path, refer=True)
    assert await store.add_bytes(pattern(size)) == info
    path.unlink()
    assert await read(store, info.hash) == pattern(size), "what is added is copied"
    path.write_bytes(pattern(size))
    await store.add_path(path, refer=True)
    path.unlink()
    assert await read(store, info.hash) == pattern(size), "a copy is not given up for a reference"
    await store.remove_files([info.hash])


async def test_holes_stay_holes(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(40 << 20)
        file.write(b"end")
        file.truncate(64 << 20)
    info = await store.add_path(path)
    data = store.stem(info.hash).with_suffix(".data")
    assert data.stat().st_size == 64 << 20 and data.stat().st_blocks * 512 < 8 << 20
    assert await read(store, info.hash, 40 << 20, 5) == b"end\0\0"
