"""Watching: who keeps the state by the events ends with exactly what the document holds, whatever the interleaving."""

import asyncio
import random
from contextlib import aclosing

import pytest
from docs_model import AUTHORS, NAMESPACE
from docs_net import eventually, node
from tidings.docs_sync import CaughtUp, Changed, Entry, Present
from tidings.docs_sync.bulk.watch import watch
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.entry import EMPTY_HASH, Record, sign_entry
from tidings.docs_sync.store.documents import DocsStore, NewEntry
from tidings.docs_sync.store.query import Query
from tidings.storage import Database

CAPABILITY = Capability(NAMESPACE.id, NAMESPACE)
ID = NAMESPACE.id


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request, tmp_path):
    shared = request.param == "postgres"
    database = await Database.open(request.getfixturevalue("postgres_url") if shared else tmp_path / "node.db")
    store = DocsStore(database)
    await store.add_namespace(CAPABILITY)
    yield store
    await store.aclose()
    await database.aclose()


def started(store, prefix=b"", since=None):
    return watch(store, ID, prefix, since, lambda signed: Entry(signed, None))


class Mirror:
    """The state below a prefix, kept by the events alone."""

    def __init__(self, prefix=b""):
        self.prefix = prefix
        self.held = {}
        self.cursor = None

    def take(self, event):
        if isinstance(event, CaughtUp):
            self.cursor = event.cursor
            return
        if isinstance(event, Changed):
            assert self.cursor is None or event.cursor > self.cursor
            self.cursor = event.cursor
        entry = event.entry
        self.held = {place: old for place, old in self.held.items() if not entry.covers(old)}
        if not entry.is_tombstone and entry.key.startswith(self.prefix):
            self.held[entry.author, entry.key] = entry

    async def follow(self, events):
        async for event in events:
            self.take(event)


async def state(store, prefix=b""):
    return {e async for e in store.query(ID, Query(prefix=prefix))}


async def write(store, key, content=1, author=AUTHORS[0]):
    if content is None:
        return await store.write(CAPABILITY, author, key, EMPTY_HASH, 0)
    return await store.write(CAPABILITY, author, key, bytes([content]) * 32, 1)


async def next_of(events):
    async with asyncio.timeout(15):
        return await anext(events)


async def test_what_is_there_then_what_comes(store):
    for author in AUTHORS:
        await store.add_author(author)
    for n in range(5):
        await write(store, b"a/%d" % n)
    await write(store, b"b")
    async with aclosing(started(store, b"a/")) as events:
        seen = [await next_of(events) for _ in range(6)]
        assert [event.entry.key for event in seen[:5]] == [b"a/%d" % n for n in range(5)]
        assert all(isinstance(event, Present) for event in seen[:5]) and seen[5] == CaughtUp(await store.last_seq(ID))
        await write(store, b"c")
        await write(store, b"a/0", 2)
        event = await next_of(events)
        assert (type(event), event.entry.key, event.cursor) == (Changed, b"a/0", await store.last_seq(ID))
        await write(store, b"a", None)  # above the prefix, and it removes what is below
        event = await next_of(events)
        assert event.entry.is_tombstone and event.entry.key == b"a"


async def test_resumed(store):
    await write(store, b"a")
    async with aclosing(started(store)) as events:
        assert isinstance(await next_of(events), Present)
        cursor = (await next_of(events)).cursor
    await write(store, b"b")
    await write(store, b"b", 2)
    async with aclosing(started(store, since=cursor)) as events:
        event = await next_of(events)
        last = await store.last_seq(ID)
        assert (event.entry.key, event.cursor) == (b"b", last)
        assert await next_of(events) == CaughtUp(last)
    async with aclosing(started(store, since=last)) as events:
        assert await next_of(events) == CaughtUp(last)
        await write(store, b"b", 3)  # in place of the latest arrival
        assert (await next_of(events)).cursor > last
    # The document was forgotten and came again: everything is told.
    await store.drop(ID)
    await store.add_namespace(CAPABILITY)
    await write(store, b"c")
    async with aclosing(started(store, since=last)) as events:
        assert (await next_of(events)).entry.key == b"c"
    # Of another store: there is no going on behind it.
    async with aclosing(started(store, since=1 << 60)) as events:
        assert [type(await next_of(events)) for _ in range(2)] == [Present, CaughtUp]


