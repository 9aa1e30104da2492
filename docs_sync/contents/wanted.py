"""What is fetched next, and from whom: the contents that are due, a bounded window over the store; without I/O.

Three ranks: what somebody waits for, what a peer announced to have, the rest. A content of the window is asked of one
peer after another until one delivers it or none is left, which ends the attempt. Small contents that the same peer may
have share a request. A request that breaks off proves nothing of most of its contents: the next ones to that peer are
smaller, down to one alone, whose answer counts. A peer that cannot be reached or stalls is left alone for a while.

What was fetched or failed stays in the window until `settled`, so that the store does not bring it again meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from random import Random
from typing import NamedTuple

__all__ = ["Ended", "Rank", "Request", "Wanted", "WantedContents", "retry_delay"]

WINDOW = 4096  # contents in memory, those somebody waits for aside: about 3 MB
WINDOW_OF_DOCUMENT = 1536  # of them of one document, that others have their turn; three full requests
MAX_PROVIDERS = 8  # remembered of each content, the latest announcers
MAX_TRIED = 8  # peers asked in one attempt, announcers aside; the next attempt asks the next ones
REQUESTS = 8  # at once
URGENT_REQUESTS = 4  # besides, for what somebody waits for
REQUESTS_OF_PEER = 4
BATCH = 512  # small contents in one request
BATCH_BYTES = 512 * 1024
SMALL = 16 * 1024  # bytes of a content that can share a request
SHRINK = 4  # a broken request makes the next ones this many times smaller
LOOK_AT = 64  # contents whose peers are all busy that are passed over
MAX_PEERS = 1024  # of which it is remembered how they answer
AVOID_FIRST, AVOID_MOST = 5.0, 300.0  # seconds for which a peer that cannot be reached is left alone
RETRY_FIRST, RETRY_MOST = 2.0, 3600.0  # seconds until the next attempt: a new peer, or an announcement, makes it sooner
JITTER = (0.5, 1.5)


class Rank(IntEnum):
    URGENT = 0
    ANNOUNCED = 1
    DUE = 2


@dataclass(slots=True, eq=False)
class Wanted:
    """``documents``: those that want it, with the attempts that were made for each."""

    hash: bytes
    size: int
    rank: Rank = Rank.DUE
    documents: dict[bytes, int] = field(default_factory=dict)
    providers: dict[bytes, None] = field(default_factory=dict)
    tried: dict[bytes, str] = field(default_factory=dict)
    busy: bool = False  # asked for, or settling
    announced: bool = False  # by a peer, since the attempt ended


class Request(NamedTuple):
    """To one peer: one content, or many small ones."""

    peer: bytes
    contents: Sequence[Wanted]
    urgent: bool


class Ended(NamedTuple):
    """An attempt for a content; ``error`` is None where it came from ``peer``, which is None where it was here."""

    content: Wanted
    peer: bytes | None
    error: str | None


@dataclass(slots=True)
class _Peer:
    requests: int = 0
    batch: int = BATCH
    failures: int = 0
    avoid_until: float = 0.0


_IDLE = _Peer()


class WantedContents:
    """``peers_of(document)`` are those that may have its contents, the likeliest first.

    ``now`` is in seconds of any clock that does not jump; ids and hashes are their bytes.
    """

    def __init__(self, rng: Random, peers_of: Callable[[bytes], Iterable[bytes]]) -> None:
        self._rng = rng
        self._peers_of = peers_of
        self._wanted: dict[bytes, Wanted] = {}
        self._ready: dict[Rank, dict[bytes, Wanted]] = {rank: {} for rank in Rank}
        self._in_document: dict[bytes, int] = {}
        self._peers: dict[bytes, _Peer] = {}
        self._requests = [0, 0]  # running: of others, urgent
        self._ended: list[Ended] = []
        self._dropped: set[bytes] = set()

    def __contains__(self, hash: bytes) -> bool:
        return hash in self._wanted

    def __len__(self) -> int:
        return len(self._wanted)

    def of(self, document: bytes) -> int:
        """How many of the document's contents are in the window."""
        return self._in_document.get(document, 0)

    def room(self, document: bytes) -> int:
        """How many more of the document's contents may be added."""
        return max(0, min(WINDOW - len(self._wanted), WINDOW_OF_DOCUMENT - self.of(document)))

    # What is wanted.

    def add(
        self, document: bytes, hash: bytes, size: int, attempts: int, rank: Rank, providers: Iterable[bytes] = ()
    ) -> bool:
        """Want a content of at most ``size`` bytes; False where there is no room. It is never refused to who waits."""
        wanted = self._wanted.get(hash)
        if wanted is None:
            if rank is not Rank.URGENT and not self.room(document):
                return False
            wanted = self._wanted[hash] = Wanted(hash, size, rank)
            self._ready[rank][hash] = wanted
        if document not in wanted.documents:
            self._in_document[document] = self.of(document) + 1
        wanted.documents[document] = max(attempts, wanted.documents.get(document, 0))
        wanted.size = max(wanted.size, size)
        for provider in providers:
            wanted.providers.pop(provider, None)
            wanted.providers[provider] = None
            wanted.tried.pop(provider, None)  # it says that it has it now
            wanted.announced = True
        while len(wanted.providers) > MAX_PROVIDERS:
            del wanted.providers[next(iter(wanted.providers))]
        if rank < wanted.rank:
            moved = self._ready[wanted.rank].pop(hash, None)
            wanted.rank = rank
            if moved is not None:
                self._ready[rank][hash] = wanted
        return True

    def leave(self, document: bytes, *, urgent_too: bool = True) -> None:
        """Nobody here wants the document's contents any more; or none but those that somebody waits for."""
        for wanted in list(self._wanted.values()) if self.of(document) else ():
            if document in wanted.documents and (urgent_too or wanted.rank is not Rank.URGENT):
                del wanted.documents[document]
                self._uncount(document)
                if not wanted.documents and not wanted.busy:
                    self._forget(wanted)

    # Peers.

    def appeared(self, peer: bytes) -> None:
        """It can be reached: ask it again."""
        if (known := self._peers.get(peer)) is not None:
            known.avoid_until = 0.0

    def open_at(self, document: bytes, now: float) -> float | None:
        """When a peer of the document may be asked: at once, later, or never unless one appears."""
        times = [max(now, self._peers.get(peer, _IDLE).avoid_until) for peer in self._peers_of(document)]
        return min(times, default=None)

    # Requests.

    def take(self, now: float, *, urgent_only: bool = False) -> Request | None:
        """What to ask next, which is then running; None where nothing is due or all are busy.

        Attempts that nobody is left for end here; see `ended`.
        """
        known: dict[bytes, list[bytes]] = {}
        for rank in Rank:
            urgent = rank is Rank.URGENT
            if self._requests[urgent] >= (URGENT_REQUESTS if urgent else REQUESTS):
                continue
            if urgent_only and not urgent:
                break
            passed = 0
            for wanted in list(self._ready[rank].values()):
                peer = self._choose(wanted, known, now)
                if peer is not None:
                    return self._request(peer, wanted, known)
                passed += wanted.hash in self._ready[rank]
                if passed > LOOK_AT:
                    break
        return None

    def delivered(
        self, request: Request, came: Iterable[bytes], error: str | None, now: float, *, at_fault: bytes | None = None,
        unwell: bool = False,
    ) -> None:  # fmt: skip
        """The request is over. ``at_fault``: the content that the error is about, where that is certain.

        ``unwell``: the error is about the peer; it is left alone for a while.
        """
        peer = self._end(request, now)
        arrived = set(came)
        rest = [wanted for wanted in request.contents if wanted.hash not in arrived]
        self._ended += [Ended(wanted, request.peer, None) for wanted in request.contents if wanted.hash in arrived]
        if arrived or not unwell:
            peer.failures = 0
        if error is None:
            peer.batch = min(BATCH, peer.batch * 2) if len(request.contents) * 2 > peer.batch else peer.batch
        elif len(request.contents) > 1:
            peer.batch = max(1, min(peer.batch, len(request.contents)) // SHRINK)
        if unwell:
            delay = min(AVOID_MOST, AVOID_FIRST * 2.0 ** min(peer.failures, 16)) * self._rng.uniform(*JITTER)
            peer.failures += 1
            peer.avoid_until = now + delay
        for wanted in rest:
            if unwell or wanted.hash == at_fault or len(request.contents) == 1:
                wanted.tried[request.peer] = error or "the peer did not send it"
        self._back(rest)

    def give_up(self, request: Request, now: float) -> None:
        """The request was cancelled, or this node could not keep what came: that says nothing about anybody."""
        self._end(request, now)
        self._back(request.contents)

    def ended(self) -> list[Ended]:
        """The attempts that ended since this was called last. Their contents are in the window until `settled`."""
        ended, self._ended = self._ended, []
        return ended

    def dropped(self) -> set[bytes]:
        """Documents whose contents left the window untried, for there was nobody to ask, since this was called last."""
        dropped, self._dropped = self._dropped, set()
        return dropped

    def here(self, hash: bytes) -> None:
        """The content came by another way."""
        wanted = self._wanted.get(hash)
        if wanted is not None and not wanted.busy:
            self._finish(wanted, None, None)

    def settled(self, ended: Iterable[Ended]) -> None:
        """The store knows. What a further peer announced meanwhile is ready again."""
        for wanted, _, error in ended:
            if error is not None and wanted.documents and wanted.announced:
                wanted.documents = {document: attempts + 1 for document, attempts in wanted.documents.items()}
                self._back([wanted])
            else:
                self._forget(wanted)

    # Inside.

    def _choose(self, wanted: Wanted, known: dict[bytes, list[bytes]], now: float) -> bytes | None:
        """Whom to ask. None: all are busy; or nobody is left, and it is not ready any more."""
        candidates = self._candidates(wanted, known)
        waits = False
        for last_resort in (False, True) if wanted.rank is Rank.URGENT else (False,):
            for peer in candidates:
                state = self._peers.get(peer, _IDLE)
                if state.avoid_until > now and not last_resort:
                    continue
                if state.requests < REQUESTS_OF_PEER + (wanted.rank is Rank.URGENT) * URGENT_REQUESTS:
                    return peer
                waits = True
        if waits:
            return None
        if wanted.tried:
            peer, error = list(wanted.tried.items())[-1]
            self._finish(wanted, peer, error)
        else:
            self._dropped.update(wanted.documents)  # nobody to ask: that is no attempt
            self._forget(wanted)
        return None

    def _candidates(self, wanted: Wanted, known: dict[bytes, list[bytes]]) -> list[bytes]:
        peers = [peer for peer in reversed(wanted.providers) if peer not in wanted.tried]
        if len(wanted.tried) >= MAX_TRIED:
            return peers
        others: dict[bytes, None] = {}
        for document, attempts in wanted.documents.items():
            if document not in known:
                known[document] = list(dict.fromkeys(self._peers_of(document)))
            found = known[document]
            first = attempts * MAX_TRIED % len(found) if len(found) > MAX_TRIED else 0
            others |= dict.fromkeys([*found[first:], *found[:first]])
        return [*peers, *(peer for peer in others if peer not in wanted.tried and peer not in wanted.providers)]

    @staticmethod
    def _may_have(peer: bytes, wanted: Wanted, known: dict[bytes, list[bytes]]) -> bool:
        if peer in wanted.tried:
            return False
        return peer in wanted.providers or any(peer in known.get(document, ()) for document in wanted.documents)

    def _request(self, peer: bytes, first: Wanted, known: dict[bytes, list[bytes]]) -> Request:
        contents, size = [first], first.size
        state = self._peers.setdefault(peer, _Peer())
        ready = self._ready[first.rank]
        if first.size <= SMALL and state.batch > 1:
            for wanted in ready.values():
                if wanted is first or wanted.size > SMALL or size + wanted.size > BATCH_BYTES:
                    continue
                if self._may_have(peer, wanted, known):
                    contents.append(wanted)
                    size += wanted.size
                    if len(contents) >= state.batch:
                        break
        for wanted in contents:
            del ready[wanted.hash]
            wanted.busy = True
        urgent = first.rank is Rank.URGENT
        state.requests += 1
        self._requests[urgent] += 1
        return Request(peer, contents, urgent)

    def _end(self, request: Request, now: float) -> _Peer:
        if len(self._peers) > MAX_PEERS:
            quiet = [id for id, peer in self._peers.items() if not peer.requests and peer.avoid_until <= now]
            for id in quiet:
                del self._peers[id]
        peer = self._peers[request.peer]
        peer.requests -= 1
        self._requests[request.urgent] -= 1
        return peer

    def _back(self, contents: Iterable[Wanted]) -> None:
        for wanted in contents:
            wanted.busy = False
            if wanted.documents:
                self._ready[wanted.rank][wanted.hash] = wanted
            else:
                self._forget(wanted)

    def _finish(self, wanted: Wanted, peer: bytes | None, error: str | None) -> None:
        self._ready[wanted.rank].pop(wanted.hash, None)
        wanted.busy, wanted.announced = True, False
        self._ended.append(Ended(wanted, peer, error))

    def _forget(self, wanted: Wanted) -> None:
        self._ready[wanted.rank].pop(wanted.hash, None)
        self._wanted.pop(wanted.hash, None)
        for document in wanted.documents:
            self._uncount(document)

    def _uncount(self, document: bytes) -> None:
        left = self.of(document) - 1
        if left > 0:
            self._in_document[document] = left
        else:
            self._in_document.pop(document, None)


def retry_delay(attempts: int, rng: Random) -> float:
    """Seconds until the next attempt, after ``attempts`` in vain."""
    return min(RETRY_MOST, RETRY_FIRST * 2.0 ** min(attempts - 1, 16)) * rng.uniform(*JITTER)
