"""Vectors of ``reference/iroh-transport.md``; the small-order points are computed here, not copied."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.transport.errors import InvalidKey
from tidings.transport.keys import EndpointId, PublicKey, SecretKey

SEQUENCE = bytes(range(32))
VECTORS = [
    (
        bytes(32),
        "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
        "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo",
        "hnvcppgow2sc2yvdvdicu3ynonsteflxdxrehjr2ybekdc2z3iuq",
    ),
    (
        b"\x2a" * 32,
        "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61",
        "df9sse9bp1nuftim3yhxiuk6w6r5hddsskjygpydux7esxjstioo",
        "df7wwi7bnsctfrvlza4pvtk6u6e34ddwwkjagnadtp5iwpjwrvqq",
    ),
    (
        SEQUENCE,
        "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8",
        "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy",
        "aoqqpp7tzyil4hlq3umoos6atft6jvrqtosq2xy53sdgiesvgg4a",
    ),
]


@pytest.mark.parametrize(("seed", "hex", "z32", "base32"), VECTORS)
def test_every_text_form(seed, hex, z32, base32):
    key = SecretKey(seed).public
    assert (str(key), key.z32(), key.base32(), key.short()) == (hex, z32, base32, hex[:10])
    assert PublicKey.parse(hex) == PublicKey.parse(base32) == PublicKey.parse(base32.upper()) == key
    assert PublicKey.from_z32(z32) == key
    assert SecretKey(seed).to_bytes() == seed


def test_signature_vector():
    signature = bytes.fromhex(
        "c9e88a06c88855aa75f90bcfdc5a87b76a99c0d2044114b8931e72089e7b8c7a"
        "c6b4a9776b57326f2d781aa8da8821fe6b4c7296fde0b63ca24d7f6343ac6a0a"
    )
    secret = SecretKey(SEQUENCE)
    assert secret.sign(b"hello world") == signature
    assert secret.public.verify(b"hello world", signature)
    assert not secret.public.verify(b"hello World", signature)
    assert not SecretKey(bytes(32)).public.verify(b"hello world", signature)


@pytest.mark.parametrize("cut", [0, 1, 63])
def test_a_signature_of_another_length_is_false(cut):
    secret = SecretKey(SEQUENCE)
    assert not secret.public.verify(b"m", secret.sign(b"m")[:cut])


def test_a_scalar_beyond_the_group_order_is_false():
    order = 2**252 + 27742317777372353535851937790883648493
    secret = SecretKey(SEQUENCE)
    signature = secret.sign(b"m")
    scalar = int.from_bytes(signature[32:], "little") + order
    assert not secret.public.verify(b"m", signature[:32] + scalar.to_bytes(32, "little"))


def small_order_points():
    """All points P with 8 P = 0 on the curve -x^2 + y^2 = 1 + d x^2 y^2, in every encoding of them."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def root(square):
        x = pow(square, (p + 3) // 8, p)
        if (x * x - square) % p:
            x = x * pow(2, (p - 1) // 4, p) % p
        return x if (x * x - square) % p == 0 else None

    def add(a, b):
        (x1, y1), (x2, y2) = a, b
        k = d * x1 * x2 * y1 * y2 % p
        return (x1 * y2 + x2 * y1) * pow(1 + k, -1, p) % p, (y1 * y2 + x1 * x2) * pow(1 - k, -1, p) % p

    def times_eight(point):
        for _ in range(3):
            point = add(point, point)
        return point

    # Multiply some point by the prime order: what is left lies in the small subgroup, and generates it for some point.
    order = 2**252 + 27742317777372353535851937790883648493
    points = set()
    for y in range(2, 60):
        x = root((y * y - 1) * pow(d * y * y + 1, -1, p) % p)
        if x is None:
            continue
        result, addend, n = (0, 1), (x, y), order
        while n:
            if n & 1:
                result = add(result, addend)
            addend = add(addend, addend)
            n >>= 1
        assert times_eight(result) == (0, 1)
        multiple = (0, 1)
        for _ in range(8):
            multiple = add(multiple, result)
            points.add(multiple)
    assert len(points) == 8
    for _, y in points:
        for value in (y, y + p):
            if value < 2**255:
                for sign in (0, 1):
                    yield (value | sign << 255).to_bytes(32, "little")


def test_keys_and_signature_points_of_small_order_prove_nothing():
    encodings = list(small_order_points())
    assert len(encodings) >= 14
    signature = SecretKey(SEQUENCE).sign(b"m")
    for point in encodings:
        assert PublicKey(point).has_small_order()
        assert not PublicKey(point).verify(b"m", signature)
        assert not SecretKey(SEQUENCE).public.verify(b"m", point + signature[32:])
    assert not SecretKey(SEQUENCE).public.has_small_order()


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "3B" * 32, "0" * 63, "ä" * 64, "02" + "00" * 31])
def test_text_that_is_no_key_is_refused_with_a_hint(text):
    with pytest.raises(InvalidKey, match="hexadecimal"):
        PublicKey.parse(text)


@given(st.text())
def test_any_text_is_a_key_or_an_invalid_key(text):
    for parse in (PublicKey.parse, PublicKey.from_z32):
        try:
            parse(text)
        except InvalidKey:
            pass


@pytest.mark.parametrize("size", [0, 31, 33])
def test_other_sizes_are_refused(size):
    with pytest.raises(InvalidKey):
        PublicKey(bytes(size))
    with pytest.raises(InvalidKey):
        SecretKey(bytes(size))


def test_a_secret_never_prints_itself():
    secret = SecretKey(SEQUENCE)
    assert SEQUENCE.hex() not in repr(secret) + str(secret) + f"{secret!r:>90}"


def test_keys_are_values():
    a, b = SecretKey(bytes(32)).public, SecretKey(SEQUENCE).public
    assert b < a
    assert sorted([a, b]) == [b, a]
    assert len({a, EndpointId(bytes(a)), b}) == 2
    assert a != bytes(a)
