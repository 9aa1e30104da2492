"""A token bucket: so much at once, so much a second."""

from __future__ import annotations

__all__ = ["Bucket"]


class Bucket:
    """``rate`` a second, up to ``burst`` at once; time in seconds is a parameter."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst <= 0:
            raise ValueError("a rate limit needs a rate and a burst above 0")
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._at = now

    def take(self, amount: float, now: float) -> float:
        """Take ``amount``, all of it at once; the seconds to wait until that is within the limit, 0 mostly."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - amount
        self._at = now
        return max(0.0, -self._left / self._rate)
