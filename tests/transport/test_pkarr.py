"""Records and signed packets: the reference's vector, round trips, and packets that are none."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.errors import UsageError
from tidings.transport import EndpointAddr, IpAddr, RelayUrl, SecretKey
from tidings.transport.errors import DecodeError
from tidings.transport.lookup.pkarr import HEAD, MAX_DNS, SignedPacket, next_timestamp
from tidings.transport.lookup.records import Record

SECRET = SecretKey(bytes(32))
ID = SECRET.public
RECORD = Record(EndpointAddr.of(ID, [RelayUrl("https://example.com"), IpAddr.parse("127.0.0.1:1234")]))
PACKET = SignedPacket.sign(SECRET, RECORD, 1_700_000_000_000_000)


def test_the_vector_of_the_reference():
    assert PACKET.dns.hex() == (
        "000080000000000200000000055f69726f68343870696e787867717334316e346169646964656e773561707170317572666d7a647a7472386a"
        "74346162726b646e34333565776f00001000010000001e001b1a72656c61793d68747470733a2f2f6578616d706c652e636f6d2fc00c001000"
        "010000001e001413616464723d3132372e302e302e313a31323334"
    )
    assert PACKET.signature.hex() == (
        "fd30885f31e703cf7dd85759f4b598ddacf6895a8bf362f4e6a5079aa20e758ff26b6bebf2848ab44df9e9f2319d0f47fb5d5e82fe462952"
        "d907d9cfb83b2303"
    )
    digests = [hashlib.sha256(data).hexdigest() for data in (PACKET.encode(), PACKET.payload())]
    assert digests == [
        "8fbcb1f3d22baa2ca3eb9799684d3ee4d476318e15cbcff3259b86650cafd2d8",
        "a23ec42904fa282b0ff9835cee0837cbe2152b8e29a3f273dfa00f632cfc4881",
    ]


addresses = st.builds(IpAddr.of, st.ip_addresses().map(str), st.integers(1, 65535)) | st.integers(0, 999).map(
    lambda n: RelayUrl(f"https://relay-{n}.example./")
)
texts = st.none() | st.text(max_size=60).filter(lambda text: "=" not in text)


@settings(max_examples=60)
@given(st.sets(addresses, max_size=40), texts, st.integers(0, 2**63))
def test_round_trip(addrs, user_data, timestamp):
    record = Record(EndpointAddr.of(ID, addrs), user_data)
    packet = SignedPacket.sign(SECRET, record, timestamp)
    assert len(packet.dns) <= MAX_DNS
    assert SignedPacket.decode(packet.encode()) == packet
    found = packet.record()
    assert found.addr.addrs <= frozenset(addrs)
    if len(addrs) <= 8:
        assert found == record


@pytest.mark.parametrize("at", [0, 31, 32, 95, 96, 103, 104, 150, 244])
def test_a_bit_that_is_changed_is_found(at):
    data = bytearray(PACKET.encode())
    data[at] ^= 1
    with pytest.raises(DecodeError):
        SignedPacket.decode(bytes(data))


@given(st.binary(max_size=1200))
def test_any_bytes(data):
    for wrong in (data, bytes(ID) + data):
        with pytest.raises(DecodeError):
            SignedPacket.decode(wrong)


@given(st.binary(max_size=MAX_DNS))
@settings(max_examples=300)
def test_any_message_under_a_right_signature(message):
    """Whoever publishes signs what he wants: it costs nobody more than an error."""
    signature = SECRET.sign(b"3:seqi5e1:v%d:" % len(message) + message)
    try:
        packet = SignedPacket.from_payload(ID, signature + (5).to_bytes(8, "big") + message)
    except DecodeError:
        return
    assert packet.record().addr.id == ID


def test_messages_that_are_too_long_or_of_another_name():
    long = bytes(MAX_DNS + 1)
    with pytest.raises(DecodeError, match="bytes"):
        SignedPacket.from_payload(ID, bytes(HEAD) + long)
    other = SignedPacket.sign(SecretKey(b"\1" * 32), RECORD, 5)
    signature = SECRET.sign(b"3:seqi5e1:v%d:" % len(other.dns) + other.dns)
    stolen = SignedPacket.from_payload(ID, signature + (5).to_bytes(8, "big") + other.dns)
    assert stolen.record() == Record(EndpointAddr(ID))


def test_the_later_packet_counts():
    later = SignedPacket.sign(SECRET, RECORD, PACKET.timestamp + 1)
    same_time = SignedPacket.sign(SECRET, Record(RECORD.addr, "x"), PACKET.timestamp)
    assert later.is_newer_than(PACKET) and not PACKET.is_newer_than(later)
    assert same_time.is_newer_than(PACKET) is (same_time.dns > PACKET.dns)
    assert not PACKET.is_newer_than(PACKET)
    assert next_timestamp(10, 5) == 11 and next_timestamp(10, 50) == 50


def test_lines_that_rust_would_cut_or_refuse_are_not_published():
    addrs = [RelayUrl("https://relay.example/?a=b"), RelayUrl("https://" + 250 * "x" + "/"), IpAddr.parse("[::1]:1")]
    assert Record(EndpointAddr.of(ID, addrs), "me").lines() == ["addr=[::1]:1", "user-data=me"]
    for wrong in ("a=b", "x" * 246):
        with pytest.raises(UsageError):
            Record(EndpointAddr(ID), wrong)


def test_lines_that_say_nothing_to_us_are_left_out():
    lines = ["addr=1.2.3.4:5", "addr=nowhere", "relay=ftp://x", "colour=red", "", "=", "user-data=a=b", "addr=2a_00ff"]
    record = Record.parse(ID, lines)
    assert [str(addr) for addr in record.addr.sorted()] == ["1.2.3.4:5", "2a_00ff"]
    assert record.user_data == "a"


def test_text_of_another_class_says_nothing():
    data = bytearray(PACKET.dns)
    data[data.index(b"\x00\x10\x00\x01") + 3] = 3  # CHAOS
    signature = SECRET.sign(b"3:seqi1e1:v%d:" % len(data) + data)
    packet = SignedPacket.from_payload(ID, signature + (1).to_bytes(8, "big") + data)
    assert packet.record().addr.relays == []
