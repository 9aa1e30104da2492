"""A full disk costs the write that found no room: it says so, nothing else is lost, and later ones go on.

The disk is a file of SQLite that may not grow, and, where the tests run as root, a small file system in memory.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_operations import AUTHORS, CAPABILITIES, DOCUMENTS
from crash_rounds import make_old_database
from docs_checker import Model, sync_stores, verify_document
from docs_net import contents, eventually
from tidings import Node
from tidings.blobs.store import BlobStore
from tidings.docs_sync.model.entry import EMPTY_HASH, Record, SignedEntry, sign_entry
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, RangeItems, Value
from tidings.docs_sync.store.documents import DocsStore, NewEntry
from tidings.storage import Database, DiskFull, schema

CAPABILITY = CAPABILITIES[0]
ID = CAPABILITY.id
WHOLE = IdRange(bytes(64), bytes(64))


class FewPages:
    """A file that may not grow."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def fill(self, database: Database) -> None:
        # SQLite allows as many pages as there are.
        await database.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1").scalar())

    async def free(self, database: Database) -> None:
        await database.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1000000").scalar())


class SmallDisk:
    """A file system of its own, on which another program has taken what was left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"

    async def fill(self, database: Database | None = None, *, left: int = 0) -> None:
        """Up to ``left`` bytes."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
            file.truncate(file.tell() - left)

    async def free(self, database: Database | None = None) -> None:
        self._ballast.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    directory = tmp_path / "disk"
    directory.mkdir()
    try:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tidings-test", directory], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if made.returncode:
        pytest.skip("a file system can only be mounted by root")
    try:
        yield SmallDisk(directory)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture(params=["few pages", "small disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> FewPages | SmallDisk:
    if request.param == "small disk":
        return request.getfixturevalue("small_disk")
    return FewPages(tmp_path)


async def open_store(path: Path | None) -> tuple[Database, DocsStore]:
    database = await Database.open(path)
    store = DocsStore(database)
    await store.add_namespace(CAPABILITY)
    for author in AUTHORS:
        await store.add_author(author)
    return database, store


async def entries_of(database: Database) -> list[SignedEntry]:
    """After a look at every row."""
    return await database.read(lambda connection: verify_document(connection, bytes(ID)))


def received(count: int, *, first: int = 0) -> list[SignedEntry]:
    records = (Record(7, bytes([n % 251 + 1]) * 32, 1_000_000 + n) for n in range(first, first + count))
    return [sign_entry(DOCUMENTS[0], AUTHORS[2], b"%d" % r.timestamp + bytes(400), r) for r in records]


async def test_writes_and_batches(disk: FewPages | SmallDisk) -> None:
    database, store = await open_store(disk.directory / "node.db")
    blobs = BlobStore(database, disk.directory / "blobs")
    models = [Model() for _ in AUTHORS]
    refused = [0 for _ in AUTHORS]

    async def new(key: bytes, content: bytes) -> NewEntry:
        info, write = await blobs.stage_bytes(content)
        return NewEntry(key, bytes(info.hash), info.size, write)

    async def write(lane: int, step: int) -> None:
        if step % 5 == 4:
            batch = [NewEntry(b"%d/" % (step - 2), EMPTY_HASH, 0)]
        else:
            count = (1, 60)[step % 2]
            batch = [await new(b"%d/%d" % (step, n), b"%d %d %d " % (lane, step, n) * 200) for n in range(count)]
        try:
            written = await store.write_batch(CAPABILITY, AUTHORS[lane], batch)
        except DiskFull as error:
            assert "free some space" in str(error)
            refused[lane] += 1
        else:
            for inserted in written:
                models[lane].put(inserted.entry)

    async def write_much(first: int, count: int) -> None:
        for step in range(first, first + count):
            await asyncio.gather(*(write(lane, step) for lane in range(len(AUTHORS))))

    async def check() -> None:
        acknowledged = sorted((entry for model in models for entry in model.entries), key=lambda entry: entry.id)
        assert await entries_of(database) == acknowledged

    await write_much(0, 4)
    assert not any(refused)
    await disk.fill(database)
    for first in range(10, 2000, 10):
        await write_much(first, 10)
        if min(refused) > 5:
            break
    await check()
    await disk.free(database)
    refused = [0 for _ in AUTHORS]
    await write_much(2000, 6)
    assert not any(refused)
    await check()
    await store.aclose()
    await database.aclose()
    database, store = await open_store(disk.directory / "node.db")
    await check()
    await store.aclose()
    await database.aclose()


async def test_a_message_and_a_sync(disk: FewPages | SmallDisk) -> None:
    database, store = await open_store(disk.directory / "node.db")
    other, peer = await open_store(None)
    entries = received(3_000)
    assert all(outcome.stored for outcome in (await peer.insert(ID, entries)).outcomes)
    await store.insert(ID, entries[:10])
    await disk.fill(database)
    with pytest.raises(DiskFull, match="free some space"):
        for _ in range(20):  # what is free inside of the files is used up first
            await sync_stores(ID, store, peer)
            entries += (more := received(3_000, first=len(entries)))
            await peer.insert(ID, more)
    assert set(entries[:10]) <= set(await entries_of(database)) < set(entries)
    with pytest.raises(DiskFull):
        values = [Value(entry, ContentStatus.MISSING) for entry in entries]
        await store.process(ID, [RangeItems(WHOLE, values, have_local=True)])
    half = await entries_of(database)
    assert set(half) < set(entries)
    await disk.free(database)
    await sync_stores(ID, store, peer)
    assert await entries_of(database) == sorted(entries, key=lambda entry: entry.id)
    assert await store.summary(ID) == await peer.summary(ID)
    for its in (store, database, peer, other):
        await its.aclose()


async def test_migrations(small_disk: SmallDisk) -> None:
    path = small_disk.directory / "node.db"
    documents = make_old_database(path, 3_000)
    for left in (0, 0, 4_096, 40_000, 400_000):
        await small_disk.fill(left=left)
        with pytest.raises(DiskFull, match="free some space"):
            await Database.open(path)
        await small_disk.free()
        assert schema.check_file(path) == "0001"
    database = await Database.open(path)
    await database.write(lambda c: c.exec_driver_sql("PRAGMA wal_autocheckpoint = 0").scalar())  # the log only grows
    store = DocsStore(database)
    await small_disk.fill()
    with pytest.raises(DiskFull, match="free some space"):
        for capability in CAPABILITIES:
            await store.summary(capability.id)  # builds the aggregate
    await small_disk.free()
    for capability, before in zip(CAPABILITIES, documents, strict=True):
        assert (await store.summary(capability.id)).size == len(before)
        assert await database.read(lambda c, its=bytes(capability.id): verify_document(c, its)) == before
    await store.aclose()
    await database.aclose()


async def test_a_node_lives_on(small_disk: SmallDisk) -> None:
    async with (
        Node.open(None, bind=["127.0.0.1:0"]) as peer,
        Node.open(small_disk.directory / "node", bind=["127.0.0.1:0"]) as node,
    ):
        theirs = await peer.docs.create()
        await theirs.set("first", b"1")
        ours = await node.docs.join(theirs.ticket(write=True))
        await small_disk.fill()
        with pytest.raises(DiskFull, match="free some space"):
            for number in range(2_000):
                await ours.set(f"ours/{number}", bytes(8_000) + b"%d" % number)
        for number in range(40):
            await theirs.set(f"theirs/{number}", b"%d" % number * 1_000)
        assert await ours.get("first") is not None  # reads go on
        with pytest.raises(DiskFull):
            await ours.set("large", bytes(1_000_000))
        assert await node.database.read(lambda connection: verify_document(connection, bytes(ours.id)))
        await small_disk.free()
        await ours.set("after", b"room")

        async def equal() -> bool:
            return await contents(ours) == await contents(theirs)

        await eventually(equal, 40)
        held = await contents(ours)
        assert {b"first", b"after", *(b"theirs/%d" % n for n in range(40))} <= held.keys()
