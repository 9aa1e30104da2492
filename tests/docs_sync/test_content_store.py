"""What is wanted, failed and had, against a plain model, on SQLite and on PostgreSQL."""

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.blobs import Hash
from tidings.blobs.quota import Quota
from tidings.blobs.store import BlobStore
from tidings.docs_sync.errors import UnknownDocument
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.entry import EMPTY_HASH
from tidings.docs_sync.model.keys import Author, NamespaceSecret
from tidings.docs_sync.model.policy import DownloadPolicy, Exact, Prefix
from tidings.docs_sync.store import content_store as module
from tidings.docs_sync.store.content_store import ContentCounts, ContentStore, Outcome
from tidings.docs_sync.store.documents import DocsStore, NewEntry
from tidings.storage import Database

AUTHORS = [Author(bytes([n]) * 32) for n in (1, 2)]
KEYS = [b"a", b"a/x", b"a/y", b"b", b"b/x"]
POLICIES = [
    DownloadPolicy(),
    DownloadPolicy.nothing_except(),
    DownloadPolicy.nothing_except([Prefix(b"a/")]),
    DownloadPolicy.everything_except([Exact(b"b"), Prefix(b"a/x")]),
]
PEER = b"p" * 32
FIRST = (-1, b"")
_seed = itertools.count(1)

values = st.integers(0, 5)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(AUTHORS), st.sampled_from(KEYS), values),
        st.tuples(st.just("delete"), st.sampled_from(AUTHORS), st.sampled_from(KEYS)),
        st.tuples(st.just("come"), values),
        st.tuples(st.just("fail"), values),
        st.tuples(st.just("arrive"), values),
        st.tuples(st.just("policy"), st.sampled_from(POLICIES)),
        st.tuples(st.just("prune")),
    ),
    max_size=25,
)


@dataclass
class Model:
    """Entries by author and key, contents that are here, and of each wanted one how often it failed."""

    entries: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)
    here: set[bytes] = field(default_factory=set)
    attempts: dict[bytes, int] = field(default_factory=dict)
    policy: DownloadPolicy = POLICIES[0]

    def wanted(self) -> set[bytes]:
        """What must be wanted. More may be, until it was found out that nothing names it any more."""
        named = {hash for (_, key), hash in self.entries.items() if self.policy.matches(key)}
        return named - self.here - {EMPTY_HASH}


class World:
    def __init__(self, database: Database) -> None:
        self.now = 1_700_000_000_000_000
        self.store = DocsStore(database, clock=self.clock)
        self.contents = ContentStore(database)
        self.blobs = BlobStore.__new__(BlobStore)  # without its folder: its small blobs are rows
        self.blobs._database = database
        self.blobs.quota = Quota(None, self.blobs._bytes_kept)
        self.example = next(_seed)
        secret = NamespaceSecret(self.example.to_bytes(32, "big"))
        self.id, self.capability = secret.id, Capability(secret.id, secret)
        self.model = Model()

    def clock(self) -> int:
        self.now += 1
        return self.now

    def value(self, n: int) -> bytes:
        return b"%d of %d" % (n, self.example)

    def hash(self, n: int) -> bytes:
        return bytes(Hash.of(self.value(n)))

    async def start(self) -> None:
        await self.store.add_namespace(self.capability)
        for author in AUTHORS:
            await self.store.add_author(author)

    async def write(self, author: Author, key: bytes, hash: bytes, size: int) -> None:
        await self.store.write_batch(self.capability, author, [NewEntry(key, hash, size)])
        gone = [at for at in self.model.entries if at[0] == bytes(author.id) and at[1].startswith(key)]
        for at in gone:
            del self.model.entries[at]
        self.model.entries[bytes(author.id), key] = hash

    async def do(self, name: str, *of: object) -> None:
        match name, *of:
            case "set", Author() as author, bytes(key), int(n):
                await self.write(author, key, self.hash(n), len(self.value(n)))
            case "delete", Author() as author, bytes(key):
                await self.write(author, key, EMPTY_HASH, 0)
            case "come", int(n):
                await self.blobs.keep([(Hash(self.hash(n)), self.value(n))])
                await self.contents.settle([Outcome(bytes(self.id), self.hash(n), 1, None, PEER)], self.clock())
                self.model.here.add(self.hash(n))
                self.model.attempts.pop(self.hash(n), None)
            case "fail", int(n):
                tries = self.model.attempts.get(self.hash(n), 0) + 1
                due = {row.hash: row for row in await self.due()}
                outcome = Outcome(bytes(self.id), self.hash(n), tries, "no " * 200, PEER, self.now + 1_000_000 * tries)
                await self.contents.settle([outcome], self.clock())
                if self.hash(n) in due:
                    self.model.attempts[self.hash(n)] = tries
            case "arrive", int(n):  # by another way
                await self.blobs.keep([(Hash(self.hash(n)), self.value(n))])
                self.model.here.add(self.hash(n))
            case "policy", DownloadPolicy() as policy:
                await self.contents.set_policy(self.id, policy)
                self.model.policy = policy
                assert await self.contents.catch_up(self.id, self.clock())
                assert not await self.contents.catch_up(self.id, self.clock())
                self.forget()
            case ("prune",):
                rows = await self.due()
                await self.contents.suspect(self.id, [row.hash for row in rows if not row.named], self.clock())
                await self.contents.prune(self.id, self.clock())
                self.forget()
                left = {row.hash for row in await self.due() if not row.here}
                assert left == self.model.wanted()

    def forget(self) -> None:
        """Attempts are counted for as long as a content is wanted; what stopped being wanted may begin anew."""
        wanted = self.model.wanted()
        self.model.attempts = {hash: tries for hash, tries in self.model.attempts.items() if hash in wanted}

    async def due(self) -> list[module.Due]:
        """In pages of three."""
        rows, after = [], FIRST
        while page := await self.contents.due(self.id, after, 3):
            rows += page
            after = (page[-1].due_us, page[-1].hash)
        assert rows == sorted(rows, key=lambda row: (row.due_us, row.hash))
        return rows

    async def check(self) -> None:
        rows = await self.due()
        by_hash = {row.hash: row for row in rows}
        assert len(by_hash) == len(rows)
        assert {hash for hash, row in by_hash.items() if not row.here} >= self.model.wanted()
        for hash, row in by_hash.items():
            assert row.here is (hash in self.model.here)
            if hash in self.model.wanted():
                assert row.attempts >= self.model.attempts.get(hash, 0)
        wishes = [(bytes(self.id), self.hash(n)) for n in range(6)]
        assert await self.contents.wanted_of(wishes) == {(bytes(self.id), hash): row for hash, row in by_hash.items()}
        known = [content async for content in self.contents.contents(self.id)]
        assert [bytes(content.hash) for content in known] == sorted(bytes(content.hash) for content in known)
        assert {bytes(content.hash) for content in known if content.state != "had"} == set(by_hash)
        counts = await self.contents.counts(self.id)
        states = [content.state for content in known]
        assert counts == ContentCounts(*(states.count(state) for state in ("wanted", "failed", "had")))
        for state in ("wanted", "failed", "had"):
            assert [c async for c in self.contents.contents(self.id, state)] == [c for c in known if c.state == state]
        assert all(len(content.error or "") <= module.MAX_ERROR for content in known)
        protected = {bytes(hash) async for hash in self.contents.protected_hashes()}
        assert protected >= set(self.model.entries.values())
        pending = await self.contents.pending([self.id])
        assert pending == {bytes(self.id): (False, min((row.due_us for row in rows), default=None))}


