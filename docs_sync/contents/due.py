"""Brings contents that are due from the store into the window of `wanted`, page by page, for all documents of a node.

A document is read when its next content is due and there is room and a peer to ask; in between nothing of it is in
memory but a time. After a peer appeared it is read from its first content on whatever their times say, for so many
contents: of a million that nobody has, each new peer would otherwise be asked for all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import nsmallest

from ..model.keys import NamespaceId
from ..store.content_store import PAGE, UNANNOUNCED_US, ContentStore, Due
from .wanted import Rank, WantedContents

__all__ = ["DueContents"]

logger = logging.getLogger(__name__)

MAX_WISHES = 4096  # offers that wait to be looked up; what is beyond is found when it is due
HASTEN_MOST = 20_000  # contents that are tried ahead of time because a peer appeared
HASTEN_REST_US = 3_000_000  # since their last attempt
PRUNE_AFTER = 60.0  # seconds from a superseded content's turn to the look for another entry that names it
PRUNE_EVERY = 600.0  # seconds between two passes over all of a document's entries
READ_AT_ONCE = 32  # documents, until what was found is asked for
LEAST_ROOM = 64  # for contents that are read together
LOOK_EVERY = 60.0  # seconds, where other processes write the same store
FIRST = (-1, b"")


@dataclass(slots=True)
class _Document:
    after: tuple[int, bytes] = FIRST
    round: int = 0  # grows with what makes a page that is being read out of date
    hasten: int = 0  # contents that may still be tried ahead of their time
    hastened_us: int = 0
    untried: bool = False  # the store has contents that are due for the first time in a moment
    pruned_at: float = float("-inf")


class DueContents:
    """``clock`` gives microseconds since 1970; all other times are those of the event loop."""

    def __init__(self, store: ContentStore, wanted: WantedContents, clock: Callable[[], int]) -> None:
        self._store = store
        self._wanted = wanted
        self._clock = clock
        self._documents: dict[bytes, _Document] = {}
        self._fresh: set[bytes] = set()  # nothing is known of their contents yet
        self._looks: dict[bytes, float] = {}  # when to read a document
        self._behind: dict[bytes, None] = {}  # `catch_up` has work
        self._prunes: dict[bytes, float] = {}
        self._untold: set[bytes] = set()  # there was something to fetch since `idle` was told
        self._wishes: dict[tuple[bytes, bytes], bytes] = {}
        self.found: list[tuple[bytes, bytes]] = []
        """(document, hash) that came by another way."""

    def join(self, document: bytes) -> None:
        self._documents[document] = _Document()
        self._fresh.add(document)

    def leave(self, document: bytes) -> None:
        self._documents.pop(document, None)
        for known in (self._looks, self._behind, self._prunes):
            known.pop(document, None)
        self._fresh.discard(document)
        self._untold.discard(document)

    def news(self, document: bytes, now: float) -> None:
        """The store wants more contents of the document, and waits a moment for announcements."""
        if (state := self._documents.get(document)) is not None:
            state.untried = True
            state.round += 1
            self._untold.add(document)
            self._look(document, now + UNANNOUNCED_US / 1e6)

    def tell(self, document: bytes) -> None:
        """`idle` is to name the document, also where nothing was wanted."""
        if document in self._documents:
            self._untold.add(document)

    def wish(self, document: bytes, hashes: Iterable[bytes], peer: bytes) -> None:
        """The peer offers these contents, of which some may be wanted."""
        if document in self._documents:
            for hash in hashes:
                if len(self._wishes) < MAX_WISHES:
                    self._wishes[document, hash] = peer

    def hasten(self, document: bytes, now: float) -> None:
        """A peer of the document appeared: try its contents ahead of their time."""
        if (state := self._documents.get(document)) is not None and document not in self._fresh:
            state.hasten, state.hastened_us, state.after = HASTEN_MOST, self._clock(), FIRST
            state.round += 1
            self._look(document, now)

    def again(self, document: bytes, now: float) -> None:
        """Contents of it left the window untried."""
        if (state := self._documents.get(document)) is not None:
            state.after = FIRST
            state.round += 1
            self._look(document, now)

    def changed(self, document: bytes) -> None:
        """Its policy is another one."""
        if document in self._documents:
            self._behind[document] = None

    def later(self, document: bytes, due: float) -> None:
        """A content of it is to be tried again at ``due``."""
        if document in self._documents:
            self._look(document, due)

    def suspect(self, document: bytes, now: float) -> None:
        """Some of its contents may not be named by any entry."""
        state = self._documents.get(document)
        if state is not None and document not in self._prunes:
            self._prunes[document] = max(now + PRUNE_AFTER, state.pruned_at + PRUNE_EVERY)

    def idle(self) -> list[bytes]:
        """The documents of which all contents have come or failed once, since this was called last."""
        idle = [document for document in self._untold if self._at_rest(document)]
        self._untold.difference_update(idle)
        return idle

    def next_look(self) -> float | None:
        """When to call `fill` again, unless something happens before."""
        if self._fresh or self._wishes:
            return 0.0
        return min((at for document, at in self._looks.items() if self._has_room(document)), default=None)

    @property
    def is_behind(self) -> bool:
        """Whether `chores` has work that should not wait."""
        return bool(self._behind)

    async def fill(self) -> None:
        """Add to the window what is due and has room there."""
        if self._fresh:
            await self._meet()
        if self._wishes:
            await self._grant()
        now = _now()
        due = [document for document, at in self._looks.items() if at <= now and self._has_room(document)]
        for document in nsmallest(READ_AT_ONCE, due, key=self._looks.__getitem__):
            if document in self._looks and self._has_room(document):
                await self._read(document)

    async def chores(self) -> bool:
        """Catch up with what was not looked at, and forget what nobody names. Whether there was any of it."""
        behind, now = list(self._behind), _now()
        prunes = [document for document, at in self._prunes.items() if at <= now]
        for document in behind:
            self._behind.pop(document, None)
            try:
                await self._store.catch_up(NamespaceId(document), self._clock())
            except BaseException:
                self.changed(document)
                raise
            if document in self._documents:
                self._untold.add(document)
                self.hasten(document, _now())
        for document in prunes:
            if self._prunes.pop(document, None) is None:
                continue
            self._documents[document].pruned_at = now
            gone = await self._store.prune(NamespaceId(document), self._clock())
            logger.debug("%d contents of %s are named by nothing", gone, document[:5].hex())
            self.later(document, now)
        return bool(behind or prunes)

    # Inside.

    def _look(self, document: bytes, at: float) -> None:
        self._looks[document] = min(at, self._looks.get(document, at))

    def _at_rest(self, document: bytes) -> bool:
        if document in self._fresh or document in self._behind or self._wanted.of(document):
            return False
        return not self._documents[document].untried and self._looks.get(document, float("inf")) > _now()

    def _has_room(self, document: bytes) -> bool:
        return self._wanted.room(document) >= LEAST_ROOM

    async def _meet(self) -> None:
        fresh = list(self._fresh)
        pending = await self._store.pending([NamespaceId(document) for document in fresh])
        now = _now()
        for document in fresh:
            behind, due_us = pending.get(document, (False, None))
            if document not in self._fresh:
                continue
            self._fresh.discard(document)
            if behind:
                self._behind[document] = None
            if due_us is not None:  # what failed before is worth a try: others may be there now
                self._untold.add(document)
                self.hasten(document, now)
            elif self._store.is_shared:
                self._look(document, now + LOOK_EVERY)

    async def _grant(self) -> None:
        wishes, self._wishes = self._wishes, {}
        due = await self._store.wanted_of(wishes)
        for (document, hash), row in due.items():
            if document in self._documents and not self._take(document, row):
                self._wanted.add(document, hash, row.size, row.attempts, Rank.ANNOUNCED, [wishes[document, hash]])

    async def _read(self, document: bytes) -> None:
        """A page of a document."""
        now = _now()
        open_at = self._wanted.open_at(document, now)
        if open_at is None or open_at > now:  # nobody to ask now; `hasten` comes where somebody appears
            del self._looks[document]
            if open_at is not None:
                self._looks[document] = open_at
            return
        state = self._documents[document]
        round = state.round
        limit = min(PAGE, self._wanted.room(document))
        rows = await self._store.due(NamespaceId(document), state.after, limit)
        if self._documents.get(document) is not state or state.round != round:
            return  # it is read again
        del self._looks[document]
        now_us = self._clock()
        unnamed, next_due, taken = [], None, 0
        for row in rows:
            early = row.due_us > now_us
            if early and not state.hasten:
                next_due = row.due_us
                break
            taken += 1
            state.after = (row.due_us, row.hash)
            state.hasten -= early
            if self._take(document, row) or row.hash in self._wanted:
                continue
            rested = not row.attempts or row.changed_us + HASTEN_REST_US <= state.hastened_us
            if early and not (row.named and rested):
                self.later(document, now + (row.due_us - now_us) / 1e6)
            elif row.named:
                self._wanted.add(document, row.hash, row.size, row.attempts, Rank.DUE)
            else:
                unnamed.append(row.hash)
        soon, full = now_us + UNANNOUNCED_US, len(rows) == limit
        state.untried = any(row.due_us <= soon and not row.attempts for row in rows[taken:])
        state.untried |= full and rows[-1].due_us <= soon
        if next_due is not None or not full:
            state.after, state.hasten = FIRST, 0
            if next_due is not None:
                self._look(document, now + (next_due - now_us) / 1e6)
            elif self._store.is_shared:
                self._look(document, now + LOOK_EVERY)
        else:
            self._look(document, now)
        if unnamed:
            await self._store.suspect(NamespaceId(document), unnamed, now_us)
            self.suspect(document, now)

    def _take(self, document: bytes, row: Due) -> bool:
        """Whether the content is here already."""
        if row.here:
            if row.hash in self._wanted:
                self._wanted.here(row.hash)
            else:
                self.found.append((document, row.hash))
        return row.here


def _now() -> float:
    return asyncio.get_running_loop().time()
