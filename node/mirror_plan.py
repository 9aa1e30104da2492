"""What to do about one path of a mirrored folder: the rules of ``tidings sync``, without a disk or a network.

A folder and a document are kept the same. For each path there are three things: the file that is here now, what was
equal on both sides when last looked (`Synced`), and the versions in the document, at most one per author. `decide`
compares them and gives the next single step; the caller takes it and asks again until there is none.

- A side that did not change since `Synced` follows the one that did. An edit beats a deletion.
- Both changed: the newer wins (the file's mtime against the entry's time), the other is kept beside it under a name
  that two nodes would choose alike (`conflict_path`).
- Two nodes that both wrote while apart only learn of it later, when the older version arrives: the newest wins
  everywhere by the document's own rule, and the node that wrote over a version it had not seen brings that one back
  under its conflict name (`Rescue`), or undoes its deletion (`Revive`). ``Synced.seen`` is that knowledge: for each
  other author the time of the version that was taken into account.
- Nothing is removed here without a tombstone that says so: a document that lost its entries is filled again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

__all__ = [
    "Action",
    "Fetch",
    "Local",
    "Publish",
    "Read",
    "Record",
    "Remove",
    "Rescue",
    "Revive",
    "SetAside",
    "Synced",
    "Version",
    "Wait",
    "Withdraw",
    "conflict_path",
    "decide",
]

MAX_NAME = 255  # bytes of one path component on common file systems


@dataclass(frozen=True, slots=True)
class Version:
    """What one author last wrote at a path. ``hash`` None: deleted. ``timestamp`` in microseconds since 1970."""

    author: bytes
    timestamp: int
    hash: bytes | None
    size: int

    @property
    def order(self) -> tuple[int, bytes, bytes]:
        """The larger wins: the document's own order of records, then the author."""
        return self.timestamp, self.hash or b"", self.author


@dataclass(frozen=True, slots=True)
class Local:
    """A regular file. ``hash`` None: not read since it changed."""

    size: int
    mtime_ns: int
    hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Synced:
    """The path when both sides last agreed. ``hash`` None: it was on neither. ``seen``: author to timestamp."""

    hash: bytes | None
    size: int
    mtime_ns: int
    seen: Mapping[bytes, int]


NEVER = Synced(None, 0, 0, {})


@dataclass(frozen=True, slots=True)
class Read:
    """Read the file to learn its hash."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Write the file's hash into the document; then it is ``synced``."""

    hash: bytes
    size: int
    synced: Synced


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Write a tombstone into the document; then it is ``synced``."""

    synced: Synced


@dataclass(frozen=True, slots=True)
class Fetch:
    """Write ``version`` to the path, where nothing but the file that was looked at may be; then it is ``synced``.

    The mtime in ``synced`` is not known before.
    """

    version: Version
    synced: Synced


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete the file that was looked at; then it is ``synced``."""

    synced: Synced


@dataclass(frozen=True, slots=True)
class SetAside:
    """Rename the file to ``beside``, for a newer version takes its place."""

    beside: str


@dataclass(frozen=True, slots=True)
class Rescue:
    """Write ``version``, which lost unseen, to ``beside`` unless that exists; then it is ``synced``."""

    version: Version
    beside: str
    synced: Synced


@dataclass(frozen=True, slots=True)
class Revive:
    """Write ``version`` into the document again, for it was deleted unseen; then it is ``synced``."""

    version: Version
    synced: Synced


@dataclass(frozen=True, slots=True)
class Record:
    """Both sides agree: keep ``synced``."""

    synced: Synced


@dataclass(frozen=True, slots=True)
class Wait:
    """The newest version is ahead of our clock, and what we write now would lose to it."""

    until_us: int


Action = Read | Publish | Withdraw | Fetch | Remove | SetAside | Rescue | Revive | Record | Wait


