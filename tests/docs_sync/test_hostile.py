"""Every rule of ``reference/iroh-protocols.md`` 2.2 against messages that no honest peer sends, over the real store.

What a message holds is judged by a second statement of the rules, here. Whatever it was: what is acceptable is stored,
nothing else is, no other document is touched or shown, and a good peer's sync then works as before.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from docs_checker import Model, entries_of, sync_stores, verify_document
from docs_model import AUTHORS, NAMESPACE
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.entry import EMPTY_HASH, EntryId, Record, SignedEntry, sign_entry
from tidings.docs_sync.model.keys import NamespaceSecret
from tidings.docs_sync.model.messages import MAX_PARTS, Init, Put, Sync, SyncMessage, SyncReport, decode_op, encode_op
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, Limits, Message, Part, RangeFingerprint, RangeItems, Value
from tidings.docs_sync.model.validity import MAX_KEY_SIZE
from tidings.docs_sync.store.documents import DocsStore
from tidings.storage import Database
from tidings.transport.errors import DecodeError
from tidings.transport.postcard import Writer

NOW = 1_700_000_000_000_000
TEN_MINUTES = 600_000_000
OTHERS = sorted((NamespaceSecret(bytes([n]) * 32) for n in range(1, 9)), key=lambda secret: bytes(secret.id))
ID = bytes(NAMESPACE.id)
LIMITS = Limits(max_values=30, max_parts=40)  # so that the examples reach them


def content(number: int) -> bytes:
    return bytes([number]) * 32


OURS = [
    sign_entry(NAMESPACE, author, key, Record(1, content(1), NOW - 1_000 + n))
    for n, (author, key) in enumerate(
        (author, key) for author in AUTHORS for key in (b"", b"a", b"ab", b"b/c", b"\xff")
    )
]
THEIRS = {
    secret: [sign_entry(secret, AUTHORS[0], b"%d" % n, Record(1, content(2), NOW)) for n in range(3)]
    for secret in OTHERS
}


@asynccontextmanager
async def store_of(entries: Sequence[SignedEntry] = ()) -> AsyncIterator[tuple[Database, DocsStore]]:
    database = await Database.open(None)
    store = DocsStore(database, limits=LIMITS, clock=lambda: NOW)
    await store.add_namespace(Capability(NAMESPACE.id, NAMESPACE))
    await store.insert(NAMESPACE.id, entries)
    yield database, store
    await store.aclose()
    await database.aclose()


def is_inside(id: bytes, part: RangeItems) -> bool:
    x, y = part.range.x, part.range.y
    return x == y or (x <= id < y if x < y else not y <= id < x)


def is_acceptable(entry: SignedEntry, genuine: set[SignedEntry]) -> bool:
    size, hash, timestamp = entry.record
    return (
        entry in genuine
        and entry.id.namespace == ID
        and len(entry.id.key) <= MAX_KEY_SIZE
        and timestamp <= NOW + TEN_MINUTES
        and size < 1 << 63
        and (size == 0) is (hash == EMPTY_HASH)
    )


signed: set[SignedEntry] = set()
"""All that the strategies signed, and did not spoil afterwards."""


@st.composite
def entries(draw: st.DrawFn) -> SignedEntry:
    secret = draw(st.sampled_from([NAMESPACE] * 6 + OTHERS[:2]))
    key = draw(st.one_of(st.sampled_from([b"", b"a", b"ab", b"abc", b"b/", b"\xff\xff"]), st.binary(max_size=3)))
    if draw(st.integers(0, 20)) == 0:
        key += bytes(MAX_KEY_SIZE - draw(st.integers(0, 3)))
    far = [NOW + TEN_MINUTES + 1, NOW + 3600_000_000, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    near = [0, 1, NOW - 1_000, NOW - 995, NOW, NOW + TEN_MINUTES]
    timestamp = draw(st.sampled_from(near + far))
    sizes = st.sampled_from([1, 1, 7, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
    size, hash = draw(sizes), content(draw(st.integers(0, 2)))
    match draw(st.integers(0, 9)):
        case 0:
            size = 0
        case 1:
            hash = EMPTY_HASH
        case 2 | 3:
            size, hash = 0, EMPTY_HASH
    entry = sign_entry(secret, draw(st.sampled_from(AUTHORS)), key, Record(size, hash, timestamp))
    match draw(st.integers(0, 15)):
        case 0:
            return entry._replace(author_signature=draw(st.binary(min_size=64, max_size=64)))
        case 1:
            return entry._replace(namespace_signature=bytes(64))
        case 2:
            return entry._replace(
                author_signature=entry.namespace_signature, namespace_signature=entry.author_signature
            )
        case 3:  # what was signed is another entry
            return entry._replace(record=entry.record._replace(timestamp=(timestamp + 1) % (1 << 64)))
        case 4:
            return entry._replace(id=entry.id._replace(key=entry.id.key + b"a"))
        case 5:  # no author at all, or one whose key is no key
            author = draw(st.sampled_from([bytes(32), b"\x01" + bytes(31), b"\xff" * 32]))
            return entry._replace(id=entry.id._replace(author=author))
        case 6:  # of another document, moved here
            moved = sign_entry(OTHERS[0], AUTHORS[0], entry.id.key, entry.record)
            return moved._replace(id=EntryId(ID, *moved.id[1:]))
        case _:
            signed.add(entry)
            return entry


bounds = st.one_of(
    st.sampled_from([bytes(entry.id) for entry in OURS]),
    st.sampled_from([bytes(entry.id) for held in THEIRS.values() for entry in held]),
    st.sampled_from([bytes(64), ID + bytes(32), ID + b"\xff" * 32, b"\xff" * 64, b"\xff" * 5_000]),
    st.sampled_from([ID + bytes(AUTHORS[0].id) + bytes(10_000), bytes(OTHERS[0].id) + bytes(32)]),
    st.binary(min_size=64, max_size=70),
)
ranges = st.one_of(st.builds(IdRange, bounds, bounds), bounds.map(lambda x: IdRange(x, x)))
values = st.builds(Value, entries(), st.sampled_from(ContentStatus))
parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(RangeFingerprint, ranges, st.sampled_from([bytes(32), EMPTY_HASH, content(9)])),
    st.builds(RangeItems, ranges, st.lists(values, max_size=8), st.booleans()),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(parts, max_size=6), min_size=1, max_size=3))
def test_every_rule_in_a_sync(messages: list[Message]) -> None:
    async def main() -> None:
        model = Model()
        for entry in OURS:
            model.put(entry)
        async with store_of(OURS) as (database, store), store_of(OURS[:3]) as (_, good):
            for secret, held in THEIRS.items():
                await store.add_namespace(Capability(secret.id, secret))
                await store.insert(secret.id, held)
            for message in messages:
                received = await store.decode(await store.encode(Sync(message)))
                assert received == Sync(message)
                result = await store.process(NAMESPACE.id, received.message)
                items = [
                    (part, value.entry) for part in message if isinstance(part, RangeItems) for value in part.values
                ]
                accepted = [e for part, e in items if is_acceptable(e, signed) and is_inside(bytes(e.id), part)]
                assert result.received == len(items)
                assert len(result.rejected) == len(items) - len(accepted)
                assert {value.entry for value in result.stored} <= set(accepted)
                for entry in accepted:
                    model.put(entry)
                assert await database.read(lambda c: verify_document(c, ID)) == model.entries
                check_reply(result.reply, len(message) + len(items))
                assert await store.decode(await store.encode(Sync(result.reply))) == Sync(result.reply)
            for secret, held in THEIRS.items():
                assert await database.read(lambda c, its=bytes(secret.id): entries_of(c, its)) == held
            await sync_stores(NAMESPACE.id, good, store)
            assert await good.summary(NAMESPACE.id) == await store.summary(NAMESPACE.id)

    asyncio.run(main())


def check_reply(reply: Message, asked: int) -> None:
    """It shows entries of this document alone, each in its range, and no more than we send to anybody."""
    sent = 0
    for part in reply:
        if isinstance(part, RangeItems):
            sent += len(part.values)
            for value in part.values:
                assert value.entry.id.namespace == ID
                assert part.range.contains(bytes(value.entry.id))
    assert sent <= LIMITS.max_values
    assert len(reply) <= LIMITS.max_parts + LIMITS.split + 2 * asked


@settings(max_examples=40, deadline=None)
@given(st.lists(entries(), max_size=12))
def test_every_rule_in_gossip(received: list[SignedEntry]) -> None:
    async def main() -> None:
        model = Model()
        for entry in OURS:
            model.put(entry)
        async with store_of(OURS) as (database, store):
            ops = [decode_op(encode_op(Put(entry))) for entry in received]
            outcomes = (await store.insert(NAMESPACE.id, [op.entry for op in ops if isinstance(op, Put)])).outcomes
            for entry, outcome in zip(received, outcomes, strict=True):
                assert isinstance(outcome, Exception) is not is_acceptable(entry, signed)
                if is_acceptable(entry, signed):
                    model.put(entry)
            assert await database.read(lambda c: verify_document(c, ID)) == model.entries

    asyncio.run(main())


WHOLE = IdRange(bytes(64), bytes(64))
GOOD = Record(1, content(5), NOW)


def signed_as(record: Record, *, key: bytes = b"k", secret: NamespaceSecret = NAMESPACE) -> SignedEntry:
    return sign_entry(secret, AUTHORS[0], key, record)


@pytest.mark.parametrize(
    ("entry", "acceptable"),
    [
        (signed_as(GOOD), True),
        (signed_as(GOOD._replace(timestamp=NOW + TEN_MINUTES)), True),
        (signed_as(GOOD._replace(timestamp=NOW + TEN_MINUTES + 1)), False),
        (signed_as(GOOD._replace(timestamp=(1 << 64) - 1)), False),
        (signed_as(Record(0, EMPTY_HASH, NOW)), True),
        (signed_as(Record(1, EMPTY_HASH, NOW)), False),
        (signed_as(GOOD._replace(size=0)), False),
        (signed_as(GOOD._replace(size=1 << 63)), False),
        (signed_as(GOOD, key=bytes(MAX_KEY_SIZE)), True),
        (signed_as(GOOD, key=bytes(MAX_KEY_SIZE + 1)), False),
        (signed_as(GOOD, secret=OTHERS[0]), False),
        (signed_as(GOOD)._replace(author_signature=bytes(64)), False),
        (signed_as(GOOD)._replace(namespace_signature=bytes(64)), False),
        (signed_as(GOOD)._replace(namespace_signature=signed_as(GOOD, secret=OTHERS[0]).namespace_signature), False),
        (signed_as(GOOD)._replace(id=signed_as(GOOD, key=b"j").id), False),
        (signed_as(GOOD)._replace(record=GOOD._replace(size=2)), False),
        (signed_as(GOOD)._replace(id=EntryId(ID, bytes(32), b"k")), False),
    ],
)
async def test_each_rule_alone(entry: SignedEntry, acceptable: bool) -> None:
    async with store_of() as (database, store):
        (outcome,) = (await store.insert(NAMESPACE.id, [entry])).outcomes
        assert isinstance(outcome, Exception) is not acceptable
        assert await database.read(lambda c: verify_document(c, ID)) == [entry] * acceptable
    async with store_of() as (database, store):
        outside = IdRange(ID + b"\xff" * 32, ID + b"\xff" * 33)
        value = Value(entry, ContentStatus.COMPLETE)
        assert not (await store.process(NAMESPACE.id, [RangeItems(outside, [value], True)])).stored
        result = await store.process(NAMESPACE.id, [RangeItems(WHOLE, [value], True)])
        assert [value.entry for value in result.stored] == [entry] * acceptable
        assert len(result.rejected) == 1 - acceptable
        assert await database.read(lambda c: verify_document(c, ID)) == [entry] * acceptable


@pytest.mark.parametrize("kind", [0, 1])
async def test_a_million_parts(kind: int) -> None:
    """A count is not believed, and what really comes is answered in bounded size."""
    lie = Writer().u8(1).varint(1_000_000).raw(bytes(1_000)).finish()
    async with store_of(OURS) as (_, store):
        with pytest.raises(DecodeError):
            await store.decode(lie)
        one: Part = RangeFingerprint(WHOLE, bytes(32)) if kind else RangeItems(WHOLE, [], have_local=False)
        with pytest.raises(DecodeError):
            await store.decode(await store.encode(Sync([one] * (MAX_PARTS + 1))))
        many = 4_000
        result = await store.process(NAMESPACE.id, [one] * many)
        check_reply(result.reply, many)
        assert await good_sync(store)


async def test_all_ranges_of_the_world() -> None:
    """Wrap-arounds and ranges across documents never show another document's entries, nor count them."""
    rng = random.Random(1)
    edges = sorted(bytes(secret.id)[:32] for secret in (NAMESPACE, *OTHERS))
    points = [edge + tail for edge in edges for tail in (bytes(32), b"\x80" * 32, b"\xff" * 40)]
    async with store_of(OURS) as (_, store):
        for secret, held in THEIRS.items():
            await store.add_namespace(Capability(secret.id, secret))
            await store.insert(secret.id, held)
        for _ in range(400):
            asked = IdRange(rng.choice(points), rng.choice(points))
            result = await store.process(NAMESPACE.id, [RangeItems(asked, [], have_local=False)])
            shown = {value.entry for part in result.reply if isinstance(part, RangeItems) for value in part.values}
            assert shown == {entry for entry in OURS if asked.contains(bytes(entry.id))}
            result = await store.process(NAMESPACE.id, [RangeFingerprint(asked, EMPTY_HASH)])
            assert bool(result.reply) is bool(shown)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_spoilt_bytes(data: st.DataObject) -> None:
    """A message with some bytes changed, cut or added is another message, or DecodeError."""

    async def main() -> None:
        async with store_of(OURS) as (database, store):
            message: SyncMessage = Sync([RangeItems(WHOLE, [Value(e, ContentStatus.MISSING) for e in OURS[:2]], True)])
            if data.draw(st.booleans()):
                message = Init(ID, [RangeFingerprint(WHOLE, bytes(32))])
            payload = bytearray(await store.encode(message))
            for _ in range(data.draw(st.integers(1, 4))):
                payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
            cut = data.draw(st.integers(0, len(payload)))
            spoilt = bytes(payload) if data.draw(st.booleans()) else bytes(payload[:cut])
            try:
                decoded = await store.decode(spoilt)
            except DecodeError:
                return
            if isinstance(decoded, Init | Sync):
                await store.process(NAMESPACE.id, decoded.message)
            assert await database.read(lambda c: verify_document(c, ID)) == sorted(OURS, key=lambda entry: entry.id)

    asyncio.run(main())


