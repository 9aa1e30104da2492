"""Which of the syncs that are wanted is dialled next, over all documents of a node; without I/O.

What somebody waits for goes before what is done for good measure, and some of the slots are kept for it. Among peers it
goes round; of one peer the documents come in the order in which they were wanted. A peer that cannot be reached holds
up nothing but itself, whatever the number of documents shared with it: until it is heard of again it is tried with one
document at a time, less and less often, and at once only where somebody waits.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from random import Random
from typing import Generic, TypeVar

from .sync_state import backoff

__all__ = ["MAX_DIALS", "MAX_DIALS_TO_PEER", "RESERVED", "DialQueue"]

MAX_DIALS = 16  # syncs that a node has dialled at once
MAX_DIALS_TO_PEER = 8  # of them; fewer than a peer of ours accepts (`admittance.MAX_OF_PEER`)
RESERVED = 4  # slots of both kinds that only what somebody waits for gets
MAX_KNOWN = 4096  # peers; further ones that could not be reached are forgotten, and tried as if they were new

D = TypeVar("D", bound=Hashable)
P = TypeVar("P", bound=Hashable)


@dataclass(slots=True)
class _Peer(Generic[D]):
    urgent: dict[D, None] = field(default_factory=dict)
    patient: dict[D, None] = field(default_factory=dict)
    running: int = 0
    failures: int = 0
    not_before: float = 0.0

    @property
    def is_idle(self) -> bool:
        return not (self.urgent or self.patient or self.running)

    def next(self, now: float, *, urgent: bool) -> D | None:
        waiting = self.urgent if urgent else self.patient
        if not waiting or self.running >= MAX_DIALS_TO_PEER - (0 if urgent else RESERVED):
            return None
        if self.failures and not urgent and (self.running or now < self.not_before):
            return None
        return next(iter(waiting))


class DialQueue(Generic[D, P]):
    """``now`` is in seconds of any clock that does not jump. Each document stands in the queue of a peer once."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._peers: dict[P, _Peer[D]] = {}  # in the order in which it is their turn
        self._running = 0

    def want(self, document: D, peer: P, *, urgent: bool) -> None:
        """Again with ``urgent``, it moves up."""
        queue = self._peers.setdefault(peer, _Peer())
        if urgent:
            queue.patient.pop(document, None)
            queue.urgent[document] = None
        elif document not in queue.urgent:
            queue.patient[document] = None

    def drop(self, document: D, peer: P) -> None:
        if (queue := self._peers.get(peer)) is not None:
            queue.urgent.pop(document, None)
            queue.patient.pop(document, None)
            self._forget(peer, queue)

    def take(self, now: float) -> tuple[D, P] | None:
        """The next to dial, which then runs until `ended`."""
        for urgent in (True, False):
            if self._running >= MAX_DIALS - (0 if urgent else RESERVED):
                continue
            for peer, queue in self._peers.items():
                if (document := queue.next(now, urgent=urgent)) is not None:
                    (queue.urgent if urgent else queue.patient).pop(document)
                    queue.running += 1
                    self._running += 1
                    self._peers[peer] = self._peers.pop(peer)
                    return document, peer
        return None

    def ended(self, peer: P) -> None:
        queue = self._peers[peer]
        queue.running -= 1
        self._running -= 1
        self._forget(peer, queue)

    def unreachable(self, peer: P, now: float) -> None:
        """A dial found nobody."""
        if len(self._peers) >= MAX_KNOWN:
            for other in [each for each, queue in self._peers.items() if queue.not_before <= now and queue.is_idle]:
                del self._peers[other]
        queue = self._peers.setdefault(peer, _Peer())
        if now >= queue.not_before:  # dials that ran at once fail once
            queue.not_before = now + backoff(queue.failures, self._rng)
            queue.failures += 1

    def reachable(self, peer: P) -> bool:
        """It was dialled, or it called. Whether that is news."""
        queue = self._peers.get(peer)
        if queue is None or not queue.failures:
            return False
        queue.failures, queue.not_before = 0, 0.0
        self._forget(peer, queue)
        return True

    def next_due(self, now: float) -> float | None:
        """When `take` may have something that it has not now, without anything else happening."""
        times = [queue.not_before for queue in self._peers.values() if queue.patient and queue.not_before > now]
        return min(times, default=None)

    def next_try(self, peer: P) -> float | None:
        """When a peer that cannot be reached is tried again."""
        queue = self._peers.get(peer)
        return queue.not_before if queue is not None and queue.failures else None

    def _forget(self, peer: P, queue: _Peer[D]) -> None:
        if queue.is_idle and not queue.failures:
            del self._peers[peer]
