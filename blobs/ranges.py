"""Which chunks of which blobs: `ChunkRanges` and `ChunkRangesSeq` (``reference/iroh-protocols.md`` 3.3).

A set of chunks is its sorted boundaries, where selected and not selected take turns, beginning with not selected
before the first; an odd number of them leaves the end open. On the wire the boundaries are the widths between them.
A sequence gives such a set for the root blob (index 0) and for each child of it (index i is child i - 1).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from typing import ClassVar

from ..transport.errors import DecodeError
from ..transport.postcard import U64, Reader, Writer
from .geometry import GROUP_CHUNKS

__all__ = ["ChunkRanges", "ChunkRangesSeq"]

MAX_WIDTHS = 1 << 20  # in one request, which is at most 1 MiB


@dataclass(frozen=True, slots=True)
class ChunkRanges:
    """A set of chunk numbers. ``boundaries`` are strictly increasing, from 0 to 2^64 - 1."""

    boundaries: tuple[int, ...]

    ALL: ClassVar[ChunkRanges]
    NONE: ClassVar[ChunkRanges]
    LAST: ClassVar[ChunkRanges]

    def __post_init__(self) -> None:
        pairs = zip(self.boundaries, self.boundaries[1:], strict=False)
        if any(a >= b for a, b in pairs) or (
            self.boundaries and not 0 <= self.boundaries[0] <= self.boundaries[-1] <= U64
        ):
            raise ValueError("boundaries increase strictly and are unsigned 64-bit integers")

    @classmethod
    def of(cls, start: int, stop: int | None = None) -> ChunkRanges:
        """Chunks ``start`` up to ``stop`` (excluded), or for ever."""
        return cls((start,) if stop is None else (start, stop))

    @classmethod
    def of_spans(cls, spans: Iterable[tuple[int, int]]) -> ChunkRanges:
        """All that is in one of ``spans``, (start, stop) each, which begin in rising order; empty ones are nothing."""
        out: list[int] = []
        for start, stop in spans:
            if start >= stop:
                continue
            if out and start <= out[-1]:
                out[-1] = max(out[-1], stop)
            else:
                out += (start, stop)
        return cls(tuple(out))

    def contains(self, start: int, stop: int) -> bool:
        """Whether all chunks from ``start`` up to ``stop`` are in the set."""
        at = bisect_right(self.boundaries, start)
        return at % 2 == 1 and (at == len(self.boundaries) or stop <= self.boundaries[at])

    def intersects(self, start: int, stop: int) -> bool:
        """Whether any chunk from ``start`` up to ``stop`` is in the set."""
        at = bisect_right(self.boundaries, start)
        return at % 2 == 1 or (at < len(self.boundaries) and self.boundaries[at] < stop)

    def __bool__(self) -> bool:
        return bool(self.boundaries)

    def __or__(self, other: ChunkRanges) -> ChunkRanges:
        return self._combine(other, lambda here, there: here or there)

    def __and__(self, other: ChunkRanges) -> ChunkRanges:
        return self._combine(other, lambda here, there: here and there)

    def __sub__(self, other: ChunkRanges) -> ChunkRanges:
        return self._combine(other, lambda here, there: here and not there)

    def __xor__(self, other: ChunkRanges) -> ChunkRanges:
        return self._combine(other, lambda here, there: here != there)

    def _combine(self, other: ChunkRanges, keep: Callable[[bool, bool], bool]) -> ChunkRanges:
        """The chunks for which ``keep(in self, in other)``; false outside of both."""
        out: list[int] = []
        here = there = within = False
        first = ((at, False) for at in self.boundaries)
        second = ((at, True) for at in other.boundaries)
        steps = list(merge(first, second))
        for number, (at, of_other) in enumerate(steps):
            if of_other:
                there = not there
            else:
                here = not here
            if number + 1 < len(steps) and steps[number + 1][0] == at:
                continue
            if keep(here, there) != within:
                within = not within
                out.append(at)
        return ChunkRanges(tuple(out))

    def spans(self, chunks: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of each run below ``chunks``, in rising order."""
        for at in range(0, len(self.boundaries), 2):
            stop = self.boundaries[at + 1] if at + 1 < len(self.boundaries) else chunks
            if self.boundaries[at] < chunks:
                yield self.boundaries[at], min(stop, chunks)

    def count(self, chunks: int) -> int:
        """How many of the first ``chunks`` chunks are in the set."""
        return sum(stop - start for start, stop in self.spans(chunks))

    def first(self, most: int, chunks: int) -> ChunkRanges:
        """Its first ``most`` chunks, of those below ``chunks``."""
        out: list[int] = []
        for start, stop in self.spans(chunks):
            if most <= 0:
                break
            out += (start, min(stop, start + most))
            most -= stop - start
        return ChunkRanges(tuple(out))

    def whole_groups(self, chunks: int) -> ChunkRanges:
        """The groups all of whose chunks are in the set, of a blob of ``chunks`` chunks."""
        return self.of_spans(
            (-(-start // GROUP_CHUNKS) * GROUP_CHUNKS, stop if stop == chunks else stop // GROUP_CHUNKS * GROUP_CHUNKS)
            for start, stop in self.spans(chunks)
        )

    def touched_groups(self, chunks: int) -> ChunkRanges:
        """The groups any of whose chunks are in the set, of a blob of ``chunks`` chunks."""
        return self.of_spans(
            (start // GROUP_CHUNKS * GROUP_CHUNKS, min(chunks, -(-stop // GROUP_CHUNKS) * GROUP_CHUNKS))
            for start, stop in self.spans(chunks)
        )

    def truncated(self, chunks: int) -> ChunkRanges:
        """The set for a blob of ``chunks`` chunks: whatever lies beyond its end selects its last chunk.

        Both sides must agree on this before either walks the tree.
        """
        if not self.intersects(chunks, U64 + 1):
            return self
        last = chunks - 1
        before = bisect_right(self.boundaries, last)
        if before % 2 == 1:  # the last chunk is selected already
            return ChunkRanges(self.boundaries[:before])
        if before and self.boundaries[before - 1] == last:  # a range ends just before it: they join
            return ChunkRanges(self.boundaries[: before - 1])
        return ChunkRanges((*self.boundaries[:before], last))

    def write(self, out: Writer) -> None:
        out.varint(len(self.boundaries))
        at = 0
        for boundary in self.boundaries:
            out.varint(boundary - at)
            at = boundary

    @classmethod
    def read(cls, data: Reader) -> ChunkRanges:
        """Widths of zero are taken as others take them: two ranges that touch are one."""
        boundaries: list[int] = []
        at = 0
        for number in range(data.count(MAX_WIDTHS)):
            width = data.varint()
            at += width
            if at > U64:
                raise DecodeError("a chunk range ends beyond 2^64")
            if number and not width:
                boundaries.pop()
            else:
                boundaries.append(at)
        return cls(tuple(boundaries))


ChunkRanges.ALL = ChunkRanges((0,))
ChunkRanges.NONE = ChunkRanges(())
ChunkRanges.LAST = ChunkRanges((U64,))  # the last chunk, whatever the size: proves the size


@dataclass(frozen=True, slots=True)
class ChunkRangesSeq:
    """(index, ranges) in rising order of index; each holds until the next, the last one for ever."""

    items: tuple[tuple[int, ChunkRanges], ...]

    EVERYTHING: ClassVar[ChunkRangesSeq]

    @classmethod
    def blob(cls, ranges: ChunkRanges = ChunkRanges.ALL) -> ChunkRangesSeq:
        """``ranges`` of the root blob, and nothing of children."""
        return cls(((0, ranges), (1, ChunkRanges.NONE)))

    @property
    def is_blob(self) -> bool:
        """Whether this asks for one blob alone, so that the root need not be a sequence of hashes."""
        return len(self.items) == 2 and self.items[0][0] == 0 and self.items[1] == (1, ChunkRanges.NONE)

    def wanted(self) -> Iterator[tuple[int, ChunkRanges]]:
        """(index, ranges) wherever something is selected, in rising order; endless if the last item selects."""
        for at, (index, ranges) in enumerate(self.items):
            if not ranges.boundaries:
                continue
            stop = self.items[at + 1][0] if at + 1 < len(self.items) else U64 + 1
            for child in range(index, stop):
                yield child, ranges

    def write(self, out: Writer) -> None:
        out.varint(len(self.items))
        at = 0
        for index, ranges in self.items:
            out.varint(index - at)
            ranges.write(out)
            at = index

    @classmethod
    def read(cls, data: Reader) -> ChunkRangesSeq:
        items: list[tuple[int, ChunkRanges]] = []
        at = 0
        for number in range(data.count(MAX_WIDTHS, each=2)):
            delta = data.varint()
            at += delta
            if at > U64 or (number and not delta):
                raise DecodeError("the indexes of a sequence of ranges do not rise")
            items.append((at, ChunkRanges.read(data)))
        return cls(tuple(items))


ChunkRangesSeq.EVERYTHING = ChunkRangesSeq(((0, ChunkRanges.ALL),))
