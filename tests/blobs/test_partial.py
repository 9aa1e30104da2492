"""Blobs of which a part is here: files, bitmap, what is found again after a crash."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.blobs import Hash
from tidings.blobs import bitmap as bitmap_module
from tidings.blobs.bao import Decoder
from tidings.blobs.bitmap import Bitmap
from tidings.blobs.check import check_groups
from tidings.blobs.errors import BlobDamaged
from tidings.blobs.geometry import chunk_count
from tidings.blobs.partial import Partial
from tidings.blobs.ranges import ChunkRanges
from tree import outboard, pattern, response

SIZE = 5_000_000
DATA = Random(1).randbytes(SIZE)
HASH = Hash.of(DATA)
CHUNKS = chunk_count(SIZE)
RESPONSE = response(DATA)
OUTBOARD = outboard(DATA)[1]
ITEMS = list(Decoder(HASH).feed(RESPONSE))


def begin(path: Path, size: int = SIZE) -> Partial:
    partial = Partial(HASH, size, path / "ab" / str(HASH))
    for _ in partial.recover():
        pass
    return partial


def part(ranges: ChunkRanges) -> bytes:
    from tidings.blobs.bao import encode

    return b"".join(encode(SIZE, ranges, lambda at, n: DATA[at : at + n], lambda at, n: OUTBOARD[at : at + n]))


def items(ranges: ChunkRanges) -> list:  # type: ignore[type-arg]
    return list(Decoder(HASH, ranges).feed(part(ranges)))


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    partial = begin(tmp_path)
    assert not partial.have and not partial.proven
    wanted = ChunkRanges((16, 64, 1600, 3200))
    partial.write(items(wanted))
    assert partial.have == wanted and not partial.proven and not partial.complete
    assert partial.data_at(16 * 1024, 48 * 1024) == DATA[16 * 1024 : 64 * 1024]
    assert partial.bytes_here == (48 + 1600) * 1024
    partial.close()
    again = begin(tmp_path)
    assert again.have == wanted
    again.write(items(ChunkRanges.LAST | ChunkRanges.of(CHUNKS - 16)))
    assert again.proven and not again.complete
    again.write(items(ChunkRanges.ALL - again.have))
    assert again.complete and again.bytes_here == SIZE
    assert again.data_at(0, SIZE) == DATA and again.outboard() == OUTBOARD
    again.close()


def test_parts_of_groups_do_not_count(tmp_path: Path) -> None:
    partial = begin(tmp_path)
    partial.write(items(ChunkRanges.of(3, 20)))
    assert partial.have == ChunkRanges.NONE
    partial.close()
    again = begin(tmp_path)
    assert again.have == ChunkRanges.NONE
    again.close()


def test_after_another_boot_the_groups_prove_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = begin(tmp_path)
    wanted = ChunkRanges((0, 160, 1600, 3200))
    partial.write(items(wanted))
    partial.close()
    data = tmp_path / "ab" / f"{HASH}.data"
    with data.open("r+b") as file:  # what a power cut may leave
        file.seek(40_000)
        file.write(bytes(20_000))
    monkeypatch.setattr(bitmap_module, "_boot_id", lambda: b"another boot, so")
    again = begin(tmp_path)
    assert again.have == wanted - ChunkRanges.of(32, 64)
    again.close()


@pytest.mark.parametrize("what", ["no bitmap", "torn bitmap", "no outboard", "short data", "wrong root pair"])
def test_what_is_damaged_is_not_there(tmp_path: Path, what: str) -> None:
    partial = begin(tmp_path)
    wanted = ChunkRanges((0, 160, 1600, 3200))
    partial.write(items(wanted))
    partial.close()
    data, pairs, bits = (tmp_path / "ab" / f"{HASH}.{kind}" for kind in ("data", "obao4", "have"))
    match what:
        case "no bitmap":
            bits.unlink()
        case "torn bitmap":
            os.truncate(bits, 70)
        case "no outboard":
            bits.unlink()
            pairs.unlink()
        case "short data":
            os.truncate(data, 1700 * 1024)
        case "wrong root pair":
            bits.unlink()
            with pairs.open("r+b") as file:
                file.write(b"x")
    again = begin(tmp_path)
    expected = {
        "no bitmap": wanted,
        "torn bitmap": wanted,
        "no outboard": ChunkRanges.NONE,
        "short data": wanted,
        "wrong root pair": ChunkRanges.NONE,
    }[what]
    if what == "short data":  # the bits said so: what is behind the end is no data, and is not believed
        expected = ChunkRanges((0, 160, 1600, 1696))
    assert again.have == expected
    again.close()


def test_a_claimed_size_costs_nothing_and_can_change(tmp_path: Path) -> None:
    partial = begin(tmp_path, 1 << 62)
    good = ChunkRanges.of(0, 160)
    partial.write(items(good))
    assert partial.have == good and not partial.proven
    partial.resize(SIZE)
    partial.write(items(ChunkRanges.ALL - good))
    assert partial.complete and partial.outboard() == OUTBOARD
    sizes = [path.stat().st_size for path in (tmp_path / "ab").iterdir()]
    assert max(sizes) <= SIZE
    partial.close()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 310), max_size=8, unique=True), st.integers(290, 305))
def test_bitmap(groups: list[int], count: int) -> None:
    chunks = count * 16 - 5
    ranges = ChunkRanges(tuple(16 * group for group in sorted(groups))).touched_groups(chunks)
    path = Path(f"/tmp/tidings-bitmap-{os.getpid()}")
    try:
        bitmap = Bitmap(path)
        bitmap.begin(ChunkRanges.of(0, 16), chunks)
        bitmap.add(ranges, chunks)
        assert bitmap.ranges(chunks) == (ranges | ChunkRanges.of(0, 16))
        bitmap.close()
    finally:
        path.unlink()


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, 305)), st.sets(st.integers(0, 304)))
def test_checking_finds_exactly_what_is_wrong(bad: set[int], bad_pairs: set[int]) -> None:
    data = bytearray(DATA)
    for group in bad:
        data[group * 16384] ^= 1
    pairs = bytearray(OUTBOARD)

    def read(source: bytearray, at: int, size: int) -> bytes:
        if at + size > len(source):
            raise BlobDamaged("too short")
        return bytes(source[at : at + size])

    def sound() -> ChunkRanges:
        found = ChunkRanges.NONE
        steps = check_groups(HASH, SIZE, ChunkRanges.ALL, lambda *a: read(data, *a), lambda *a: read(pairs, *a))
        for start, stop, good in steps:
            if good:
                found |= ChunkRanges.of(start, stop)
        return found

    wrong = ChunkRanges.NONE
    for group in bad:
        wrong |= ChunkRanges.of(group * 16, min(group * 16 + 16, CHUNKS))
    assert sound() == ChunkRanges.of(0, CHUNKS) - wrong
    for pair in bad_pairs:
        pairs[pair * 64] ^= 1
    assert not sound() & wrong, "a wrong outboard hides groups, but makes none right"


def test_pattern_of_one_group() -> None:
    data = pattern(10_000)
    assert list(check_groups(Hash.of(data), 10_000, ChunkRanges.ALL, lambda at, n: data[at : at + n], None)) == [  # type: ignore[arg-type]
        (0, 10, True)
    ]
