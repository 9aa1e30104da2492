"""Folders as collections: the files of a folder become the blobs of one, and the other way round.

Names in a collection are a peer's and hostile until checked: none leads out of the folder it is unpacked into.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ..errors import UsageError
from .errors import UnreadableFile, UnsafeName

__all__ = ["check_parents", "files_in", "safe_paths"]

MAX_COMPONENT = 255  # bytes: what file systems take
MAX_PATH = 4096 - 512  # bytes, with room for the folder before it
_RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"com{digit}" for digit in "123456789"),
    *(f"lpt{digit}" for digit in "123456789"),
}


def files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of each regular file below ``folder``, in the order of their names; links are not followed.

    `UnreadableFile` for a folder that cannot be listed, `UsageError` for a name that is no Unicode text.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UnreadableFile(f"cannot list {folder}: {error.strerror or error}") from error
    for entry in entries:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise UsageError(f"the name of {folder / entry.name!r} is no Unicode text: rename it") from None
        if entry.is_dir(follow_symlinks=False):
            yield from ((f"{entry.name}/{name}", path) for name, path in files_in(folder / entry.name))
        elif entry.is_file(follow_symlinks=False):
            yield entry.name, folder / entry.name


def safe_paths(names: Sequence[str]) -> list[PurePosixPath]:
    """The path of each name below the folder that they are unpacked into.

    `UnsafeName` for a name that leads out of it, that some file system does not take, or that is the same as another,
    or a folder of another, where upper and lower case are one.
    """
    paths = [_safe_path(name) for name in names]
    seen: dict[tuple[str, ...], str] = {}
    for name, path in zip(names, paths, strict=True):
        key = tuple(map(_folded, path.parts))
        if key in seen:
            raise UnsafeName(f"{_shown(name)} and {_shown(seen[key])} are one file where case does not count")
        seen[key] = name
    for key, name in seen.items():
        for end in range(1, len(key)):
            if key[:end] in seen:
                raise UnsafeName(f"{_shown(seen[key[:end]])} is a file, and a folder in {_shown(name)}")
    return paths


def check_parents(folder: Path, paths: Iterable[PurePosixPath]) -> None:
    """`UnsafeName` where a folder on the way to one of ``paths`` is there already and is a link to somewhere else."""
    checked: set[PurePosixPath] = set()
    for path in paths:
        for parent in path.parents:
            if parent in checked or not parent.parts:
                continue
            checked.add(parent)
            try:
                mode = os.lstat(folder / parent).st_mode
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UnreadableFile(f"cannot look at {folder / parent}: {error.strerror or error}") from error
            if not stat.S_ISDIR(mode):
                raise UnsafeName(f"{folder / parent} is there and is no folder: move it out of the way")


def _safe_path(name: str) -> PurePosixPath:
    parts = name.split("/")
    for part in parts:
        why = _why_not(part)
        if why is not None:
            raise UnsafeName(f"the name {_shown(name)} is refused: {why}")
    if len(name.encode()) > MAX_PATH:
        raise UnsafeName(f"the name {_shown(name)} is refused: it has more than {MAX_PATH} bytes")
    return PurePosixPath(*parts)


def _why_not(part: str) -> str | None:
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return "it is no Unicode text"
    if part in ("", ".", ".."):
        return "it is absolute, or has an empty part, or one of . and .."
    if size > MAX_COMPONENT:
        return f"a part of it has more than {MAX_COMPONENT} bytes"
    if any(ord(char) < 32 or char in '\\:*?"<>|\x7f' for char in part):
        return "it has characters that not every file system takes"
    if part[-1] in ". " or part.split(".", maxsplit=1)[0].rstrip().lower() in _RESERVED:
        return "Windows reserves it"
    return None


def _folded(part: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")
