"""Building a blob's outboard: every pair of chaining values above its groups, in pre-order, and the root hash.

The blob's size is known (whoever has a stream stores it first), so each pair has its place from the start. The tree
is walked by subtrees of 1 MiB, which are hashed in one go; the few nodes above them are written as the recursion
returns. Memory does not depend on the blob's size.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import lru_cache

from .geometry import GROUP, GROUP_CHUNKS, PAIR, group_count, left_leaves, walk
from .hash import Hash
from .reference import parent_cv
from .tree import CV, group_cvs, pair_up

__all__ = ["WriteAt", "build"]

WriteAt = Callable[[int, bytes], object]
"""(offset, data): put the data there."""

BATCH = 64  # groups hashed in one go; a power of two, so that every batch but the last is a perfect subtree


def build(size: int, write: WriteAt) -> Generator[tuple[int, int], bytes, Hash]:
    """Build the outboard of a blob of ``size`` bytes; its pairs go to ``write``, in no particular order.

    A generator that neither reads nor waits: it yields (offset, size) for at most 1 MiB of the blob that it wants to be
    sent, from the first byte to the last, and returns the hash. A step takes up to 10 ms: for a
    thread.
    """
    groups = group_count(size)
    if groups == 1:
        return Hash.of((yield 0, size))

    def subtree(first: int, count: int, index: int) -> Generator[tuple[int, int], bytes, bytes]:
        """The chaining value (the hash at the top) over ``count`` > 0 groups whose pairs start at ``index``."""
        if count <= BATCH:
            data = yield first * GROUP, min(count * GROUP, size - first * GROUP)
            cvs = group_cvs(data, first * GROUP_CHUNKS)
            if count == 1:
                return cvs
            pairs = _pairs(cvs)
        else:
            left = left_leaves(count)
            pairs = yield from subtree(first, left, index + 1)
            pairs += yield from subtree(first + left, count - left, index + left)
        write(index * PAIR, pairs)
        top = pairs[:PAIR]
        return parent_cv(top[:CV], top[CV:], root=True) if count == groups else pair_up(top)

    return Hash((yield from subtree(0, groups, 0)))


def _pairs(cvs: bytes) -> bytes:
    """The pre-order pairs of the subtree over two or more groups with these chaining values, its top pair first."""
    groups = len(cvs) // CV
    out: list[bytes] = [b""] * (groups - 1)
    for places in _places(groups):
        for number, place in enumerate(places):
            out[place] = cvs[number * PAIR : (number + 1) * PAIR]
        if len(cvs) > PAIR:
            cvs = pair_up(cvs)
    return b"".join(out)


@lru_cache(maxsize=8)
def _places(groups: int) -> list[list[int]]:
    """For each level from the groups up, where in pre-order its nodes are, from left to right."""
    levels: list[list[int]] = [[] for _ in range((groups - 1).bit_length())]
    inner = (count for _, count in walk(groups) if count > 1)
    for index, count in enumerate(inner):
        levels[(count - 1).bit_length() - 1].append(index)
    return levels
