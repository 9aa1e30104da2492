"""PostgreSQL holds what SQLite does: the same operations on both, compared row by row."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import pytest
import sqlalchemy as sa
from crash_operations import AUTHORS, CAPABILITIES, DOCUMENTS
from crash_rounds import old_entries
from docs_checker import sync_stores, verify_document
from docs_model import NAMESPACE_ID
from postgres_server import PostgresServer
from test_faults_rows import CAPABILITY, ID, History
from tidings.docs_sync.errors import BadKey, KeyTooLarge
from tidings.docs_sync.model.entry import EMPTY_HASH, Record, SignedEntry, fingerprint_of, sign_entry
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, RangeItems, Value
from tidings.docs_sync.store.content_store import ContentStore
from tidings.docs_sync.store.documents import DocsStore
from tidings.docs_sync.store.query import Query
from tidings.storage import Database, schema, tables

WHOLE = IdRange(bytes(64), bytes(64))
COMPARED = (tables.entries, tables.heads, tables.summaries, tables.history, tables.contents, tables.authors)
QUERIES = [
    Query(tombstones=True),
    Query(prefix=b"a", newest=True, sort="key"),
    Query(prefix=b"\xff", descending=True),
    Query(prefix=b"\0", sort="author", limit=10, offset=1),
    Query(newest=True, descending=True, offset=3, tombstones=True),
    Query(key=b"a"),
    Query(author=bytes(AUTHORS[0].id), sort="author", descending=True),
]


def rows(connection: sa.Connection) -> list[list[tuple[object, ...]]]:
    return [[tuple(row) for row in connection.execute(sa.select(t).order_by(*t.primary_key))] for t in COMPARED]


@pytest.mark.parametrize(("seed", "history"), [(0, False), (1, True)])
async def test_every_row_is_the_same(postgres_url: str, seed: int, history: bool) -> None:
    databases = [await Database.open(place) for place in (None, postgres_url)]
    sides = []
    for database in databases:
        side = History(None, random.Random(seed))
        side.store = DocsStore(database, clock=lambda side=side: side.now)
        await side.store.add_namespace(CAPABILITY)
        if history:
            kept = sa.update(tables.namespaces).values(history_us=1)
            await database.write(lambda connection, kept=kept: connection.execute(kept))
        sides.append(side)
    for _ in range(10):
        answers = []
        for side, database in zip(sides, databases, strict=True):
            await side.step()
            found: list[object] = [await database.read(rows), await side.store.summary(ID), await side.store.heads(ID)]
            found += [await side.store.changes(ID, 3, 100), await side.store.last_seq(ID)]
            found.append(await ContentStore(database).due(ID, (-1, b""), 10))
            found += [[entry async for entry in side.store.query(ID, query)] for query in QUERIES]
            found += [await side.store.count(ID, query) for query in QUERIES]
            answers.append(found)
        assert answers[0] == answers[1]
        await databases[1].read(lambda connection: verify_document(connection, NAMESPACE_ID, signatures=5))
    for side, database in zip(sides, databases, strict=True):
        await side.store.aclose()
        await database.aclose()


async def test_a_sync_between_the_two(postgres_url: str) -> None:
    databases = [await Database.open(place) for place in (None, postgres_url)]
    stores = [DocsStore(database) for database in databases]
    for n, store in enumerate(stores):
        await store.add_namespace(CAPABILITIES[0])
        await store.insert(CAPABILITIES[0].id, received(n * 300, 700))
    await sync_stores(CAPABILITIES[0].id, *stores)
    assert await stores[0].summary(CAPABILITIES[0].id) == await stores[1].summary(CAPABILITIES[0].id)
    for store, database in zip(stores, databases, strict=True):
        assert (await store.summary(CAPABILITIES[0].id)).size == 1_000
        await database.read(lambda connection: verify_document(connection, bytes(CAPABILITIES[0].id)))
        await store.aclose()
        await database.aclose()


def received(first: int, count: int) -> list[SignedEntry]:
    records = (Record(1, bytes([n % 251 + 1]) * 32, 1_000_000 + n) for n in range(first, first + count))
    return [
        sign_entry(DOCUMENTS[0], AUTHORS[n % 3], b"key/%05d" % r.timestamp, r) for n, r in enumerate(records, first)
    ]


async def test_a_key_that_is_too_long_for_an_index(postgres_url: str) -> None:
    """It is refused alone, whatever comes with it; random bytes, for the server compresses others."""
    database = await Database.open(postgres_url)
    store = DocsStore(database)
    await store.add_namespace(CAPABILITY)
    history = sa.update(tables.namespaces).values(history_us=1)
    await database.write(lambda connection: connection.execute(history))
    secret, author = CAPABILITY.secret, AUTHORS[0]
    assert secret is not None
    assert database.longest_key is not None
    longest, more = os.urandom(database.longest_key), os.urandom(database.longest_key + 1)
    entries = [sign_entry(secret, author, key, Record(1, bytes(32), 1)) for key in (longest, more, b"short")]
    outcomes = (await store.insert(ID, entries)).outcomes
    assert [type(outcome) is KeyTooLarge for outcome in outcomes] == [False, True, False]
    again = [sign_entry(secret, author, key, Record(1, bytes(32), 2)) for key in (longest, more)]
    result = await store.process(ID, [RangeItems(WHOLE, [Value(e, ContentStatus.MISSING) for e in again], True)])
    assert [value.entry for value in result.stored] == again[:1]  # and the one before is in the history
    await store.add_author(author)
    with pytest.raises(BadKey, match="use a shorter one"):
        await store.write(CAPABILITY, author, more, EMPTY_HASH, 0)
    assert len(await database.read(lambda connection: verify_document(connection, NAMESPACE_ID))) == 2
    await store.aclose()
    await database.aclose()


async def test_the_aggregate_of_an_older_database(postgres: PostgresServer, postgres_url: str) -> None:
    """Revision 0001 had none: it is migrated by whoever comes first, and built when a document is first used."""
    documents = [old_entries(secret, 300) for secret in DOCUMENTS]
    make_old(postgres, postgres_url, documents)
    databases = [await Database.open(postgres_url) for _ in range(2)]
    stores = [DocsStore(database) for database in databases]
    for capability, before in zip(CAPABILITIES, documents, strict=True):
        for store, database in zip(stores, databases, strict=True):
            assert (await store.summary(capability.id)).size == len(before)
            held = await database.read(lambda c, its=bytes(capability.id): verify_document(c, its))
            assert held == sorted(before, key=lambda entry: entry.id)
            await store.write(capability, AUTHORS[0], b"new", bytes(32), 1)
            before.append((await store.changes(capability.id, 0, 1_000))[-1][1])
            before[:] = [entry for entry in before if entry.id.key != b"new" or entry == before[-1]]
    for store, database in zip(stores, databases, strict=True):
        await store.aclose()
        await database.aclose()


def make_old(postgres: PostgresServer, url: str, documents: Sequence[Sequence[SignedEntry]]) -> None:
    postgres.execute("CREATE SCHEMA tidings", url.rpartition("/")[2])
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET search_path TO tidings")
        schema.migrate(connection, "0001")
        for secret, entries in zip(DOCUMENTS, documents, strict=True):
            connection.exec_driver_sql(
                "INSERT INTO namespaces VALUES (%s, 1, %s, 0)", (bytes(secret.id), secret.to_bytes())
            )
            connection.exec_driver_sql(
                "INSERT INTO entries VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (*e.id, e.record.timestamp, e.record.hash, 1, *e[2:], fingerprint_of(e.id, e.record))
                    for e in entries
                ],
            )
    engine.dispose()
