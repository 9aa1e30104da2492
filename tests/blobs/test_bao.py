from __future__ import annotations

import tracemalloc
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.blobs import Hash, HashMismatch, TooLarge, Truncated
from tidings.blobs.bao import Decoder, Leaf, Pairs, encode, response_size
from tidings.blobs.ranges import ChunkRanges
from tree import outboard, pattern, response

GROUP = 16384


@lru_cache
def blob(size: int) -> tuple[bytes, Hash, bytes]:
    data = pattern(size)
    root, pairs = outboard(data)
    return data, Hash(root), pairs


def encoded(size: int, ranges: ChunkRanges) -> bytes:
    data, _, pairs = blob(size)
    return b"".join(encode(size, ranges, lambda o, n: data[o : o + n], lambda o, n: pairs[o : o + n]))


def drained(decoder: Decoder, *pieces: bytes) -> tuple[dict[int, bytes], dict[int, bytes], Exception | None]:
    """What came out by offset and by index, and the error that ended it."""
    leaves: dict[int, bytes] = {}
    pairs: dict[int, bytes] = {}
    try:
        for piece in pieces:
            for item in decoder.feed(piece):
                if isinstance(item, Leaf):
                    leaves[item.offset] = item.data
                else:
                    pairs[item.index] = item.data
        decoder.end()
    except (HashMismatch, TooLarge, Truncated) as error:
        return leaves, pairs, error
    return leaves, pairs, None


def all_right(size: int, leaves: dict[int, bytes], pairs: dict[int, bytes]) -> bool:
    data, _, outboard = blob(size)
    return all(data[at : at + len(leaf)] == leaf for at, leaf in leaves.items()) and all(
        outboard[at * 64 : at * 64 + len(pair)] == pair for at, pair in pairs.items()
    )


def test_vector_of_a_partial_group() -> None:
    size, (data, hash, _) = 4096, blob(4096)
    assert str(hash) == "015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969"
    expected = bytes.fromhex(
        "0010000000000000"
        "811f7d4f1735258e27c68b9214ff7c4aac866d47f73deef1fd8908b5e38f804f"
        "0442fb717e48cfb822322404f01bed7f13e2ed168408f1b5e6307b3c1b7a1ab7"
        "5c9e654411e393d1f4bec710ccd5bc5669ab177d610a0eb691fcfee92fb4e8b1"
        "5b1f23b8390368a2c15095910389d1b716eb52a6dfd34d0aa66a22a21b761ca7"
    )
    assert encoded(size, ChunkRanges((1, 2))) == expected + data[1024:2048]
    assert drained(Decoder(hash, ChunkRanges((1, 2))), expected + data[1024:2048])[0] == {1024: data[1024:2048]}


@pytest.mark.parametrize(
    ("size", "answer"),
    [
        (0, 8),
        (1, 9),
        (1024, 1032),
        (16384, 16392),
        (16385, 16457),
        (1 << 20, 1052616),
        (8 << 20, 8421320),
        (1 << 30, 1077936072),
    ],
)
def test_response_sizes(size: int, answer: int) -> None:
    assert response_size(size) == answer


