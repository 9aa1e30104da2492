"""The SQLite store: the put rule against its definition, reconciliation, queries, authors, clocks."""

import asyncio
import random
import time

import pytest
from docs_model import AUTHORS, NAMESPACE, NAMESPACE_ID, MemoryStore, entry, merged
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync import errors
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.entry import EMPTY_HASH, Record, sign_entry
from tidings.docs_sync.model.keys import Author, NamespaceSecret
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import Limits, RangeItems, Value, answer, initial_message, take_values
from tidings.docs_sync.store.documents import DocsStore
from tidings.docs_sync.store.put_rows import put_entries
from tidings.docs_sync.store.query import Query
from tidings.docs_sync.store.rows import EntryRows
from tidings.storage import Database
from tidings.transport import EndpointAddr, EndpointId, IpAddr

CAPABILITY = Capability(NAMESPACE.id, NAMESPACE)
ID = NAMESPACE.id

keys = st.binary(max_size=3).map(lambda key: bytes(0xFF if b > 250 else b % 2 + 97 for b in key))
entries = st.builds(
    entry, key=keys, timestamp=st.integers(1, 8), content=st.sampled_from([None, 1, 2]), author=st.integers(0, 1)
)
histories = st.lists(entries, max_size=20)


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request):
    shared = request.param == "postgres"
    database = await Database.open(request.getfixturevalue("postgres_url") if shared else None)
    store = DocsStore(database)
    await store.add_namespace(CAPABILITY)
    yield store
    await store.aclose()
    await database.aclose()


def rows_of(connection) -> EntryRows:
    return EntryRows(connection, NAMESPACE_ID)


def put_all(connection, history) -> None:
    for start in range(0, len(history), 7):
        put_entries(connection, NAMESPACE_ID, history[start : start + 7], now_us=0, history=False)


def all_of(connection) -> set:
    return {value.entry for value in rows_of(connection).walk(IdRange(bytes(64), bytes(64)))}


def run(main):
    """Hypothesis and asyncio: one loop for each example."""
    return asyncio.run(main())


@settings(max_examples=60, deadline=None)
@given(histories)
def test_the_put_rule_is_the_models(history: list) -> None:
    async def main() -> None:
        database = await Database.open(None)
        stranger = entry(b"a", 1, namespace=bytes(32))
        await database.write(lambda connection: put_entries(connection, bytes(32), [stranger], now_us=0, history=False))
        await database.write(lambda connection: put_all(connection, history))
        assert await database.read(all_of) == merged(history)
        others = IdRange(bytes(64), bytes(64))
        (value,) = await database.read(lambda connection: list(EntryRows(connection, bytes(32)).walk(others)))
        assert value.entry == stranger
        await database.aclose()

    run(main)


@settings(max_examples=60, deadline=None)
@given(histories, histories, st.sampled_from([1, 3, 1000]))
def test_two_stores_that_edited_offline_converge(mine: list, theirs: list, max_values: int) -> None:
    async def main() -> None:
        a, b = await Database.open(None), await Database.open(None)
        await a.write(lambda connection: put_all(connection, mine))
        await b.write(lambda connection: put_all(connection, theirs))
        limits = Limits(max_values=max_values)
        message = await a.read(lambda connection: initial_message(rows_of(connection)))
        sides = [b, a]
        while message:
            side = sides[0]
            taken = await side.write(
                lambda c, m=message: take_values(lambda e: put_entries(c, NAMESPACE_ID, e, now_us=0, history=False), m)
            )
            message = await side.read(lambda c, m=message, t=taken: answer(rows_of(c), m, limits, t.owed))
            sides.reverse()
        assert await a.read(all_of) == await b.read(all_of) == merged(mine + theirs)
        await a.aclose()
        await b.aclose()

    run(main)


