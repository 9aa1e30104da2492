"""The timers of one topic: a heap of (deadline, action), run by whoever holds the clock.

A timer is never cancelled: its action looks at the state and does nothing where it came too late. Equal deadlines
run in the order in which they were armed, so that a run replays.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Timers"]


class Timers:
    __slots__ = ("_armed", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._armed = 0

    def arm(self, deadline: float, action: Callable[..., None], *args: object) -> None:
        """Have ``action(now, *args)`` called at ``deadline``, in seconds of the caller's clock."""
        self._armed += 1
        heapq.heappush(self._heap, (deadline, self._armed, action, args))

    def next_deadline(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Run what is due."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, action, args = heapq.heappop(heap)
            action(now, *args)

    def clear(self) -> None:
        self._heap.clear()

    def __len__(self) -> int:
        return len(self._heap)
