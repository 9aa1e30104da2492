"""The codec of tidings/docs/1: round trips, limits, and any bytes give a message or DecodeError."""

import re
from pathlib import Path

import msgpack
import pytest
from docs_model import AUTHORS, NAMESPACE
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.model.entry import Record, sign_entry
from tidings.docs_sync.model.keyed import KeyedRange, derive_key
from tidings.docs_sync.model.messages import Check, Sync, encode_sync
from tidings.docs_sync.model.native_messages import (
    MAX_DIGESTS,
    MAX_NEWS,
    MAX_NEWS_FRAME,
    MAX_REQUEST,
    MAX_TOLD,
    Accepted,
    Differ,
    Digest,
    DigestRequest,
    FollowRequest,
    News,
    Refused,
    RefusedReason,
    SyncAgain,
    SyncRequest,
    TellRequest,
    decode_answer,
    decode_news,
    decode_request,
    encode_answer,
    encode_news,
    encode_request,
)
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, RangeFingerprint, RangeList, RangeWant, Summary, Value
from tidings.docs_sync.model.validity import MAX_KEY_SIZE
from tidings.transport.errors import DecodeError

few = settings(max_examples=60, deadline=None)
id32 = st.binary(min_size=32, max_size=32)
prefix = st.binary(min_size=1, max_size=60)
ENTRY = sign_entry(NAMESPACE, AUTHORS[0], b"key", Record(1, b"\1" * 32, 5))
values = st.lists(st.builds(Value, st.just(ENTRY), st.sampled_from(ContentStatus)), max_size=5)
share = st.none() | st.binary(max_size=200)
revoked = st.lists(st.binary(max_size=100), max_size=5).map(tuple)
digest = st.builds(Digest, id32, id32, st.integers(0, 2**64 - 1))
requests = (
    st.builds(SyncRequest, id32, id32, st.none() | prefix, share, revoked)
    | st.builds(DigestRequest, st.lists(digest, max_size=20))
    | st.builds(FollowRequest, id32, prefix, share)
    | st.builds(TellRequest, id32, values, share)
)
answers = (
    st.builds(Accepted, st.none() | id32, revoked, share)
    | st.builds(Differ, st.sets(st.integers(0, 65535), max_size=40).map(sorted))
    | st.builds(Refused, st.sampled_from(RefusedReason), st.text(max_size=500))
)


@few
@given(requests)
def test_requests_come_back(request):
    assert decode_request(encode_request(request)) == request


@few
@given(answers)
def test_answers_come_back(answer):
    assert decode_answer(encode_answer(answer)) == answer


@few
@given(st.lists(st.sampled_from(ContentStatus), max_size=9), st.lists(id32, max_size=9))
def test_news_comes_back(statuses, contents):
    news = News([Value(ENTRY, status) for status in statuses], contents)
    assert decode_news(encode_news(news)) == news
    assert decode_news(encode_news(SyncAgain())) == SyncAgain()


def test_the_largest_of_each_fits():
    digests = [Digest(bytes(32), bytes(32), 2**64 - 1)] * MAX_DIGESTS
    assert len(encode_request(DigestRequest(digests))) <= MAX_REQUEST
    largest = SyncRequest(bytes(32), bytes(32), b"p" * 4096, b"s" * 4096, (b"r" * 104,) * 512)
    assert decode_request(encode_request(largest)) == largest
    entry = sign_entry(NAMESPACE, AUTHORS[0], b"k" * MAX_KEY_SIZE, Record(1, b"\1" * 32, 2**62))
    news = News([Value(entry, ContentStatus.COMPLETE)] * MAX_NEWS, [])
    assert decode_news(encode_news(news)) == news
    told = [Value(entry, ContentStatus.COMPLETE)] * (MAX_TOLD // (len(bytes(entry.id)) + 250))
    tell = TellRequest(DOCUMENT, told, b"s" * 4096)
    assert decode_request(encode_request(tell)) == tell


structures = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["do", "doc", "ok", "docs", "differ", "refused", "why", "x"]), inner, max_size=5
        )
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80) | structures.map(msgpack.packb))
def test_any_bytes_are_a_message_or_a_decode_error(payload):
    for decode in (decode_request, decode_answer, decode_news):
        try:
            decode(payload)
        except DecodeError:
            pass


good = {"do": "sync", "doc": bytes(32), "nonce": bytes(32)}


