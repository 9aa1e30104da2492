"""Which groups of a stored blob are what its hash says, found from the data and the outboard alone.

What is on the disk proves itself: the hash proves the pair at the top of the outboard, each pair the two below it,
and the lowest the groups. So neither a crash nor a failing disk can make anything wrong pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from .bao import ReadAt
from .errors import BlobDamaged
from .geometry import CHUNK, GROUP_CHUNKS, PAIR, chunk_count, group_count, left_leaves
from .hash import Hash
from .ranges import ChunkRanges
from .reference import parent_cv
from .tree import CV, subtree_value

__all__ = ["check_groups"]

BATCH = 64  # groups that are read and hashed in one go


def check_groups(
    hash: Hash, size: int, wanted: ChunkRanges, data: ReadAt, outboard: ReadAt
) -> Iterator[tuple[int, int, bool]]:
    """Look at the groups of ``wanted``, which holds whole groups: (first chunk, stop, whether they are sound).

    In rising order; a step reads at most 1 MiB. The readers raise `BlobDamaged` for what is not there.
    """
    chunks = chunk_count(size)
    stack = [(0, group_count(size), 0, bytes(hash), True)]
    while stack:
        first, count, index, expected, top = stack.pop()
        start, stop = first * GROUP_CHUNKS, min((first + count) * GROUP_CHUNKS, chunks)
        if not wanted.intersects(start, stop):
            continue
        together = count <= BATCH and wanted.contains(start, stop)
        if together and _value(_read(data, start * CHUNK, min(stop * CHUNK, size)), start, top) == expected:
            yield start, stop, True
            continue
        if count == 1:
            yield start, stop, False
            continue
        pair = _read(outboard, index * PAIR, (index + 1) * PAIR)
        if pair is None or parent_cv(pair[:CV], pair[CV:], root=top) != expected:
            yield start, stop, False
            continue
        left = left_leaves(count)
        stack.append((first + left, count - left, index + left, pair[CV:], False))
        stack.append((first, left, index + 1, pair[:CV], False))


def _read(source: ReadAt, start: int, stop: int) -> bytes | None:
    try:
        return source(start, stop - start)
    except BlobDamaged:
        return None


def _value(data: bytes | None, start: int, top: bool) -> bytes | None:
    if data is None:
        return None
    return bytes(Hash.of(data)) if top else subtree_value(data, start)
