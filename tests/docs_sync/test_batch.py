"""Batches: all or nothing, in their order, in one transaction."""

import asyncio

import pytest
from docs_model import entry, merged
from docs_net import contents, node
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync import InsertLocal, errors
from tidings.docs_sync.bulk import batch as batch_module
from tidings.docs_sync.bulk.batch import net_effect
from tidings.docs_sync.model.entry import EMPTY_HASH
from tidings.docs_sync.store.documents import NewEntry


@pytest.fixture
async def doc(tmp_path):
    async with node(tmp_path, in_memory=False) as a:
        yield await a.docs.create()


async def test_written_at_once_and_in_order(doc):
    await doc.set("old/a", b"1")
    await doc.set("old/b", b"2")
    events = doc.events()
    commits = doc._docs._store._database.commits
    async with doc.batch() as batch:
        await batch.set("k", b"first")
        await batch.delete("old/")
        await batch.set("old/a", b"again")
        await batch.set_value("v", {"n": 1})
        await batch.set_hash("h", b"\1" * 32, 5)
        await batch.set("k", b"second")
        await batch.set("large", bytes(100_000))
        assert len(batch) == 7
        assert await doc.get("k") is None
    # The large content has a transaction of its own, before.
    assert doc._docs._store._database.commits - commits <= 3
    assert [e.key for e in batch.entries] == [b"old/", b"old/a", b"v", b"h", b"k", b"large"]
    assert batch.removed == 2
    told = [await anext(event async for event in events if isinstance(event, InsertLocal)) for _ in range(6)]
    assert told == [InsertLocal(e) for e in batch.entries]
    times = [e.timestamp for e in batch.entries]
    assert times == sorted(set(times))
    assert await (await doc.get("k")).content() == b"second"
    assert await (await doc.get("old/a")).content() == b"again"
    assert await doc.get("old/b") is None
    assert await (await doc.get("v")).value() == {"n": 1}
    assert await (await doc.get("large")).content() == bytes(100_000)
    assert {e async for e in doc.entries(tombstones=True)} == set(batch.entries)


async def test_nothing_where_the_block_fails(doc):
    with pytest.raises(RuntimeError, match="stop"):
        async with doc.batch() as batch:
            await batch.set("a", b"1")
            raise RuntimeError("stop")
    assert await doc.entries().count() == 0 and batch.entries == ()
    with pytest.raises(errors.BatchEnded):
        await batch.set("b", b"2")
    with pytest.raises(errors.BatchEnded):
        await batch.delete("b")
    async with doc.batch() as batch:
        for bad in (lambda: batch.set("a", b""), lambda: batch.set_hash("a", EMPTY_HASH, 0)):
            with pytest.raises(errors.EmptyValue):
                await bad()
        for key in (5, bytes(5000)):  # at once, not at the end of the batch
            with pytest.raises(errors.BadKey):
                await batch.set(key, b"x")
        with pytest.raises(errors.BadKey):
            await batch.set_hash(bytes(5000), bytes(32), 1)
        with pytest.raises(errors.NotAValue):
            await batch.set_value("a", object())
    assert await doc.entries().count() == 0
    with pytest.raises(errors.BadKey):
        async with doc.batch() as batch:
            await batch.set("good", b"1")
            await batch.set(bytes(5000), b"2")
    with pytest.raises(errors.UnknownAuthor):
        from tidings.docs_sync import Author

        async with doc.batch(author=Author.generate().id) as batch:
            await batch.set("good", b"1")
    assert await doc.entries().count() == 0


async def test_many_contents_do_not_wait_in_memory(doc, monkeypatch):
    monkeypatch.setattr(batch_module, "MAX_STAGED", 50_000)
    async with doc.batch() as batch:

        async def some(start):
            for n in range(start, start + 20):
                await batch.set(f"{n}", b"%d" % n * 1_000)

        await asyncio.gather(*(some(start) for start in range(0, 100, 20)))
        waiting = [write for write in batch._writes if write.content is not None]
        assert len(batch) == 100 and sum(write.size for write in waiting) <= 50_000
    assert await contents(doc) == {b"%d" % n: b"%d" % n * 1_000 for n in range(100)}


async def test_a_full_batch_says_so(doc, monkeypatch):
    monkeypatch.setattr(batch_module, "MAX_BATCH", 3)
    with pytest.raises(errors.BatchFull):
        async with doc.batch() as batch:
            for n in range(4):
                await batch.set(f"{n}", b"v")
    assert await doc.entries().count() == 0


async def test_a_large_batch(doc):
    async with doc.batch() as batch:
        for n in range(2_500):
            await batch.set(f"{n % 2_400:05}", b"v%d" % n)
    assert len(batch.entries) == 2_400
    assert await doc.entries().count() == 2_400


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=3).map(lambda k: bytes(b % 2 for b in k)), st.booleans()), max_size=20))
def test_the_net_effect_is_what_the_put_rule_leaves(writes):
    new = [NewEntry(key, EMPTY_HASH if gone else b"\1" * 32, 0 if gone else 1) for key, gone in writes]
    history = [entry(key, n + 1, None if gone else 1) for n, (key, gone) in enumerate(writes)]
    left = {(e.id.key, e.record.timestamp) for e in merged(history)}
    net = net_effect(new)
    assert net == [write for n, write in enumerate(new) if (write.key, n + 1) in left]