@pytest.mark.parametrize(
    "fields",
    [
        good | {"doc": bytes(31)},
        good | {"doc": "x" * 32},
        good | {"nonce": bytes(33)},
        good | {"prefix": b""},
        good | {"prefix": b"p" * 4097},
        good | {"share": b"s" * 4097},
        good | {"revoked": [b""] * 513},
        good | {"revoked": [b"r" * 105]},
        good | {"revoked": b"r"},
        good | {"do": "dance"},
        good | {"do": 7},
        {"do": "follow", "doc": bytes(32)},
        {"do": "digest", "docs": bytes(73)},
        {"do": "digest", "docs": bytes(72 * (MAX_DIGESTS + 1))},
        {"x": [0] * 1025},
        {str(n): n for n in range(33)},
        {7: 8},
        [],
    ],
)
def test_what_is_no_request(fields):
    with pytest.raises(DecodeError):
        decode_request(msgpack.packb(fields))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x91" * 5000,  # arrays in arrays
        b"\x81\xa1x" * 5000,
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffabc",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x81\xa2do\xa2\xff\xff",
        b"\xd6\xff" + bytes(4),
        bytes(MAX_NEWS_FRAME + 1),
        b"",
    ],
)
def test_deep_huge_and_broken_msgpack(payload):
    for decode in (decode_request, decode_answer, decode_news):
        with pytest.raises(DecodeError):
            decode(payload)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ok": False},
        {"ok": 1},
        {"ok": True, "nonce": b"short"},
        {"differ": b"\0\1\0\1"},
        {"differ": b"\0"},
        {"refused": 4},
        {"refused": "x" * 501},
        {"refused": "busy", "why": "x" * 501},
    ],
)
def test_what_is_no_answer(fields):
    with pytest.raises(DecodeError):
        decode_answer(msgpack.packb(fields))


def test_what_a_later_version_says_is_ignored_or_named():
    later = good | {"colour": [1, {"deep": None}], "prefix": None}
    assert decode_request(msgpack.packb(later)) == SyncRequest(bytes(32), bytes(32))
    refused = decode_answer(msgpack.packb({"refused": "moon phase", "why": "wait"}))
    assert refused == Refused(RefusedReason.UNKNOWN, "wait")


def test_news_is_bounded():
    one = encode_news(News([Value(ENTRY, ContentStatus.MISSING)]))
    entry = msgpack.unpackb(one)["entries"]
    with pytest.raises(DecodeError, match="more than"):
        decode_news(msgpack.packb({"entries": entry * (MAX_NEWS + 1)}))
    with pytest.raises(DecodeError):
        decode_news(msgpack.packb({"contents": bytes(32 * 1025)}))


PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
VECTORS = re.findall(r"^(.+)\n([0-9a-f]{2,})$", PAGE.partition("## Vectors")[2].partition("```text\n")[2], re.MULTILINE)
WHOLE = IdRange(bytes(64), bytes(64))
DOCUMENT, FIRST, SECOND = (bytes([n]) * 32 for n in (1, 2, 3))
KEY = derive_key(DOCUMENT, FIRST, SECOND)


class TwoEntries:
    """A range store of which only the keyed fingerprint is asked."""

    def summary(self, range):
        return Summary(2, bytes(32))

    def fingerprints(self, range):
        return iter([b"\x09" * 32, b"\x08" * 32])


OURS = {
    'request sync, prefix "photos/"': encode_request(SyncRequest(DOCUMENT, FIRST, b"photos/")),
    "answer yes": encode_answer(Accepted(SECOND)),
    "answer no, already syncing": encode_answer(Refused(RefusedReason.SYNCING, "already syncing")),
    "request digest, fingerprint 04 32 times, 5 entries": encode_request(
        DigestRequest([Digest(DOCUMENT, b"\4" * 32, 5)])
    ),
    "answer differ, the first": encode_answer(Differ([0])),
    "request tell, no entry": encode_request(TellRequest(DOCUMENT, [])),
    'request follow, prefix "photos/"': encode_request(FollowRequest(DOCUMENT, b"photos/")),
    "answer yes, to follow": encode_answer(Accepted()),
    "news, the content 05 32 times": encode_news(News([], [b"\5" * 32])),
    "news, again": encode_news(SyncAgain()),
    "check, the whole of the document, fingerprint 06 32 times": encode_sync(
        Check([RangeFingerprint(WHOLE, b"\6" * 32)])
    ),
    "sync, the list of two entries, and the wish for one of them": encode_sync(
        Sync([RangeList(WHOLE, b"\7" * 8 + b"\x08" * 8), RangeWant(WHOLE, b"\x08" * 8)])
    ),
    "key of the second check": KEY,
    "keyed fingerprint of two entries whose own are 09 and 08 32 times": KeyedRange(TwoEntries(), KEY)
    .summary(WHOLE)
    .fingerprint,
}


def test_the_page_has_our_bytes():
    assert {name: bytes.fromhex(data) for name, data in VECTORS} == OURS


def test_the_page_has_all_words():
    keys = {key for data in list(OURS.values())[:10] for key in msgpack.unpackb(data)}
    for word in keys | {reason.value for reason in RefusedReason if reason is not RefusedReason.UNKNOWN}:
        assert f"`{word}`" in PAGE, word
