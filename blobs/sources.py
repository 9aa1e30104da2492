"""Files that are added: opened without waiting, read to the byte, and looked at again afterwards. All of it blocks."""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path

from .errors import FileChanged, UnreadableFile
from .geometry import GROUP

__all__ = ["changed", "open_regular", "read_from", "small_file", "stored_path", "unchanged"]


def stored_path(path: Path) -> bytes:
    """As a row has it: absolute, in the file system's own bytes."""
    return os.fsencode(path.absolute())


def open_regular(path: Path) -> FileIO:
    """`UnreadableFile` for folders, pipes and devices; OSError for the rest."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for its writer
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnreadableFile(f"{path} is not a regular file: add files one by one")
    return FileIO(fd, "rb")


def small_file(path: Path) -> bytes | None:
    """Its bytes, if it is of one group at most."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > GROUP:
                return None
            content = read_from(file, path, GROUP + 1)
    except OSError as error:
        raise UnreadableFile(f"cannot read {path}: {error.strerror or error}") from error
    return content if len(content) <= GROUP else None


def read_from(file: FileIO, path: Path, size: int) -> bytes:
    """``size`` bytes, fewer only at the end."""
    try:
        piece = file.read(size) or b""
        while 0 < len(piece) < size and (more := file.read(size - len(piece))):
            piece += more
    except OSError as error:
        raise UnreadableFile(f"cannot read {path}: {error.strerror or error}") from error
    return piece


def unchanged(file: FileIO, before: os.stat_result) -> bool:
    """Whether size and time of change are what they were."""
    after = os.fstat(file.fileno())
    return (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def changed(path: Path) -> FileChanged:
    """The error to raise."""
    return FileChanged(f"{path} changed while it was read: add it again when nobody writes to it")
