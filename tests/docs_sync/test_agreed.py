"""A sync with a peer that had the same entries once begins with what arrived since (`store.agreed`)."""

import asyncio

import pytest
import sqlalchemy as sa
from native_net import ID, WRITER, pair, peer, run, signed, until
from tidings.docs_sync.model.reconcile import RangeFingerprint, RangeItems
from tidings.docs_sync.store import agreed
from tidings.docs_sync.store.documents import DocsStore
from tidings.storage import Database, DiskFull, tables


@pytest.fixture
def messages(monkeypatch):
    """Every message that is taken, in order: the entries of each of its parts, and how many fingerprints."""
    seen = []
    process = DocsStore.process

    async def noting(self, namespace, message, *args):
        fingerprints = sum(isinstance(part, RangeFingerprint) for part in message)
        seen.append(([len(part.values) for part in message if isinstance(part, RangeItems)], fingerprints))
        return await process(self, namespace, message, *args)

    monkeypatch.setattr(DocsStore, "process", noting)
    return seen


async def sync(a, b):
    """A sync that ``a`` dials, both ends of it over."""
    served = len(b.served)
    tally = await a.sync_with(b)
    await until(lambda: len(b.served) > served)
    assert await a.store.summary(ID) == await b.store.summary(ID)
    return tally.sent, tally.received


CHECK = ([], 1)


async def test_what_is_new_comes_first(messages):
    async with pair() as (a, b):
        await a.store.insert(ID, run(0, 2000))
        await sync(a, b)
        for mine, theirs, expected in (
            (0, 0, [([], 1), CHECK]),
            (5, 0, [([5], 1), CHECK]),
            (0, 6, [([], 1), ([6], 1), CHECK]),
            (3, 4, [([3], 1), ([4], 1), CHECK]),
        ):
            number = 10_000 * (mine + 10 * theirs)
            await a.store.insert(ID, run(number, mine))
            await b.store.insert(ID, run(number + 5000, theirs))
            messages.clear()
            assert await sync(a, b) == (mine, theirs)
            assert messages == expected


async def test_what_both_heard_elsewhere_goes_one_way_at_most(messages):
    async with pair() as (a, b):
        await a.store.insert(ID, run(0, 100))
        await sync(a, b)
        for store in (a.store, b.store):
            await store.insert(ID, run(1000, 20))
        await b.store.insert(ID, run(2000, 2))
        messages.clear()
        assert await sync(a, b) == (20, 2)
        assert messages == [([20], 1), ([2], 1), CHECK]


async def test_a_guess_that_is_wrong_costs_a_message():
    async with pair() as (a, b):
        await a.store.insert(ID, run(0, 3000))
        await sync(a, b)
        await a.store.insert(ID, run(4000, 5))
        await b.store.insert(ID, run(5000, 5))
        for each, other in ((a, b), (b, a)):
            await each.store.agree(ID, other.id)  # it is not so
        await a.store.insert(ID, run(6000, 1))
        await b.store.insert(ID, run(7000, 1))
        sent, received = await sync(a, b)
        assert sent >= 6 and received >= 6


async def test_deletes_and_newer_entries_are_new():
    async with pair() as (a, b):
        await a.store.insert(ID, run(0, 600))
        await sync(a, b)
        await a.store.insert(ID, [signed(b"key/00001", 10_000, content=7)])
        await b.store.insert(ID, [signed(b"key/000", 10_001, content=0)])
        await b.store.insert(ID, [signed(b"key/00001", 10_002, content=9)])
        await sync(a, b)
        assert (await a.keys())[b"key/00001"].timestamp == 10_002


async def test_much_that_is_new_is_not_sent_on_a_guess(messages):
    async with pair() as (a, b):
        await a.store.insert(ID, run(0, 1000))
        await sync(a, b)
        await a.store.insert(ID, run(2000, agreed.MOST_RECENT + 1))
        messages.clear()
        await sync(a, b)
        assert messages[0][1] > 1  # a split
        long = [signed(bytes(4000) + bytes([n]), 20_000 + n) for n in range(20)]
        await a.store.insert(ID, long)
        messages.clear()
        await sync(a, b)
        assert messages[0][1] > 1


async def test_iroh_peers_parts_and_refused_entries_are_not_agreed_on():
    async with pair() as (a, b):
        await a.store.insert(ID, run(0, 10))
        await a.sync_with(b, b"key/00001")
        assert await rows(a) == await rows(b) == []
    async with pair(native=False) as (a, b):
        await a.store.insert(ID, run(0, 10))
        await sync(a, b)
        assert await rows(a) == await rows(b) == []

    async def readers_only(peer, document, what):
        return what == "read"

    async with pair(hook=readers_only) as (a, b):
        await a.store.insert(ID, run(0, 10))
        await a.sync_with(b)
        await until(lambda: b.served)
        assert await rows(b) == []


async def test_only_so_many_peers_are_kept_and_none_of_a_dropped_document():
    async with peer() as a:
        peers = [bytes([n // 256, n % 256]) * 16 for n in range(agreed.MOST_PEERS + 3)]
        await a.store.agree(ID, peers[0])
        assert await rows(a) == []  # nothing is here
        for n, each in enumerate(peers):
            await a.store.insert(ID, run(n, 1))
            await a.store.agree(ID, each)
        kept = await rows(a)
        assert len(kept) == agreed.MOST_PEERS and peers[2] not in kept and peers[-1] in kept
        await a.store.drop(ID)
        assert await rows(a) == []


async def test_a_note_that_cannot_be_kept_costs_no_sync(monkeypatch):
    async def full(self, namespace, peer):
        raise DiskFull("no space left")

    monkeypatch.setattr(DocsStore, "agree", full)
    async with pair() as (a, b):
        await a.store.insert(ID, run(0, 10))
        assert await sync(a, b) == (10, 0)


async def test_two_processes_of_one_database_note_the_same(postgres_url):
    one, other = await Database.open(postgres_url), await Database.open(postgres_url)
    stores = DocsStore(one), DocsStore(other)
    peers = [bytes([n]) * 32 for n in range(5)]
    try:
        await stores[0].add_namespace(WRITER)
        await stores[0].insert(ID, run(0, 10))
        for _ in range(2):
            await asyncio.gather(*(store.agree(ID, peer) for peer in peers for store in stores))
        await stores[1].insert(ID, run(10, 2))
        message = await stores[0].initial_message(ID, peer=peers[3])
        assert [len(part.values) for part in message if isinstance(part, RangeItems)] == [2]
        query = sa.select(tables.agreed.c.peer)
        assert len(await one.read(lambda connection: connection.execute(query).all())) == 5
    finally:
        for each in (*stores, one, other):
            await each.aclose()


async def rows(peer):
    query = sa.select(tables.agreed.c.peer)
    return await peer.store._database.read(lambda connection: list(connection.execute(query).scalars()))
