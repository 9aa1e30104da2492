"""Kills `crash_writer` again and again, and looks at what is left; for the test and ``python -m benchmarks.kill``.

After each kill the store is opened, and: every row of both documents is what the entries say (`docs_checker`); what was
acknowledged is there; what was under way is there whole or not at all, with its contents; arrival numbers were given
once and grew; nobody's time went back; the history has exactly what was superseded; a second store syncs to equality.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from crash_operations import AUTHORS, CAPABILITIES, DOCUMENTS, LANES, LOCAL, WITH_HISTORY, Number, Operation
from docs_checker import Model, arrivals, entries_of, sync_stores, verify_document
from tidings.docs_sync.model.entry import EMPTY_HASH, Record, SignedEntry, fingerprint_of, sign_entry
from tidings.docs_sync.model.keys import NamespaceSecret
from tidings.docs_sync.store.documents import PUT_BATCH, DocsStore
from tidings.storage import Database, schema, tables
from tidings.storage.engine import writer_engine

WRITER = Path(__file__).with_name("crash_writer.py")
TIMEOUT = 60.0
PHASES = ("begun", "opened", "built", "done")  # of a migration, each named after what it begins with
_e, _b = tables.entries.c, tables.blobs.c


class Killer:
    """Starts children of `crash_writer` and kills them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def begin(self, work: str, path: Path, run: int) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([work, str(path), run]).encode() + b"\n")
        return int((await self.report("child"))["pid"])

    async def report(self, *words: str) -> dict[str, Any]:
        """The next report; one of ``words``, if there are any."""
        assert self._process.stdout is not None
        while True:
            async with asyncio.timeout(TIMEOUT):
                line = await self._process.stdout.readline()
            assert line, "the writer's parent ended"
            try:
                report: dict[str, Any] = json.loads(line)
            except ValueError:
                continue  # cut off by the kill
            assert not words or report["word"] in words, report
            return report

    async def kill(self, child: int) -> list[dict[str, Any]]:
        """What it still had to say."""
        os.kill(child, signal.SIGKILL)
        last = []
        while (report := await self.report())["word"] != "ended":
            last.append(report)
        assert report["status"] == -signal.SIGKILL, "it ended by itself: see its words above"
        return last


