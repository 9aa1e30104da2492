"""How fast, and how long still: for callbacks of progress."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Measured", "Meter"]

WINDOW = 5.0  # seconds that the rate is measured over
SAMPLES = 50  # of them


@dataclass(frozen=True, slots=True)
class Measured:
    """``rate``: bytes a second over the last seconds, 0 where nothing came. ``seconds_left`` at that rate, or None."""

    done: int
    total: int
    rate: float
    seconds_left: float | None


class Meter:
    """``progress=Meter(callback)``: calls ``callback(Measured)`` for each report of bytes done and bytes in all.

    What was there at the first report, as of a fetch that was resumed, is not taken for speed.
    """

    def __init__(self, callback: Callable[[Measured], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._callback = callback
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def __call__(self, done: int, total: int) -> None:
        now, samples = self._clock(), self._samples
        while len(samples) > 1 and samples[1][0] <= now - WINDOW:
            samples.popleft()
        if not samples:
            samples.append((now, done))
        since, before = samples[0]
        rate = max(0, done - before) / (now - since) if now > since else 0.0
        if now - samples[-1][0] >= WINDOW / SAMPLES:
            samples.append((now, done))
        left = (total - done) / rate if rate else None
        self._callback(Measured(done, total, rate, 0.0 if done >= total else left))
