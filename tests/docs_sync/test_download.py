"""Contents that come, fail, and come late: the store is a real one, the network is not."""

import asyncio
from random import Random

import pytest
from tidings.blobs import Blobs as RealBlobs
from tidings.blobs import Delivery, Hash, NotProvided, ProvidersExhausted, Stalled
from tidings.docs_sync import Prefix
from tidings.docs_sync.contents import download
from tidings.docs_sync.contents import due as due_module
from tidings.docs_sync.contents.download import Downloads
from tidings.docs_sync.errors import ContentMissing
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.keys import Author, NamespaceSecret
from tidings.docs_sync.model.policy import DownloadPolicy
from tidings.docs_sync.store.content_store import ContentCounts, ContentStore
from tidings.docs_sync.store.documents import DocsStore, NewEntry, now_us
from tidings.errors import StoreError
from tidings.storage import Database
from tidings.transport import Endpoint, SecretKey

SECRET = NamespaceSecret(b"\1" * 32)
DOC = SECRET.id
PEER, OTHER = SecretKey(b"\2" * 32).public, SecretKey(b"\3" * 32).public


class Blobs:
    """Real ones here, and what peers would answer."""

    def __init__(self, real: RealBlobs) -> None:
        self.real = real
        self.elsewhere: dict[Hash, bytes] = {}
        self.asked: list[tuple[list[Hash], object]] = []
        self.ill: set[object] = set()
        self.running = self.most = 0
        self.has, self.read, self.reader = real.has, real.read, real.reader

    async def fetch_small(self, wanted, peer) -> Delivery:
        hashes = [hash for hash, _ in wanted]
        self.asked.append((hashes, peer))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.01)
        finally:
            self.running -= 1
        if peer in self.ill:
            return Delivery([], Stalled("nothing comes"))
        came = []
        for hash in hashes:
            if hash not in self.elsewhere:
                return Delivery(came, NotProvided("not here"), hash)
            await self.real.add_bytes(self.elsewhere[hash])
            came.append(hash)
        return Delivery(came)

    async def fetch(self, hash, providers, *, max_size) -> None:
        delivery = await self.fetch_small([(hash, max_size)], providers[0])
        if delivery.error is not None:
            raise ProvidersExhausted("it", {str(providers[0]): delivery.error})


class Document:
    def __init__(self) -> None:
        self.near: list[bytes] = []
        self.here: list[bytes] = []
        self.idle = 0

    def candidates(self) -> list[bytes]:
        return self.near

    def content_here(self, hash: bytes, peer: bytes | None) -> None:
        self.here.append(hash)

    def contents_idle(self) -> None:
        self.idle += 1


class World:
    def __init__(self, database: Database, blobs: Blobs) -> None:
        self.blobs = blobs
        self.store = DocsStore(database)
        self.contents = ContentStore(database)
        self.author = Author(b"\4" * 32)
        self.document = Document()
        self.downloads = Downloads(blobs, self.contents, Random(1), now_us)

    async def write(self, *contents: bytes, key: bytes = b"k", size: int | None = None) -> list[Hash]:
        """Entries that name contents which are elsewhere."""
        hashes = [Hash.of(content) for content in contents]
        new = [
            NewEntry(key + b"%d" % n, bytes(hash), len(content) if size is None else size)
            for n, (hash, content) in enumerate(zip(hashes, contents, strict=True))
        ]
        await self.store.write_batch(Capability(DOC, SECRET), self.author, new)
        return hashes

    def stored(self, hashes: list[Hash], *, offered: bool = True) -> None:
        self.downloads.stored(DOC, len(hashes), [bytes(hash) for hash in hashes] if offered else [], bytes(PEER))

    async def until(self, **expected: int) -> None:
        async with asyncio.timeout(10):
            while await self.contents.counts(DOC) != ContentCounts(**expected):
                await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path, monkeypatch):
    monkeypatch.setattr("tidings.docs_sync.store.content_store.UNANNOUNCED_US", 300_000)
    monkeypatch.setattr(due_module, "UNANNOUNCED_US", 300_000)
    database = await Database.open(None)
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint:
        real = RealBlobs(endpoint, database, tmp_path)
        world = World(database, Blobs(real))
        await world.store.add_namespace(Capability(DOC, SECRET))
        await world.store.add_author(world.author)
        world.downloads.join(DOC, world.document)
        yield world
        await world.downloads.aclose()
        await world.store.aclose()
        await real.aclose()
    await database.aclose()


async def test_an_offered_content(world: World) -> None:
    world.blobs.elsewhere = {Hash.of(b"x"): b"x"}
    world.stored(await world.write(b"x"))
    await world.until(had=1)
    assert world.document.here == [bytes(Hash.of(b"x"))]
    assert world.blobs.asked == [([Hash.of(b"x")], PEER)]
    [content] = [content async for content in world.contents.contents(DOC)]
    assert (content.state, content.peer, content.attempts) == ("had", PEER, 0)