def against_the_model(place: str | None, examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    with asyncio.Runner() as runner:
        database = runner.run(Database.open(place))

        async def example(steps: list[tuple[str, object]]) -> None:
            world = World(database)
            await world.start()
            for step in steps:
                await world.do(*step)
            await world.check()
            await world.do("prune")
            await world.check()
            await world.store.drop(world.id)
            await world.store.aclose()

        @settings(max_examples=examples, deadline=None)
        @given(operations)
        def run(steps: list[tuple[str, object]]) -> None:
            runner.run(example(steps))

        try:
            run()
        finally:
            runner.run(database.aclose())


def test_against_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    against_the_model(None, 60, monkeypatch)


def test_against_the_model_on_postgresql(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    against_the_model(postgres_url, 15, monkeypatch)


@pytest.fixture
async def world():
    database = await Database.open(None)
    world = World(database)
    await world.start()
    yield world
    await world.store.aclose()
    await database.aclose()


async def test_entries_that_are_older_than_the_table(world: World) -> None:
    for n in range(3):
        await world.do("set", AUTHORS[0], KEYS[n], n)
    await world.contents._database.write(
        lambda connection: [
            connection.exec_driver_sql(text)
            for text in ("DELETE FROM contents", "UPDATE namespaces SET contents_from = 0")
        ]
    )
    assert await world.contents.pending([world.id]) == {bytes(world.id): (True, None)}
    assert await world.contents.catch_up(world.id, world.clock())
    await world.check()


async def test_unknown_documents(world: World) -> None:
    other = NamespaceSecret(b"\xff" * 32).id
    with pytest.raises(UnknownDocument):
        await world.contents.policy(other)
    with pytest.raises(UnknownDocument):
        await world.contents.set_policy(other, DownloadPolicy())
    assert not await world.contents.catch_up(other, 0)
    assert await world.contents.pending([other]) == {}


async def test_what_was_had_is_forgotten_after_a_day(world: World) -> None:
    await world.do("set", AUTHORS[0], b"a", 1)
    await world.do("come", 1)
    assert await world.contents.counts(world.id) == ContentCounts(had=1)
    world.now += module.KEEP_HAD_US
    await world.do("set", AUTHORS[0], b"b", 2)
    await world.do("come", 2)
    assert await world.contents.counts(world.id) == ContentCounts(had=1)


async def test_one_look_costs_the_same_in_a_large_document(world: World) -> None:
    """SQLite's plan: whether a key names a content must not read the document."""
    plans = []

    def explain(connection) -> None:
        cursor = connection.connection.cursor()
        for query in (module._PAGE_OF_DUE, module._ONE_DUE, module._SUSPECT):
            text, constants = query._text(connection)
            names = ("namespace", "after_due", "after_hash", "most", "this", "next", "now")
            cursor.execute(f"EXPLAIN QUERY PLAN {text}", {**dict.fromkeys(names, b""), **constants})
            plans.extend(row[-1] for row in cursor.fetchall())

    await world.contents._database.write(explain)
    of_entries = [plan for plan in plans if "entries" in plan]
    assert len(of_entries) == 3
    assert all("entries_by_key (namespace=? AND key>?" in plan for plan in of_entries)
