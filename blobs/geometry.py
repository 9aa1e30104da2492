"""The shape of a blob's hash tree, as integers alone (BLAKE3 paper 2.1; ``reference/iroh-protocols.md`` 3.1).

A blob is cut into *chunks* of 1 KiB, and sixteen chunks make a *group* of 16 KiB: the leaf that is stored, sent and
verified as one. An empty blob is one empty chunk. The left child of a node over n leaves holds the largest power of
two that is less than n; so every left subtree is perfect, and the same rule gives the same tree whether the leaves
are chunks or groups.

The *outboard* lists the tree's inner nodes above the groups in pre-order, each as the 64-byte pair of its children's
chaining values. Of a tree over g groups that starts at index i, the node itself is at i, its left child at i + 1, and
its right child behind the left subtree's left - 1 pairs, at i + left.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = [
    "CHUNK",
    "GROUP",
    "GROUP_CHUNKS",
    "PAIR",
    "chunk_count",
    "group_count",
    "left_leaves",
    "outboard_size",
    "walk",
]

CHUNK = 1024
GROUP_CHUNKS = 16
GROUP = CHUNK * GROUP_CHUNKS
PAIR = 64


def chunk_count(size: int) -> int:
    """Chunks of a blob of ``size`` bytes: at least one."""
    return max(1, -(-size // CHUNK))


def group_count(size: int) -> int:
    """Chunk groups of a blob of ``size`` bytes: at least one."""
    return max(1, -(-size // GROUP))


def left_leaves(leaves: int) -> int:
    """Leaves of the left child of a node over ``leaves`` > 1: the largest power of two below."""
    return 1 << (leaves - 1).bit_length() - 1


def outboard_size(size: int) -> int:
    """Bytes of the outboard of a blob of ``size`` bytes."""
    return (group_count(size) - 1) * PAIR


def walk(groups: int) -> Iterator[tuple[int, int]]:
    """Every node over ``groups`` groups in pre-order as (first group, groups); those over one group are the leaves.

    The nodes over more than one group come in the order of the outboard. Memory is the tree's depth.
    """
    stack = [(0, groups)]
    while stack:
        start, count = stack.pop()
        yield start, count
        if count > 1:
            left = left_leaves(count)
            stack.append((start + left, count - left))
            stack.append((start, left))
