from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.blobs.ranges import ChunkRanges, ChunkRangesSeq
from tidings.transport.errors import DecodeError
from tidings.transport.postcard import U64, Reader, Writer

boundaries = st.sets(st.one_of(st.integers(0, 40), st.integers(0, U64)), max_size=8).map(lambda s: tuple(sorted(s)))
ranges = boundaries.map(ChunkRanges)
sequences = st.dictionaries(st.integers(0, 50), ranges, max_size=5).map(
    lambda d: ChunkRangesSeq(tuple(sorted(d.items())))
)


def encoded(value: ChunkRanges | ChunkRangesSeq) -> bytes:
    out = Writer()
    value.write(out)
    return out.finish()


@pytest.mark.parametrize(
    ("value", "hex"),
    [
        ((), "00"),
        ((0,), "0100"),
        ((64,), "0140"),
        ((10000,), "01904e"),
        ((0, 64), "020040"),
        ((1, 3, 9, 13), "0401020604"),
        ((U64,), "01ffffffffffffffffff01"),
    ],
)
def test_range_spec_vectors(value: tuple[int, ...], hex: str) -> None:
    assert encoded(ChunkRanges(value)).hex() == hex
    assert ChunkRanges.read(Reader(bytes.fromhex(hex))) == ChunkRanges(value)


@pytest.mark.parametrize(
    ("items", "hex"),
    [
        ((), "00"),
        (((0, (0,)),), "01000100"),
        (((0, (0,)), (1, ())), "020001000100"),
        (((0, (1, 3)), (1, (7, 13)), (2, ())), "03000201020102070601 00"),
        (((3, (7,)), (4, (0,))), "02 03 0107 01 0100"),
    ],
)
def test_sequence_vectors(items: tuple[tuple[int, tuple[int, ...]], ...], hex: str) -> None:
    sequence = ChunkRangesSeq(tuple((index, ChunkRanges(value)) for index, value in items))
    assert encoded(sequence) == bytes.fromhex(hex)
    assert ChunkRangesSeq.read(Reader(bytes.fromhex(hex))) == sequence


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((0, 6), {0, 1, 2, 3, 4, 5}),
        ((0, 7), {0, 1, 2, 3, 4, 5, 6}),
        ((3, 6, 7, 10), {3, 4, 5, 6}),
        ((0, 5, 7, 10), {0, 1, 2, 3, 4, 6}),
        ((U64,), {6}),
        ((), set()),
    ],
)
def test_truncation_to_seven_chunks(before: tuple[int, ...], after: set[int]) -> None:
    cut = ChunkRanges(before).truncated(7)
    assert {chunk for chunk in range(7) if cut.contains(chunk, chunk + 1)} == after


@given(ranges, st.integers(1, 30))
def test_truncation_is_what_is_inside_and_the_last_for_what_is_beyond(value: ChunkRanges, chunks: int) -> None:
    cut = value.truncated(chunks)
    for chunk in range(chunks):
        beyond = chunk == chunks - 1 and value.intersects(chunks, U64 + 1)
        assert cut.contains(chunk, chunk + 1) == (value.contains(chunk, chunk + 1) or beyond)


@given(ranges, st.integers(0, 45), st.integers(1, 45))
def test_contains_and_intersects(value: ChunkRanges, start: int, length: int) -> None:
    inside = [value.contains(chunk, chunk + 1) for chunk in range(start, start + length)]
    assert value.contains(start, start + length) == all(inside)
    assert value.intersects(start, start + length) == any(inside)


@given(ranges)
def test_range_round_trip(value: ChunkRanges) -> None:
    assert ChunkRanges.read(Reader(encoded(value))) == value


@given(sequences)
def test_sequence_round_trip(value: ChunkRangesSeq) -> None:
    assert ChunkRangesSeq.read(Reader(encoded(value))) == value


@given(st.binary(max_size=60))
def test_any_bytes_give_a_sequence_or_a_decode_error(data: bytes) -> None:
    try:
        value = ChunkRangesSeq.read(Reader(data))
    except DecodeError:
        return
    assert ChunkRangesSeq.read(Reader(encoded(value))) == value


def test_widths_of_zero_join_ranges() -> None:
    assert ChunkRanges.read(Reader(bytes([4, 1, 2, 0, 3]))) == ChunkRanges((1, 6))
    assert ChunkRanges.read(Reader(bytes([2, 1, 0]))) == ChunkRanges.NONE


def test_wanted() -> None:
    assert list(ChunkRangesSeq.blob().wanted()) == [(0, ChunkRanges.ALL)]
    assert ChunkRangesSeq.blob().is_blob
    assert not ChunkRangesSeq.EVERYTHING.is_blob
    endless = ChunkRangesSeq.EVERYTHING.wanted()
    assert [next(endless)[0] for _ in range(3)] == [0, 1, 2]


def test_boundaries_rise() -> None:
    for wrong in ((2, 1), (1, 1), (-1,), (U64 + 1,)):
        with pytest.raises(ValueError, match="boundaries"):
            ChunkRanges(wrong)


SETS = st.lists(st.integers(0, 60), max_size=8, unique=True).map(lambda at: ChunkRanges(tuple(sorted(at))))
MOST = 80


def members(ranges: ChunkRanges, chunks: int = MOST) -> set[int]:
    return {chunk for chunk in range(chunks) if ranges.contains(chunk, chunk + 1)}


@given(SETS, SETS)
def test_ranges_combine_as_sets_do(a: ChunkRanges, b: ChunkRanges) -> None:
    assert members(a | b) == members(a) | members(b)
    assert members(a & b) == members(a) & members(b)
    assert members(a - b) == members(a) - members(b)
    assert members(a ^ b) == members(a) ^ members(b)
    assert bool(a) == bool(members(a))
    assert a ^ b ^ b == a and a | a == a & a == a


@given(SETS, st.integers(1, 70), st.integers(0, 70))
def test_spans_counts_and_groups(ranges: ChunkRanges, chunks: int, most: int) -> None:
    inside = members(ranges, chunks)
    assert {chunk for span in ranges.spans(chunks) for chunk in range(*span)} == inside
    assert ranges.count(chunks) == len(inside)
    assert members(ranges.first(most, chunks)) == set(sorted(inside)[:most])
    groups = [set(range(start, min(start + 16, chunks))) for start in range(0, chunks, 16)]
    assert members(ranges.whole_groups(chunks)) == {chunk for group in groups if group <= inside for chunk in group}
    assert members(ranges.touched_groups(chunks)) == {chunk for group in groups if group & inside for chunk in group}
