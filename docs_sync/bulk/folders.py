"""Folders into documents and documents into folders, once; ``tidings sync`` is what keeps the two the same.

A file is an entry whose key is a prefix and `paths.path_to_key` of its relative path; an empty one has the content
`paths.EMPTY_FILE`. An export takes any entries below its prefix, whether or not their keys end as those of files do.

Names come from others and folders have others' files in them, so on both ways nothing leaves the folder: every name is
one of `paths.check_path`, and symbolic links are neither read nor followed. What cannot be copied, a file whose name
two entries claim among it, is told and left out, and the rest goes on. Contents go through in pieces; a file appears
whole or not at all, with the time of its entry.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...blobs import BlobDamaged, FileChanged, NotFound, UnreadableFile
from ...storage import DiskFull
from ...storage.errors import from_os_error
from ...storage.files import parent_fd, rename_new
from ..doc_entry import Entry
from ..errors import BadKey, ContentMissing, EmptyValue, Undecipherable, UnsafePath
from ..model.paths import CONTROL_FOLDER, EMPTY_FILE, TEMPORARY, check_path, is_temporary, path_to_key
from ..tasks import in_thread
from .batch import Batch

__all__ = ["Copied", "FileCopied", "OnFile", "export_entries", "import_files"]

FILES_AT_ONCE = 16  # written at a time: their syncs of the disk overlap
FILES_IN_BATCH = 500  # in one transaction
SMALL = 16_384  # bytes of a file that is read at once: a blob of this size is part of the transaction
MAX_TOLD = 1000  # sentences kept about what was left out


@dataclass(frozen=True, slots=True)
class FileCopied:
    """``path`` is relative, with "/"; ``skipped`` a sentence where the file was left out."""

    path: str
    size: int = 0
    skipped: str | None = None


OnFile = Callable[[FileCopied], object]
"""Called on the event loop for each file."""


@dataclass(slots=True)
class Copied:
    """What became of the files. ``told``: about the first of those that were left out."""

    files: int = 0
    bytes: int = 0
    skipped: int = 0
    told: list[FileCopied] = field(default_factory=list)

    def note(self, file: FileCopied, on_file: OnFile | None) -> None:
        if file.skipped is None:
            self.files += 1
            self.bytes += file.size
        else:
            self.skipped += 1
            if len(self.told) < MAX_TOLD:
                self.told.append(file)
        if on_file is not None:
            on_file(file)


# Out of a document.


async def export_entries(
    entries: AsyncIterator[Entry], prefix: bytes, folder: Path, *, replace: bool, timeout: float, on_file: OnFile | None
) -> Copied:
    """Write each of ``entries``, whose keys start with ``prefix``, into its file. Raises DiskFull, UnreadableFile."""
    try:
        await in_thread(lambda: folder.mkdir(parents=True, exist_ok=True))
    except OSError as error:
        raise UnreadableFile(f"{folder} cannot be used: {error.strerror}; choose another folder") from error
    copied, last = Copied(), ""
    group: list[tuple[Entry, str]] = []

    async def write_group() -> None:
        works = (_write(entry, folder, path, replace, timeout) for entry, path in group)
        for done in await asyncio.gather(*works, return_exceptions=True):  # so that all have ended
            if isinstance(done, BaseException):
                raise done
            copied.note(done, on_file)
        group.clear()

    async for entry in entries:
        try:
            path = _path_of(entry.key, prefix)
        except UnsafePath as error:
            copied.note(FileCopied(_shown(entry.key[len(prefix) :]), 0, str(error)), on_file)
            continue
        if path == last:  # keys that differ by the NUL at their ends come one after the other
            copied.note(FileCopied(path, 0, f"another entry has the name {path[:80]!r}: rename one"), on_file)
            continue
        last = path
        group.append((entry, path))
        if len(group) == FILES_AT_ONCE:
            await write_group()
    await write_group()
    return copied


def _path_of(key: bytes, prefix: bytes) -> str:
    name = key[len(prefix) :].removesuffix(b"\0")
    try:
        path = name.decode()
    except UnicodeDecodeError:
        raise UnsafePath(f"the name {name[:80]!r} is not UTF-8") from None
    check_path(path)
    return path


async def _write(entry: Entry, folder: Path, path: str, replace: bool, timeout: float) -> FileCopied:
    if not replace and await in_thread(_is_taken, folder, path):  # so that nothing is fetched in vain
        return FileCopied(path, 0, _taken(path))
    try:
        await entry.arrival(timeout)
    except ContentMissing as error:
        return FileCopied(path, 0, str(error))
    file = _NewFile(folder, path)
    try:
        await in_thread(file.open)
        size = 0
        head = b""
        async for piece in entry.pieces(timeout):
            size += len(piece)
            if size <= len(EMPTY_FILE):
                head += piece
            await in_thread(file.write, piece)
        if size == len(EMPTY_FILE) and head == EMPTY_FILE:
            size = 0
            await in_thread(file.truncate)
        await in_thread(file.take_place, entry.timestamp * 1000, replace)
    except FileExistsError:
        return FileCopied(path, 0, _taken(path))
    except OSError as error:
        return _failed(folder, path, error)
    except (ContentMissing, Undecipherable, BlobDamaged, NotFound) as error:
        return FileCopied(path, 0, str(error))
    finally:
        await in_thread(file.close)
    return FileCopied(path, size)


def _taken(path: str) -> str:
    return f"{path[:80]!r} is in the folder already: move it away, or say that it may be replaced"


def _failed(folder: Path, path: str, error: OSError) -> FileCopied:
    """Raises DiskFull: then no other file will do better."""
    cause = from_os_error(error, folder / path)
    if isinstance(cause, DiskFull):
        raise cause from error
    return FileCopied(path, 0, f"{path[:80]!r} cannot be written: {error.strerror or error}")


def _is_taken(folder: Path, path: str) -> bool:
    try:
        with parent_fd(folder, path) as parent:
            os.stat(path.rpartition("/")[2], dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return True


class _NewFile:
    """A file on its way to ``path`` below ``folder``; `close` ends it. All of it blocks, and raises OSError."""

    def __init__(self, folder: Path, path: str) -> None:
        self._folder = folder
        self._path = path
        self._name = path.rpartition("/")[2]
        self._temporary = f"{TEMPORARY}{secrets.token_hex(8)}"
        self._fd = self._parent = -1

    def open(self) -> None:
        with parent_fd(self._folder, self._path, create=True) as parent:
            self._parent = os.dup(parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._temporary, flags, 0o666, dir_fd=parent)

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def truncate(self) -> None:
        os.ftruncate(self._fd, 0)

    def take_place(self, time_ns: int, replace: bool) -> None:
        """FileExistsError where there is something already, unless it is a file and ``replace``."""
        os.utime(self._fd, ns=(time_ns, time_ns))
        os.fsync(self._fd)
        if replace:
            os.rename(self._temporary, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        else:
            rename_new(self._parent, self._temporary, self._parent, self._name)

    def close(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):  # it has its name now
                os.unlink(self._temporary, dir_fd=self._parent)
            os.close(self._fd)
        if self._parent >= 0:
            os.close(self._parent)


# Into a document.


class _Found(NamedTuple):
    """``skipped``: why it is left out."""

    path: str
    size: int
    skipped: str | None = None


async def import_files(batch: Callable[[], Batch], folder: Path, prefix: bytes, *, on_file: OnFile | None) -> Copied:
    """Write every regular file below ``folder``, in batches. Raises UnreadableFile, and what writing raises."""
    copied = Copied()
    files = _files(folder)
    while True:
        group = [each async for each in _some(files)]
        if not group:
            return copied
        done = []
        async with batch() as writes:
            for found in group:
                skipped = found.skipped or await _read(writes, folder, found, prefix)
                done.append(FileCopied(_shown(found.path.encode(errors="surrogateescape")), found.size, skipped))
        for file in done:
            copied.note(file, on_file)


async def _read(batch: Batch, folder: Path, found: _Found, prefix: bytes) -> str | None:
    key, place = prefix + path_to_key(found.path), folder / found.path
    try:
        if found.size > SMALL:
            with await in_thread(_opened, folder, found) as file:
                await batch.set_path(key, f"/dev/fd/{file.fileno()}")  # whatever has its name by now
            return None
        data = await in_thread(_contents, folder, found)
        if data == EMPTY_FILE:
            return f"{found.path[:80]!r} has the content that stands for an empty file: change it"
        await batch.set(key, data or EMPTY_FILE)
    except EmptyValue:
        return f"{found.path[:80]!r} became empty while it was read: add it again when nobody writes to it"
    except (BadKey, UnreadableFile, FileChanged) as error:
        return re.sub(r"/dev/fd/\d+", lambda match: str(place), str(error))
    except OSError as error:
        return f"{found.path[:80]!r} cannot be read: {error.strerror or error}"
    return None


def _opened(folder: Path, found: _Found) -> BinaryIO:
    """The file, and not what a link leads to that has taken a name on its path since."""
    with parent_fd(folder, found.path) as parent:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        return os.fdopen(os.open(found.path.rpartition("/")[2], flags, dir_fd=parent), "rb")


def _contents(folder: Path, found: _Found) -> bytes:
    with _opened(folder, found) as file:
        data = file.read(found.size + 1)
    if len(data) != found.size:
        raise FileChanged(f"{folder / found.path} changed while it was read: add it again when nobody writes to it")
    return data


async def _some(files: AsyncIterator[_Found]) -> AsyncIterator[_Found]:
    """The next `FILES_IN_BATCH`."""
    for _ in range(FILES_IN_BATCH):
        try:
            yield await anext(files)
        except StopAsyncIteration:
            return


async def _files(folder: Path) -> AsyncIterator[_Found]:
    """In no order that matters; one directory is in memory at a time."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            names = await in_thread(_listed, folder, below)
        except OSError as error:
            if not below:
                raise UnreadableFile(f"{folder} cannot be read: {error.strerror or error}") from error
            yield _Found(below, 0, f"the directory {below[:80]!r} cannot be listed: {error.strerror or error}")
            continue
        for name, mode, size in names:
            path = f"{below}/{name}" if below else name
            if is_temporary(name) or path == CONTROL_FOLDER:
                continue
            try:
                check_path(path)
            except UnsafePath as error:
                yield _Found(path, 0, str(error))
                continue
            if stat.S_ISDIR(mode):
                waiting.append(path)
            elif stat.S_ISREG(mode):
                yield _Found(path, size)
            else:
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
                yield _Found(path, 0, f"{path[:80]!r} is {kind}")


def _listed(folder: Path, below: str) -> list[tuple[str, int, int]]:
    """Names in a directory, with mode and size, sorted; blocks."""
    rows = []
    with parent_fd(folder, below) as parent:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if below else 0)
        fd = os.open(below.rpartition("/")[2] or ".", flags, dir_fd=parent)
    try:
        with os.scandir(fd) as found:
            for each in found:
                with suppress(FileNotFoundError):
                    status = each.stat(follow_symlinks=False)
                    rows.append((each.name, status.st_mode, status.st_size))
    finally:
        os.close(fd)
    return sorted(rows)


def _shown(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
