"""Responses and outboards by plain recursion over the scalar reference: what the tests hold the fast code to."""

from __future__ import annotations

from tidings.blobs.reference import parent_cv, tree_cv

GROUP = 16384


def pattern(size: int) -> bytes:
    """Bytes i mod 251, as in the vectors of the reference."""
    return bytes(i % 251 for i in range(251)) * (size // 251) + bytes(range(size % 251))


def outboard(data: bytes) -> tuple[bytes, bytes]:
    """(root hash, pre-order outboard)."""
    if len(data) <= GROUP:
        return tree_cv(data, root=True), b""

    def walk(start: int, data: bytes) -> tuple[bytes, bytes, bytes]:
        if len(data) <= GROUP:
            return tree_cv(data, start // 1024), b"", b""
        groups = -(-len(data) // GROUP)
        half = GROUP * (1 << (groups - 1).bit_length() - 1)
        left, left_pair, left_rest = walk(start, data[:half])
        right, right_pair, right_rest = walk(start + half, data[half:])
        return parent_cv(left, right), left + right, left_pair + left_rest + right_pair + right_rest

    _, pair, rest = walk(0, data)
    return parent_cv(pair[:32], pair[32:], root=True), pair + rest


def response(data: bytes) -> bytes:
    """The answer to a request for the whole blob."""
    pairs = memoryview(outboard(data)[1])

    def walk(data: bytes) -> bytes:
        nonlocal pairs
        if len(data) <= GROUP:
            return data
        groups = -(-len(data) // GROUP)
        half = GROUP * (1 << (groups - 1).bit_length() - 1)
        pair, pairs = bytes(pairs[:64]), pairs[64:]
        return pair + walk(data[:half]) + walk(data[half:])

    return len(data).to_bytes(8, "little") + walk(data)