@asynccontextmanager
async def killer() -> AsyncIterator[Killer]:
    options = {"stdin": -1, "stdout": -1, "limit": 1 << 20, "start_new_session": True}
    process = await asyncio.create_subprocess_exec(sys.executable, str(WRITER), **options)  # type: ignore[arg-type]
    try:
        yield Killer(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its child, where a check failed before that was killed
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


@dataclass(slots=True)
class Lane:
    """What the lane's author must have in its document."""

    model: Model = field(default_factory=Model)
    past: list[SignedEntry] = field(default_factory=list)
    """What was superseded since the history was looked at."""
    passed: set[SignedEntry] = field(default_factory=set)
    """What was superseded by what came with it in one transaction: the history may have it, or not."""

    def put(self, entries: list[SignedEntry]) -> None:
        """One transaction."""
        before = set(self.model.entries)
        for entry in entries:
            self.model.put(entry)
        after = set(self.model.entries)
        self.past += before - after
        self.passed.update(set(entries) - after - before)


class Documents:
    """Rounds of one database."""

    def __init__(self, path: Path, killer: Killer, rng: random.Random) -> None:
        self.kills = 0
        self.acknowledged = 0
        self._path = path
        self._killer = killer
        self._rng = rng
        self._lanes = [Lane() for _ in LANES]
        self._latest = [0 for _ in AUTHORS]  # times that they wrote with, before this round
        self._spans: list[list[tuple[int, int]]] = [[] for _ in AUTHORS]  # first and last of each write in this round
        self._arrived: list[dict[tuple, int]] = [{} for _ in DOCUMENTS]
        self._last_seq = [0 for _ in DOCUMENTS]

    async def round(self, mirror: DocsStore) -> None:
        """Kill once, or a second time soon after the next start, and check."""
        await self._run(self._rng.choice((1, 10, 60)))
        if self._rng.random() < 0.3:
            await self._run(0)
        database = await Database.open(self._path)
        store = DocsStore(database)
        for index, capability in enumerate(CAPABILITIES):
            await database.read(lambda connection, index=index: self._check(connection, index))
            if self._lanes:
                await sync_stores(capability.id, mirror, store)
                assert await mirror.summary(capability.id) == await store.summary(capability.id)
        await database.write(lambda connection: connection.execute(sa.delete(tables.history)))
        await store.aclose()
        await database.aclose()
        for author, spans in enumerate(self._spans):
            spans.sort()
            assert all(last < first for (_, last), (first, _) in pairwise([(0, self._latest[author]), *spans]))
            self._latest[author] = max([self._latest[author], *(last for _, last in spans)])
            spans.clear()
        for lane in self._lanes:
            lane.past.clear()
            lane.passed.clear()

    async def _run(self, enough: int) -> None:
        """One life of the writer, of about ``enough`` operations; then what it left of those under way."""
        child = await self._killer.begin("write", self._path, self.kills)
        self.kills += 1
        await self._killer.report("begun")
        under_way: dict[int, Operation] = {}
        done = 0
        while done < enough:
            done += self._take(await self._killer.report("begins", "done"), under_way)
        await asyncio.sleep(self._rng.random() * (0.03 if enough else 0.3))
        for report in await self._killer.kill(child):
            self._take(report, under_way)
        if under_way:
            await self._resolve(under_way)

    def _take(self, report: dict[str, Any], under_way: dict[int, Operation]) -> int:
        number = Number(*report["number"])
        if report["word"] == "begins":
            under_way[number.lane] = Operation(number, report["now_us"])
            return 0
        self._apply(number.lane, under_way.pop(number.lane), report["first"])
        self.acknowledged += 1
        return 1

    def _apply(self, lane: int, operation: Operation, first: int) -> None:
        if operation.kind in LOCAL:
            self._lanes[lane].put(operation.signed(first))
            self._spans[LANES[lane][1]].append((first, first + len(operation.items) - 1))
            return
        step = PUT_BATCH if operation.kind == "process" else len(operation.received)
        for start in range(0, len(operation.received), step):
            self._lanes[lane].put(operation.received[start : start + step])

    async def _resolve(self, under_way: dict[int, Operation]) -> None:
        """Find out which of the operations under way were done; the check then says whether as a whole."""
        database = await Database.open(self._path)
        for lane, operation in under_way.items():
            document, author = LANES[lane]
            namespace, id = bytes(CAPABILITIES[document].id), bytes(AUTHORS[author].id)
            entries = await database.read(lambda connection, namespace=namespace: entries_of(connection, namespace))
            found = {entry.id.key: entry for entry in entries if entry.id.author == id}
            new = set(found.values()).difference(self._lanes[lane].model.entries)
            if not new:
                continue
            if operation.kind in LOCAL:
                final = found[operation.items[-1].key]
                assert final in new, "a batch is there in part"
                self._apply(lane, operation, final.record.timestamp - len(operation.items) + 1)
            elif operation.kind == "insert":
                self._apply(lane, operation, 0)
            else:
                for start in range(0, len(operation.received), PUT_BATCH):
                    if set(found.values()) == set(self._lanes[lane].model.entries):
                        break
                    self._lanes[lane].put(operation.received[start : start + PUT_BATCH])
        await database.aclose()

    def _check(self, connection: sa.Connection, document: int) -> None:
        namespace = bytes(CAPABILITIES[document].id)
        lanes = [self._lanes[lane] for lane, (its, _) in enumerate(LANES) if its == document]
        entries = verify_document(connection, namespace)
        expected = sorted((entry for lane in lanes for entry in lane.model.entries), key=lambda entry: entry.id)
        assert entries == expected, f"lost or half done: {set(entries).symmetric_difference(expected)}"
        past = entries_of(connection, namespace, tables.history)
        superseded = [entry for lane in lanes for entry in lane.past] if document == WITH_HISTORY else []
        passed = {entry for lane in lanes for entry in lane.passed}
        extra, lost = Counter(past) - Counter(superseded), Counter(superseded) - Counter(past)
        assert extra.keys() <= passed, f"in the history and not superseded: {_brief(extra.keys() - passed)}"
        assert not lost, f"superseded and not in the history: {_brief(lost)}"
        own = sa.select(_e.hash).where(_e.namespace == namespace, _e.size > 1)  # those of others claim one byte
        assert connection.execute(own.where(_e.hash.not_in(sa.select(_b.hash)))).first() is None, "no content"
        numbers = arrivals(connection, namespace)
        known, last = self._arrived[document], self._last_seq[document]
        assert all(known[entry] == seq if entry in known else seq > last for entry, seq in numbers.items())
        self._arrived[document] = numbers
        self._last_seq[document] = max(numbers.values(), default=0)


def _brief(entries: Iterable[SignedEntry]) -> str:
    return ", ".join(f"{entry.id.author[:2].hex()} {entry.id.key!r} {entry.record.timestamp}" for entry in entries)


async def kill_documents(directory: Path, rounds: int, rng: random.Random) -> tuple[int, int]:
    """How many kills there were, and how many operations were acknowledged.

    AssertionError where a round left anything wrong behind.
    """
    mirror_database = await Database.open(None)
    mirror = DocsStore(mirror_database)
    for capability in CAPABILITIES:
        await mirror.add_namespace(capability)
    async with killer() as each:
        documents = Documents(directory / "node.db", each, rng)
        for _ in range(rounds):
            await documents.round(mirror)
    for capability in CAPABILITIES:
        await mirror_database.read(lambda connection, its=bytes(capability.id): verify_document(connection, its))
    await mirror.aclose()
    await mirror_database.aclose()
    return documents.kills, documents.acknowledged


def old_entries(secret: NamespaceSecret, count: int) -> list[SignedEntry]:
    return [
        sign_entry(secret, AUTHORS[n % 3], b"key/%05d" % n, Record(1, n.to_bytes(32), 1_000_000 + n))
        for n in range(count)
    ]


def make_old_database(path: Path, count: int) -> list[list[SignedEntry]]:
    """A database of revision 0001 with ``count`` entries in each document."""
    engine = writer_engine(None)
    documents = []
    with engine.connect() as connection:
        with connection.begin():
            schema.migrate(connection, "0001")
            for secret in DOCUMENTS:
                entries = old_entries(secret, count)
                connection.exec_driver_sql(
                    "INSERT INTO namespaces VALUES (?, 1, ?, 0)", (bytes(secret.id), secret.to_bytes())
                )
                connection.exec_driver_sql(
                    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        (*e.id, e.record.timestamp, e.record.hash, 1, *e[2:], fingerprint_of(e.id, e.record))
                        for e in entries
                    ],
                )
                documents.append(sorted(entries, key=lambda entry: entry.id))
            connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        data = bytearray(raw.serialize())
        data[18:20] = b"\2\2"  # with a write-ahead log, as every version made it
        path.write_bytes(data)
        path.chmod(0o600)
    engine.dispose()
    return documents


