"""Verified streaming: a blob, or ranges of it, in a form that is checked while it arrives (reference 3.4).

The answer to a request is the blob's size (u64, little-endian), then the selected part of its tree in pre-order: at
an inner node the 64-byte pair of its children's chaining values, at a wholly selected group its bytes. A group of
which only some chunks are selected is walked down to those, with the pairs on the way.

What is a pair and what is data follows from the size and the ranges alone. So the decoder takes all items that are
there, computes all their chaining values in a few calls of `tree`, and compares them with what the root hash and
the pairs before them promise. The size is a claim like any other: a wrong one gives a tree of another shape, whose
values do not match. No memory is set aside by it, and nothing is handed out before it matched.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from .errors import HashMismatch, TooLarge, Truncated
from .geometry import CHUNK, GROUP_CHUNKS, PAIR, chunk_count, left_leaves, outboard_size
from .hash import Hash
from .ranges import ChunkRanges
from .reference import parent_cv
from .tree import group_values, parent_values, subtree_value

__all__ = ["Decoder", "Leaf", "Node", "Pairs", "ReadAt", "encode", "plan", "response_size"]

ReadAt = Callable[[int, int], bytes]
"""(offset, size) to exactly that many bytes."""

PIECE = 256 * 1024  # bytes of an encoder's piece: large enough for few wake-ups, small beside a send window
HEADER = struct.Struct("<Q")
INSIDE = -1  # the index of a pair inside a group, which no outboard holds


class Node(NamedTuple):
    """One item of a response: the data of ``chunks`` chunks from ``start`` on, or the pair over them.

    ``number`` is the pair's place in the outboard, INSIDE for one below a group.
    """

    leaf: bool
    start: int
    chunks: int
    number: int


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
        left = left_leaves(chunks)
        above = chunks > GROUP_CHUNKS
        yield Node(False, start, chunks, index if above else INSIDE)
        stack.append((start + left, chunks - left, index + left // GROUP_CHUNKS if above else INSIDE, whole))
        stack.append((start, left, index + 1 if above else INSIDE, whole))


def response_size(size: int) -> int:
    """Bytes of the response that carries a whole blob of ``size`` bytes."""
    return HEADER.size + size + outboard_size(size)


def encode(size: int, ranges: ChunkRanges, data: ReadAt, outboard: ReadAt) -> Iterator[bytes]:
    """The response in pieces of about 256 KiB. Reads as it goes; what the readers raise passes through."""
    out = [HEADER.pack(size)]
    length = 0
    for node in plan(size, ranges):
        if node.leaf:
            offset = node.start * CHUNK
            out.append(data(offset, min(node.chunks * CHUNK, size - offset)))
        elif node.number != INSIDE:
            out.append(outboard(node.number * PAIR, PAIR))
        else:
            out.append(_inner_pair(node, size, data))
        length += len(out[-1])
        if length >= PIECE:
            yield b"".join(out)
            out.clear()
            length = 0
    yield b"".join(out)


def _inner_pair(node: Node, size: int, data: ReadAt) -> bytes:
    """A pair below a group, which is stored nowhere, from the group's bytes."""
    offset = node.start * CHUNK
    group = data(offset, min(node.chunks * CHUNK, size - offset))
    left = left_leaves(node.chunks)
    return subtree_value(group[: left * CHUNK], node.start) + subtree_value(group[left * CHUNK :], node.start + left)


