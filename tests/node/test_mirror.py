"""Two mirrors over two replicas, with real folders and databases and a document and blobs in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blake3 import blake3
from tidings.blobs import Hash, UnreadableFile
from tidings.docs_sync.events import ContentReady, InsertLocal, InsertRemote
from tidings.docs_sync.model.paths import EMPTY_FILE, path_to_key
from tidings.node.mirror import Mirror, MirrorEvent
from tidings.node.mirror_scan import FolderGone
from tidings.storage import Database

EMPTY = blake3(b"").digest()


@dataclass(frozen=True)
class FakeEntry:
    key: bytes
    author: bytes
    hash: bytes
    size: int
    timestamp: int

    @property
    def is_tombstone(self) -> bool:
        return self.size == 0

    @property
    def signed(self) -> object:
        return self


class Side:
    """A node: its document, its blobs, its folder. ``other`` is who it talks to while ``online``."""

    clock = 0

    def __init__(self, name: str, folder: Path) -> None:
        self.id = b"n" * 32
        self.me = name.encode() * 32
        self.folder = folder
        self.store: dict[tuple[bytes, bytes], FakeEntry] = {}
        self.contents: dict[bytes, bytes] = {}
        self.queues: list[asyncio.Queue[Any]] = []
        self.other: Side | None = None
        self.online = True
        self.lazy = False  # contents come when told to
        self.said: list[MirrorEvent] = []
        self.task: asyncio.Task[None] | None = None
        self.database: Database | None = None
        self.fail_exports = 0

    # A document.

    async def set_hash(self, key: bytes, hash: bytes, size: int) -> FakeEntry:
        return self._insert(key, bytes(hash), size)

    async def delete(self, prefix: bytes) -> int:
        for key, author in list(self.store):
            if author == self.me and key.startswith(prefix):
                del self.store[key, author]
        self._insert(prefix, EMPTY, 0)
        return 1

    async def entries(self, *, key: bytes | None = None, tombstones: bool = False) -> AsyncIterator[FakeEntry]:
        for entry in sorted(self.store.values(), key=lambda entry: entry.key):
            if (key is None or entry.key == key) and (tombstones or entry.size):
                yield entry

    def events(self) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.queues.append(queue)

        async def stream() -> AsyncIterator[Any]:
            while True:
                yield await queue.get()

        return stream()

    def _insert(self, key: bytes, hash: bytes, size: int) -> FakeEntry:
        Side.clock = max(Side.clock + 1, time.time_ns() // 1000)
        entry = FakeEntry(key, self.me, hash, size, Side.clock)
        self._put(entry)
        self._tell(InsertLocal(entry))  # type: ignore[arg-type]
        if self.online and self.other is not None and self.other.online:
            self.other.receive(entry)
        return entry

    def _put(self, entry: FakeEntry) -> bool:
        old = self.store.get((entry.key, entry.author))
        if old is not None and (old.timestamp, old.hash) >= (entry.timestamp, entry.hash):
            return False
        self.store[entry.key, entry.author] = entry
        return True

    def receive(self, entry: FakeEntry) -> None:
        if self._put(entry):
            if not self.lazy and self.other is not None and entry.hash in self.other.contents:
                self.contents[entry.hash] = self.other.contents[entry.hash]
            self._tell(InsertRemote(entry, None, entry.hash in self.contents))  # type: ignore[arg-type]

    def _tell(self, event: object) -> None:
        for queue in self.queues:
            queue.put_nowait(event)

    def connect(self) -> None:
        assert self.other is not None
        self.online = self.other.online = True
        for one, two in ((self, self.other), (self.other, self)):
            for entry in list(one.store.values()):
                two.receive(entry)

    def disconnect(self) -> None:
        self.online = False

    # Blobs.

    async def add_bytes(self, data: bytes, *, tag: bool = True) -> Any:
        hash = blake3(data).digest()
        self.contents[hash] = data
        return SimpleNamespace(hash=Hash(hash), size=len(data))

    async def add_path(self, path: Path, *, tag: bool = True) -> Any:
        return await self.add_bytes(path.read_bytes())  # noqa: ASYNC240

    async def has(self, hash: Hash) -> bool:
        return bytes(hash) in self.contents

    async def export(self, hash: Hash, path: Path) -> None:
        if self.fail_exports:
            self.fail_exports -= 1
            raise OSError(28, "No space left on device")
        path.write_bytes(self.contents[bytes(hash)])  # noqa: ASYNC240

    def deliver(self) -> None:
        assert self.other is not None
        for hash, data in self.other.contents.items():
            if hash not in self.contents:
                self.contents[hash] = data
                self._tell(ContentReady(Hash(hash)))

    # The mirror.

    async def start(self) -> None:
        assert self.database is not None
        self.said.clear()
        mirror = Mirror(self.folder, self, self, self.database, author=self.me, report=self.said.append, interval=0.03)
        self.task = asyncio.create_task(mirror.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
            self.task = None
            self.queues.clear()

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and not path.is_symlink() and "tidings-tmp-" not in path.name
        }

    def kinds(self) -> list[str]:
        return [event.kind for event in self.said]


@dataclass
class Pair:
    a: Side
    b: Side
    stray: list[str] = field(default_factory=list)

    async def equal(self, expected: dict[str, bytes] | None = None) -> dict[str, bytes]:
        def same() -> bool:
            files = self.a.files()
            return files == self.b.files() and (expected is None or files == expected)

        await until(same, lambda: f"{self.a.files()} / {self.b.files()} / {self.a.said} / {self.b.said}")
        await asyncio.sleep(0.1)  # and it stays so
        assert same(), (self.a.files(), self.b.files())
        return self.a.files()


async def until(condition: Callable[[], bool], explain: Callable[[], object] = lambda: "") -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(explain())


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    sides = [Side(name, tmp_path / name) for name in "ab"]
    sides[0].other, sides[1].other = sides[1], sides[0]
    for side in sides:
        side.folder.mkdir()
        side.database = await Database.open(tmp_path / f"{side.me[:1].decode()}.db")
    yield Pair(*sides)
    for side in sides:
        await side.stop()
        assert not [path for path in side.folder.rglob("*") if "tidings-tmp-" in path.name]
        assert side.database is not None
        await side.database.aclose()


async def both(pair: Pair, call: Callable[[Side], Awaitable[None]]) -> None:
    for side in (pair.a, pair.b):
        await call(side)


async def test_a_folder_arrives_and_stays_live(pair: Pair) -> None:
    tree = {"a": b"1", "a.txt": b"2", "d/e/f": b"3" * 100_000, "d/empty": b"", "ü ñ": b"4"}
    for path, data in tree.items():
        (pair.a.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (pair.a.folder / path).write_bytes(data)
    await both(pair, Side.start)
    await pair.equal(tree)
    (pair.b.folder / "a").write_bytes(b"edited there")
    await pair.equal(tree | {"a": b"edited there"})
    (pair.a.folder / "d/e/f").unlink()
    (pair.a.folder / "a.txt").rename(pair.a.folder / "b.txt")
    await pair.equal({"a": b"edited there", "d/empty": b"", "ü ñ": b"4", "b.txt": b"2"})
    assert not (pair.b.folder / "d/e").exists()
    await until(lambda: pair.a.kinds()[-1] == pair.b.kinds()[-1] == "in-sync")
    assert not {"conflict", "failed", "skipped"} & {*pair.a.kinds(), *pair.b.kinds()}


async def test_changes_made_while_not_running_are_seen(pair: Pair) -> None:
    for name in ("kept", "deleted here", "deleted there", "edited"):
        (pair.a.folder / name).write_bytes(name.encode())
    await both(pair, Side.start)
    await pair.equal()
    await both(pair, Side.stop)
    (pair.a.folder / "deleted here").unlink()
    (pair.b.folder / "deleted there").unlink()
    (pair.b.folder / "edited").write_bytes(b"new")
    (pair.b.folder / "added").write_bytes(b"added")
    await both(pair, Side.start)
    await pair.equal({"kept": b"kept", "edited": b"new", "added": b"added"})
    assert "conflict" not in pair.a.kinds() + pair.b.kinds()


async def test_a_restart_reads_no_file_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    (pair.a.folder / "x").write_bytes(b"x")
    await both(pair, Side.start)
    await pair.equal({"x": b"x"})
    await both(pair, Side.stop)

    async def add_path(path: Path, *, tag: bool) -> Any:
        raise AssertionError("read again")

    monkeypatch.setattr(pair.a, "add_path", add_path)
    await pair.a.start()
    await until(lambda: "in-sync" in pair.a.kinds())
    assert pair.a.kinds() == ["in-sync"]


async def test_first_contact_keeps_both(pair: Pair) -> None:
    (pair.a.folder / "f.txt").write_bytes(b"from a")
    (pair.a.folder / "same").write_bytes(b"same")
    (pair.b.folder / "f.txt").write_bytes(b"from b")
    (pair.b.folder / "same").write_bytes(b"same")
    await pair.a.start()
    await until(lambda: "in-sync" in pair.a.kinds())
    await pair.b.start()
    await until(lambda: len(pair.a.files()) == 3)
    files = await pair.equal()
    assert sorted(files.values()) == [b"from a", b"from b", b"same"]


async def test_edits_made_apart_are_both_kept(pair: Pair) -> None:
    (pair.a.folder / "f.txt").write_bytes(b"base")
    await both(pair, Side.start)
    await pair.equal({"f.txt": b"base"})
    pair.a.disconnect()
    (pair.a.folder / "f.txt").write_bytes(b"edit of a")
    await until(lambda: pair.a.kinds().count("sent") == 2)
    (pair.b.folder / "f.txt").write_bytes(b"edit of b")
    await until(lambda: pair.b.kinds().count("sent") == 1)
    pair.a.connect()
    await until(lambda: len(pair.a.files()) == 2, lambda: (pair.a.said, pair.b.said))
    files = await pair.equal()
    assert files["f.txt"] == b"edit of b"
    assert sorted(files.values()) == [b"edit of a", b"edit of b"]


async def test_an_edit_beats_a_deletion_made_apart(pair: Pair) -> None:
    (pair.a.folder / "f").write_bytes(b"base")
    await both(pair, Side.start)
    await pair.equal({"f": b"base"})
    pair.a.disconnect()
    (pair.a.folder / "f").write_bytes(b"edit")
    await until(lambda: pair.a.kinds().count("sent") == 2)
    (pair.b.folder / "f").unlink()
    await until(lambda: "deleted-there" in pair.b.kinds())
    pair.a.connect()
    await pair.equal({"f": b"edit"})


async def test_contents_that_come_later(pair: Pair) -> None:
    pair.b.lazy = True
    (pair.a.folder / "f").write_bytes(b"late")
    await both(pair, Side.start)
    await until(lambda: bool(pair.b.store))
    await asyncio.sleep(0.1)
    assert pair.b.files() == {} and "in-sync" not in pair.b.kinds()[1:]
    pair.b.deliver()
    await pair.equal({"f": b"late"})


async def test_a_prefix_deleted_by_hand_takes_its_files(pair: Pair) -> None:
    for name in ("p/a", "p/b", "q"):
        (pair.a.folder / name).parent.mkdir(exist_ok=True)
        (pair.a.folder / name).write_bytes(name.encode())
    await both(pair, Side.start)
    await pair.equal()
    await pair.a.delete(b"p/")
    await pair.equal({"q": b"q"})


async def test_a_document_that_lost_its_entries_is_filled_again(pair: Pair) -> None:
    (pair.a.folder / "f").write_bytes(b"x")
    await both(pair, Side.start)
    await pair.equal({"f": b"x"})
    await both(pair, Side.stop)
    pair.a.store.clear()
    pair.b.store.clear()
    await both(pair, Side.start)
    await until(lambda: bool(pair.a.store) and bool(pair.b.store))
    await pair.equal({"f": b"x"})


async def test_unsafe_keys_and_odd_files_are_reported_once(pair: Pair, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (pair.b.folder / "link").symlink_to(outside)
    hash = bytes((await pair.a.add_bytes(b"evil")).hash)
    for key in (b"../evil\0", b"/evil\0", b"plain", b"link/evil\0", b"fine\0"):
        await pair.a.set_hash(key, hash, 4)
    await pair.b.start()
    await until(lambda: "fine" in pair.b.files())
    await asyncio.sleep(0.2)
    assert pair.b.files() == {"fine": b"evil"}
    assert not list(outside.iterdir()) and not (tmp_path / "evil").exists()
    skipped = [event for event in pair.b.said if event.kind == "skipped"]
    assert len(skipped) == len({event.path for event in skipped}) == 4


async def test_a_file_where_a_directory_is_wanted(pair: Pair) -> None:
    await pair.a.add_bytes(b"x")
    await pair.a.set_hash(path_to_key("d/x"), bytes(Hash.of(b"x")), 1)
    (pair.b.folder / "d").write_bytes(b"a file")
    await pair.b.start()
    await until(lambda: "failed" in pair.b.kinds())
    assert pair.b.files() == {"d": b"a file"}


async def test_a_full_disk_is_reported_and_the_rest_goes_on(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.node.mirror.RETRY", 0.1)
    pair.b.fail_exports = 1
    for name in ("1", "2", "3"):
        (pair.a.folder / name).write_bytes(name.encode())
    await both(pair, Side.start)
    await pair.equal({"1": b"1", "2": b"2", "3": b"3"})
    assert pair.b.kinds().count("failed") == 1


async def test_a_file_that_changes_while_it_is_looked_at(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pair.a.folder / "log"
    path.write_bytes(b"0")
    real, times = pair.a.add_path, 0

    async def add_path(where: Path, *, tag: bool) -> Any:
        nonlocal times
        times += 1
        added = await real(where)
        if times < 3:
            path.write_bytes(b"%d" % times * times)
        return added

    monkeypatch.setattr(pair.a, "add_path", add_path)
    await both(pair, Side.start)
    await pair.equal({"log": b"22"})


async def test_an_unreadable_file_is_reported_once_and_is_no_deletion(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.node.mirror.RETRY", 0.05)
    (pair.a.folder / "f").write_bytes(b"base")
    await both(pair, Side.start)
    await pair.equal({"f": b"base"})

    async def add_path(path: Path, *, tag: bool) -> Any:
        raise UnreadableFile(f"cannot read {path}: Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(pair.a, "add_path", add_path)
        (pair.a.folder / "f").write_bytes(b"cannot be read now")
        await until(lambda: "failed" in pair.a.kinds())
        await asyncio.sleep(0.3)
        assert pair.a.kinds().count("failed") == 1 and pair.b.files() == {"f": b"base"}
    await pair.equal({"f": b"cannot be read now"})


async def test_cancelled_at_any_moment_only_whole_files_are_there(pair: Pair) -> None:
    data = {f"{n:02}": os.urandom(1000 + n) for n in range(40)}
    for name, content in data.items():
        (pair.a.folder / name).write_bytes(content)
    await pair.a.start()
    for n in range(12):
        await pair.b.start()
        await asyncio.sleep(0.004 * n)
        await pair.b.stop()
        assert pair.b.files().items() <= data.items()
    await pair.b.start()
    await pair.equal(data)
    assert "conflict" not in pair.a.kinds() + pair.b.kinds()


async def test_a_folder_that_went_away_is_not_taken_for_emptied(pair: Pair) -> None:
    (pair.a.folder / "f").write_bytes(b"x")
    await both(pair, Side.start)
    await pair.equal({"f": b"x"})
    pair.a.folder.rename(pair.a.folder.with_name("elsewhere"))
    pair.a.folder.mkdir()
    assert pair.a.task is not None
    with pytest.raises(FolderGone):
        await pair.a.task
    pair.a.task = None
    await asyncio.sleep(0.1)
    assert pair.b.files() == {"f": b"x"}
    await pair.a.start()
    with pytest.raises(FolderGone):
        await pair.a.task
    pair.a.task = None


async def test_what_stands_for_an_empty_file_is_not_synced_itself(pair: Pair) -> None:
    (pair.a.folder / "marker").write_bytes(EMPTY_FILE)
    await both(pair, Side.start)
    await until(lambda: "skipped" in pair.a.kinds())
    assert pair.b.files() == {}
