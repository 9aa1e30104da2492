"""Documents in SQLite against the put rule's definition, through every way in; all rows are verified each time."""

import asyncio
import random

import sqlalchemy as sa
from docs_checker import Model, arrivals, entries_of, sync_stores, verify_document
from docs_model import AUTHORS, NAMESPACE, NAMESPACE_ID
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.entry import EMPTY_HASH, Record, sign_entry
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, RangeItems, Value
from tidings.docs_sync.store.documents import DocsStore, NewEntry
from tidings.storage import Database, tables

CAPABILITY = Capability(NAMESPACE.id, NAMESPACE)
ID = NAMESPACE.id
START_US = 1_700_000_000_000_000
WHOLE = IdRange(bytes(64), bytes(64))


def key_of(rng: random.Random) -> bytes:
    key = bytes(rng.choice((0x00, 0x61, 0xFF)) for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))))
    return key + b"%d" % rng.randrange(40) if rng.random() < 0.3 else key


class History:
    """A store that is written to by chance, and the model that is told the same."""

    def __init__(self, store: DocsStore, rng: random.Random) -> None:
        self.store = store
        self.rng = rng
        self.now = START_US
        self.model = Model()

    def new(self) -> NewEntry:
        if self.rng.random() < 0.2:
            return NewEntry(key_of(self.rng), EMPTY_HASH, 0)
        return NewEntry(key_of(self.rng), bytes([self.rng.randrange(1, 4)]) * 32, 1)

    def foreign(self):
        """An entry of one of the same authors that was written elsewhere, at some time, now and then at the same."""
        key, hash, size, _ = self.new()
        timestamp = self.rng.choice((self.now + self.rng.randrange(-20, 20), self.now, START_US, START_US))
        return sign_entry(NAMESPACE, self.rng.choice(AUTHORS), key, Record(size, hash, timestamp))

    async def step(self) -> None:
        self.now += self.rng.choice((0, 1, 30, -10))
        author = self.rng.choice(AUTHORS)
        foreign = [self.foreign() for _ in range(self.rng.choice((1, 1, 3, 40)))]
        match self.rng.choice(("write", "batch", "insert", "process", "large")):
            case "write":
                new = self.new()
                put = [(await self.store.write(CAPABILITY, author, *new)).entry]
            case "batch":
                put = await self.batch(author, [self.new() for _ in range(self.rng.choice((2, 20)))])
            case "large":
                prefix = self.rng.choice((b"a", b"b"))
                put = await self.batch(author, [NewEntry(prefix + b"/%d" % n, bytes(32), 1) for n in range(300)])
            case "insert":
                put = foreign
                await self.store.insert(ID, put)
            case _:
                put = foreign
                values = [Value(entry, ContentStatus.MISSING) for entry in put]
                await self.store.process(ID, [RangeItems(WHOLE, values, have_local=True)])
        for entry in put:
            self.model.put(entry)

    async def batch(self, author, entries) -> list:
        return [inserted.entry for inserted in await self.store.write_batch(CAPABILITY, author, entries)]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_every_way_in_is_the_model(seed: int, history: bool) -> None:
    async def main() -> None:
        database, other = await Database.open(None), await Database.open(None)
        held = History(None, random.Random(seed))
        held.store = DocsStore(database, clock=lambda: held.now)
        peer = DocsStore(other, clock=lambda: held.now)
        for store in (held.store, peer):
            await store.add_namespace(CAPABILITY)
        if history:
            await database.write(
                lambda connection: connection.execute(sa.update(tables.namespaces).values(history_us=1))
            )
        seen: dict = {}
        for _ in range(12):
            last = await held.store.last_seq(ID)
            await held.step()
            entries = await database.read(lambda connection: verify_document(connection, NAMESPACE_ID, signatures=5))
            assert entries == held.model.entries
            numbers = await database.read(lambda connection: arrivals(connection, NAMESPACE_ID))
            assert all(seen[entry] == seq if entry in seen else seq > last for entry, seq in numbers.items())
            seen = numbers
        await sync_stores(ID, peer, held.store)
        assert await other.read(lambda connection: verify_document(connection, NAMESPACE_ID)) == held.model.entries
        for store, its in ((held.store, database), (peer, other)):
            await store.aclose()
            await its.aclose()

    asyncio.run(main())


async def test_two_entries_of_one_time_in_the_history() -> None:
    """Of one author at one key, from two devices: the larger hash wins, and both are of the past one day."""
    database = await Database.open(None)
    store = DocsStore(database)
    await store.add_namespace(CAPABILITY)
    await database.write(lambda connection: connection.execute(sa.update(tables.namespaces).values(history_us=1)))
    for content, time in ((1, 5), (2, 5), (3, 9)):
        entry = sign_entry(NAMESPACE, AUTHORS[0], b"key", Record(1, bytes([content]) * 32, time))
        assert (await store.insert(ID, [entry])).outcomes[0].stored
    past = await database.read(lambda connection: entries_of(connection, NAMESPACE_ID, tables.history))
    assert sorted(entry.record.hash[0] for entry in past) == [1, 2]
    await store.aclose()
    await database.aclose()
