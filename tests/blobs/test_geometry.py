from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.blobs.geometry import chunk_count, group_count, left_leaves, outboard_size, walk


@pytest.mark.parametrize(
    ("size", "outboard"), [(0, 0), (1, 0), (16384, 0), (16385, 64), (1 << 20, 4032), (1 << 30, 4194240)]
)
def test_outboard_sizes_of_the_reference(size: int, outboard: int) -> None:
    assert outboard_size(size) == outboard


@given(st.integers(2, 1 << 54))
def test_left_is_the_largest_power_of_two_below(leaves: int) -> None:
    left = left_leaves(leaves)
    assert left & (left - 1) == 0
    assert left < leaves <= 2 * left


@given(st.integers(0, (1 << 64) - 1))
def test_counts(size: int) -> None:
    assert max(1, size) <= chunk_count(size) * 1024 < max(1, size) + 1024
    assert group_count(size) == -(-chunk_count(size) // 16)


@given(st.integers(1, 600))
def test_walk_is_pre_order_and_places_follow(groups: int) -> None:
    nodes = list(walk(groups))
    assert [start for start, count in nodes if count == 1] == list(range(groups))
    inner = [node for node in nodes if node[1] > 1]
    places = {node: at for at, node in enumerate(inner)}
    assert len(inner) == groups - 1
    for start, count in inner:
        left = left_leaves(count)
        if left > 1:
            assert places[start, left] == places[start, count] + 1
        if count - left > 1:
            assert places[start + left, count - left] == places[start, count] + left
