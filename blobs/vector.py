"""BLAKE3's tree over many chunks at once, in numpy: what the `blake3` package does not give, chaining values.

The same compression as in `reference`, on *lanes*: the state is kept as four arrays of four rows and one column per
lane, so that the four column mixes of a round are one mix of whole arrays. For the diagonal mixes the rows of three
of the arrays have to turn; each lies in a buffer with room for its first rows once more behind its last, and the
turned array is a window that starts lower in the same buffer. All work is in place, in buffers of one tile: 1024
lanes, 1 MiB of input, which stay in the processor's cache.

A chaining value is a row of eight words, dtype ``<u4``; ``tobytes()`` of it is the value's 32 bytes.
"""

from __future__ import annotations

import threading
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .geometry import CHUNK
from .reference import BLOCK, CHUNK_END, CHUNK_START, IV, PARENT, PERMUTATION, ROOT, ROUNDS, chunk_cv, parent_cv

__all__ = ["Words", "chunk_cvs", "joined_parents", "pair_up", "parent_cvs", "subtree_cvs"]

Words: TypeAlias = npt.NDArray[np.uint32]

WORD = np.dtype("<u4")
TILE = 1024  # lanes of one pass
FEW = 3  # parents: below this one scalar compression each is quicker than the fixed cost of a pass
BLOCKS = CHUNK // BLOCK


def _schedule() -> list[npt.NDArray[np.intp]]:
    """For each round, the message words in the order of use: x and y of the columns, x and y of the diagonals."""
    order, out = list(range(16)), []
    for _ in range(ROUNDS):
        out.append(np.array(order[0:8:2] + order[1:8:2] + order[8:16:2] + order[9:16:2]))
        order = [order[i] for i in PERMUTATION]
    return out


_SCHEDULE = _schedule()
_IV = np.array(IV, dtype=WORD)
_SHIFTS = {by: (np.array(by, dtype=WORD), np.array(32 - by, dtype=WORD)) for by in (16, 12, 8, 7)}


class _Lanes:
    """The buffers of one tile and the compression in them. One per thread: they are scratch, never results."""

    def __init__(self, lanes: int) -> None:
        self.a = np.empty((4, lanes), dtype=WORD)
        self.b = np.empty((5, lanes), dtype=WORD)
        self.c = np.empty((6, lanes), dtype=WORD)
        self.d = np.empty((7, lanes), dtype=WORD)
        self.spare = np.empty((4, lanes), dtype=WORD)
        self.message = np.empty((16, lanes), dtype=WORD)
        self.ordered = np.empty((16, lanes), dtype=WORD)
        self.cv = np.empty((8, lanes), dtype=WORD)
        m = self.ordered
        self._columns = (self.a, self.b[:4], self.c[:4], self.d[:4], m[0:4], m[4:8])
        self._diagonals = (self.a, self.b[1:], self.c[2:], self.d[3:], m[8:12], m[12:16])

    def _mix(self, a: Words, b: Words, c: Words, d: Words, x: Words, y: Words) -> None:
        for word, turn_d, turn_b in ((x, 16, 12), (y, 8, 7)):
            np.add(a, b, out=a)
            np.add(a, word, out=a)
            np.bitwise_xor(d, a, out=d)
            self._rotate(d, turn_d)
            np.add(c, d, out=c)
            np.bitwise_xor(b, c, out=b)
            self._rotate(b, turn_b)

    def _rotate(self, x: Words, by: int) -> None:
        right, left = _SHIFTS[by]
        np.left_shift(x, left, out=self.spare)
        np.right_shift(x, right, out=x)
        np.bitwise_or(x, self.spare, out=x)

    def compress(self, low: Words | int, high: Words | int, flags: int) -> None:
        """``cv`` := compression of ``cv`` and ``message`` (64 bytes a lane); low and high are the counter's words."""
        a, b, c, d = self.a, self.b, self.c, self.d
        a[:], b[:4] = self.cv[:4], self.cv[4:]
        c[:4] = _IV[:4, None]
        d[0], d[1], d[2], d[3] = low, high, BLOCK, flags
        for order in _SCHEDULE:
            np.take(self.message, order, axis=0, out=self.ordered, mode="clip")  # "raise" would buffer
            self._mix(*self._columns)
            b[4], c[4:], d[4:] = b[0], c[:2], d[:3]
            self._mix(*self._diagonals)
            b[0], c[:2], d[:3] = b[4], c[4:], d[4:]
        np.bitwise_xor(a, c[:4], out=self.cv[:4])
        np.bitwise_xor(b[:4], d[:4], out=self.cv[4:])