@settings(max_examples=60, deadline=None)
@given(histories, st.binary(max_size=2), st.binary(max_size=2), st.integers(0, 1), st.integers(0, 1))
def test_ranges_are_the_models(history: list, x: bytes, y: bytes, ax: int, ay: int) -> None:
    async def main() -> None:
        database = await Database.open(None)
        await database.write(lambda connection: put_all(connection, history))
        model = MemoryStore(history)
        bounds = [NAMESPACE_ID + bytes(AUTHORS[a].id) + key for a, key in ((ax, x), (ay, y))]
        for range_ in (IdRange(*bounds), IdRange(bytes(64), bounds[0]), IdRange(bounds[1], b"\xff" * 64)):

            def look(connection, range_=range_):
                rows = rows_of(connection)
                summary = rows.summary(range_)
                return list(rows.walk(range_)), summary, rows.ids_at(range_, list(range(summary.size)))

            walked, summary, ids = await database.read(look)
            assert [v.entry for v in walked] == [v.entry for v in model.walk(range_)]
            assert summary == model.summary(range_)
            assert ids == [bytes(v.entry.id) for v in walked]
        assert await database.read(lambda c: rows_of(c).first_id()) == model.first_id()
        await database.aclose()

    run(main)


async def collect(store: DocsStore, **arguments) -> list:
    return [e async for e in store.query(ID, Query(**arguments))]


@settings(max_examples=40, deadline=None)
@given(
    histories,
    st.builds(
        Query,
        prefix=st.none() | keys,
        key=st.none() | keys,
        author=st.sampled_from([None, *(bytes(a.id) for a in AUTHORS)]),
        sort=st.sampled_from(["key", "author"]),
        newest=st.booleans(),
        limit=st.none() | st.integers(0, 4),
        offset=st.integers(0, 3),
        tombstones=st.booleans(),
    ),
)
def test_queries_are_the_models(history: list, query: Query) -> None:
    expected = [
        e
        for e in merged(history)
        if (query.prefix is None or e.id.key.startswith(query.prefix))
        and (query.key is None or e.id.key == query.key)
        and (query.author is None or e.id.author == query.author)
    ]
    if query.newest:
        expected = [
            e
            for e in expected
            if not any(
                o.id.key == e.id.key and (o.record.order, o.id.author) > (e.record.order, e.id.author) for o in expected
            )
        ]
    by_key = query.sort == "key" or query.newest
    expected = [e for e in expected if query.tombstones or not e.record.is_tombstone]
    expected.sort(key=lambda e: (e.id.key, e.id.author) if by_key else (e.id.author, e.id.key))
    expected = expected[query.offset :][: query.limit]

    async def main() -> None:
        database = await Database.open(None)
        store = DocsStore(database)
        await database.write(lambda connection: put_all(connection, history))
        assert [e async for e in store.query(ID, query)] == expected
        await store.aclose()
        await database.aclose()

    run(main)


async def test_pages(store: DocsStore) -> None:
    history = [entry(b"%04d" % n, n, author=n % 2) for n in range(1, 701)]
    await store._database.write(lambda connection: put_all(connection, history))
    assert [e.id.key for e in await collect(store)] == [e.id.key for e in history]
    assert len(await collect(store, sort="author")) == 700
    assert len(await collect(store, newest=True, offset=600)) == 100


async def test_local_writes(store: DocsStore) -> None:
    author = await store.default_author()
    assert (await store.default_author()).id == author.id
    assert await store.authors() == [author.id]
    times = []
    for _ in range(50):
        written = await store.write(CAPABILITY, author, b"k", b"\1" * 32, 3)
        times.append(written.entry.record.timestamp)
    assert times == sorted(set(times))
    assert abs(times[-1] / 1e6 - time.time()) < 60
    assert (await store.get(ID, b"k")).record.timestamp == times[-1]
    assert written.removed == 1
    assert (await store.write(CAPABILITY, author, b"", EMPTY_HASH, 0)).removed == 1
    assert (await store.write(CAPABILITY, author, b"", EMPTY_HASH, 0)).removed == 0
    assert await store.get(ID, b"k") is None
    assert await store.judge(ID, [written.entry]) == [None]


