from __future__ import annotations

import pytest
from tidings.blobs import Hash
from tidings.blobs.geometry import outboard_size
from tidings.blobs.outboard import build
from tree import outboard, pattern


def built(data: bytes) -> tuple[Hash, bytes]:
    out = bytearray(outboard_size(len(data)))
    read = 0

    def write(offset: int, piece: bytes) -> None:
        assert not any(out[offset : offset + len(piece)])
        out[offset : offset + len(piece)] = piece

    steps = build(len(data), write)
    offset, size = next(steps)
    while True:
        assert offset == read
        assert size <= 1 << 20
        read += size
        try:
            offset, size = steps.send(data[offset : offset + size])
        except StopIteration as end:
            assert read == len(data)
            return end.value, bytes(out)


def test_vector() -> None:
    hash, pairs = built(pattern(16385))
    assert str(hash) == "1dabe216be2578830263b049de1639f39f05a4da616b9b78c7a5e4e41662fd1f"
    assert pairs.hex() == (
        "5384f9b342c6cb86badedcbe662b0e980476a8db17db3cc1f13b19329749ab1f"
        "7eec20c857faf93c8102396e3b2ea90bcdf693ebd5cbd77211e5f606d72bc1a5"
    )


@pytest.mark.parametrize("size", [0, 1, 16384, 2 * 16384, 2 * 16384 + 1, 5 * 16384 + 100, 9 * 16384 - 1])
def test_equals_plain_recursion(size: int) -> None:
    root, pairs = outboard(pattern(size))
    assert built(pattern(size)) == (Hash(root), pairs)


@pytest.mark.parametrize("size", [(4 << 20), (4 << 20) + 1, (9 << 20) + 12345])
def test_batches_join_to_the_hash(size: int) -> None:
    data = pattern(size)
    hash, pairs = built(data)
    assert hash == Hash.of(data)
    assert len(pairs) == outboard_size(size)
    for at in range(0, len(pairs), 64):
        assert any(pairs[at : at + 64])
