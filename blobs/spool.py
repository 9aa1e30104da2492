"""A `Spool`: bytes on their way into the store, in memory while they are few, else in a temporary file.

Nothing of it has a name in the store until `sync` and `move`: fsync, rename, fsync of the
directory. What a crash leaves is a file in the temporary directory, swept when the store is next opened. All methods
block; they are for worker threads.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from ..storage.errors import from_os_error
from ..storage.files import clone_file, fsync_dir, make_private_dir

__all__ = ["Spool"]

_ZEROS = bytes(1 << 20)


class Spool:
    """Written once at any offset, all of it by its end. ``limit``: the most bytes that stay in memory."""

    def __init__(self, directory: Path, limit: int) -> None:
        self.size = 0
        self._path = directory / f"{secrets.token_hex(16)}.temp"
        self._limit = limit
        self._memory = bytearray()
        self._fd: int | None = None

    @property
    def in_memory(self) -> bool:
        return self._fd is None

    def contents(self) -> bytes:
        """All of it; only while it is in memory."""
        assert self._fd is None
        return bytes(self._memory)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Raises `DiskFull` and its like."""
        end = offset + len(data)
        self.size = max(self.size, end)
        if self._fd is None and self.size > self._limit:
            self._fd = self._create()
            self._write_file(0, memoryview(self._memory))
            self._memory = bytearray()
        if self._fd is not None:
            if not isinstance(data, bytes) or data != _ZEROS[: len(data)]:  # zeros stay a hole of the file
                self._write_file(offset, memoryview(data))
        else:
            self._memory.extend(bytes(max(0, end - len(self._memory))))
            self._memory[offset:end] = data

    def clone(self, source: int, size: int) -> bool:
        """Before anything is written: hold what the file ``source`` has, ``size`` bytes above the limit.

        False where the file system cannot share blocks between the two.
        """
        assert self._fd is None
        self._fd = self._create()
        if not clone_file(source, self._fd):
            return False
        self.size = size
        return True

    def read(self, offset: int, size: int) -> bytes:
        if self._fd is None:
            return bytes(self._memory[offset : offset + size])
        try:
            out = os.pread(self._fd, size, offset)
            return out.ljust(min(size, self.size - offset), b"\0")  # of a hole at the end
        except OSError as error:
            raise from_os_error(error, self._path) from error

    def sync(self) -> None:
        """Return when the bytes are on the disk."""
        assert self._fd is not None
        try:
            os.ftruncate(self._fd, self.size)
            os.fsync(self._fd)
        except OSError as error:
            raise from_os_error(error, self._path) from error

    def move(self, target: Path) -> None:
        """Give the file, after `sync`, its name in the store. It replaces what has that name."""
        assert self._fd is not None
        try:
            if not target.parent.exists():
                make_private_dir(target.parent)
                fsync_dir(target.parent.parent)
            self._path.rename(target)
            fsync_dir(target.parent)
        except OSError as error:
            raise from_os_error(error, target) from error
        os.close(self._fd)
        self._fd = None

    def discard(self) -> None:
        """Forget it all. Harmless after `move`."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _create(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os_error(error, self._path) from error

    def _write_file(self, offset: int, view: memoryview) -> None:
        assert self._fd is not None
        try:
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise from_os_error(error, self._path) from error
