"""How many syncs a node serves at once, and how they are shared out among peers; without I/O.

A peer gets at most `MAX_OF_PEER`, and never more than are still free: the fuller the node is, the less a peer that has
much gets, and the last place goes to one that has none. Who is refused comes again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["MAX_OF_PEER", "MAX_SERVED", "Admittance"]

MAX_SERVED = 64  # syncs served at once: with 4 MB each for messages, a few hundred MB at the very most
MAX_OF_PEER = 16  # of them for one peer

P = TypeVar("P", bound=Hashable)


class Admittance(Generic[P]):
    def __init__(self) -> None:
        self._served: Counter[P] = Counter()
        self._total = 0

    @property
    def total(self) -> int:
        return self._total

    def enter(self, peer: P) -> bool:
        """Whether one more is served; then `leave` has to follow."""
        if self._served[peer] >= min(MAX_OF_PEER, MAX_SERVED - self._total):
            return False
        self._served[peer] += 1
        self._total += 1
        return True

    def leave(self, peer: P) -> None:
        self._total -= 1
        self._served[peer] -= 1
        if not self._served[peer]:
            del self._served[peer]
