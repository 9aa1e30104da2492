"""How a file of a folder is named in a document, and which names are safe to write to a disk.

A key is the relative path as UTF-8 with ``/`` between its parts, and one NUL byte (iroh's own helper does the same).
The NUL keeps keys free of each other: without it a write to ``a`` would delete ``a.txt`` and ``a/b`` of the same author
(``reference/iroh-protocols.md`` 2.3).
"""

from __future__ import annotations

from ..errors import UnsafePath

__all__ = ["CONTROL_FOLDER", "EMPTY_FILE", "TEMPORARY", "check_path", "is_temporary", "key_to_path", "path_to_key"]

MAX_PART = 255  # bytes of a name on common file systems
MAX_PATH = 4000  # bytes; a document keeps keys of 4096 at least, and Linux opens paths of as many
CONTROL_FOLDER = ".tidings"  # marks a folder that is mirrored; nothing in it is ever synced
TEMPORARY = ".tidings-tmp-"
EMPTY_FILE = b"tidings: this file is empty 7c1fb1a5e1\n"
"""The content that stands for an empty file: in a document an empty value is a deletion."""


def path_to_key(path: str) -> bytes:
    return path.encode() + b"\0"


def key_to_path(key: bytes) -> str:
    """The relative path behind a key, safe to write below a folder. Raises `UnsafePath`."""
    if not key.endswith(b"\0"):
        raise UnsafePath(f"the key {key[:80]!r} is not the name of a file")
    try:
        path = key[:-1].decode()
    except UnicodeDecodeError as error:
        raise UnsafePath(f"the name {key[:80]!r} is not UTF-8") from error
    check_path(path)
    return path


def check_path(path: str) -> None:
    """Raise `UnsafePath` where ``path`` could lead out of the folder or cannot exist on every side."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise UnsafePath(f"{path[:80]!r} is not a relative path of plain names")
    if "\\" in path or "\0" in path or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise UnsafePath(f"{path[:80]!r} means something else on other systems: rename it")
    if parts[0] == CONTROL_FOLDER or any(is_temporary(part) for part in parts):
        raise UnsafePath(f"{path[:80]!r} is a name that tidings keeps for itself: rename it")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError as error:
        raise UnsafePath(f"the name {path[:80]!r} is not UTF-8: rename it") from error
    if max(sizes) > MAX_PART or sum(sizes) + len(sizes) > MAX_PATH:
        raise UnsafePath(f"{path[:80]!r}... is too long a name: shorten it")


def is_temporary(name: str) -> bool:
    """Files that are being written: ours, and those that the blob store makes beside them."""
    return name.startswith((TEMPORARY, "." + TEMPORARY))