async def test_an_unannounced_content_is_asked_of_who_is_near(world: World) -> None:
    world.document.near = [bytes(OTHER)]
    world.blobs.elsewhere = {Hash.of(b"x"): b"x"}
    world.stored(await world.write(b"x"), offered=False)
    await world.until(had=1)
    assert world.blobs.asked == [([Hash.of(b"x")], OTHER)]


async def test_nobody_near_is_no_attempt(world: World) -> None:
    world.blobs.elsewhere = {Hash.of(b"x"): b"x"}
    world.stored(await world.write(b"x"), offered=False)
    await asyncio.sleep(0.5)
    await world.until(wanted=1)
    world.document.near = [bytes(PEER)]
    world.downloads.peer_appeared(DOC, bytes(PEER))
    await world.until(had=1)


async def test_a_failure_and_a_late_announcement(world: World) -> None:
    hash = Hash.of(b"x")
    world.stored(await world.write(b"x"))
    with pytest.raises(ContentMissing):
        await world.downloads.content(DOC, hash, 1, 0.1)
    await world.until(failed=1)
    [content] = [content async for content in world.contents.contents(DOC, "failed")]
    assert (content.peer, content.error) == (PEER, "not here")
    assert content.next_try is not None
    world.blobs.elsewhere[hash] = b"x"
    world.downloads.announced(DOC, bytes(hash), bytes(PEER))
    assert await world.downloads.content(DOC, hash, 1, 5) == b"x"
    await world.until(had=1)


async def test_failures_come_again_by_themselves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.docs_sync.contents.wanted.RETRY_FIRST", 0.1)
    world.document.near = [bytes(PEER)]
    world.stored(await world.write(b"x"))
    async with asyncio.timeout(10):
        while len(world.blobs.asked) < 4:
            await asyncio.sleep(0.01)
    world.blobs.elsewhere = {Hash.of(b"x"): b"x"}
    await world.until(had=1)


async def test_many_share_requests_and_those_are_bounded(world: World) -> None:
    contents = [b"%d" % n for n in range(3000)]
    world.document.near = [bytes(PEER), bytes(OTHER)]
    world.blobs.elsewhere = {Hash.of(content): content for content in contents}
    world.stored(await world.write(*contents))
    world.downloads.synced(DOC, bytes(PEER))
    await world.until(had=3000)
    assert sum(len(hashes) for hashes, _ in world.blobs.asked) == 3000
    assert len(world.blobs.asked) < 50
    assert world.blobs.most <= 8
    assert sorted(world.document.here) == sorted(bytes(hash) for hash in world.blobs.elsewhere)


async def test_one_missing_among_many(world: World) -> None:
    contents = [b"%d" % n for n in range(600)]
    world.document.near = [bytes(PEER)]
    world.blobs.elsewhere = {Hash.of(content): content for content in contents[:300] + contents[301:]}
    world.stored(await world.write(*contents))
    await world.until(had=599, failed=1)


async def test_a_peer_that_stalls_does_not_stop_the_others(world: World) -> None:
    contents = [b"%d" % n for n in range(600)]
    world.document.near = [bytes(PEER), bytes(OTHER)]
    world.blobs.ill = {PEER}
    world.blobs.elsewhere = {Hash.of(content): content for content in contents}
    world.stored(await world.write(*contents))
    await world.until(had=600)
    assert len([peer for _, peer in world.blobs.asked if peer == PEER]) <= 4


async def test_who_waits_comes_first_and_the_policy_does_not_count(world: World) -> None:
    await world.contents.set_policy(DOC, DownloadPolicy.nothing_except([Prefix(b"wanted/")]))
    world.document.near = [bytes(PEER)]
    world.blobs.elsewhere = {Hash.of(b"x"): b"x"}
    world.stored(await world.write(b"x"))
    await asyncio.sleep(0.5)
    assert world.blobs.asked == []
    assert await world.downloads.content(DOC, Hash.of(b"x"), 1, 5) == b"x"
    assert await world.contents.counts(DOC) == ContentCounts()


async def test_a_policy_that_changes(world: World) -> None:
    world.document.near = [bytes(PEER)]
    await world.contents.set_policy(DOC, DownloadPolicy.nothing_except())
    world.downloads.policy_changed(DOC)
    contents = [b"%d" % n for n in range(1200)]
    world.blobs.elsewhere = {Hash.of(content): content for content in contents}
    world.stored(await world.write(*contents, key=b"a/"))
    await asyncio.sleep(0.4)
    assert world.blobs.asked == []
    await world.contents.set_policy(DOC, DownloadPolicy.everything_except([Prefix(b"a/10")]))
    world.downloads.policy_changed(DOC)
    await world.until(had=1200 - 1 - 10 - 100)  # a/10, a/100 to a/109, a/1000 to a/1099


