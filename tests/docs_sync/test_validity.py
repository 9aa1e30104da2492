"""Section 2.2: each rule by the error that it gives."""

import pytest
from tidings.docs_sync import errors
from tidings.docs_sync.model.entry import EMPTY_HASH, EntryId, Record, sign_entry
from tidings.docs_sync.model.keys import Author, NamespaceSecret
from tidings.docs_sync.model.validity import MAX_AHEAD_US, MAX_KEY_SIZE, check_entry, judge_all, verify_all

NAMESPACE = NamespaceSecret(b"\xb2" * 32)
AUTHOR = Author(b"\xa1" * 32)
NOW = 1_700_000_000_000_000
GOOD = Record(5, b"\x01" * 32, NOW)


def verdict(key: bytes = b"key", record: Record = GOOD, namespace: bytes | None = None) -> type | None:
    id = EntryId(namespace or bytes(NAMESPACE.id), bytes(AUTHOR.id), key)
    found = check_entry(id, record, bytes(NAMESPACE.id), NOW)
    return None if found is None else type(found)


def test_good_entries() -> None:
    assert verdict() is None
    assert verdict(record=Record(0, EMPTY_HASH, NOW)) is None
    assert verdict(record=GOOD._replace(timestamp=NOW + MAX_AHEAD_US)) is None
    assert verdict(record=GOOD._replace(timestamp=0)) is None
    assert verdict(key=b"k" * MAX_KEY_SIZE) is None


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (errors.WrongNamespace, {"namespace": bytes(32)}),
        (errors.TooFarAhead, {"record": GOOD._replace(timestamp=NOW + 660_000_000)}),
        (errors.TooFarAhead, {"record": GOOD._replace(timestamp=NOW + MAX_AHEAD_US + 1)}),
        (errors.TooFarAhead, {"record": GOOD._replace(timestamp=2**64 - 1)}),
        (errors.BadSize, {"record": GOOD._replace(size=2**63)}),
        (errors.BadEmptyEntry, {"record": GOOD._replace(size=0)}),
        (errors.BadEmptyEntry, {"record": Record(1, EMPTY_HASH, NOW)}),
        (errors.KeyTooLarge, {"key": b"k" * (MAX_KEY_SIZE + 1)}),
    ],
)
def test_bad_entries(kind: type, arguments: dict) -> None:
    assert verdict(**arguments) is kind


def test_signatures() -> None:
    good = sign_entry(NAMESPACE, AUTHOR, b"key", GOOD)
    forged = [
        good._replace(author_signature=good.namespace_signature),
        good._replace(namespace_signature=good.author_signature),
        good._replace(record=GOOD._replace(timestamp=NOW + 1)),
        good._replace(author_signature=bytes(64)),
    ]
    assert verify_all([good, *forged]) == [True, False, False, False, False]
    kinds = [type(v) for v in judge_all([good, *forged], bytes(NAMESPACE.id), NOW)]
    assert kinds == [type(None)] + [errors.BadSignature] * 4
