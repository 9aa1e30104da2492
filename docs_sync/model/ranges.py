"""Ranges of entry ids, as reconciliation speaks of them (``reference/iroh-protocols.md`` 2.5).

A range has two bounds x and y, each an id of at least 64 bytes: x = y is everything, x < y is [x, y), x > y wraps
around: everything but [y, x). A range that a peer names may reach into other documents; it is always clamped to one
namespace here, before any row is read.

A range is walked *from x upward*, wrapping at the end. Cutting and splitting rely on that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Bound", "IdRange", "Segment"]

Bound = tuple[bytes, bytes]
"""(author, key): an id inside one namespace."""


class Segment(NamedTuple):
    """Ids with ``low <= id < high``; None is no bound on that side."""

    low: Bound | None
    high: Bound | None


@dataclass(frozen=True, slots=True)
class IdRange:
    x: bytes
    y: bytes

    @property
    def is_whole(self) -> bool:
        return self.x == self.y

    def contains(self, id: bytes) -> bool:
        if self.x < self.y:
            return self.x <= id < self.y
        return self.is_whole or id >= self.x or id < self.y

    def segments(self, namespace: bytes) -> list[Segment]:
        """The range inside ``namespace`` as at most two runs of ids, in the order of the walk."""
        runs: list[tuple[bytes | None, bytes | None]]
        if self.is_whole:
            runs = [(self.x, None), (None, self.x)] if self.x[:32] == namespace else [(None, None)]
        elif self.x < self.y:
            runs = [(self.x, self.y)]
        else:
            runs = [(self.x, None), (None, self.y)]
        return [segment for x, y in runs if (segment := _clamp(x, y, namespace)) is not None]


def _clamp(x: bytes | None, y: bytes | None, namespace: bytes) -> Segment | None:
    if (x is not None and x[:32] > namespace) or (y is not None and y[:32] < namespace):
        return None
    low = (x[32:64], x[64:]) if x is not None and x[:32] == namespace else None
    high = (y[32:64], y[64:]) if y is not None and y[:32] == namespace else None
    return Segment(low, high)
