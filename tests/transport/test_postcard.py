import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.transport.errors import DecodeError
from tidings.transport.postcard import U16, U64, Reader, Writer, encode_varint


@pytest.mark.parametrize(
    ("value", "hex"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (65_535, "ffff03"), (U64, "ffffffffffffffffff01")],
)
def test_varints_are_leb128(value, hex):
    assert encode_varint(value).hex() == hex
    assert Reader(bytes.fromhex(hex)).varint() == value


@given(st.integers(0, U64), st.binary(), st.text(), st.booleans())
def test_fields_come_back(number, data, text, flag):
    encoded = Writer().varint(number).octets(data).string(text).flag(flag).raw(b"xyz").finish()
    reader = Reader(encoded)
    assert (reader.varint(), reader.octets(), reader.string(), reader.flag()) == (number, data, text, flag)
    assert reader.raw(3) == b"xyz"
    reader.end()


@given(st.binary())
def test_any_bytes_give_a_value_or_a_decode_error(data):
    for read in (Reader.varint, Reader.octets, Reader.string, Reader.flag, Reader.u8):
        reader = Reader(data)
        try:
            read(reader)
            reader.end()
        except DecodeError:
            pass


@pytest.mark.parametrize("hex", ["80" * 9 + "02", "ff" * 10, "80" * 11, "80", ""])
def test_a_varint_that_is_too_large_too_long_or_cut_is_refused(hex):
    with pytest.raises(DecodeError):
        Reader(bytes.fromhex(hex)).varint()


def test_a_number_beyond_its_type_is_refused():
    with pytest.raises(DecodeError):
        Reader(encode_varint(U16 + 1)).varint(U16)


def test_a_promised_count_is_held_against_the_bytes_that_are_there():
    with pytest.raises(DecodeError):
        Reader(encode_varint(1 << 40) + b"abc").octets()
    with pytest.raises(DecodeError):
        Reader(encode_varint(3) + b"abc").count(10, each=2)
    with pytest.raises(DecodeError):
        Reader(encode_varint(3) + b"abc").octets(limit=2)


def test_bytes_left_over_are_refused():
    reader = Reader(b"\x01\x02")
    assert reader.flag() is True
    with pytest.raises(DecodeError):
        reader.end()
    with pytest.raises(DecodeError):
        reader.flag()  # 2 is not a bool


def test_negative_and_oversize_integers_are_not_encoded():
    for value in (-1, U64 + 1):
        with pytest.raises(ValueError):
            encode_varint(value)