def decide(
    path: str, local: Local | None, synced: Synced | None, versions: Iterable[Version], me: bytes, now_us: int
) -> Action | None:
    """The next step for ``path``, None where all is well. ``me`` is the author whom this node writes as."""
    versions = list(versions)
    before = synced or NEVER
    newest = max(versions, key=lambda version: version.order, default=None)
    own = next((version for version in versions if version.author == me), None)
    if local is not None and local.hash is None:
        return Read()
    here = None if local is None else local.hash
    there = None if newest is None else newest.hash
    # What came between our last write and the newest version lost to the newest version, and not to us.
    passed = [v for v in versions if v.author != me and (own is None or v.order > own.order)]
    seen_losers = _seen(before.seen, (v for v in passed if v is not newest))
    seen = _seen(before.seen, passed)

    if here == there and (here is not None or newest is not None or before.hash is None):
        agreed = Synced(here, local.size if local else 0, local.mtime_ns if local else 0, seen)
        if agreed != before:
            return Record(agreed)
        return _make_good(path, versions, own, newest, before, now_us)

    gone = newest is None and before.hash is not None  # not deleted: lost
    if local is not None and (there == before.hash or (there is None and (here != before.hash or gone))):
        return _publish(local, seen if there == before.hash or there is None else seen_losers, newest, now_us)
    if local is None and there == before.hash:
        return _if_newer(newest, now_us) or Withdraw(Synced(None, 0, 0, seen))
    if newest is None or newest.hash is None:
        return Remove(Synced(None, 0, 0, seen)) if newest is not None else Record(Synced(None, 0, 0, seen))
    if local is None or here == before.hash:
        return Fetch(newest, Synced(newest.hash, newest.size, 0, seen))
    if local.mtime_ns // 1000 > newest.timestamp:
        return _publish(local, seen_losers, newest, now_us)
    assert here is not None
    return SetAside(conflict_path(path, local.mtime_ns // 1000, here))


def _publish(local: Local, seen: Mapping[bytes, int], newest: Version | None, now_us: int) -> Publish | Wait:
    assert local.hash is not None
    synced = Synced(local.hash, local.size, local.mtime_ns, seen)
    return _if_newer(newest, now_us) or Publish(local.hash, local.size, synced)


def _if_newer(newest: Version | None, now_us: int) -> Wait | None:
    return Wait(newest.timestamp + 1) if newest is not None and newest.timestamp >= now_us else None


def _make_good(
    path: str, versions: list[Version], own: Version | None, newest: Version | None, before: Synced, now_us: int
) -> Action | None:
    """Bring back a version that we wrote over, or deleted, before it had come here."""
    if own is None or newest is None:
        return None
    for rival in sorted(versions, key=lambda version: version.order):
        if rival.order >= own.order or before.seen.get(rival.author, -1) >= rival.timestamp:
            continue
        synced = replace(before, seen=_seen(before.seen, [rival]))
        if rival.hash is None or rival.hash in (own.hash, newest.hash):
            return Record(synced)
        if own.hash is not None or newest.hash is not None:  # what we would write at the path itself would replace ours
            return Rescue(rival, conflict_path(path, rival.timestamp, rival.hash), synced)
        # Once revived it is our own version; the path itself is fetched by the next step.
        return _if_newer(newest, now_us) or Revive(rival, synced)
    return None


def _seen(before: Mapping[bytes, int], versions: Iterable[Version]) -> dict[bytes, int]:
    seen = dict(before)
    for version in versions:
        seen[version.author] = max(version.timestamp, seen.get(version.author, -1))
    return seen


def conflict_path(path: str, time_us: int, hash: bytes) -> str:
    """``dir/name (conflict 2026-11-22 201500 a1b2).ext``, in UTC. The name is shortened where it would be too long."""
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem.strip("."):  # no extension, or a hidden file
        stem, dot, extension = name, "", ""
    moment = datetime.fromtimestamp(max(0, min(time_us // 1_000_000, 253_402_300_799)), UTC)
    mark = f" (conflict {moment:%Y-%m-%d %H%M%S} {hash[:2].hex()})"
    if len((dot + extension).encode()) > 64:
        stem, dot, extension = name, "", ""
    room = MAX_NAME - len((mark + dot + extension).encode())
    stem = stem.encode()[:room].decode(errors="ignore")
    return f"{folder}{slash}{stem}{mark}{dot}{extension}"