async def kill_migrations(directory: Path, rounds: int, rng: random.Random, count: int = 10_000) -> list[str]:
    """Kill while a database of revision 0001 is opened, migrated and given its aggregates. The last words heard.

    The rounds take turns at the phases that the child reports; each kill comes at any moment of its phase, as long as
    the first, undisturbed run took for it.
    """
    old = directory / "old.db"
    documents = await asyncio.to_thread(make_old_database, old, count)
    path = directory / "node.db"
    words = []
    async with killer() as each:
        durations = await _undisturbed(each, path, old)
        await _check_migrated(path, documents, ["done"])
        for run in range(rounds):
            _put_afresh(path, old)
            last = []
            for again in range(rng.choice((1, 1, 2))):
                child = await each.begin("migrate", path, run)
                phase = PHASES[(run + again) % len(PHASES)]
                while (heard := (await each.report())["word"]) != phase:
                    assert heard in PHASES
                await asyncio.sleep(rng.random() * durations[phase])
                last.append([phase, *(report["word"] for report in await each.kill(child))][-1])
            await _check_migrated(path, documents, last)
            words += last
    return words


def _put_afresh(path: Path, old: Path) -> None:
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    shutil.copy(old, path)


async def _undisturbed(killer: Killer, path: Path, old: Path) -> dict[str, float]:
    """How long each phase takes, in seconds."""
    _put_afresh(path, old)
    child = await killer.begin("migrate", path, 0)
    times = []
    for phase in PHASES:
        await killer.report(phase)
        times.append(asyncio.get_running_loop().time())
    await killer.kill(child)
    return dict(zip(PHASES, (later - earlier for earlier, later in pairwise([*times, times[-1]])), strict=True))


async def _check_migrated(path: Path, documents: list[list[SignedEntry]], last_words: list[str]) -> None:
    """Every entry of old is there, and what each run, which ended after its last word, wrote."""
    database = await Database.open(path)
    store = DocsStore(database)
    for capability, before in zip(CAPABILITIES, documents, strict=True):
        look = partial(verify_document, namespace=bytes(capability.id))
        await database.read(look)
        await store.summary(capability.id)  # builds what was not built
        entries = await database.read(look)
        new = set(entries).difference(before)
        assert set(entries) - new == set(before)
        assert [entry.id.key for entry in new] in ([[b"new"]] if "done" in last_words else [[], [b"new"]])
        written = await store.write(capability, AUTHORS[1], b"key/", EMPTY_HASH, 0)
        assert written.removed == sum(entry.id.author == bytes(AUTHORS[1].id) for entry in before)
        await database.read(look)
    await store.aclose()
    await database.aclose()
