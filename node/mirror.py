"""`Mirror`: a folder and a document kept the same, both ways, until it is cancelled (``tidings sync``).

The rules are `mirror_plan.decide`'s; here are the eyes and hands. One task looks at the folder again and again and
notes the paths that may need a step; one listens to the document; a few workers take one path each and walk it to rest.
Nothing here holds a whole file in memory.

- A path is in one worker's hands at a time. A scan does not count for paths that a worker touched while it ran.
- Before a file is replaced or removed, and before its absence is told, the disk must still be as it was looked at.
- A step is taken first and recorded then. After a crash between the two, both sides agree already.
- An empty file cannot be an entry (in a document that is a deletion): it is written as the content `EMPTY_FILE`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, SupportsBytes

from ..blobs import Hash
from ..docs_sync.events import ContentReady, InsertLocal, InsertRemote, InsertShared, Lagged, PendingContentReady
from ..docs_sync.model.paths import CONTROL_FOLDER, EMPTY_FILE, TEMPORARY, path_to_key
from ..errors import TidingsError
from ..storage import Database
from .mirror_files import Changed, is_as_seen, move_aside, parent_of, put_in_place, remove_file
from .mirror_plan import (
    Action,
    Fetch,
    Local,
    Publish,
    Read,
    Record,
    Remove,
    Rescue,
    Revive,
    SetAside,
    Synced,
    Version,
    Wait,
    Withdraw,
    decide,
)
from .mirror_scan import FolderGone, Scan, prepare_folder, scan_folder
from .mirror_state import MirrorState
from .mirror_versions import MirrorEntry, Versions

__all__ = ["Mirror", "MirrorBlobs", "MirrorDocument", "MirrorEvent"]

WORKERS = 16  # paths at a time: enough to fill a group commit, few enough open files
INTERVAL = 0.5  # seconds between two scans, more where a scan takes longer than a tenth of it
RETRY = 5.0  # seconds before a path that failed is tried again
CONTENT_RETRY = 30.0  # seconds before asking again for a content that should have been announced
EMPTY_FILE_HASH = bytes(Hash.of(EMPTY_FILE))

logger = logging.getLogger(__name__)


class Sized(Protocol):
    @property
    def hash(self) -> SupportsBytes: ...
    @property
    def size(self) -> int: ...


class MirrorDocument(Protocol):
    """What a mirror needs of a document (`docs_sync.Doc`)."""

    @property
    def id(self) -> SupportsBytes: ...
    async def set_hash(self, key: bytes, hash: bytes, size: int) -> MirrorEntry: ...
    async def delete(self, prefix: bytes) -> int: ...
    def entries(self, *, key: bytes | None = None, tombstones: bool = False) -> AsyncIterable[MirrorEntry]: ...
    def events(self) -> AsyncIterator[Any]: ...


class MirrorBlobs(Protocol):
    """What a mirror needs of the blobs (`blobs.Blobs`)."""

    async def add_bytes(self, data: bytes, *, tag: bool) -> Sized: ...
    async def add_path(self, path: Path, *, tag: bool) -> Sized: ...
    async def has(self, hash: Hash) -> bool: ...
    async def export(self, hash: Hash, path: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class MirrorEvent:
    """What happened to ``path``.

    sent, received: it was changed here, there. deleted-there, deleted-here. conflict: ``note`` is the name under which
    the losing version is kept. skipped, failed: ``note`` is a sentence. in-sync: nothing is left to do; ``path`` is
    empty and ``size`` counts the files.
    """

    kind: Literal["sent", "received", "deleted-there", "deleted-here", "conflict", "skipped", "failed", "in-sync"]
    path: str
    size: int = 0
    note: str = ""


class Mirror:
    """``author``: in whose name the document's default writes are. ``report`` is called on the event loop."""

    def __init__(
        self,
        folder: Path,
        doc: MirrorDocument,
        blobs: MirrorBlobs,
        database: Database,
        *,
        author: SupportsBytes,
        report: Callable[[MirrorEvent], object] = lambda event: None,
        interval: float = INTERVAL,
    ) -> None:
        self.folder = folder.absolute()
        self._doc = doc
        self._blobs = blobs
        self._me = bytes(author)
        self._report = report
        self._interval = interval
        self._state = MirrorState(database, bytes(doc.id), self.folder)
        self._synced: dict[str, Synced] = {}
        self._local: dict[str, Local] = {}
        self._scan = Scan()
        self._versions = Versions()
        self._todo: dict[str, None] = {}  # an ordered set
        self._busy: set[str] = set()
        self._touched: set[str] = set()  # since the running scan began
        self._wanted: dict[bytes, set[str]] = {}  # contents that are not here yet, and the paths that wait
        self._waits_for: dict[str, bytes] = {}  # the same from the other side
        self._later: dict[str, float] = {}  # paths to try again, and when (monotonic seconds)
        self._failed: set[str] = set()  # paths whose last try failed
        self._said: set[tuple[str, str]] = set()
        self._quiet = False  # whether "in-sync" was reported since the last step
        self._work = asyncio.Condition()
        self._stale = True  # the document must be read as a whole

    async def run(self) -> None:
        """Mirror until cancelled. Raises `FolderGone` where the folder is not there, or not the one it was."""
        self._synced = await self._state.load()
        await asyncio.to_thread(prepare_folder, self.folder, known=bool(self._synced))
        events = self._doc.events()  # before the first reading, so that nothing falls between
        try:
            async with asyncio.TaskGroup() as group:
                await self._look()
                group.create_task(self._keep_looking())
                group.create_task(self._listen(events))
                for _ in range(WORKERS):
                    group.create_task(self._keep_working())
        except* (TidingsError, OSError) as errors:
            raise _first(errors) from None

    # Looking.

    async def _keep_looking(self) -> None:
        pause = self._interval
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            await self._look()
            pause = max(self._interval, 10 * (time.monotonic() - began))

    async def _look(self) -> None:
        """Scan the folder, read the document where that is due, and note what may need a step."""
        self._touched = set(self._busy)
        scan = await asyncio.to_thread(scan_folder, self.folder)
        for path in self._touched:  # the scan may have seen them before or after
            scan.files.pop(path, None)
            if path in self._local:
                scan.files[path] = self._local[path]
        due: set[str] = set()
        for path in self._local.keys() | scan.files.keys():
            old, new, synced = self._local.get(path), scan.files.get(path), self._synced.get(path)
            if old and new and (old.size, old.mtime_ns) == (new.size, new.mtime_ns):
                scan.files[path] = old  # with its hash
                continue
            due.add(path)
            if new and synced and (synced.size, synced.mtime_ns) == (new.size, new.mtime_ns):
                scan.files[path] = replace(new, hash=synced.hash)
        if self._scan.obscured - scan.obscured:
            known = {*self._synced, *scan.files, *self._versions.paths}
            due |= {path for path in known if self._scan.hides(path)}
        self._local, self._scan = scan.files, scan
        for path, why in scan.skipped.items():
            self._say("skipped", path, why)
        now = time.monotonic()
        due |= {path for path, when in self._later.items() if when <= now}
        if self._stale:
            self._stale = False
            async for entry in self._doc.entries(tombstones=True):
                self._versions.add(entry)
            self._say_unsafe()
            due |= {*self._local, *self._synced, *self._versions.paths}
        await self._note(due)

    async def _listen(self, events: AsyncIterator[Any]) -> None:
        async for event in events:
            match event:
                case InsertRemote() | InsertLocal() | InsertShared():
                    path = self._versions.add(event.entry)
                    if path is None:
                        self._stale = True
                        self._say_unsafe()
                    else:
                        await self._note({path})
                case ContentReady():
                    await self._note(self._wanted.pop(bytes(event.hash), set()))
                case PendingContentReady():
                    await self._note({path for paths in self._wanted.values() for path in paths})
                case Lagged():
                    self._stale = True
                case _:
                    pass

    async def _note(self, paths: set[str]) -> None:
        async with self._work:
            for path in sorted(paths):
                self._later.pop(path, None)
                self._todo[path] = None
            self._work.notify(len(paths))
        self._rest()

    def _rest(self) -> None:
        if not (self._todo or self._busy or self._wanted or self._later.keys() - self._failed or self._quiet):
            self._quiet = True
            self._report(MirrorEvent("in-sync", "", len(self._local)))

    # Working.

    async def _keep_working(self) -> None:
        while True:
            async with self._work:
                while (path := next((path for path in self._todo if path not in self._busy), None)) is None:
                    await self._work.wait()
                del self._todo[path]
                self._busy.add(path)
            try:
                await self._settle(path)
            except Changed:
                self._forget(path)
                self._try_later(path, self._interval)
            except FolderGone:
                raise
            except (TidingsError, OSError) as error:
                self._say("failed", path, f"{path}: {_sentence(error)}")
                self._failed.add(path)
                self._try_later(path, RETRY)
            else:
                self._failed.discard(path)
            finally:
                self._busy.discard(path)
            async with self._work:
                self._work.notify()
            self._rest()

    async def _settle(self, path: str) -> None:
        """Take steps until the path is at rest, or waits for something."""
        self._want(path, None)
        for _ in range(20):
            if self._scan.hides(path):
                return self._try_later(path, self._interval) if path in self._scan.files else None
            versions, local = self._versions.of(path), self._local.get(path)
            action = decide(path, local, self._synced.get(path), versions, self._me, time.time_ns() // 1000)
            if action is None:
                return None
            if isinstance(action, Wait):
                return self._try_later(path, max(0.0, action.until_us / 1e6 - time.time()) + 0.001)
            self._quiet = False
            self._touched.add(path)
            if not await self._take(path, local, action):
                return None
        return self._try_later(path, RETRY)

    async def _take(self, path: str, local: Local | None, action: Action) -> bool:
        """Whether the path may need another step."""
        match action:
            case Read():
                assert local is not None
                return await self._read(path, local)
            case Publish(hash, _, synced):
                await self._check(path, local)
                size = local.size if local else 0
                await self._write(path, hash, size)
                await self._record(path, synced)
                self._report(MirrorEvent("sent", path, size))
            case Withdraw(synced):
                await self._check(path, None)
                if not await asyncio.to_thread((self.folder / CONTROL_FOLDER).is_dir):
                    raise FolderGone(f"{self.folder} is not there any more: mount or restore it, then start again")
                await self._doc.delete(path_to_key(path))
                await self._reread(path)
                await self._record(path, synced)
                self._report(MirrorEvent("deleted-there", path))
            case Fetch(version, synced):
                placed = await self._place(path, path, version, local)
                if placed is None:
                    return False
                self._local[path] = placed
                await self._record(path, replace(synced, size=placed.size, mtime_ns=placed.mtime_ns))
                self._report(MirrorEvent("received", path, placed.size))
            case Remove(synced):
                assert local is not None
                await asyncio.to_thread(remove_file, self.folder, path, local)
                self._local.pop(path, None)
                await self._record(path, synced)
                self._report(MirrorEvent("deleted-here", path))
            case SetAside(beside):
                assert local is not None
                beside = await asyncio.to_thread(move_aside, self.folder, path, beside, local)
                self._touched.add(beside)
                self._local[beside] = self._local.pop(path)
                self._report(MirrorEvent("conflict", path, local.size, beside))
                await self._note({beside})
            case Rescue(version, beside, synced):
                return await self._rescue(path, version, beside, synced)
            case Revive(version, synced):
                assert version.hash is not None
                await self._write(path, version.hash, version.size)
                await self._record(path, synced)
            case Record(synced):
                await self._record(path, synced)
            case Wait():
                raise AssertionError("waiting is no step")
        return True

    async def _read(self, path: str, local: Local) -> bool:
        if local.size == 0:
            hash = EMPTY_FILE_HASH
        else:
            try:
                hash = bytes((await self._blobs.add_path(self.folder / path, tag=False)).hash)
            except TidingsError:
                await self._check(path, local)  # gone or changed meanwhile is no failure
                raise
            if hash == EMPTY_FILE_HASH:
                self._say("skipped", path, f"{path} holds what tidings writes for an empty file: it is not synced")
                return False
        await self._check(path, local)
        self._local[path] = replace(local, hash=hash)
        return True

    async def _write(self, path: str, hash: bytes, size: int) -> None:
        """An entry for a content; what a file of no bytes stands for is stored here first."""
        if hash == EMPTY_FILE_HASH:
            size = (await self._blobs.add_bytes(EMPTY_FILE, tag=False)).size
        self._versions.add(await self._doc.set_hash(path_to_key(path), hash, size))

    async def _place(self, path: str, target: str, version: Version, seen: Local | None) -> Local | None:
        """Write a version to ``target``; None where its content is not here yet, for then ``path`` waits for it."""
        assert version.hash is not None
        hash = Hash(version.hash)
        if version.hash != EMPTY_FILE_HASH:
            self._want(path, version.hash)  # before looking: it may come in between
            if not await self._blobs.has(hash):
                self._try_later(path, CONTENT_RETRY)
                return None
            self._want(path, None)
        self._touched.add(target)
        parent = await asyncio.to_thread(parent_of, self.folder, target)
        temporary = parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            if version.hash == EMPTY_FILE_HASH:
                await asyncio.to_thread(temporary.touch)
            else:
                await self._blobs.export(hash, temporary)
            mtime_ns = version.timestamp * 1000
            placed = await asyncio.to_thread(put_in_place, self.folder, target, temporary, seen, mtime_ns)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return replace(placed, hash=version.hash)

    def _want(self, path: str, hash: bytes | None) -> None:
        """The one content that ``path`` waits for."""
        if (before := self._waits_for.pop(path, None)) is not None and (paths := self._wanted.get(before)) is not None:
            paths.discard(path)
            if not paths:
                del self._wanted[before]
        if hash is not None:
            self._waits_for[path] = hash
            self._wanted.setdefault(hash, set()).add(path)

    async def _rescue(self, path: str, version: Version, beside: str, synced: Synced) -> bool:
        if beside not in self._local and not self._versions.of(beside):
            placed = await self._place(path, beside, version, None)
            if placed is None:
                return False
            self._local[beside] = placed
            self._report(MirrorEvent("conflict", path, placed.size, beside))
            await self._note({beside})
        await self._record(path, synced)
        return True

    async def _check(self, path: str, seen: Local | None) -> None:
        """Raise `Changed` where the disk is not as it was looked at."""
        if not await asyncio.to_thread(is_as_seen, self.folder, path, seen):
            raise Changed

    async def _reread(self, path: str) -> None:
        async for entry in self._doc.entries(key=path_to_key(path), tombstones=True):
            self._versions.add(entry)

    async def _record(self, path: str, synced: Synced) -> None:
        await self._state.save(path, synced)
        self._synced[path] = synced

    def _forget(self, path: str) -> None:
        """The next scan finds out what is there."""
        self._touched.discard(path)
        if path in self._local:
            self._local[path] = replace(self._local[path], mtime_ns=-1, hash=None)

    def _try_later(self, path: str, seconds: float) -> None:
        self._later[path] = time.monotonic() + seconds

    def _say(self, kind: Literal["skipped", "failed"], path: str, note: str) -> None:
        """Each sentence once."""
        if (path, note) not in self._said:
            self._said.add((path, note))
            logger.warning("%s", note)
            self._report(MirrorEvent(kind, path, 0, note))

    def _say_unsafe(self) -> None:
        for key, why in self._versions.unsafe.items():
            self._say("skipped", repr(key), why)


def _sentence(error: Exception) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
