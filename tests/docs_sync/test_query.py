"""Queries: what they give against a model of ten lines, and that an index is behind every combination."""

import asyncio
import itertools
import random
import re

import pytest
import sqlalchemy as sa
from docs_model import AUTHORS, NAMESPACE_ID, entry, merged
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync import errors
from tidings.docs_sync.model.entry import fingerprint_of
from tidings.docs_sync.store.query import Query, Walk, count_entries
from tidings.storage import Database, tables

AUTHOR_IDS = [bytes(author.id) for author in AUTHORS]
keys = st.binary(max_size=3).map(lambda key: bytes(0xFF if b > 250 else b % 2 + 97 for b in key))
entries = st.builds(
    entry, key=keys, timestamp=st.integers(1, 8), content=st.sampled_from([None, 1, 2]), author=st.integers(0, 1)
)
queries = st.builds(
    Query,
    prefix=st.none() | keys,
    key=st.none() | keys,
    author=st.sampled_from([None, *AUTHOR_IDS]),
    sort=st.sampled_from(["key", "author"]),
    descending=st.booleans(),
    newest=st.booleans(),
    limit=st.none() | st.integers(0, 4),
    offset=st.integers(0, 3),
    tombstones=st.booleans(),
)


def model(entries, query):
    fits = [e for e in entries if query.prefix is None or e.id.key.startswith(query.prefix)]
    fits = [e for e in fits if query.key in (None, e.id.key) and query.author in (None, e.id.author)]
    if query.newest:
        best = {}
        for e in sorted(fits, key=lambda e: (e.record.order, e.id.author)):
            best[e.id.key] = e
        fits = best.values()
    by_key = query.sort == "key" or query.newest
    fits = [e for e in fits if query.tombstones or not e.record.is_tombstone]
    fits.sort(key=lambda e: (e.id.key, e.id.author) if by_key else e.id[1:], reverse=query.descending)
    return fits[query.offset :][: query.limit]


def insert(connection, entries):
    rows = [
        {
            "namespace": e.id.namespace,
            "author": e.id.author,
            "key": e.id.key,
            "timestamp": e.record.timestamp,
            "hash": e.record.hash,
            "size": e.record.size,
            "author_sig": e.author_signature,
            "namespace_sig": e.namespace_signature,
            "fingerprint": fingerprint_of(e.id, e.record),
        }
        for e in entries
    ]
    if rows:
        connection.execute(sa.insert(tables.entries), rows)


def walked(connection, query, namespace=NAMESPACE_ID):
    walk, found = Walk(namespace, query), []
    while not walk.done:
        found += walk.read(connection)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(entries, max_size=25), st.lists(queries, min_size=8, max_size=8))
def test_queries_give_what_the_model_gives(history, queries):
    async def main():
        database = await Database.open(None)
        held = merged(history)

        def look(connection):
            for query in queries:
                assert walked(connection, query) == model(held, query), query
                if query.is_plain:
                    assert count_entries(connection, NAMESPACE_ID, query) == len(model(held, query)), query

        neighbours = [entry(b"a", 1, namespace=bytes(32)), entry(b"a", 1, namespace=b"\xff" * 32)]
        await database.write(lambda connection: insert(connection, [*held, *neighbours]))
        await database.read(look)
        await database.aclose()

    asyncio.run(main())


async def test_the_same_from_postgresql(postgres_url):
    """Order and prefixes are those of bytes there, too, and every combination is understood."""
    database = await Database.open(postgres_url)
    try:
        rng = random.Random(6)
        alphabet = b"a\0B\xffz"
        history = [
            entry(bytes(rng.choices(alphabet, k=rng.randrange(5))), n, rng.choice([None, 1, 2]), rng.randrange(2))
            for n in range(400)
        ]
        held = [*{e.id: e for e in history}.values()]
        chosen = [
            Query(**arguments, limit=limit, offset=offset)
            for arguments in COMBINATIONS
            for limit, offset in ((None, 0), (3, 2))
        ]
        chosen += [
            Query(prefix=prefix, author=author, descending=turned)
            for prefix in (b"a", b"\xff", b"\xff\xff", b"B\0")
            for author in (None, *AUTHOR_IDS)
            for turned in (False, True)
        ]

        def look(connection):
            for query in chosen:
                assert walked(connection, query) == model(held, query), query
                if query.is_plain:
                    assert count_entries(connection, NAMESPACE_ID, query) == len(model(held, query)), query

        await database.write(lambda connection: insert(connection, held))
        await database.read(look)
    finally:
        await database.aclose()


