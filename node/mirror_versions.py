"""The document of a mirror, as versions of paths."""

from __future__ import annotations

from typing import Protocol, SupportsBytes

from ..docs_sync.errors import UnsafePath
from ..docs_sync.model.paths import key_to_path, path_to_key
from .mirror_plan import Version

__all__ = ["MirrorEntry", "Versions"]


class MirrorEntry(Protocol):
    """What a mirror reads of an entry (`docs_sync.Entry`)."""

    @property
    def key(self) -> bytes: ...
    @property
    def author(self) -> SupportsBytes: ...
    @property
    def hash(self) -> SupportsBytes: ...
    @property
    def size(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def is_tombstone(self) -> bool: ...


class Versions:
    """For each path at most one version per author, deletions included.

    A tombstone over a prefix that is no file's key (``tidings doc rm photos/``) counts for every path below it.
    """

    def __init__(self) -> None:
        self.unsafe: dict[bytes, str] = {}  # keys of entries that are left out, with the reason
        self._of: dict[str, dict[bytes, Version]] = {}
        self._prefixes: dict[tuple[bytes, bytes], Version] = {}

    @property
    def paths(self) -> list[str]:
        return list(self._of)

    def of(self, path: str) -> list[Version]:
        key = path_to_key(path)
        found = dict(self._of.get(path, {}))
        for (prefix, author), deleted in self._prefixes.items():
            if key.startswith(prefix) and (author not in found or found[author].timestamp <= deleted.timestamp):
                found[author] = deleted
        return list(found.values())

    def add(self, entry: MirrorEntry) -> str | None:
        """Take an entry unless a newer one is known; the path it is about, None for a prefix or an unsafe name."""
        author = bytes(entry.author)
        version = Version(author, entry.timestamp, None if entry.is_tombstone else bytes(entry.hash), entry.size)
        try:
            path = key_to_path(entry.key)
        except UnsafePath as error:
            if entry.is_tombstone:
                self._prefixes[entry.key, author] = version
            else:
                self.unsafe[entry.key] = f"{error}; this entry is left out"
            return None
        known = self._of.setdefault(path, {})
        if author not in known or known[author].order < version.order:
            known[author] = version
        return path
