"""BLAKE3 one compression at a time: the oracle that the fast tree is held to, and its ragged ends.

Follows the BLAKE3 paper ("BLAKE3: one function, fast everywhere", O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020):
2.2 the compression function, 2.4 chunk chaining values, 2.5 parents, 2.6 the root. Plain hashing only: no key, no
derivation, 32 bytes of output. A chaining value here is 32 bytes, eight little-endian words.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .geometry import CHUNK, chunk_count, left_leaves

__all__ = ["CHUNK_END", "CHUNK_START", "IV", "PARENT", "PERMUTATION", "ROOT", "chunk_cv", "parent_cv", "tree_cv"]

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8  # flags, table 3
ROUNDS = 7
BLOCK = 64
_WORD = 0xFFFF_FFFF
_WORDS = struct.Struct("<16I")
_CV = struct.Struct("<8I")


def _mix(v: list[int], a: int, b: int, c: int, d: int, x: int, y: int) -> None:
    """The quarter round G of 2.2: add, xor, rotate right by 16, 12, 8, 7."""
    v[a] = (v[a] + v[b] + x) & _WORD
    t = v[d] ^ v[a]
    v[d] = (t >> 16 | t << 16) & _WORD
    v[c] = (v[c] + v[d]) & _WORD
    t = v[b] ^ v[c]
    v[b] = (t >> 12 | t << 20) & _WORD
    v[a] = (v[a] + v[b] + y) & _WORD
    t = v[d] ^ v[a]
    v[d] = (t >> 8 | t << 24) & _WORD
    v[c] = (v[c] + v[d]) & _WORD
    t = v[b] ^ v[c]
    v[b] = (t >> 7 | t << 25) & _WORD


def _compress(cv: Sequence[int], block: Sequence[int], counter: int, length: int, flags: int) -> list[int]:
    """The first eight words of the compression of one block of sixteen words."""
    v = [*cv, *IV[:4], counter & _WORD, counter >> 32, length, flags]
    m = list(block)
    for round in range(ROUNDS):
        if round:
            m = [m[i] for i in PERMUTATION]
        _mix(v, 0, 4, 8, 12, m[0], m[1])
        _mix(v, 1, 5, 9, 13, m[2], m[3])
        _mix(v, 2, 6, 10, 14, m[4], m[5])
        _mix(v, 3, 7, 11, 15, m[6], m[7])
        _mix(v, 0, 5, 10, 15, m[8], m[9])
        _mix(v, 1, 6, 11, 12, m[10], m[11])
        _mix(v, 2, 7, 8, 13, m[12], m[13])
        _mix(v, 3, 4, 9, 14, m[14], m[15])
    return [v[i] ^ v[i + 8] for i in range(8)]


def chunk_cv(data: bytes, index: int, *, root: bool = False) -> bytes:
    """The chaining value of chunk number ``index``: at most 1024 bytes, fewer only in a blob's last chunk."""
    cv: Sequence[int] = IV
    last = max(0, len(data) - 1) // BLOCK
    for number in range(last + 1):
        block = data[number * BLOCK : (number + 1) * BLOCK]
        flags = (CHUNK_START if number == 0 else 0) | (CHUNK_END | (ROOT if root else 0) if number == last else 0)
        cv = _compress(cv, _WORDS.unpack(block.ljust(BLOCK, b"\0")), index, len(block), flags)
    return _CV.pack(*cv)


def parent_cv(left: bytes, right: bytes, *, root: bool = False) -> bytes:
    """The chaining value of the node over two chaining values."""
    return _CV.pack(*_compress(IV, _WORDS.unpack(left + right), 0, BLOCK, PARENT | (ROOT if root else 0)))


def tree_cv(data: bytes, first_chunk: int = 0, *, root: bool = False) -> bytes:
    """The chaining value of a whole subtree whose bytes are ``data``; with ``root`` from chunk 0, the hash itself."""
    chunks = chunk_count(len(data))
    if chunks == 1:
        return chunk_cv(data, first_chunk, root=root)
    left = left_leaves(chunks)
    return parent_cv(
        tree_cv(data[: left * CHUNK], first_chunk),
        tree_cv(data[left * CHUNK :], first_chunk + left),
        root=root,
    )
