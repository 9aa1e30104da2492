from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.blobs import Busy, Hash, NotProvided, Refused, UnsupportedRequest
from tidings.blobs.messages import GetManyRequest, GetRequest, decode_request, refusal
from tidings.blobs.ranges import ChunkRanges, ChunkRangesSeq
from tidings.transport.errors import DecodeError

HELLO = Hash.of(b"hello")


@pytest.mark.parametrize(
    ("ranges", "hex"),
    [
        (ChunkRangesSeq.blob(), "020001000100"),
        (ChunkRangesSeq.EVERYTHING, "01000100"),
        (ChunkRangesSeq.blob(ChunkRanges.LAST), "020001ffffffffffffffffff010100"),
    ],
)
def test_get_vectors(ranges: ChunkRangesSeq, hex: str) -> None:
    data = bytes.fromhex("00" + str(HELLO) + hex)
    assert GetRequest(HELLO, ranges).encode() == data
    assert decode_request(data) == GetRequest(HELLO, ranges)


def test_get_many() -> None:
    many = GetManyRequest((HELLO, Hash.EMPTY))
    assert many.encode() == bytes.fromhex(f"0902{HELLO}{Hash.EMPTY}01000100")
    assert decode_request(many.encode()) == many
    assert list(many.wanted()) == [(HELLO, ChunkRanges.ALL), (Hash.EMPTY, ChunkRanges.ALL)]
    second = GetManyRequest((HELLO, Hash.EMPTY), ChunkRangesSeq(((1, ChunkRanges.LAST), (2, ChunkRanges.NONE))))
    assert decode_request(second.encode()) == second
    assert list(second.wanted()) == [(Hash.EMPTY, ChunkRanges.LAST)]


@pytest.mark.parametrize("kind", range(2, 9))
def test_other_kinds_are_unsupported(kind: int) -> None:
    with pytest.raises(UnsupportedRequest):
        decode_request(bytes([kind]) + bytes(40))


heads = st.sampled_from([b"\0" + bytes(32), b"\x09\0", b"\x09\1" + bytes(32)])


@given(st.one_of(st.binary(max_size=80), st.builds(bytes.__add__, heads, st.binary(max_size=20))))
def test_any_bytes_give_a_request_or_the_documented_errors(data: bytes) -> None:
    try:
        assert isinstance(decode_request(data), GetRequest | GetManyRequest)
    except (DecodeError, UnsupportedRequest):
        pass


def test_refusals() -> None:
    kinds = [type(refusal(code, HELLO, None)) for code in (1, 2, 3, 99)]
    assert kinds == [Refused, Busy, NotProvided, NotProvided]