_local = threading.local()


def _lanes(count: int) -> _Lanes:
    """This thread's buffers for ``count`` lanes; only the full tile's are kept."""
    if count != TILE:
        return _Lanes(count)
    kept: _Lanes | None = getattr(_local, "lanes", None)
    if kept is None:
        kept = _local.lanes = _Lanes(TILE)
    return kept


def chunk_cvs(data: bytes | bytearray | memoryview, first_chunk: int) -> Words:
    """Chaining values, shape (chunks, 8), of the consecutive chunks in ``data``; only the last may be short."""
    whole = len(data) // CHUNK
    tail = memoryview(data)[whole * CHUNK :]
    out = np.empty((whole + (1 if len(tail) else 0), 8), dtype=WORD)
    blocks = np.frombuffer(data, dtype=WORD, count=whole * CHUNK // 4).reshape(whole, BLOCKS, 16)
    for at in range(0, whole, TILE):
        count = min(TILE, whole - at)
        lanes = _lanes(count)
        counter = np.arange(first_chunk + at, first_chunk + at + count, dtype=np.uint64)
        low, high = counter.astype(WORD), (counter >> np.uint64(32)).astype(WORD)
        lanes.cv[:] = _IV[:, None]
        for number in range(BLOCKS):
            lanes.message[:] = blocks[at : at + count, number].T
            flags = (CHUNK_START if number == 0 else 0) | (CHUNK_END if number == BLOCKS - 1 else 0)
            lanes.compress(low, high, flags)
        out[at : at + count] = lanes.cv.T
    if len(tail):
        out[whole] = np.frombuffer(chunk_cv(bytes(tail), first_chunk + whole), dtype=WORD)
    return out


def parent_cvs(pairs: Words, *, root: bool = False) -> Words:
    """Chaining values, shape (n, 8), of the nodes whose children's are the rows of ``pairs``, shape (n, 16)."""
    out = np.empty((len(pairs), 8), dtype=WORD)
    if len(pairs) < FEW:
        for i, pair in enumerate(pairs):
            cv = parent_cv(pair[:8].tobytes(), pair[8:].tobytes(), root=root)
            out[i] = np.frombuffer(cv, dtype=WORD)
        return out
    for at in range(0, len(pairs), TILE):
        count = min(TILE, len(pairs) - at)
        lanes = _lanes(count)
        lanes.cv[:] = _IV[:, None]
        lanes.message[:] = pairs[at : at + count].T
        lanes.compress(0, 0, PARENT | (ROOT if root else 0))
        out[at : at + count] = lanes.cv.T
    return out


def pair_up(cvs: Words) -> Words:
    """One level up: neighbours become parents, an odd last one stays as it is. Shape (n, 8) to (ceil(n / 2), 8).

    Repeated from any perfect alignment this is the left-full tree: a subtree's odd end waits for its sibling.
    """
    even = len(cvs) & ~1
    parents = parent_cvs(np.ascontiguousarray(cvs[:even]).reshape(-1, 16))
    return parents if even == len(cvs) else np.concatenate([parents, cvs[even:]])


def subtree_cvs(data: bytes | bytearray | memoryview, first_chunk: int, chunks: int) -> Words:
    """Chaining values, shape (n, 8), of the consecutive subtrees of ``chunks`` chunks, a power of two, in ``data``.

    Only the last may be short. ``first_chunk`` is a multiple of ``chunks``.
    """
    cvs = chunk_cvs(data, first_chunk)
    while chunks > 1 and len(cvs) > 1:
        cvs = pair_up(cvs)
        chunks //= 2
    return cvs


def joined_parents(pairs: bytes | bytearray | memoryview) -> Words:
    """`parent_cvs` of pairs of 64 bytes each."""
    return parent_cvs(np.frombuffer(pairs, dtype=WORD).reshape(-1, 16))
