from __future__ import annotations

import blake3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.blobs import vector
from tidings.blobs.reference import chunk_cv, parent_cv, tree_cv
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


@pytest.mark.parametrize("size", [1, 1024, 1025, 16384, 16385, 40_000])
def test_group_cvs_with_a_ragged_tail(size: int) -> None:
    data = pattern(size)
    expected = [tree_cv(data[at : at + 16384], 32 + at // 1024) for at in range(0, size, 16384)]
    assert [cv.tobytes() for cv in vector.group_cvs(data, 32)] == expected


def test_more_chunks_than_one_tile() -> None:
    data = pattern((vector.TILE + 5) * 1024 + 1)
    cvs = vector.chunk_cvs(memoryview(data), 0)
    while len(cvs) > 2:
        cvs = vector.pair_up(cvs)
    assert parent_cv(cvs[0].tobytes(), cvs[1].tobytes(), root=True) == blake3.blake3(data).digest()


def test_values_are_the_same_as_bytes() -> None:
    data = pattern(40_000)
    groups = [cv.tobytes() for cv in vector.group_cvs(data, 16)]
    assert vector.group_values(data, 16) == groups
    assert vector.parent_values(groups[0] + groups[1]) == [parent_cv(groups[0], groups[1])]
    assert vector.subtree_value(data, 16) == tree_cv(data, 16)
