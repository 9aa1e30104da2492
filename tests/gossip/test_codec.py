"""Every gossip message as bytes, both ways: Appendix A's vectors, round trips, and any bytes at all."""

from contextlib import suppress

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.gossip.core.codec import MAX_CONTENT, MAX_MESSAGE, decode, decode_addresses, encode, encode_addresses
from tidings.gossip.core.messages import (
    Disconnect,
    ForwardJoin,
    Graft,
    IHave,
    Join,
    Message,
    Neighbor,
    Payload,
    PeerInfo,
    Priority,
    Prune,
    Shuffle,
    ShuffleReply,
)
from tidings.transport.addr import EndpointAddr, IpAddr, RelayUrl
from tidings.transport.errors import DecodeError
from tidings.transport.keys import EndpointId

AUTHOR = bytes.fromhex("bc7cbcb5636375fa1d82434d466724d92377f53b980695dd49d26d0ce12205a5")
NAMESPACE = bytes.fromhex("55154f42065ea5a1bea05463826be2684eb92df92c100027aabaae57ca554207")
HELLO = blake3(b"hello").digest()

VECTORS: list[tuple[Message, str]] = [
    (Join(None), "000000"),
    (Join(b""), "00000100"),
    (ForwardJoin(PeerInfo(AUTHOR), 6), f"0001{AUTHOR.hex()}0006"),
    (Shuffle(AUTHOR, (PeerInfo(NAMESPACE),), 6), f"0002{AUTHOR.hex()}01{NAMESPACE.hex()}0006"),
    (ShuffleReply(()), "000300"),
    (Neighbor(Priority.HIGH, None), "00040000"),
    (Neighbor(Priority.LOW, b""), "0004010100"),
    (Disconnect(alive=True), "00050100"),
    (Disconnect(alive=False), "00050000"),
    (Payload(HELLO, b"hello", 0), f"0100{HELLO.hex()}0568656c6c6f0000"),
    (Payload(HELLO, b"hello", 200), f"0100{HELLO.hex()}0568656c6c6f00c801"),
    (Payload(HELLO, b"hello", None), f"0100{HELLO.hex()}0568656c6c6f01"),
    (Prune(), "0101"),
    (Graft(None, 3), "01020003"),
    (Graft(HELLO, 0), f"010201{HELLO.hex()}00"),
    (IHave(((HELLO, 1),)), f"010301{HELLO.hex()}01"),
]

ids = st.binary(min_size=32, max_size=32)
u16 = st.integers(0, 0xFFFF)
data = st.none() | st.binary(max_size=100)
peers = st.builds(PeerInfo, ids, data)
nodes = st.lists(peers, max_size=9).map(tuple)
messages = st.one_of(
    st.builds(Join, data),
    st.builds(ForwardJoin, peers, u16),
    st.builds(Shuffle, ids, nodes, u16),
    st.builds(ShuffleReply, nodes),
    st.builds(Neighbor, st.sampled_from(Priority), data),
    st.builds(Disconnect, st.booleans()),
    st.builds(Payload, ids, st.binary(max_size=MAX_CONTENT), st.none() | u16),
    st.just(Prune()),
    st.builds(Graft, st.none() | ids, u16),
    st.builds(IHave, st.lists(st.tuples(ids, u16), max_size=116).map(tuple)),
)


@pytest.mark.parametrize(("message", "encoded"), VECTORS, ids=lambda value: str(value)[:24])
def test_vectors(message: Message, encoded: str) -> None:
    assert encode(message).hex() == encoded
    assert decode(bytes.fromhex(encoded)) == message


@settings(deadline=None, max_examples=150)
@given(messages)
def test_round_trip(message: Message) -> None:
    assert decode(encode(message)) == message


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=200)
    | st.builds(
        lambda kind, rest: bytes(kind) + rest, st.tuples(st.integers(0, 1), st.integers(0, 6)), st.binary(max_size=200)
    )
)
def test_any_bytes_give_a_message_or_the_documented_error(encoded: bytes) -> None:
    try:
        message = decode(encoded)
    except DecodeError:
        return
    decode(encode(message))


def test_bytes_after_a_message_are_refused() -> None:
    with pytest.raises(DecodeError):
        decode(encode(Prune()) + b"\0")


def test_the_largest_content_just_fits_an_iroh_writer() -> None:
    assert len(encode(Payload(HELLO, bytes(MAX_CONTENT), 127))) == MAX_MESSAGE - 1


def test_the_fullest_announcement_fits() -> None:
    assert len(encode(IHave(((HELLO, 300),) * 116))) < MAX_MESSAGE


def test_addresses_vector() -> None:
    encoded = bytes.fromhex("011768747470733a2f2f72656c61792e6578616d706c652e2f01007f000001d122")
    addr = EndpointAddr.of(EndpointId(AUTHOR), [RelayUrl("https://relay.example./"), IpAddr.of("127.0.0.1", 4433)])
    assert encode_addresses(addr) == encoded
    assert decode_addresses(AUTHOR, encoded) == addr
    assert decode_addresses(AUTHOR, b"") == EndpointAddr(EndpointId(AUTHOR))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.builds(IpAddr, st.ip_addresses(), st.integers(1, 65535)), max_size=8))
def test_addresses_round_trip(ips: list[IpAddr]) -> None:
    addr = EndpointAddr.of(EndpointId(AUTHOR), ips)
    assert decode_addresses(AUTHOR, encode_addresses(addr)) == addr


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=120))
def test_any_bytes_give_addresses_or_the_documented_error(encoded: bytes) -> None:
    with suppress(DecodeError):
        decode_addresses(AUTHOR, encoded)
