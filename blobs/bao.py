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
from itertools import accumulate, islice

from .errors import HashMismatch, TooLarge, Truncated
from .geometry import CHUNK, GROUP_CHUNKS, PAIR, chunk_count, left_leaves, outboard_size
from .hash import Hash
from .plan import (
    BRANCH_BYTES,
    BRANCH_DATA,
    BRANCH_GROUPS,
    BRANCH_PAIRS,
    BRANCH_PARTS,
    INSIDE,
    Node,
    children_in_order,
    expand,
    plan,
)
from .ranges import ChunkRanges
from .reference import parent_cv
from .tree import group_values, parent_values, subtree_value

__all__ = ["Decoder", "Leaf", "Pairs", "ReadAt", "encode", "response_size"]

ReadAt = Callable[[int, int], bytes]
"""(offset, size) to exactly that many bytes."""

PIECE = 256 * 1024  # bytes of an encoder's piece: large enough for few wake-ups, small beside a send window
HEADER = struct.Struct("<Q")


def response_size(size: int) -> int:
    """Bytes of the response that carries a whole blob of ``size`` bytes."""
    return HEADER.size + size + outboard_size(size)


def encode(size: int, ranges: ChunkRanges, data: ReadAt, outboard: ReadAt) -> Iterator[bytes]:
    """The response in pieces of about 256 KiB. Reads as it goes; what the readers raise passes through."""
    out = [HEADER.pack(size)]
    length = 0
    for node in _readable(plan(size, ranges), out, data, outboard):
        if node.branch:
            pass  # it is there
        elif node.leaf:
            offset = node.start * CHUNK
            out.append(data(offset, min(node.chunks * CHUNK, size - offset)))
        elif node.number != INSIDE:
            out.append(outboard(node.number * PAIR, PAIR))
        else:
            out.append(_inner_pair(node, size, data))
        length += BRANCH_BYTES if node.branch else len(out[-1])
        if length >= PIECE:
            yield b"".join(out)
            out.clear()
            length = 0
    yield b"".join(out)


def _readable(nodes: Iterator[Node], out: list[bytes], data: ReadAt, outboard: ReadAt) -> Iterator[Node]:
    """The nodes; of a branch that can be read its bytes are put ``out``, else what it stands for follows."""
    for node in nodes:
        if not node.branch:
            yield node
            continue
        try:
            content = data(node.start * CHUNK, node.chunks * CHUNK)
            pairs = outboard(node.number * PAIR, (BRANCH_GROUPS - 1) * PAIR)
        except Exception:  # whatever it is, it comes again where it belongs
            yield from expand(node)
            continue
        out += [content[cut] if is_data else pairs[cut] for is_data, cut in BRANCH_PARTS]
        yield node


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
        self._expanded: list[Node] = []  # of a branch that had not come whole, what comes after ``_next``
        self._expected = [bytes(root)]  # of the nodes whose parents are verified; the next node's is on top

    def feed(self, data: bytes) -> Iterator[Leaf | Pairs]:
        """Yield what ``data`` completes: all pairs first, then leaves in rising order. Iterate it to its end.

        Raises `HashMismatch` after the last item that is right, `TooLarge` for a claim above ``max_size``, and
        `HashMismatch` for bytes after the end. Many groups at a time are many times cheaper than one.
        """
        data = self._rest + data if self._rest else data
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

    def take_back(self) -> bytes:
        """What it could make nothing of yet, to be fed again with what follows; or what came after the end."""
        rest, self._rest = self._rest, b""
        return rest

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

    def _expect(self, node: Node, pair: bytes) -> None:
        """The pair over ``node`` is right, so it says what its children must be, those of them that will come."""
        stop = node.start + node.chunks
        middle = node.start + left_leaves(node.chunks)
        if self._ranges.intersects(middle, stop):
            self._expected.append(pair[32:])
        if self._ranges.intersects(node.start, middle):
            self._expected.append(pair[:32])

    def _length(self, node: Node) -> int:
        assert self.size is not None
        if node.branch:
            return BRANCH_BYTES
        return min(node.chunks * CHUNK, self.size - node.start * CHUNK) if node.leaf else PAIR

    def _take(self, length: int) -> tuple[list[Node], list[int]]:
        """The items that are whole within so many bytes, and where each stops."""
        nodes: list[Node] = []
        stops: list[int] = []
        stop = 0
        while self._next is not None:
            stop += self._length(self._next)
            if stop > length:
                if nodes or not self._next.branch:
                    break  # the rest of a branch comes soon: it is taken apart only where nothing else is there
                stop -= BRANCH_BYTES
                self._expanded = list(expand(self._next))[::-1]
            else:
                nodes.append(self._next)
                stops.append(stop)
            self._next = self._expanded.pop() if self._expanded else next(self._plan, None)
        return nodes, stops

    def _verify(self, nodes: list[Node], stops: list[int], taken: memoryview) -> Iterator[Leaf | Pairs]:
        items = [_Item(node, taken[start:stop]) for node, start, stop in zip(nodes, [0, *stops], stops, strict=False)]
        runs = _runs(items)
        pair_values = _parent_values(items)
        leaf_values = (value for run in runs for value in run.values())
        before = self._expected.copy()
        good = 0
        for item in items:
            node = item.node
            root = node.start == 0 and self.size is not None and node.chunks == chunk_count(self.size)
            if node.branch:
                values = [*islice(pair_values, BRANCH_GROUPS - 1), *islice(leaf_values, BRANCH_GROUPS)]
                value = values[0] if b"".join(children_in_order(values)) == item.pairs else b""
            elif root and node.leaf:  # its chaining value exists only as the hash
                value = bytes(Hash.of(item.data[0]))
            elif root:
                next(pair_values)
                value = parent_cv(item.pairs[:32], item.pairs[32:], root=True)
            else:
                value = next(leaf_values if node.leaf else pair_values)
            if value != self._expected.pop():
                break
            if not node.leaf:
                self._expect(node, item.pairs)
            good += 1
        else:
            yield from _verified(items, runs, good)
            return
        if items[good].node.branch:  # something in it is wrong: what comes before is right
            self._expected = before
            yield from self._verify(*_apart(nodes, stops), taken)
            return
        yield from _verified(items, runs, good)
        raise HashMismatch(f"the bytes do not belong to blob {self._root.short()}", peer=self._peer)


