"""The relay protocol's bytes: the reference's vectors, round trips, and bytes that are none of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.transport.errors import DecodeError
from tidings.transport.keys import EndpointId, SecretKey
from tidings.transport.relay import auth
from tidings.transport.relay.client import MAX_BATCH, batches
from tidings.transport.relay.frames import (
    MAX_BODY,
    VERSIONS,
    Challenge,
    ClientAuth,
    Confirmed,
    Datagrams,
    Denied,
    EndpointGone,
    Health,
    Ping,
    Pong,
    Restarting,
    Status,
    decode,
    encode,
    forward,
)

KEY = SecretKey(b"\x2a" * 32)
ID = KEY.public
CHALLENGE = Challenge(bytes(range(16)))
V2, V1 = VERSIONS

VECTORS = [
    ("client", V2, Ping(b"\x2a" * 8), "092a2a2a2a2a2a2a2a"),
    ("server", V2, Pong(b"\x2a" * 8), "0a2a2a2a2a2a2a2a2a"),
    ("server", V2, EndpointGone(ID), f"08{ID}"),
    ("client", V2, Datagrams(ID, b"Hello World!", None, 3), f"04{ID}03" + b"Hello World!".hex()),
    ("client", V2, Datagrams(ID, b"Hello World!", 6, 3), f"05{ID}030006" + b"Hello World!".hex()),
    ("server", V2, Datagrams(ID, b"Hello World!", None, 3), f"06{ID}03" + b"Hello World!".hex()),
    ("server", V2, Datagrams(ID, b"Hello World!", 6, 3), f"07{ID}030006" + b"Hello World!".hex()),
    ("server", V2, Restarting(10, 20), "0c0000000a00000014"),
    ("server", V2, Status(1), "0d01"),
    ("server", V1, Health("Hello? Yes this is dog."), "0b" + b"Hello? Yes this is dog.".hex()),
    ("server", V2, Confirmed(), "02"),
    ("server", V2, Denied("no"), "03026e6f"),
    ("server", V2, CHALLENGE, "00000102030405060708090a0b0c0d0e0f"),
]


@pytest.mark.parametrize(("by", "version", "frame", "data"), VECTORS, ids=lambda value: type(value).__name__)
def test_vectors(by, version, frame, data):
    assert encode(frame, by=by).hex() == data
    assert decode(bytes.fromhex(data), by=by, version=version) == frame


@pytest.mark.parametrize(
    ("seed", "proof"),
    [
        (
            b"\0",
            "013b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da2940ff424707cdf72614b2421d247a0a828bd6dc6cb0"
            "8af0b4b574ca5295b12c8c86c1f7688f5bc4b293fe1a66ff8bb8c19b1fa0220540270dc9815dfb67ed5bcd0a",
        ),
        (
            b"\x2a",
            "01197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d6140a28b5ebc6a930b5d80ad5aca2a8e48ad4a064e699"
            "c0866674c8b8e61a5f4ea940ee8b9f06732930250ac0735555abe77e8df740165edc3163be432f0e4f3cf0f",
        ),
    ],
)
def test_the_proof_of_a_key(seed, proof):
    made = auth.prove(SecretKey(seed * 32), CHALLENGE)
    assert encode(made, by="client").hex() == proof
    assert decode(bytes.fromhex(proof), by="client", version=V2) == made
    assert auth.is_proof(made, CHALLENGE)
    assert not auth.is_proof(made, auth.draw())
    assert not auth.is_proof(ClientAuth(SecretKey.generate().public, made.signature), CHALLENGE)
    assert not auth.is_proof(ClientAuth(made.id, made.signature[:-1]), CHALLENGE)


ids = st.binary(min_size=32, max_size=32).map(EndpointId)
pings = st.binary(min_size=8, max_size=8)
datagrams = st.builds(
    Datagrams, ids, st.binary(min_size=1, max_size=99), st.none() | st.integers(1, 2**16 - 1), st.integers(0, 3)
)
from_client = datagrams | st.builds(Ping, pings) | st.builds(Pong, pings)
from_server = from_client | st.builds(Denied, st.text(max_size=200)) | st.builds(EndpointGone, ids)


@given(st.sampled_from(VERSIONS), from_client, from_server)
def test_round_trip(version, theirs, ours):
    assert decode(encode(theirs, by="client"), by="client", version=version) == theirs
    assert decode(encode(ours, by="server"), by="server", version=version) == ours


@given(st.sampled_from(["client", "server"]), st.sampled_from(VERSIONS), st.binary(max_size=80))
def test_any_bytes(by, version, data):
    for kind in range(20):
        message = bytes((kind,)) + data
        try:
            frame = decode(message, by=by, version=version)
        except DecodeError:
            continue
        assert encode(frame, by=by)[:1] == message[:1]


@pytest.mark.parametrize(
    "wrong", [b"", b"\x40\x0e", b"\x0e", b"\x09" * 8, b"\x09" * 10, bytes(17 + 1), b"\x04" + bytes(33)]
)
def test_what_is_no_frame(wrong):
    for by in ("client", "server"):
        with pytest.raises(DecodeError):
            decode(wrong, by=by, version=V2)


def test_frames_are_for_one_direction_version_and_size():
    for frame, by, version in (
        (Status(0), "server", V1),
        (Health(""), "server", V2),
        (Status(0), "client", V2),
        (Confirmed(), "client", V2),
    ):
        with pytest.raises(DecodeError):
            decode(encode(frame, by=by), by=by, version=version)
    with pytest.raises(DecodeError):
        decode(encode(Datagrams(ID, b"x"), by="client"), by="server", version=V2)
    largest = encode(Datagrams(ID, bytes(MAX_BODY - 33)), by="client")
    assert decode(largest, by="client", version=V2)
    with pytest.raises(DecodeError):
        decode(largest + b"\0", by="client", version=V2)
    with pytest.raises(DecodeError):
        decode(b"\x05" + bytes(32) + b"\0" + b"\0\0" + b"x", by="client", version=V2)  # segments of no size


@given(datagrams, ids)
def test_what_is_forwarded_is_what_was_sent(sent, source):
    to, message = forward(encode(sent, by="client"), bytes(source))
    assert to == bytes(sent.peer)
    received = decode(message, by="server", version=V2)
    assert received == Datagrams(source, sent.payload, sent.segment, sent.ecn)
    assert forward(encode(Ping(bytes(8)), by="client"), bytes(source)) is None


@given(st.lists(st.sampled_from([1, 700, 1200, 1200, 1200]), max_size=200))
def test_datagrams_travel_in_batches(sizes):
    sent = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
    frames = list(batches(ID, sent))
    assert [each for frame in frames for each in frame.split()] == sent
    assert all(len(frame.payload) <= MAX_BATCH for frame in frames)
    assert all(decode(encode(frame, by="client"), by="client", version=V2) == frame for frame in frames)
