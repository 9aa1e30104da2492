from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.blobs import Hash, InvalidHash

EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
HELLO = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"


def test_vectors() -> None:
    assert str(Hash.EMPTY) == EMPTY
    assert str(Hash.of(b"hello")) == HELLO
    assert Hash.of(b"hello").short() == HELLO[:10]
    assert HELLO[:10] in repr(Hash.of(b"hello"))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_value_and_order_are_the_bytes(a: bytes, b: bytes) -> None:
    assert (Hash(a) == Hash(b)) == (a == b)
    assert (Hash(a) < Hash(b)) == (a < b)
    assert len({Hash(a), Hash(a)}) == 1
    assert bytes(Hash(a)) == a


@given(st.binary(min_size=32, max_size=32))
def test_text_round_trip(data: bytes) -> None:
    hash = Hash(data)
    for text in (str(hash), str(hash).upper(), hash.base32(), hash.base32().upper()):
        assert Hash.parse(text) == hash


@given(st.text(max_size=70))
def test_other_text_is_refused(text: str) -> None:
    try:
        assert len(bytes(Hash.parse(text))) == 32
    except InvalidHash:
        pass


@pytest.mark.parametrize("text", ["", HELLO[:-1], HELLO + "0", "g" * 64, " " * 64, "1" * 52, "aa " * 21 + "a"])
def test_invalid_hash(text: str) -> None:
    with pytest.raises(InvalidHash):
        Hash.parse(text)
    with pytest.raises(InvalidHash):
        Hash(b"short")