async def test_who_may_not_write(store: DocsStore) -> None:
    author = await store.default_author()
    with pytest.raises(errors.ReadOnly):
        await store.write(CAPABILITY.read_only(), author, b"k", b"\1" * 32, 3)
    with pytest.raises(errors.BadKey):
        await store.write(CAPABILITY, author, bytes(5000), b"\1" * 32, 3)
    with pytest.raises(errors.UnknownAuthor):
        await store.author(Author.generate().id)


async def test_a_clock_that_was_far_ahead(store: DocsStore) -> None:
    author = await store.default_author()
    ahead = sign_entry(NAMESPACE, author, b"x", Record(1, b"\1" * 32, time.time_ns() // 1000 + 3_600_000_000))
    await store._database.write(lambda connection: put_all(connection, [ahead]))
    with pytest.raises(errors.ClockBehind):
        await store.write(CAPABILITY, author, b"y", b"\1" * 32, 3)


async def test_entries_of_others(store: DocsStore) -> None:
    now = time.time_ns() // 1000
    good = sign_entry(NAMESPACE, AUTHORS[0], b"good", Record(1, b"\1" * 32, now))
    forged = good._replace(namespace_signature=bytes(64))
    ahead = sign_entry(NAMESPACE, AUTHORS[0], b"late", Record(1, b"\1" * 32, now + 660_000_000))
    received = await store.insert(ID, [forged, good, ahead, good])
    outcomes = received.outcomes
    assert received.missing == {b"\1" * 32}
    assert [type(o) for o in outcomes[::2]] == [errors.BadSignature, errors.TooFarAhead]
    assert [o.stored for o in outcomes[1::2]] == [True, False]
    assert await collect(store) == [good]
    assert await store.heads(ID) == {bytes(AUTHORS[0].id): now}


async def test_a_bad_message_leaves_nothing_behind(store: DocsStore) -> None:
    good = sign_entry(NAMESPACE, AUTHORS[0], b"good", Record(1, b"\1" * 32, 5))
    other = NamespaceSecret.generate()
    stranger = sign_entry(other, AUTHORS[0], b"good", Record(1, b"\1" * 32, 5))
    whole = IdRange(bytes(64), bytes(64))
    result = await store.process(ID, [RangeItems(whole, [Value(stranger, 0), Value(good, 0)], False)])
    assert [type(error) for error in result.rejected] == [errors.WrongNamespace]
    assert [value.entry for value in result.stored] == [good]
    assert result.reply == []
    assert await collect(store) == [good]
    assert [e async for e in store.query(other.id, Query())] == []


async def test_capabilities_only_widen(store: DocsStore) -> None:
    other = NamespaceSecret.generate()
    with pytest.raises(errors.UnknownDocument):
        await store.capability(other.id)
    await store.add_namespace(Capability(other.id))
    assert not (await store.capability(other.id)).can_write
    await store.add_namespace(Capability(other.id, other))
    await store.add_namespace(Capability(other.id))
    assert (await store.capability(other.id)).can_write
    assert await store.namespaces() == [ID, other.id]
    await store.drop(other.id)
    assert await store.namespaces() == [ID]


async def test_the_most_useful_peers_are_remembered(store: DocsStore) -> None:
    peers = [EndpointAddr.of(EndpointId(bytes([n]) * 32), [IpAddr.of("127.0.0.1", n)]) for n in range(8)]
    for peer in [*peers, peers[4]]:
        await store.remember_peer(ID, peer)
        await asyncio.sleep(0.001)
    assert await store.remembered_peers(ID) == [peers[n] for n in (4, 7, 6, 5, 3)]


async def test_a_long_history_in_random_order(store: DocsStore) -> None:
    rng = random.Random(3)
    history = [entry(bytes(rng.choices(b"abc", k=rng.randint(0, 6))), n, rng.choice([None, 1, 2])) for n in range(300)]
    rng.shuffle(history)
    await store._database.write(lambda connection: put_all(connection, history))
    assert await store._database.read(all_of) == merged(history)
