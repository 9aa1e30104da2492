"""Files that are whole or absent, and readable by their owner alone.

A durable write is: a temporary file beside the target, fsync, rename over the target, fsync of the directory. After
a crash at any moment the target holds the old bytes or the new ones. A temporary file that a crash leaves behind
has a name that begins with `TEMPORARY_PREFIX`. Errors are the `StoreError`s of ``storage.errors``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import Locked, from_os_error

__all__ = [
    "TEMPORARY_PREFIX",
    "FileLock",
    "clone_file",
    "fsync_dir",
    "make_private",
    "make_private_dir",
    "new_file",
    "parent_fd",
    "rename_new",
    "write_durably",
]

TEMPORARY_PREFIX = ".tidings-tmp-"

logger = logging.getLogger(__name__)


_FICLONE = (
    0x40049409  # Linux: include/uapi/linux/fs.h; on the machines where ioctl's numbers are made otherwise, it fails
)


def clone_file(source: int, target: int) -> bool:
    """Make the file of the descriptor ``target`` the same as ``source``, sharing its blocks until one is written to.

    At once, whatever the size. False, and nothing done, where the file system cannot (btrfs and XFS can).
    """
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def fsync_dir(path: Path) -> None:
    """Make the names in the directory ``path`` durable: files created, renamed or removed in it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def new_file(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file to write, which takes its place at ``path`` when the block ends: durable, in place of what was there.

    Where the block raises nothing is changed. What the file system refuses is raised as a `StoreError`.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(fd, "wb") as file:
                yield file
                file.flush()
                os.fsync(fd)
            temporary.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        fsync_dir(path.parent)
    except OSError as error:
        raise from_os_error(error, path) from error


def write_durably(path: Path, data: bytes | bytearray, mode: int = 0o600) -> None:
    """Put ``data`` at ``path``, replacing what was there. On return it survives a crash and a power cut."""
    with new_file(path, mode) as file:
        file.write(data)


def make_private_dir(path: Path) -> None:
    """Create the directory with its parents, mode 0700, where it does not exist. One that exists is left as it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, path) from error


def make_private(path: Path) -> None:
    """Take from an existing file every right of group and others, with a warning where there was one."""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        logger.warning("%s could be used by others (mode %03o); now it is its owner's alone", path, mode)
        path.chmod(mode & 0o700)


@contextlib.contextmanager
def parent_fd(folder: Path, path: str, *, create: bool = False) -> Iterator[int]:
    """The directory of ``path`` below ``folder``, opened without following symbolic links on the way.

    ``path`` is relative, of plain names with ``/`` between them. With ``create`` missing directories are made.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(folder, flags)
    try:
        for part in path.split("/")[:-1]:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=fd)
                    os.fsync(fd)
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def rename_new(from_dir: int, name: str, to_dir: int, target: str) -> None:
    """Rename a file, given the directories of both names, without replacing anything: FileExistsError."""
    try:
        os.link(name, target, src_dir_fd=from_dir, dst_dir_fd=to_dir, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # A file system without hard links.
        if target in os.listdir(to_dir):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
        os.rename(name, target, src_dir_fd=from_dir, dst_dir_fd=to_dir)
    else:
        os.unlink(name, dir_fd=from_dir)


class FileLock:
    """An exclusive lock on a file, held until `release` or the end of the process; also against this same process.

    The file holds the process id of its holder, for the message, and stays when the lock is released: removing it
    would let two processes lock two files of one name.
    """

    def __init__(self, path: Path, what: Path) -> None:
        """Take the lock at ``path`` that stands for using ``what``, or raise `Locked` at once."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise from_os_error(error, path) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            who = "this process" if holder == str(os.getpid()) else f"process {holder or 'unknown'}"
            raise Locked(f"{what} is in use by {who}: stop that node first, or use another directory") from error
        except OSError as error:
            os.close(self._fd)
            raise from_os_error(error, path) from error

    def release(self) -> None:
        os.close(self._fd)