class _Item:
    """A node with what came of it: pairs, or data, or of a branch both."""

    __slots__ = ("data", "node", "pairs")

    def __init__(self, node: Node, part: memoryview) -> None:
        self.node = node
        self.data: list[memoryview] = []
        self.pairs = b""
        if node.branch:
            self.data = [part[cut] for cut in BRANCH_DATA]
            self.pairs = b"".join([part[cut] for cut in BRANCH_PAIRS])
        elif node.leaf:
            self.data = [part]
        else:
            self.pairs = bytes(part)


def _apart(nodes: list[Node], stops: list[int]) -> tuple[list[Node], list[int]]:
    """The same without branches."""
    apart: list[Node] = []
    ends: list[int] = []
    for node, end in zip(nodes, stops, strict=True):
        if not node.branch:
            apart.append(node)
            ends.append(end)
            continue
        at = end - BRANCH_BYTES
        for part in expand(node):
            at += part.chunks * CHUNK if part.leaf else PAIR
            apart.append(part)
            ends.append(at)
    return apart, ends


def _verified(items: list[_Item], runs: list[_Run], good: int) -> Iterator[Leaf | Pairs]:
    yield from _joined_pairs(items[:good])
    leaves = sum(item.node.leaf for item in items[:good])
    for run in runs:
        if leaves:
            yield Leaf(run.start * CHUNK, run.head(leaves))
        leaves = max(0, leaves - len(run.nodes))


class _Run:
    """Leaves and branches that follow each other in the blob."""

    def __init__(self, items: list[_Item]) -> None:
        self.nodes = [item.node for item in items]
        self.start = self.nodes[0].start
        self._ends = list(accumulate(sum(map(len, item.data)) for item in items))
        self._data = b"".join([part for item in items for part in item.data])

    def values(self) -> Iterator[bytes]:
        """The chaining value of each group, or leaf. Only the last of a blob and leaves below a group are short."""
        if self.start % GROUP_CHUNKS == 0 and all(node.chunks % GROUP_CHUNKS == 0 for node in self.nodes[:-1]):
            yield from group_values(self._data, self.start)
            return
        starts = [0, *self._ends]
        for node, start, stop in zip(self.nodes, starts, self._ends, strict=False):
            if node.branch:
                yield from group_values(self._data[start:stop], node.start)
            else:
                yield subtree_value(self._data[start:stop], node.start)

    def head(self, leaves: int) -> bytes:
        """The bytes of the first ``leaves`` leaves."""
        return self._data if leaves >= len(self.nodes) else self._data[: self._ends[leaves - 1]]


def _runs(items: list[_Item]) -> list[_Run]:
    runs: list[list[_Item]] = []
    end = -1
    for item in items:
        if item.node.leaf:
            if item.node.start != end:
                runs.append([])
            runs[-1].append(item)
            end = item.node.start + item.node.chunks
    return [_Run(run) for run in runs]


def _joined_pairs(items: list[_Item]) -> Iterator[Pairs]:
    """The outboard's pairs among the items, consecutive ones joined."""
    first, joined = 0, bytearray()
    for item in items:
        if item.node.number == INSIDE:
            continue
        if joined and item.node.number != first + len(joined) // PAIR:
            yield Pairs(first, bytes(joined))
            joined.clear()
        if not joined:
            first = item.node.number
        joined += item.pairs
    if joined:
        yield Pairs(first, bytes(joined))


def _parent_values(items: list[_Item]) -> Iterator[bytes]:
    pairs = b"".join([item.pairs for item in items])
    if pairs:
        yield from parent_values(pairs)
