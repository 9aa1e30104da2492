"""The aggregate of a document as a tree that is read: counts and fingerprints of any range in O(log n).

Level 0 are the entries in the order of their ids. A node of level n >= 1 begins at an entry (the first one of a level
before all entries) and covers everything up to the next node of its level; its sums are those of what it covers. What
begins a node of level n begins one of every level below, so that each node is made of whole nodes of the level below.

`Tree` reads the nodes that it needs, and no others, through ``load``. A position is the number of entries before one.
How nodes are chosen and kept is `aggregate`'s business.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import xor
from typing import NamedTuple

from ..model.ranges import Bound

__all__ = ["END", "START", "Load", "Sum", "Tree"]

START: Bound = (b"", b"")
"""Before every id."""

END: Bound = (b"\xff" * 33, b"")
"""Behind every id: authors have 32 bytes."""

Load = Callable[[int, Bound, Bound], Sequence[tuple[bytes, bytes, int, bytes]]]
"""``load(level, low, high)``: author, key, count and XOR of the nodes of the level that begin in [low, high)."""

CACHED = 1024  # runs of nodes kept: about 10 MB


class Sum(NamedTuple):
    """Of some entries: how many, and the XOR of their fingerprints as a number."""

    size: int
    total: int


class _Run:
    """The nodes of one level below one node (or all of the highest level), with running sums before each."""

    __slots__ = ("counts", "end", "starts", "xors")

    def __init__(self, rows: Sequence[tuple[bytes, bytes, int, bytes]], end: Bound) -> None:
        self.starts = [row[:2] for row in rows]
        self.counts = list(accumulate([row[2] for row in rows], initial=0))
        self.xors = list(accumulate([int.from_bytes(row[3], "big") for row in rows], xor, initial=0))
        self.end = end

    def bounds(self, index: int) -> tuple[Bound, Bound]:
        """Where the node at ``index`` begins and ends."""
        return self.starts[index], self.starts[index + 1] if index + 1 < len(self.starts) else self.end


class Tree:
    """Good for one snapshot. ``levels``: the highest level that has nodes, 0 where there are only entries."""

    def __init__(self, load: Load, levels: int) -> None:
        self._load = load
        self._levels = levels
        self._runs: dict[tuple[int, Bound], _Run] = {}
        self._last = levels, START, END, 0, 0

    @property
    def total(self) -> Sum:
        top = self._run(self._levels, START, END)
        return Sum(top.counts[-1], top.xors[-1])

    def before(self, bound: Bound) -> Sum:
        """The sum of the entries whose ids are smaller than ``bound``."""
        level, low, high, count, total = self._last
        if not low <= bound < high:
            level, low, high, count, total = self._levels, START, END, 0, 0
        while True:
            run = self._run(level, low, high)
            self._last = level, low, high, count, total  # what is asked for next is mostly near
            index = bisect_left(run.starts, bound)
            if level and (index == len(run.starts) or run.starts[index] != bound):
                index -= 1  # the bound lies inside of this node
                if index < 0:
                    return Sum(count, total)
                count, total = count + run.counts[index], total ^ run.xors[index]
                (low, high), level = run.bounds(index), level - 1
                continue
            return Sum(count + run.counts[index], total ^ run.xors[index])

    def at(self, position: int) -> Bound:
        """The id at ``position``, which is at least 0 and below the count."""
        level, low, high = self._levels, START, END
        while True:
            run = self._run(level, low, high)
            index = bisect_right(run.counts, position) - 1
            if not level:
                return run.starts[index]
            position -= run.counts[index]
            (low, high), level = run.bounds(index), level - 1

    def cuts(self, low: Bound, high: Bound, ways: int, fewest: int) -> list[Bound]:
        """At most ``ways - 1`` ids inside of [low, high), in order, none of them its first one.

        Where nodes begin, on the highest level on which at least ``fewest`` do: sums up to there need no node below.
        Peers with the same entries there begin their nodes at the same ids, so that it is cheap for both. Where more
        nodes begin than are asked for, those that cut the range most evenly.
        """
        first, last = self.before(low).size, self.before(high).size
        level, spans = self._levels, [(START, END, 0)]
        while True:
            found: list[tuple[int, Bound]] = []
            below: list[tuple[Bound, Bound, int]] = []
            for begin, end, passed in spans:
                run = self._run(level, begin, end)
                for index in range(max(0, bisect_right(run.counts, first - passed) - 1), len(run.starts)):
                    position = passed + run.counts[index]
                    if position >= last:
                        break
                    if position > first:
                        found.append((position, run.starts[index]))
                    if level:
                        below.append((*run.bounds(index), position))
            if not level or len(found) >= fewest:
                return _thinned(found, first, last, ways)
            spans, level = below, level - 1

    def _run(self, level: int, low: Bound, high: Bound) -> _Run:
        run = self._runs.get((level, low))
        if run is None:
            if len(self._runs) >= CACHED:
                self._runs.clear()
            run = self._runs[level, low] = _Run(self._load(level, low, high), high)
        return run


def _thinned(found: Sequence[tuple[int, Bound]], first: int, last: int, ways: int) -> list[Bound]:
    """Of ids with their positions those that cut [first, last) into ``ways`` runs about equally long."""
    if len(found) < ways:
        return [bound for _, bound in found]
    chosen: dict[int, None] = {}
    for way in range(1, ways):
        target = first + (last - first) * way // ways
        index = min(bisect_left(found, (target,)), len(found) - 1)
        if index and target - found[index - 1][0] < found[index][0] - target:
            index -= 1
        chosen[index] = None
    return [found[index][1] for index in chosen]
