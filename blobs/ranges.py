"""Which chunks of which blobs: `ChunkRanges` and `ChunkRangesSeq` (``reference/iroh-protocols.md`` 3.3).

A set of chunks is its sorted boundaries, where selected and not selected take turns, beginning with not selected
before the first; an odd number of them leaves the end open. On the wire the boundaries are the widths between them.
A sequence gives such a set for the root blob (index 0) and for each child of it (index i is child i - 1).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..transport.errors import DecodeError
from ..transport.postcard import U64, Reader, Writer

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

    def contains(self, start: int, stop: int) -> bool:
        """Whether all chunks from ``start`` up to ``stop`` are in the set."""
        at = bisect_right(self.boundaries, start)
        return at % 2 == 1 and (at == len(self.boundaries) or stop <= self.boundaries[at])

    def intersects(self, start: int, stop: int) -> bool:
        """Whether any chunk from ``start`` up to ``stop`` is in the set."""
        at = bisect_right(self.boundaries, start)
        return at % 2 == 1 or (at < len(self.boundaries) and self.boundaries[at] < stop)

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