async def test_an_arrival_number_is_not_given_twice(store):
    """Also where the entry that has the latest one is deleted, alone or with thousands."""
    await store.write_batch(CAPABILITY, AUTHORS[0], [NewEntry(b"x/%04d" % n, b"\1" * 32, 1) for n in range(1_500)])
    last = await store.last_seq(ID)
    for key, value in ((b"x/1499", 2), (b"x/", None), (b"", None)):
        await write(store, key, value)
        before, last = last, await store.last_seq(ID)
        assert last > before


@pytest.mark.parametrize("seed", range(3))
async def test_writers_and_watchers_at_once(store, seed):
    rng = random.Random(seed)
    for author in AUTHORS:
        await store.add_author(author)
    names = [bytes(rng.choices(b"ab", k=rng.randint(0, 4))) for _ in range(25)]

    async def writer(author):
        for _ in range(25):
            batch = [NewEntry(rng.choice(names), bytes([rng.randint(1, 9)]) * 32, 1) for _ in range(rng.randint(1, 9))]
            await store.write_batch(CAPABILITY, author, batch)
            if rng.random() < 0.4:
                await write(store, rng.choice(names), None, author)
            await asyncio.sleep(rng.random() * 0.01)

    async def stranger():
        other = type(AUTHORS[0]).generate()
        for n in range(20):
            entry = sign_entry(NAMESPACE, other, rng.choice(names), Record(1, b"\7" * 32, n + 1))
            await store.insert(ID, [entry])

    mirrors, watches = [], []
    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(writer(author)) for author in AUTHORS]
        writers.append(group.create_task(stranger()))
        while not all(each.done() for each in writers):
            mirrors.append(Mirror(rng.choice([b"", b"a", b"ab", b"b"])))
            watches.append(asyncio.create_task(mirrors[-1].follow(started(store, mirrors[-1].prefix))))
            await asyncio.sleep(0.02)
            if len(watches) % 3 == 0:  # restarted where it was
                watches[-1].cancel()
                mirror = mirrors[-1]
                if mirror.cursor is not None:
                    again = started(store, mirror.prefix, mirror.cursor)
                    watches[-1] = asyncio.create_task(mirror.follow(again))
                else:
                    mirrors.pop(), watches.pop()

    async def same():
        for mirror in mirrors:
            if {entry.signed for entry in mirror.held.values()} != await state(store, mirror.prefix):
                return False
        return True

    assert len(mirrors) > 3
    await eventually(same)
    store.changed.end(bytes(ID))
    async with asyncio.timeout(15):
        await asyncio.gather(*watches)


async def test_a_slow_reader_misses_nothing_that_stays(store):
    async with aclosing(started(store)) as events:
        assert await next_of(events) == CaughtUp(0)
        for n in range(3):
            await store.write_batch(
                CAPABILITY, AUTHORS[0], [NewEntry(b"%04d" % k, bytes([n + 1]) * 32, 1) for k in range(600)]
            )
        mirror = Mirror()
        while len(mirror.held) < 600:
            mirror.take(await next_of(events))
        assert {entry.signed for entry in mirror.held.values()} == await state(store)


async def test_it_ends_with_the_document(tmp_path):
    async with node(tmp_path) as a:
        doc = await a.docs.create()
        await doc.set("k", b"v")
        seen = []

        async def follow():
            async for event in doc.watch():
                seen.append(type(event))  # noqa: PERF401 - as they come

        task = asyncio.create_task(follow())
        await eventually(lambda: asyncio.sleep(0, len(seen) == 2))
        await doc.set("k", b"w")
        await eventually(lambda: asyncio.sleep(0, len(seen) == 3))
        await doc.close()
        async with asyncio.timeout(10):
            await task
        assert seen == [Present, CaughtUp, Changed]
        # A document that is not live is watched, too, and ends with the node.
        [handle] = [each async for each in a.docs.list()]
        events = handle.watch()
        assert [type(await next_of(events)) for _ in range(2)] == [Present, CaughtUp]
        waiting = asyncio.create_task(anext(events, None))
        await asyncio.sleep(0)
        await a.docs.aclose()
        async with asyncio.timeout(10):
            assert await waiting is None


async def test_changes_of_others_are_seen(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        theirs = await b.docs.join(mine.ticket(write=True))
        events = theirs.watch("x")
        assert isinstance(await next_of(events), CaughtUp)
        await mine.set("x/1", b"here")
        event = await next_of(events)
        assert event.entry.key == b"x/1" and await event.entry.content(10) == b"here"