@dataclass(frozen=True, slots=True)
class Leaf:
    """Verified bytes of the blob from ``offset`` on; as many groups in a row as there were."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Pairs:
    """Verified pairs of the outboard, consecutive from number ``index`` on."""

    index: int
    data: bytes


class Decoder:
    """Checks one response as it arrives.

    ``size`` is the peer's claim, None until it arrived; it is proven once the last chunk is. ``finished`` once
    everything asked for was verified. After an error the decoder is spent.
    """

    def __init__(
        self,
        root: Hash,
        ranges: ChunkRanges = ChunkRanges.ALL,
        *,
        max_size: int | None = None,
        peer: object | None = None,
        others_follow: bool = False,
    ) -> None:
        self.size: int | None = None
        self.finished = False
        self._root = root
        self._ranges = ranges
        self._max_size = max_size
        self._peer = peer
        self._others_follow = others_follow
        self._rest = b""  # of what arrived, what is not a whole item yet
        self._plan: Iterator[Node] = iter(())
        self._next: Node | None = None
        self._expected = [bytes(root)]  # of the nodes whose parents are verified; the next node's is on top

    def feed(self, data: bytes) -> Iterator[Leaf | Pairs]:
        """Yield what ``data`` completes: all pairs first, then leaves in rising order. Iterate it to its end.

        Raises `HashMismatch` after the last item that is right, `TooLarge` for a claim above ``max_size``, and
        `HashMismatch` for bytes after the end. Many groups at a time are many times cheaper than one.
        """
        data = self._rest + data
        start = 0
        if self.size is None:
            if len(data) < HEADER.size:
                self._rest = data
                return
            self._start(*HEADER.unpack_from(data))
            start = HEADER.size
        nodes, stops = self._take(len(data) - start)
        end = start + stops[-1] if stops else start
        self._rest = data[end:]
        if nodes:
            yield from self._verify(nodes, stops, memoryview(data)[start:end])
        self.finished = self._next is None
        if self.finished and self._rest and not self._others_follow:
            raise HashMismatch(f"the answer goes on after the end of blob {self._root.short()}", peer=self._peer)

    def rest(self) -> bytes:
        """What came after the end, where the answers for others follow."""
        return self._rest if self.finished else b""

    def end(self) -> None:
        """The stream ended: `Truncated` unless all of it had arrived."""
        if not self.finished:
            raise Truncated(f"the answer ended before blob {self._root.short()} did", peer=self._peer)

    def _start(self, size: int) -> None:
        if self._max_size is not None and size > self._max_size:
            raise TooLarge(
                f"blob {self._root.short()} has {size} bytes by the peer's claim, the limit is {self._max_size}",
                peer=self._peer,
            )
        self.size = size
        self._ranges = self._ranges.truncated(chunk_count(size))
        self._plan = plan(size, self._ranges)
        self._next = next(self._plan, None)

    def _expect(self, node: Node, pair: memoryview) -> None:
        """The pair over ``node`` is right, so it says what its children must be, those of them that will come."""
        stop = node.start + node.chunks
        middle = node.start + left_leaves(node.chunks)
        if self._ranges.intersects(middle, stop):
            self._expected.append(bytes(pair[32:]))
        if self._ranges.intersects(node.start, middle):
            self._expected.append(bytes(pair[:32]))

    def _length(self, node: Node) -> int:
        assert self.size is not None
        return min(node.chunks * CHUNK, self.size - node.start * CHUNK) if node.leaf else PAIR

    def _take(self, length: int) -> tuple[list[Node], list[int]]:
        """The items that are whole within so many bytes, and where each stops."""
        nodes, stops, stop = [], [], 0
        while self._next is not None:
            stop += self._length(self._next)
            if stop > length:
                break
            nodes.append(self._next)
            stops.append(stop)
            self._next = next(self._plan, None)
        return nodes, stops

    def _verify(self, nodes: list[Node], stops: list[int], taken: memoryview) -> Iterator[Leaf | Pairs]:
        parts = [taken[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
        pairs = [part for node, part in zip(nodes, parts, strict=True) if not node.leaf]
        runs = _runs(nodes, parts)
        pair_values = _parent_values(pairs)
        leaf_values = (value for run in runs for value in run.values())
        good = 0
        for node, part in zip(nodes, parts, strict=True):
            root = node.start == 0 and self.size is not None and node.chunks == chunk_count(self.size)
            if root and node.leaf:  # its chaining value exists only as the hash
                value = bytes(Hash.of(part))
            elif root:
                next(pair_values)
                value = parent_cv(bytes(part[:32]), bytes(part[32:]), root=True)
            else:
                value = next(leaf_values if node.leaf else pair_values)
            if value != self._expected.pop():
                break
            if not node.leaf:
                self._expect(node, part)
            good += 1
        yield from _joined_pairs(nodes[:good], parts)
        leaves = sum(node.leaf for node in nodes[:good])
        for run in runs:
            if leaves:
                yield Leaf(run.start * CHUNK, run.head(leaves))
            leaves = max(0, leaves - len(run.nodes))
        if good < len(nodes):
            raise HashMismatch(f"the bytes do not belong to blob {self._root.short()}", peer=self._peer)


class _Run:
    """Leaves that follow each other in the blob."""

    def __init__(self, nodes: list[Node], parts: list[memoryview]) -> None:
        self.nodes = nodes
        self.start = nodes[0].start
        self._ends = list(accumulate(map(len, parts)))
        self._data = b"".join(parts)

    def values(self) -> Iterator[bytes]:
        """The chaining value of each leaf. Only the last group of a blob and leaves below a group are short."""
        if self.start % GROUP_CHUNKS == 0 and all(node.chunks == GROUP_CHUNKS for node in self.nodes[:-1]):
            yield from group_values(self._data, self.start)
            return
        starts = [0, *self._ends]
        for node, start, stop in zip(self.nodes, starts, self._ends, strict=False):
            yield subtree_value(self._data[start:stop], node.start)

    def head(self, leaves: int) -> bytes:
        """The bytes of the first ``leaves`` leaves."""
        return self._data if leaves >= len(self.nodes) else self._data[: self._ends[leaves - 1]]


def _runs(nodes: list[Node], parts: list[memoryview]) -> list[_Run]:
    leaves = [(node, part) for node, part in zip(nodes, parts, strict=True) if node.leaf]
    cuts = [i for i in range(1, len(leaves)) if leaves[i][0].start != leaves[i - 1][0].start + leaves[i - 1][0].chunks]
    out = []
    for start, stop in zip([0, *cuts], [*cuts, len(leaves)], strict=True):
        if start < stop:
            out.append(_Run([node for node, _ in leaves[start:stop]], [part for _, part in leaves[start:stop]]))
    return out


def _joined_pairs(nodes: list[Node], parts: list[memoryview]) -> Iterator[Pairs]:
    """The outboard's pairs among the items, consecutive ones joined."""
    first, joined = 0, bytearray()
    for node, part in zip(nodes, parts, strict=False):
        if node.leaf or node.number == INSIDE:
            continue
        if joined and node.number != first + len(joined) // PAIR:
            yield Pairs(first, bytes(joined))
            joined.clear()
        if not joined:
            first = node.number
        joined += part
    if joined:
        yield Pairs(first, bytes(joined))


def _parent_values(pairs: list[memoryview]) -> Iterator[bytes]:
    if pairs:
        yield from parent_values(b"".join(pairs))
