import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.transport.text import decode_base32, decode_z32, encode_base32, encode_z32


@given(st.binary())
def test_both_alphabets_come_back(data):
    assert decode_base32(encode_base32(data)) == data
    assert decode_base32(encode_base32(data).upper()) == data
    assert decode_z32(encode_z32(data)) == data


@given(st.text())
def test_any_text_gives_bytes_or_a_value_error(text):
    for decode in (decode_base32, decode_z32):
        try:
            decode(text)
        except ValueError:
            pass


@pytest.mark.parametrize("text", ["ab=", "a1", "ä", "ac", "aaa"])
def test_stray_characters_lengths_and_bits_are_refused(text):
    with pytest.raises(ValueError):
        decode_base32(text)
