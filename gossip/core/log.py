"""The last messages of a topic, bounded by number, bytes and age, in the order in which we got them.

Each has an index that only grows, so that somebody who has heard of everything up to one asks for the rest. An entry's
``at`` is when it was new in the swarm, by our clock and as far as the one knows who gave it to us.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from .envelope import Envelope

__all__ = ["Entry", "LogConfig", "MessageLog"]


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is kept of a topic, and how its neighbours compare. Seconds and bytes."""

    messages: int = 4096
    bytes: int = 8 << 20
    age: float = 600.0
    interval: float = 5.0  # between two comparisons with a neighbour, where there is something new
    grace: float = 0.5  # what came along the tree so lately is on its way to the others, too
    soon: float = 0.15  # after something was caught up: others may lack it, too
    answer_timeout: float = 3.0  # from asking a peer for messages to asking another
    gap_ask: float = 0.3  # a message of an author is missing: when neighbours are asked for it
    gap_timeout: float = 10.0  # ... and when it is given up, unless others of that author keep arriving
    stored: bool = False  # in the node's database, too: it is there again after a restart


@dataclass(slots=True)
class Entry:
    """``id``: the start of the content's BLAKE3 hash. ``envelope``: of a signed message whose signature holds."""

    id: bytes
    content: bytes
    at: float
    envelope: Envelope | None = None
    index: int = 0
    fresh_until: float = 0.0


class MessageLog:
    __slots__ = ("_by_id", "_by_index", "_config", "bytes", "high")

    def __init__(self, config: LogConfig) -> None:
        self._config = config
        self._by_index: OrderedDict[int, Entry] = OrderedDict()
        self._by_id: dict[bytes, Entry] = {}
        self.high = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._by_index)

    def append(self, entry: Entry) -> None:
        """The oldest make room."""
        self.high += 1
        entry.index = self.high
        self._by_index[self.high] = self._by_id[entry.id] = entry
        self.bytes += len(entry.content)
        while len(self._by_index) > self._config.messages or (self.bytes > self._config.bytes and len(self) > 1):
            self._drop_oldest()

    def expire(self, now: float) -> None:
        """What is too old goes, as far as it stands at the front."""
        while self._by_index and next(iter(self._by_index.values())).at < now - self._config.age:
            self._drop_oldest()

    def after(self, index: int, most: int) -> list[Entry]:
        """The first ``most`` entries behind ``index``."""
        start = max(index + 1, self.first)
        return [self._by_index[number] for number in range(start, min(start + most, self.high + 1))]

    @property
    def first(self) -> int:
        """The index of the oldest, or of the next where there is none."""
        return next(iter(self._by_index), self.high + 1)

    def find(self, id: bytes) -> Entry | None:
        return self._by_id.get(id)

    def __iter__(self) -> Iterator[Entry]:
        """Oldest first."""
        return iter(self._by_index.values())

    def _drop_oldest(self) -> None:
        _, entry = self._by_index.popitem(last=False)
        if self._by_id.get(entry.id) is entry:
            del self._by_id[entry.id]
        self.bytes -= len(entry.content)
