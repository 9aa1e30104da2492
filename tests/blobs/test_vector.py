from __future__ import annotations

import blake3
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.blobs import vector
from tidings.blobs.reference import chunk_cv, parent_cv
from tree import pattern


@settings(max_examples=15, deadline=None)
@given(st.binary(min_size=1, max_size=5000), st.integers(0, (1 << 54) - 8))
def test_chunk_cvs_are_the_references(data: bytes, first: int) -> None:
    cvs = vector.chunk_cvs(data, first)
    expected = [chunk_cv(data[at : at + 1024], first + at // 1024) for at in range(0, len(data), 1024)]
    assert [cv.tobytes() for cv in cvs] == expected


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9), st.randoms(use_true_random=False), st.booleans())
def test_parent_cvs_are_the_references(count: int, random: object, root: bool) -> None:
    data = random.randbytes(64 * count)  # type: ignore[attr-defined]
    pairs = np.frombuffer(data, dtype=vector.WORD).reshape(count, 16)
    expected = [parent_cv(data[at : at + 32], data[at + 32 : at + 64], root=root) for at in range(0, len(data), 64)]
    assert [cv.tobytes() for cv in vector.parent_cvs(pairs, root=root)] == expected


def test_more_chunks_than_one_tile() -> None:
    data = pattern((vector.TILE + 5) * 1024 + 1)
    cvs = vector.chunk_cvs(memoryview(data), 0)
    while len(cvs) > 2:
        cvs = vector.pair_up(cvs)
    assert parent_cv(cvs[0].tobytes(), cvs[1].tobytes(), root=True) == blake3.blake3(data).digest()
