"""Changes to a mirrored folder: whole files only, and only where the disk still is as it was looked at.

Every directory on the way is opened without following symbolic links (`parent_fd`), so that a name from the
document never leads out of the folder. All of this blocks: for a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from ..storage.files import parent_fd, rename_new
from .mirror_plan import Local

__all__ = ["Changed", "is_as_seen", "move_aside", "parent_of", "put_in_place", "remove_file"]


class Changed(Exception):
    """Somebody changed the file meanwhile: look again."""


def parent_of(folder: Path, path: str) -> Path:
    """The directory of ``path``, made where it is not there. OSError where something else is in the way."""
    with parent_fd(folder, path, create=True):
        return (folder / path).parent


def is_as_seen(folder: Path, path: str, seen: Local | None) -> bool:
    try:
        with parent_fd(folder, path) as parent:
            return _matches(parent, path, seen)
    except OSError as error:
        return seen is None and error.errno in (errno.ENOENT, errno.ENOTDIR)


def put_in_place(folder: Path, path: str, temporary: Path, seen: Local | None, mtime_ns: int) -> Local:
    """Give the finished file ``temporary``, which lies beside ``path``, its name. Durable on return. `Changed`."""
    name = path.rpartition("/")[2]
    with parent_fd(folder, path, create=True) as parent:
        if not _matches(parent, path, seen):
            raise Changed
        os.utime(temporary.name, ns=(mtime_ns, mtime_ns), dir_fd=parent)
        if seen is None:
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=parent)  # an empty directory gives way
            try:
                rename_new(parent, temporary.name, parent, name)
            except FileExistsError:
                if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise IsADirectoryError(errno.EISDIR, "a directory that is not empty has this name") from None
                raise Changed from None
        else:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            os.chmod(temporary.name, stat.S_IMODE(mode), dir_fd=parent)
            os.rename(temporary.name, name, src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        return Local(status.st_size, status.st_mtime_ns)


def remove_file(folder: Path, path: str, seen: Local) -> None:
    """Delete the file, and the directories that are empty for it. `Changed`."""
    with parent_fd(folder, path) as parent:
        if not _matches(parent, path, seen):
            raise Changed
        os.unlink(path.rpartition("/")[2], dir_fd=parent)
        os.fsync(parent)
    above = path.rpartition("/")[0]
    with contextlib.suppress(OSError):
        while above:
            with parent_fd(folder, above) as parent:
                os.rmdir(above.rpartition("/")[2], dir_fd=parent)
            above = above.rpartition("/")[0]


def move_aside(folder: Path, path: str, beside: str, seen: Local) -> str:
    """Rename the file to ``beside`` (in the same directory), or a free name like it; returns that. `Changed`."""
    with parent_fd(folder, path) as parent:
        if not _matches(parent, path, seen):
            raise Changed
        stem, dot, extension = beside.rpartition("/")[2].partition(")")
        above = path[: len(path) - len(path.rpartition("/")[2])]
        for number in range(1, 100):
            name = f"{stem}{dot}{extension}" if number == 1 else f"{stem} {number}{dot}{extension}"
            try:
                rename_new(parent, path.rpartition("/")[2], parent, name)
            except FileExistsError:
                continue
            os.fsync(parent)
            return above + name
    raise Changed


def _matches(parent: int, path: str, seen: Local | None) -> bool:
    try:
        status = os.stat(path.rpartition("/")[2], dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return seen is None
    if seen is None:
        return stat.S_ISDIR(status.st_mode)  # linking over it fails unless it is empty and gives way
    return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (seen.size, seen.mtime_ns)