@pytest.mark.parametrize("size", [MAX_KEY_SIZE, MAX_KEY_SIZE + 1, 60_000])
async def test_long_keys(size: int) -> None:
    entry = sign_entry(NAMESPACE, AUTHORS[0], bytes(size), Record(1, content(3), NOW))
    async with store_of(OURS) as (database, store):
        result = await store.process(NAMESPACE.id, [RangeItems(WHOLE, [Value(entry, ContentStatus.MISSING)], True)])
        assert bool(result.stored) is (size <= MAX_KEY_SIZE)
        await database.read(lambda c: verify_document(c, ID))
        assert await good_sync(store)


async def test_heads_from_the_far_future() -> None:
    """Entries that no peer can have are no news, so they cost no sync: see `LiveDocument._is_news`."""
    report = SyncReport(ID, {bytes(AUTHORS[0].id): (1 << 64) - 1, bytes(32): NOW})
    assert decode_op(encode_op(report)) == report
    with pytest.raises(DecodeError):
        decode_op(Writer().u8(2).raw(ID).octets(Writer().varint(1 << 40).raw(bytes(100)).finish()).finish())


async def good_sync(store: DocsStore) -> bool:
    new = sign_entry(NAMESPACE, AUTHORS[1], b"good", Record(1, content(4), NOW))
    async with store_of([new]) as (_, good):
        await sync_stores(NAMESPACE.id, good, store)
        return await store.get(NAMESPACE.id, b"good") == new and await good.summary(
            NAMESPACE.id
        ) == await store.summary(NAMESPACE.id)