async def test_while_a_large_sync_runs_only_what_somebody_waits_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RUSH_PACE", 0.2)
    contents = [b"%d" % n for n in range(2000)]
    world.document.near = [bytes(PEER)]
    world.blobs.elsewhere = {Hash.of(content): content for content in contents}
    hashes = await world.write(*contents)
    world.stored(hashes)
    assert await world.downloads.content(DOC, hashes[1500], 4, 5) == b"1500"
    await asyncio.sleep(0.5)
    assert len(world.blobs.asked) < 5
    assert world.blobs.most == 1
    world.downloads.synced(DOC, bytes(PEER))
    await world.until(had=2000)


async def test_content_that_came_by_another_way(world: World) -> None:
    [hash] = await world.write(b"x")
    waiting = asyncio.ensure_future(world.downloads.content(DOC, hash, 1, 5))
    await asyncio.sleep(0.01)
    await world.blobs.real.add_bytes(b"x")
    assert await waiting == b"x"
    world.document.near = [bytes(PEER)]
    world.stored([hash], offered=False)
    await world.until(had=1)
    assert world.document.here == [bytes(hash)]
    assert world.blobs.asked == []


async def test_idle_is_told_once_all_were_tried(world: World) -> None:
    world.document.near = [bytes(PEER)]
    world.blobs.elsewhere = {Hash.of(b"x"): b"x"}
    world.stored(await world.write(b"x", b"missing"))
    world.downloads.synced(DOC, bytes(PEER))
    async with asyncio.timeout(5):
        while not world.document.idle:
            await asyncio.sleep(0.01)
    assert await world.contents.counts(DOC) == ContentCounts(had=1, failed=1)


async def test_what_was_superseded_is_not_fetched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due_module, "PRUNE_AFTER", 0.1)
    monkeypatch.setattr(download, "TEND_EVERY", 0.1)
    world.downloads._chores.set()
    world.document.near = [bytes(PEER)]
    world.blobs.elsewhere = {Hash.of(b"old"): b"old", Hash.of(b"new"): b"new"}
    await world.write(b"old")
    world.stored(await world.write(b"new"), offered=False)
    await world.until(had=1)
    assert [hash for hashes, _ in world.blobs.asked for hash in hashes] == [Hash.of(b"new")]


async def test_memory_is_bounded_with_very_many_wanted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20_000
    world.document.near = [bytes(PEER)]
    world.blobs.ill = {PEER}
    hashes = []
    for start in range(0, count, 5000):
        hashes += await world.write(*(b"%d" % n for n in range(start, start + 5000)), key=b"%d/" % start)
    world.stored(hashes)
    world.downloads.synced(DOC, bytes(PEER))
    most = 0
    async with asyncio.timeout(10):
        while not (await world.contents.counts(DOC)).failed:
            most = max(most, len(world.downloads._wanted))
            await asyncio.sleep(0.01)
    assert 0 < most <= 4096
    assert len(world.downloads._due._wishes) <= due_module.MAX_WISHES


async def test_a_peer_that_appears_while_the_store_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.document.near = [bytes(PEER)]
    world.stored(await world.write(b"x"))
    await world.until(failed=1)
    due, reading = world.contents.due, asyncio.Event()

    async def slowly(*of):
        rows = await due(*of)
        reading.set()
        await asyncio.sleep(0.1)
        return rows

    monkeypatch.setattr(world.contents, "due", slowly)
    monkeypatch.setattr(due_module, "HASTEN_REST_US", 0)
    world.blobs.elsewhere = {Hash.of(b"x"): b"x"}
    world.downloads._due.again(bytes(DOC), 0.0)
    world.downloads._work.set()
    async with asyncio.timeout(5):
        await reading.wait()
    world.downloads.peer_appeared(DOC, bytes(PEER))
    await world.until(had=1)


async def test_a_store_that_fails_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.1)
    world.document.near = [bytes(PEER)]
    world.blobs.elsewhere = {Hash.of(b"%d" % n): b"%d" % n for n in range(10)}
    settle, fetch, failures = world.contents.settle, world.blobs.fetch_small, [3, 3]

    async def no_settling(*of):
        failures[0] -= 1
        if failures[0] > 0:
            raise StoreError("the disk is full")
        return await settle(*of)

    async def no_keeping(*of):
        failures[1] -= 1
        if failures[1] > 0:
            raise StoreError("the disk is full")
        return await fetch(*of)

    monkeypatch.setattr(world.contents, "settle", no_settling)
    monkeypatch.setattr(world.blobs, "fetch_small", no_keeping)
    world.stored(await world.write(*world.blobs.elsewhere.values()))
    await world.until(had=10)


async def test_a_document_that_left(world: World) -> None:
    world.downloads.leave(DOC)
    world.stored(await world.write(b"x"))
    await asyncio.sleep(0.5)
    assert world.blobs.asked == []
    assert world.document.here == []
    assert len(world.downloads._wanted) == 0
