"""Which contents a node still wants, from whom, and when to try next; without I/O.

A content is wanted from the moment an entry names it. It is tried at once where somebody said to have it, else a
little later with whoever is known; after a failure again with growing delays, and at once when somebody announces it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from random import Random

__all__ = ["MAX_WANTED", "Wanted", "WantedContents"]

MAX_WANTED = 10_000  # contents kept in mind at once; the rest waits in the documents and is looked up again
MAX_PROVIDERS = 8  # remembered of each content, the latest announcers
UNANNOUNCED_DELAY = 2.0  # seconds for a ContentReady to come before we ask around
RETRY_FIRST = 2.0
RETRY_MOST = 300.0
JITTER = (0.5, 1.5)


@dataclass(slots=True)
class Wanted:
    hash: bytes
    size: int
    due: float
    providers: dict[bytes, None] = field(default_factory=dict)
    documents: set[bytes] = field(default_factory=set)
    failures: int = 0
    running: bool = False


class WantedContents:
    """``now`` is in seconds of any clock that does not jump; ids and hashes are their bytes."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._wanted: dict[bytes, Wanted] = {}
        self._queue: list[tuple[float, bytes]] = []  # may hold outdated times: `due` of the content counts
        self.overflown: set[bytes] = set()
        """Documents with contents that found no room."""

    def __contains__(self, hash: bytes) -> bool:
        return hash in self._wanted

    def __len__(self) -> int:
        return len(self._wanted)

    def add(
        self, hash: bytes, size: int, document: bytes, provider: bytes | None, now: float, *, urgent: bool = False
    ) -> bool:
        """Want a content of ``size`` bytes, by its entry's word, for a document. False where there is no room."""
        wanted = self._wanted.get(hash)
        if wanted is None:
            if len(self._wanted) >= MAX_WANTED and not urgent:
                self.overflown.add(document)
                return False
            wanted = self._wanted[hash] = Wanted(hash, size, now + UNANNOUNCED_DELAY)
            self._schedule(wanted, wanted.due)
        wanted.size = max(wanted.size, size)
        wanted.documents.add(document)
        if provider is not None:
            self.announce(hash, provider, now)
        elif urgent:
            self._schedule(wanted, now)
        return True

    def announce(self, hash: bytes, provider: bytes, now: float) -> None:
        """The provider says that it has the content. Nothing happens where it is not wanted."""
        wanted = self._wanted.get(hash)
        if wanted is None:
            return
        wanted.providers.pop(provider, None)
        wanted.providers[provider] = None
        while len(wanted.providers) > MAX_PROVIDERS:
            del wanted.providers[next(iter(wanted.providers))]
        self._schedule(wanted, now)

    def hasten(self, document: bytes, now: float) -> None:
        """A peer of the document appeared: try its contents soon."""
        for wanted in self._wanted.values():
            if document in wanted.documents and not wanted.running:
                self._schedule(wanted, min(wanted.due, now + self._rng.uniform(0, RETRY_FIRST)))

    def take(self, now: float) -> Wanted | None:
        """The next content to try, which is then running; None where none is due."""
        while self._queue and self._queue[0][0] <= now:
            due, hash = heapq.heappop(self._queue)
            wanted = self._wanted.get(hash)
            if wanted is not None and not wanted.running and wanted.due == due:
                wanted.running = True
                return wanted
        return None

    def next_due(self) -> float | None:
        """When to call `take` again."""
        return self._queue[0][0] if self._queue else None

    def failed(self, wanted: Wanted, now: float) -> None:
        wanted.running = False
        delay = min(RETRY_MOST, RETRY_FIRST * 2.0 ** min(wanted.failures, 16)) * self._rng.uniform(*JITTER)
        wanted.failures += 1
        if self._wanted.get(wanted.hash) is wanted:
            self._schedule(wanted, now + delay)

    def done(self, hash: bytes) -> set[bytes]:
        """The content is here. The documents that wanted it."""
        wanted = self._wanted.pop(hash, None)
        return wanted.documents if wanted is not None else set()

    def leave(self, document: bytes) -> None:
        """Nobody here wants the document's contents any more."""
        for wanted in list(self._wanted.values()):
            wanted.documents.discard(document)
            if not wanted.documents:
                del self._wanted[wanted.hash]
        self.overflown.discard(document)

    def _schedule(self, wanted: Wanted, due: float) -> None:
        wanted.due = due
        heapq.heappush(self._queue, (due, wanted.hash))
        if len(self._queue) > 4 * len(self._wanted) + 64:
            self._queue = [(each.due, each.hash) for each in self._wanted.values() if not each.running]
            heapq.heapify(self._queue)
