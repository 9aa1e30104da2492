"""Whom a partial replica follows, and whom it tries again when, without I/O.

At most `MAX_FOLLOWED` at once: one is enough, the second covers its failure. Who fails waits with growing delays while
others have their turn. A link that lasted was good, whatever ended it; its provider is tried again soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ..sync.sync_state import backoff

__all__ = ["MAX_FOLLOWED", "Providers"]

MAX_FOLLOWED = 2
LASTED = 30.0  # seconds


@dataclass(slots=True)
class _Provider:
    due: float
    failures: int = 0
    running: bool = False


class Providers:
    """``now`` is in seconds of any clock that does not jump; peers are their bytes."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._known: dict[bytes, _Provider] = {}

    def add(self, peer: bytes, now: float) -> None:
        """Try it soon; also one that is known already, for there is a reason to think that it is back."""
        known = self._known.setdefault(peer, _Provider(now))
        known.due = min(known.due, now)

    def take(self, now: float) -> bytes | None:
        """Whom to follow next; None where enough are followed, or nobody is due. It runs until `ended`."""
        if sum(each.running for each in self._known.values()) >= MAX_FOLLOWED:
            return None
        due = [(each.due, peer) for peer, each in self._known.items() if not each.running and each.due <= now]
        if not due:
            return None
        peer = min(due, key=lambda each: each[0])[1]
        self._known[peer].running = True
        return peer

    def ended(self, peer: bytes, lasted: float, now: float) -> None:
        """A link to it ended, or did not come up, after ``lasted`` seconds."""
        provider = self._known[peer]
        provider.running = False
        if lasted >= LASTED:
            provider.failures = 0
        provider.due = now + backoff(provider.failures, self._rng)
        provider.failures += 1

    def next_due(self) -> float | None:
        """When to `take` again, unless something happens before."""
        waiting = [each.due for each in self._known.values() if not each.running]
        full = len(self._known) - len(waiting) >= MAX_FOLLOWED
        return None if full else min(waiting, default=None)