def unsigned(number, key, author, size=1):
    made = entry(b"", number)
    return made._replace(
        id=made.id._replace(key=key, author=author.to_bytes(32, "big")),
        record=made.record._replace(size=size, timestamp=number),
    )


@pytest.fixture
async def database():
    database = await Database.open(None)
    yield database
    await database.aclose()


COMBINATIONS = [
    dict(zip(("prefix", "key", "author", "sort", "descending", "newest", "tombstones"), values, strict=True))
    for values in itertools.product(
        (None, b"k", b"\xff"),
        (None, b"k0007"),
        (None, bytes(31) + b"\1"),
        ("key", "author"),
        (False, True),
        (False, True),
        (False, True),
    )
]


async def test_no_combination_scans_or_sorts(database):
    """The plan of every statement of every combination, of its first page and of those behind it."""
    rows = [unsigned(n, b"k%04d" % (n // 2), n % 2, size=n % 3) for n in range(800)]
    rows += [unsigned(n, b"k\xff%04d" % n, n % 2) for n in range(600)]
    rows += [unsigned(n, b"\xff%04d" % n, n % 2) for n in range(600)]
    await database.write(lambda connection: insert(connection, rows))
    plans = {}

    def look(connection):
        seen = []
        sa.event.listen(connection, "before_cursor_execute", lambda *args: seen.append(args[2:4]))
        for arguments in COMBINATIONS:
            for more in ({}, {"offset": 5}, {"limit": 300}):
                query = Query(**arguments, **more)
                walked(connection, query)
                if query.is_plain:
                    count_entries(connection, NAMESPACE_ID, query)
                for statement, parameters in seen:
                    if statement not in plans:
                        raw = connection.connection.driver_connection
                        plan = raw.execute("EXPLAIN QUERY PLAN " + statement, parameters).fetchall()
                        plans[statement] = [row[3] for row in plan]
                seen.clear()

    await database.read(look)
    assert len(plans) > 60
    for statement, plan in plans.items():
        if statement.startswith("WITH RECURSIVE"):
            assert {step for step in plan if step.startswith("SCAN")} == {"SCAN walk", "SCAN CONSTANT ROW"}, plan
            continue
        if "ORDER BY entries.timestamp" in statement:  # the authors of one key
            plan = [step for step in plan if step != "USE TEMP B-TREE FOR ORDER BY"]
        assert len(plan) == 1 and plan[0].startswith("SEARCH entries USING"), (statement, plan)
        where = statement.partition("WHERE")[2].partition("ORDER")[0]
        # Every condition on the place is one of the index, so that nothing is read and left out.
        for column in ("author", "key"):
            asked = len(re.findall(rf'entries\."?{column}\b', where))
            used = len(re.findall(rf"\b{column}\b", plan[0].partition("(")[2]))
            assert used == asked, (statement, plan)


async def cost(database, work):
    """What SQLite executes for ``work(connection)``, in units of 100 instructions."""

    def look(connection):
        steps = 0

        def count():
            nonlocal steps
            steps += 1

        raw = connection.connection.driver_connection
        raw.set_progress_handler(count, 100)
        result = work(connection)
        raw.set_progress_handler(None, 0)
        return steps, result

    return await database.read(look)


async def test_the_last_page_costs_what_the_first_does(database):
    rows = [unsigned(n, b"p%05d" % n, n % 3) for n in range(12_000)]
    await database.write(lambda connection: insert(connection, rows))
    for query in (
        Query(prefix=b"p"),
        Query(prefix=b"p", descending=True),
        Query(prefix=b"p", author=bytes(32)),
        Query(prefix=b"p", sort="author"),
        Query(prefix=b"p", sort="author", descending=True),
        Query(prefix=b"p", newest=True),
        Query(sort="author"),
    ):
        walk, costs, found = Walk(NAMESPACE_ID, query), [], 0
        while not walk.done:
            steps, page = await cost(database, walk.read)
            costs.append(steps)
            found += len(page)
        assert found == (4_000 if query.author is not None else 12_000)
        assert len(costs) > 3 and max(costs) < 3 * costs[0], query


async def test_what_an_author_has_elsewhere_is_not_read(database):
    rows = [unsigned(n, b"a%05d" % n, n % 40) for n in range(8_000)]
    rows += [unsigned(n, b"b%05d" % n, n % 40) for n in range(80)]
    rows += [unsigned(n, b"c%05d" % n, n % 40) for n in range(8_000)]
    await database.write(lambda connection: insert(connection, rows))
    whole, _ = await cost(database, lambda connection: walked(connection, Query(sort="author")))
    for descending in (False, True):
        query = Query(prefix=b"b", sort="author", descending=descending)
        steps, found = await cost(database, lambda connection, query=query: walked(connection, query))
        assert len(found) == 80
        assert steps < whole / 10


async def test_a_short_limit_reads_little(database):
    rows = [unsigned(n, b"%05d" % n, n % 2) for n in range(5_000)]
    await database.write(lambda connection: insert(connection, rows))
    whole, _ = await cost(database, lambda connection: walked(connection, Query()))
    for arguments in ({}, {"newest": True}, {"sort": "author"}, {"descending": True}):
        query = Query(limit=1, **arguments)
        steps, found = await cost(database, lambda connection, query=query: walked(connection, query))
        assert len(found) == 1
        assert steps < whole / 20


async def test_many_authors_at_one_key(database):
    """The newest is found over several reads, each of bounded size."""
    rows = [unsigned(10_000 - abs(6_000 - n), b"k", n) for n in range(9_000)] + [unsigned(1, b"l", 1)]
    await database.write(lambda connection: insert(connection, rows))
    walk = Walk(NAMESPACE_ID, Query(newest=True, limit=5))
    reads = []
    while not walk.done:
        reads.append(await database.read(walk.read))
    assert len(reads) > 2 and reads[0] == []
    assert [(e.id.key, int.from_bytes(e.id.author, "big")) for page in reads for e in page] == [
        (b"k", 6_000),
        (b"l", 1),
    ]


async def test_many_authors_without_a_key_below_the_prefix(database):
    rows = [unsigned(n, b"a", n) for n in range(3_000)] + [unsigned(1, b"b", 2_999), unsigned(1, b"b", 4_000)]
    await database.write(lambda connection: insert(connection, rows))
    walk, reads = Walk(NAMESPACE_ID, Query(prefix=b"b", sort="author", offset=1)), []
    while not walk.done:
        reads.append(await database.read(walk.read))
    assert len(reads) > 10
    assert [int.from_bytes(e.id.author, "big") for page in reads for e in page] == [4_000]


async def test_what_changes_meanwhile(database):
    """No place comes twice, and what stays the same comes."""
    rows = [unsigned(n, b"%05d" % n, 0) for n in range(1_000)]
    await database.write(lambda connection: insert(connection, rows))
    walk = Walk(NAMESPACE_ID, Query())
    found = await database.read(walk.read)
    e = tables.entries.c

    def change(connection):
        connection.execute(sa.delete(tables.entries).where(e.key.in_([b"00005", b"00900"])))
        connection.execute(sa.update(tables.entries).where(e.key < b"00300").values(timestamp=5_000))
        insert(connection, [unsigned(1, b"00001x", 0), unsigned(1, b"00800x", 0)])

    await database.write(change)
    while not walk.done:
        found += await database.read(walk.read)
    names = [e.id.key for e in found]
    assert names == sorted(set(names))
    assert set(names) == {b"%05d" % n for n in range(1_000) if n != 900} | {b"00800x"}


def test_what_cannot_be_asked():
    for arguments in ({"limit": -1}, {"offset": -1}, {"sort": "time"}):
        with pytest.raises(errors.BadQuery):
            Query(**arguments)
