"""Appendix A, byte for byte, and hostile bytes."""

import pytest
from docs_model import NAMESPACE_ID, MemoryStore, entry
from hypothesis import given, settings
from hypothesis import strategies as st
from test_entry import AUTHOR, ENTRY, NAMESPACE, SIGNED_ENTRY
from tidings.docs_sync.model.entry import EMPTY_HASH
from tidings.docs_sync.model.messages import (
    MAX_OP_SIZE,
    Abort,
    AbortReason,
    ContentReady,
    Init,
    Put,
    Sync,
    SyncReport,
    decode_op,
    decode_sync,
    encode_op,
    encode_sync,
)
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import (
    ContentStatus,
    RangeFingerprint,
    RangeItems,
    RangeList,
    RangeWant,
    Value,
    initial_message,
)
from tidings.transport.errors import DecodeError
from tidings.transport.framing import frame

FINGERPRINT = "2d70753f09c0231692888772de0e777e971f4b046cf1b6b45b4d5a4aa647489e"


def both_ways_sync(message, payload: bytes) -> None:
    assert encode_sync(message) == payload
    assert decode_sync(payload) == message


def both_ways_op(op, payload: bytes) -> None:
    assert encode_op(op) == payload
    assert decode_op(payload) == op


def test_init_of_an_empty_document() -> None:
    message = Init(NAMESPACE_ID, initial_message(MemoryStore()))
    payload = b"\0" + NAMESPACE_ID + b"\1\0\x40" + bytes(64) + b"\x40" + bytes(64) + EMPTY_HASH
    both_ways_sync(message, payload)
    assert frame(payload)[:4].hex() == "000000c5"


def test_init_of_one_entry() -> None:
    message = Init(NAMESPACE_ID, initial_message(MemoryStore([ENTRY])))
    id = bytes(ENTRY.id)
    payload = b"\0" + NAMESPACE_ID + b"\1\0\x50" + id + b"\x50" + id + bytes.fromhex(FINGERPRINT)
    both_ways_sync(message, payload)
    assert frame(payload)[:4].hex() == "000000e5"


@pytest.mark.parametrize("reason", AbortReason)
def test_abort(reason: AbortReason) -> None:
    both_ways_sync(Abort(reason), bytes([2, reason]))


def test_ops() -> None:
    both_ways_op(Put(ENTRY), b"\0" + SIGNED_ENTRY)
    both_ways_op(ContentReady(EMPTY_HASH), b"\1" + EMPTY_HASH)
    report = SyncReport(NAMESPACE_ID, {bytes(AUTHOR.id): 1_700_000_000_000_000})
    both_ways_op(report, b"\2" + NAMESPACE_ID + bytes.fromhex("29018080f9c0c1c48203") + bytes(AUTHOR.id))


def test_secrets_are_octets() -> None:
    assert NAMESPACE.to_bytes() == b"\xb2" * 32


def test_a_report_fits_gossip_and_keeps_the_newest() -> None:
    heads = {n.to_bytes(32, "big"): 1_700_000_000_000_000 + n for n in range(500)}
    payload = encode_op(SyncReport(NAMESPACE_ID, heads))
    assert MAX_OP_SIZE - 45 < len(payload) <= MAX_OP_SIZE
    kept = decode_op(payload).heads
    assert min(kept.values()) == sorted(heads.values())[-len(kept)]


def test_a_million_parts() -> None:
    part = b"\0\x40" + bytes(64) + b"\x40" + bytes(64) + bytes(32)
    with pytest.raises(DecodeError, match="at most"):
        decode_sync(b"\1\xc0\x84\x3d" + part)


def test_a_bound_under_64_bytes() -> None:
    with pytest.raises(DecodeError, match="63 bytes"):
        decode_sync(b"\1\1\0\x3f" + bytes(63) + b"\x40" + bytes(64) + bytes(40))


ids = st.binary(min_size=64, max_size=70)
ranges = st.builds(IdRange, ids, ids)
values = st.builds(
    Value,
    st.builds(
        entry, key=st.binary(max_size=6), timestamp=st.integers(0, 2**64 - 1), content=st.sampled_from([None, 1])
    ),
    st.sampled_from(ContentStatus),
)
parts = st.one_of(
    st.builds(RangeFingerprint, ranges, st.binary(min_size=32, max_size=32)),
    st.builds(RangeItems, ranges, st.lists(values, max_size=3), st.booleans()),
    st.builds(RangeList, ranges, st.integers(0, 3).map(lambda count: bytes(8 * count))),
    st.builds(RangeWant, ranges, st.binary(min_size=16, max_size=16)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(parts, max_size=4))
def test_round_trip(message: list) -> None:
    assert decode_sync(encode_sync(Sync(message))) == Sync(message)
    assert decode_sync(encode_sync(Init(NAMESPACE_ID, message))) == Init(NAMESPACE_ID, message)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_decode_error(data: bytes) -> None:
    for decode in (decode_op, decode_sync):
        try:
            decode(data)
        except DecodeError:
            pass


@settings(max_examples=100, deadline=None)
@given(st.lists(parts, min_size=1, max_size=3), st.data())
def test_a_damaged_message_is_a_message_or_a_decode_error(message: list, data: st.DataObject) -> None:
    payload = bytearray(encode_sync(Sync(message)))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    try:
        decode_sync(bytes(payload[:cut]))
    except DecodeError:
        pass