@pytest.mark.parametrize("size", [0, 1, 1024, GROUP, GROUP + 1, 5 * GROUP - 7, 8 * GROUP])
def test_whole_blobs(size: int) -> None:
    data, hash, pairs = blob(size)
    answer = response(data)
    assert encoded(size, ChunkRanges.ALL) == answer
    assert len(answer) == response_size(size)
    decoder = Decoder(hash)
    leaves, parents, error = drained(decoder, answer)
    assert error is None
    assert decoder.size == size
    assert decoder.finished
    assert leaves == {0: data}
    assert parents == ({0: pairs} if pairs else {})


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [
            0,
            1,
            1500,
            GROUP,
            GROUP + 1,
            4 * GROUP + 3000,
            7 * GROUP,
            8 * GROUP,
            8 * GROUP + 1,
            16 * GROUP,
            27 * GROUP + 1,
        ]
    ),
    st.sets(st.one_of(st.integers(0, 120), st.integers(0, 450), st.just((1 << 64) - 1)), max_size=6),
    st.lists(st.one_of(st.integers(0, 150_000), st.integers(0, 450_000)), max_size=5),
)
def test_any_ranges_cut_anywhere(size: int, boundaries: set[int], cuts: list[int]) -> None:
    ranges = ChunkRanges(tuple(sorted(boundaries)))
    _, hash, _ = blob(size)
    answer = encoded(size, ranges)
    cuts = sorted(cuts)
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    leaves, pairs, error = drained(Decoder(hash, ranges), *pieces)
    assert error is None
    assert all_right(size, leaves, pairs)
    got = {chunk for at, leaf in leaves.items() for chunk in range(at // 1024, max(1, at + len(leaf) + 1023) // 1024)}
    chunks = max(1, -(-size // 1024))
    cut = ranges.truncated(chunks)
    assert got >= {chunk for chunk in range(chunks) if size and cut.contains(chunk, chunk + 1)}
    assert sum(map(len, leaves.values())) == sum(
        min(1024, size - chunk * 1024) for chunk in range(chunks) if size and cut.contains(chunk, chunk + 1)
    )


@pytest.mark.parametrize("size", [2 * GROUP + 1500, 17 * GROUP + 1500])
@settings(max_examples=40, deadline=None)
@given(st.floats(0, 0.999_999), st.integers(1, 255))
def test_a_changed_byte_never_gives_wrong_data(size: int, at: float, change: int) -> None:
    data, hash, _ = blob(size)
    answer = bytearray(response(data))
    place = int(at * len(answer))
    answer[place] ^= change
    leaves, pairs, error = drained(Decoder(hash), bytes(answer))
    assert isinstance(error, HashMismatch | Truncated)
    assert all_right(size, leaves, pairs)
    assert sum(map(len, leaves.values())) < size


@pytest.mark.parametrize("size", [0, 1, 70])
def test_each_byte_of_a_small_response_counts(size: int) -> None:
    data, hash, _ = blob(size)
    answer = response(data)
    for at in range(len(answer)):
        changed = bytearray(answer)
        changed[at] ^= 1
        leaves, _, error = drained(Decoder(hash), bytes(changed))
        assert isinstance(error, HashMismatch | Truncated)
        assert not leaves


@pytest.mark.parametrize("stop", [0, 7, 8, 71, 72, 8 + 64 + 64 + GROUP, response_size(3 * GROUP) - 1])
def test_truncated(stop: int) -> None:
    data, hash, _ = blob(3 * GROUP)
    leaves, pairs, error = drained(Decoder(hash), response(data)[:stop])
    assert isinstance(error, Truncated)
    assert all_right(3 * GROUP, leaves, pairs)


def test_bytes_after_the_end() -> None:
    data, hash, _ = blob(1)
    assert isinstance(drained(Decoder(hash), response(data) + b"!")[2], HashMismatch)


@pytest.mark.parametrize("claim", [0, 1, 2 * GROUP, 2 * GROUP + 2, 4 * GROUP, 1 << 40, 1 << 63, (1 << 64) - 1])
def test_sizes_that_lie_cost_nothing(claim: int) -> None:
    size = 2 * GROUP + 1
    data, hash, _ = blob(size)
    answer = claim.to_bytes(8, "little") + response(data)[8:]
    tracemalloc.start()
    leaves, _, error = drained(Decoder(hash), answer)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(error, HashMismatch | Truncated)
    assert all_right(size, leaves, {})
    assert peak < 4 << 20


def test_a_size_above_the_limit_is_refused_at_once() -> None:
    _, hash, _ = blob(1)
    with pytest.raises(TooLarge, match="limit is 10"):
        list(Decoder(hash, max_size=10).feed((11).to_bytes(8, "little")))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 3 * GROUP))
def test_random_bytes_give_nothing(noise: bytes, claim: int) -> None:
    leaves, pairs, error = drained(Decoder(Hash.of(b"hello")), claim.to_bytes(8, "little") + noise)
    assert isinstance(error, HashMismatch | Truncated)
    assert not leaves
    assert not pairs


def test_what_was_right_before_the_fault_is_handed_out() -> None:
    size = 8 * GROUP
    data, hash, _ = blob(size)
    answer = bytearray(response(data))
    answer[-1] ^= 1
    leaves, pairs, error = drained(Decoder(hash, peer="ab" * 32), bytes(answer))
    assert isinstance(error, HashMismatch)
    assert error.peer == "ab" * 32
    assert leaves == {0: data[: 7 * GROUP]}
    assert isinstance(next(iter(pairs.values())), bytes)
    assert Pairs(0, pairs[0]).data == blob(size)[2]
