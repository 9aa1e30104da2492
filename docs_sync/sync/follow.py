"""What waits for one who follows a part of a document, without I/O.

A *follower* syncs the part below a prefix once and is then told what the provider stores there. Its queue is bounded:
where it overflows everything in it goes, and `SyncAgain` takes its place, for a sync finds all of it and more. A queue
begins like one that overflowed. So the follower first hears `SyncAgain`, syncs, and nothing is lost in between: what
was stored before is in that sync, what comes later is in the queue.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from ..model.native_messages import MAX_NEWS, News, SyncAgain
from ..model.part import in_part
from ..model.reconcile import ContentStatus, Value

__all__ = ["FollowQueue"]

MAX_WAITING = 1024  # entries: a follower that is behind by more is better off with a sync
MAX_ANNOUNCED = 1024  # contents in one frame, and of those that wait
MAX_MISSING = 4096  # contents that were named and not here, remembered to be announced: 500 kB


class FollowQueue:
    """For one follower of the part below ``prefix``."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._values: deque[Value] = deque()
        self._contents: dict[bytes, None] = {}
        self._missing: OrderedDict[bytes, None] = OrderedDict()
        self._overflown = True

    def __bool__(self) -> bool:
        """Whether there is something to `take`."""
        return self._overflown or bool(self._values) or bool(self._contents)

    def offer(self, value: Value) -> bool:
        """An entry was stored. Whether it is of the part; others are left out."""
        entry, status = value
        if not in_part(entry.id.key, self._prefix):
            return False
        if status is not ContentStatus.COMPLETE:
            self._remember(entry.record.hash)
        if self._overflown:
            return True
        if len(self._values) >= MAX_WAITING:
            self._values.clear()
            self._overflown = True
        else:
            self._values.append(value)
        return True

    def content_here(self, hash: bytes, key: bytes | None) -> bool:
        """A content came; ``key`` is of an entry that names it. Whether it is to be announced: only what belongs to
        the part, or was named in it, is."""
        named = self._missing.pop(hash, b"") is None or (key is not None and in_part(key, self._prefix))
        if named and len(self._contents) < MAX_ANNOUNCED:  # the follower tries others by and by
            self._contents[hash] = None
        return named

    def take(self) -> News | SyncAgain | None:
        """The next frame; None where nothing waits."""
        if self._overflown:
            self._overflown = False
            return SyncAgain()
        values = [self._values.popleft() for _ in range(min(MAX_NEWS, len(self._values)))]
        # An announcement goes behind the entry that names the content.
        contents = [] if self._values else list(self._contents)
        for hash in contents:
            del self._contents[hash]
        return News(values, contents) if values or contents else None

    def _remember(self, hash: bytes) -> None:
        self._missing[hash] = None
        self._missing.move_to_end(hash)
        if len(self._missing) > MAX_MISSING:
            self._missing.popitem(last=False)
