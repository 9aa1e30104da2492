"""Looking at a mirrored folder: which regular files are there, and what is left out and why.

Only metadata is read. What cannot be seen is not taken for deleted: a directory that may not be listed, a path where a
symlink or a device stands, and a file that was written to a moment ago are `Scan.obscured`, and nothing is decided
about them or what is below them. A folder that has lost its control folder is not the one that was mirrored (an
unmounted disk, say), and is refused rather than taken for emptied.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..docs_sync.errors import UnsafePath
from ..docs_sync.model.paths import CONTROL_FOLDER, check_path, is_temporary
from ..errors import StoreError
from .mirror_plan import Local

__all__ = ["FolderGone", "Scan", "prepare_folder", "scan_folder"]

SETTLE_NS = 100_000_000  # a file this young may still be written to, also without a new mtime


class FolderGone(StoreError):
    """The folder is not there, or not the one that was mirrored: mount it, or choose it anew."""


@dataclass(slots=True)
class Scan:
    """Relative paths with ``/``. ``skipped``: a sentence for each path that is left out."""

    files: dict[str, Local] = field(default_factory=dict)
    obscured: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)

    def hides(self, path: str) -> bool:
        """Whether nothing is known of ``path``."""
        if not self.obscured:
            return False
        parts = path.split("/")
        return any("/".join(parts[:end]) in self.obscured for end in range(len(parts) + 1))


def prepare_folder(folder: Path, *, known: bool) -> None:
    """Make the folder and its control folder where it was not mirrored before; sweep temporary files in it."""
    if not known:
        try:
            (folder / CONTROL_FOLDER).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FolderGone(f"{folder} cannot be used: {error.strerror}; choose another folder") from error
    for directory, _, names in os.walk(folder):
        for name in names:
            if is_temporary(name):
                with suppress(OSError):  # it may stay: no scan sees it
                    Path(directory, name).unlink(missing_ok=True)


def scan_folder(folder: Path) -> Scan:
    """Blocks: for a thread. Raises `FolderGone`."""
    if not (folder / CONTROL_FOLDER).is_dir():
        raise FolderGone(
            f"{folder} is not the folder that was mirrored, or its disk is not mounted: nothing was deleted. If it is "
            f"the right one, make the directory {folder / CONTROL_FOLDER} and start again"
        )
    scan = Scan()
    now = time.time_ns()
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(folder / below) as entries:
                for entry in entries:
                    if is_temporary(entry.name) or (not below and entry.name == CONTROL_FOLDER):
                        continue
                    path = f"{below}/{entry.name}" if below else entry.name
                    _look(entry, path, scan, waiting, now)
        except FileNotFoundError:
            if not below:
                raise FolderGone(f"{folder} is not there any more: mount or restore it, then start again") from None
        except OSError as error:
            scan.obscured.add(below)
            scan.skipped[below] = f"the directory {below or '.'} cannot be listed: {error.strerror}"
    return scan


def _look(entry: os.DirEntry[str], path: str, scan: Scan, waiting: list[str], now: int) -> None:
    try:
        check_path(path)
    except UnsafePath as error:
        scan.skipped[path.encode(errors="backslashreplace").decode()] = str(error)
        return
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        scan.obscured.add(path)
        scan.skipped[path] = f"{path} cannot be looked at: {error.strerror}"
        return
    if stat.S_ISDIR(status.st_mode):
        waiting.append(path)
    elif stat.S_ISREG(status.st_mode):
        if 0 <= now - status.st_mtime_ns < SETTLE_NS:
            scan.obscured.add(path)
        scan.files[path] = Local(status.st_size, status.st_mtime_ns)
    else:
        scan.obscured.add(path)
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
        scan.skipped[path] = f"{path} is {kind}: it is not synced"
