"""What a response consists of, in order: it follows from the size and the ranges alone (reference 3.4).

Eight whole groups that have a node of their own come as one item, a branch: its pairs and data lie in one another as
they always do, so they are cut apart, or put together, without a look at each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from .geometry import CHUNK, GROUP, GROUP_CHUNKS, PAIR, chunk_count, left_leaves, walk
from .ranges import ChunkRanges

__all__ = [
    "BRANCH_BYTES",
    "BRANCH_DATA",
    "BRANCH_GROUPS",
    "BRANCH_PAIRS",
    "BRANCH_PARTS",
    "INSIDE",
    "Node",
    "children_in_order",
    "expand",
    "plan",
]

INSIDE = -1  # the index of a pair inside a group, which no outboard holds
BRANCH_GROUPS = 8
BRANCH_CHUNKS = BRANCH_GROUPS * GROUP_CHUNKS
BRANCH_BYTES = BRANCH_GROUPS * GROUP + (BRANCH_GROUPS - 1) * PAIR


class Node(NamedTuple):
    """One item of a response: the data of ``chunks`` chunks from ``start`` on, or the pair over them, or a branch.

    ``number`` is the pair's place in the outboard, of a branch that of its first; INSIDE for one below a group.
    """

    leaf: bool
    start: int
    chunks: int
    number: int

    @property
    def branch(self) -> bool:
        return self.leaf and self.chunks == BRANCH_CHUNKS


def plan(size: int, ranges: ChunkRanges) -> Iterator[Node]:
    """The items of the response in order. Lazy: costs the tree's depth in memory, whatever ``size`` claims."""
    total = chunk_count(size)
    ranges = ranges.truncated(total)
    stack = [(0, total, 0, False)]
    while stack:
        start, chunks, index, whole = stack.pop()
        if not whole:
            if not ranges.intersects(start, start + chunks):
                continue
            whole = ranges.contains(start, start + chunks)
        if chunks == 1 or (whole and chunks <= GROUP_CHUNKS):
            yield Node(True, start, chunks, INSIDE)
            continue
        if whole and chunks == BRANCH_CHUNKS and size >= (start + chunks) * CHUNK and chunks < total:
            yield Node(True, start, chunks, index)
            continue
        left = left_leaves(chunks)
        above = chunks > GROUP_CHUNKS
        yield Node(False, start, chunks, index if above else INSIDE)
        stack.append((start + left, chunks - left, index + left // GROUP_CHUNKS if above else INSIDE, whole))
        stack.append((start, left, index + 1 if above else INSIDE, whole))


def expand(branch: Node) -> Iterator[Node]:
    """The items that a branch stands for."""
    number = branch.number
    for group, groups in walk(BRANCH_GROUPS):
        start = branch.start + group * GROUP_CHUNKS
        if groups == 1:
            yield Node(True, start, GROUP_CHUNKS, INSIDE)
        else:
            yield Node(False, start, groups * GROUP_CHUNKS, number)
            number += 1


def _cuts() -> Iterator[tuple[bool, slice]]:
    """Where data (True) and pairs lie in a branch, each as long as there is nothing else between."""
    at, begun, data = 0, 0, False
    for _, groups in walk(BRANCH_GROUPS):
        if (groups == 1) != data:
            yield data, slice(begun, at)
            begun, data = at, groups == 1
        at += GROUP if groups == 1 else PAIR
    yield data, slice(begun, at)


def _parts() -> Iterator[tuple[bool, slice]]:
    """The same pieces, where they lie in the branch's data and in its pairs."""
    ends = {True: 0, False: 0}
    for data, cut in _cuts():
        begun, ends[data] = ends[data], ends[data] + cut.stop - cut.start
        yield data, slice(begun, ends[data])


def _children() -> Sequence[int]:
    """Of each pair in turn its children: pairs by their number, leaves after all pairs."""
    nodes = list(walk(BRANCH_GROUPS))
    pairs = [node for node in nodes if node[1] > 1]
    leaves = [node for node in nodes if node[1] == 1]
    place = {node: number for number, node in enumerate(pairs + leaves)}
    return [
        place[child] for first, groups in pairs for child in ((first, groups // 2), (first + groups // 2, groups // 2))
    ]


BRANCH_DATA = [cut for data, cut in _cuts() if data]
BRANCH_PAIRS = [cut for data, cut in _cuts() if not data]
BRANCH_PARTS = list(_parts())
children_in_order = itemgetter(*_children())
"""Of the values of a branch's pairs and leaves, what its pairs should say."""
