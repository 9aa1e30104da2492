"""History: what gave way is kept for its time, with its content, and no longer."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa
from docs_net import contents, eventually, node
from tidings.docs_sync import errors
from tidings.docs_sync.bulk import history as history_module
from tidings.docs_sync.store.content_store import ContentStore
from tidings.storage import tables

DAY = timedelta(days=1)


@pytest.fixture
async def doc(tmp_path):
    async with node(tmp_path, in_memory=False) as a:
        yield await a.docs.create()


async def told(doc, key):
    return [await each.entry.content() async for each in doc.history(key)]


def rows(doc):
    count = sa.select(sa.func.count()).select_from(tables.history)
    return doc._docs._store._database.read(lambda connection: connection.execute(count).scalar_one())


async def test_off_unless_asked_for(doc):
    await doc.set("k", b"1")
    await doc.set("k", b"2")
    assert await told(doc, "k") == [] and await rows(doc) == 0


async def test_newest_first_with_until(doc, tmp_path):
    await doc.set("k", b"before")
    await doc.keep_history(DAY)
    robot = await doc._docs.create_author()
    entries = [await doc.set("k", b"%d" % n) for n in range(3)]
    await doc.set("k", b"robot 1", author=robot)
    await doc.set("k", b"robot 2", author=robot)
    await doc.set("other", b"x")
    await doc.delete("k")
    await doc.set("k", b"again")
    assert await told(doc, "k") == [b"", b"robot 1", b"2", b"1", b"0", b"before"]
    found = [each async for each in doc.history("k")]
    assert found[0].entry.is_tombstone
    assert [found[4].entry, found[3].entry, found[2].entry] == entries
    for newer, older in pairwise(found[2:5]):
        assert older.entry.timestamp <= older.until and abs(older.until - newer.entry.timestamp) < 5_000_000
    assert await told(doc, "nothing") == []
    # Entries are what they were, and the setting outlives a restart.
    assert await contents(doc) == {b"k": b"again", b"other": b"x"}
    id = doc.id
    docs = doc._docs
    assert await docs._history.period(id) == DAY


async def test_over_a_restart_and_after_drop(tmp_path):
    async with node(tmp_path, in_memory=False) as a:
        doc = await a.docs.create()
        await doc.keep_history(DAY)
        await doc.set("k", b"1")
    async with node(tmp_path, in_memory=False) as a:
        doc = await a.docs.open(doc.id)
        await doc.set("k", b"2")
        assert await told(doc, "k") == [b"1"]
        await a.docs.drop(doc.id)
        assert await rows(doc) == 0
        with pytest.raises(errors.UnknownDocument):
            await doc.keep_history(DAY)


async def test_a_deletion_of_much_is_kept_as_a_whole(doc, monkeypatch):
    await doc.keep_history(DAY)
    async with doc.batch() as batch:
        for n in range(2_500):
            await batch.set(f"k/{n:04}", b"v")
    await doc.delete("k/")
    assert await rows(doc) == 2_500
    assert await told(doc, "k/0007") == [b"v"]
    await doc.keep_history(None)  # in steps
    assert await rows(doc) == 0
    assert await told(doc, "k/0007") == []
    await doc.set("k/0007", b"a")
    await doc.set("k/0007", b"b")
    assert await rows(doc) == 0


async def test_many_at_one_key_come_in_pages(doc, monkeypatch):
    await doc.keep_history(DAY)
    for n in range(230):
        await doc.set("k", b"%d" % n)
    assert await told(doc, "k") == [b"%d" % n for n in reversed(range(229))]


async def test_what_is_too_old_goes(doc):
    history = doc._docs._history
    await doc.keep_history(timedelta(hours=1))
    await doc.set("k", b"1")
    await doc.set("k", b"2")
    real = history._clock
    history._clock = lambda: real() + 1_800_000_000
    assert await history.prune(doc.id) == 0 and await told(doc, "k") == [b"1"]
    history._clock = lambda: real() + 3_601_000_000
    assert await told(doc, "k") == []
    assert await rows(doc) == 1
    assert await history.prune(doc.id) == 1
    assert await rows(doc) == 0
    history._clock = real
    await doc.set("k", b"3")
    await asyncio.sleep(0.01)
    await doc.keep_history(timedelta(milliseconds=1))
    assert await rows(doc) == 0


async def test_old_rows_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(history_module, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(history_module, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(history_module, "STEP", 3)
    async with node(tmp_path, in_memory=False) as a:
        kept, left = await a.docs.create(), await a.docs.create()
        for doc in (kept, left):
            await doc.keep_history(DAY)
            for n in range(8):
                await doc.set("k", b"%d" % n)
        # As where the node was killed before it had deleted all.
        off = sa.update(tables.namespaces).where(tables.namespaces.c.namespace == bytes(left.id))
        await a.database.write(lambda connection: connection.execute(off.values(history_us=None)).rowcount)

        async def gone():
            return await rows(kept) == 7

        await eventually(gone)
        assert len(await told(kept, "k")) == 7


async def test_entries_of_others_are_kept_too(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create()
        await doc.set("k", b"1")
        copy = await b.docs.join(doc.ticket(), timeout=10)
        await copy.keep_history(DAY)
        assert await (await copy.get("k")).content(10) == b"1"
        await doc.set("k", b"2")

        async def came():
            return await told(copy, "k") == [b"1"]

        await eventually(came)
        assert await told(doc, "k") == []


async def test_contents_are_protected(doc):
    await doc.keep_history(DAY)
    first = await doc.set("k", b"1")
    await doc.set("k", b"2")
    store = ContentStore(doc._docs._store._database)
    assert first.hash in {hash async for hash in store.protected_hashes()}
    await doc.keep_history(None)
    assert first.hash not in {hash async for hash in store.protected_hashes()}


async def test_of_an_encrypted_document(tmp_path):
    async with node(tmp_path) as a:
        doc = await a.docs.create(encrypted=True)
        await doc.keep_history(DAY)
        await doc.set("a/k", b"1")
        await doc.set("a/k", b"2")
        assert await told(doc, "a/k") == [b"1"]
        assert [each.entry.key async for each in doc.history("a/k")] == [b"a/k"]


async def test_periods_that_are_none(doc):
    for period in (timedelta(0), timedelta(days=-1), timedelta.max):
        with pytest.raises(errors.BadPeriod):
            await doc.keep_history(period)


async def test_on_postgresql(tmp_path, postgres_url):
    async with node(tmp_path, database=postgres_url) as a:
        doc = await a.docs.create()
        await doc.keep_history(DAY)
        for n in range(120):
            await doc.set("k", b"%d" % n)
        await doc.delete("")
        assert await told(doc, "k") == [b"%d" % n for n in reversed(range(120))]
        found = await a.database.read(lambda connection: history_module._WITH_OLD.all(connection, {"now": 0}))
        assert found == []
        history = doc._docs._history
        history._clock = lambda: 2**62
        found = await a.database.read(lambda connection: history_module._WITH_OLD.all(connection, {"now": 2**62}))
        assert [bytes(row[0]) for row in found] == [bytes(doc.id)]
        assert await told(doc, "k") == []
        await doc.keep_history(None)
        assert await rows(doc) == 0
