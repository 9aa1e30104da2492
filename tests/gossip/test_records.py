"""Signed records: what a peer says of itself holds against what others say of it."""

from hypothesis import given
from hypothesis import strategies as st
from tidings.gossip.core.codec import decode_addresses, encode_addresses
from tidings.gossip.core.messages import ForwardJoin, Join, Neighbor, PeerInfo, Priority, Prune, Shuffle
from tidings.gossip.core.records import MAX_CHECKS, RecordBook, check_records, seal_record
from tidings.transport import EndpointAddr, SecretKey

SECRET = SecretKey.generate()
ME = bytes(SECRET.public)
OTHER = b"o" * 32


def vetted(book, message, sender=ME):
    return book.vet(message, sender, check_records(book.unchecked(message, sender)))


def test_decoders_that_know_nothing_of_signatures_read_the_addresses() -> None:
    addr = EndpointAddr(SECRET.public)
    assert decode_addresses(ME, seal_record(SECRET, encode_addresses(addr), 5)) == addr


def test_the_later_record_holds_whoever_brings_it() -> None:
    book = RecordBook()
    old, new = seal_record(SECRET, b"\0\0", 1), seal_record(SECRET, b"\0\0", 2)
    assert vetted(book, Join(new)) == Join(new)
    assert vetted(book, ForwardJoin(PeerInfo(ME, old), 3), OTHER) == ForwardJoin(PeerInfo(ME, new), 3)
    assert vetted(book, Join(b"\0\0")) == Join(new), "a stranger may say it without a signature"
    assert not book.unchecked(Join(new), ME), "it is checked once"


def test_a_forged_record_is_dropped_and_a_plain_one_of_a_stranger_kept() -> None:
    book = RecordBook()
    forged = seal_record(SecretKey.generate(), b"\0\0", 9)
    assert vetted(book, Neighbor(Priority.LOW, forged)) == Neighbor(Priority.LOW, None)
    assert vetted(book, Join(b"\0\0")) == Join(b"\0\0")
    assert vetted(book, Join(None)) == Join(None)
    assert vetted(book, Prune()) == Prune()


def test_one_message_costs_a_bounded_number_of_checks() -> None:
    secrets = [SecretKey.generate() for _ in range(MAX_CHECKS + 5)]
    nodes = tuple(PeerInfo(bytes(each.public), seal_record(each, b"\0\0", 1)) for each in secrets)
    book = RecordBook()
    message = Shuffle(OTHER, nodes, 0)
    assert len(book.unchecked(message, OTHER)) == MAX_CHECKS
    kept = [node for node in vetted(book, message).nodes if node.data is not None]
    assert len(kept) == MAX_CHECKS


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_byte_of_a_record_can_be_changed(noise: bytes, at: int) -> None:
    good = seal_record(SECRET, noise, 7)
    at %= len(good)
    bad = good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :]
    book = RecordBook()
    said = vetted(book, Join(bad)).data
    assert said is None or (said == bad and not bad.endswith(good[-16:])), "without its mark it is a plain one"
    assert vetted(book, Join(good)) == Join(good)
