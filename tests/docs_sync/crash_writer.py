"""Documents that are written until the process is killed; driven by `crash_rounds`.

For each line of its standard input, the process forks a child that works on the given database and reports to standard
output as JSON, a line at a time, what it begins and what it was told is done. ``ended`` with the exit status comes
after a child's last word. A fork costs no import, so that a round takes no longer than what is killed.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from pathlib import Path

import sqlalchemy as sa
from crash_operations import AUTHORS, CAPABILITIES, LANES, LOCAL, MINUTE, WITH_HISTORY, Number, Operation
from tidings.blobs.store import BlobStore
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, RangeItems, Value
from tidings.docs_sync.store.documents import DocsStore, NewEntry
from tidings.storage import Database, tables


def report(word: str, **details: object) -> None:
    os.write(1, json.dumps({"word": word} | details).encode() + b"\n")


class SteppedClock:
    """A clock that is set now and then, up to a minute and a half forth or back."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._offset = 0

    def __call__(self) -> int:
        if self._rng.random() < 0.02:
            self._offset = self._rng.randrange(-3 * MINUTE // 2, 3 * MINUTE // 2)
        return time.time_ns() // 1000 + self._offset


async def write(path: Path, run: int) -> None:
    """All lanes, for ever."""
    clock = SteppedClock(random.Random(run))
    report("begun")
    database = await Database.open(path)
    store = DocsStore(database, clock=clock)
    blobs = BlobStore(database, path.parent / "blobs")
    for capability in CAPABILITIES:
        await store.add_namespace(capability)
    for author in AUTHORS:
        await store.add_author(author)
    history = sa.update(tables.namespaces).values(history_us=MINUTE)
    kept = tables.namespaces.c.namespace == bytes(CAPABILITIES[WITH_HISTORY].id)
    await database.write(lambda connection: connection.execute(history.where(kept)))

    async def work(lane: int) -> None:
        step = 0
        while True:
            number = Number(run, lane, step)
            now_us = clock()
            report("begins", number=number, now_us=now_us)
            first = await take(store, blobs, Operation(number, now_us))
            report("done", number=number, first=first)
            step += 1

    async with asyncio.TaskGroup() as tasks:
        for lane in range(len(LANES)):
            tasks.create_task(work(lane))


async def take(store: DocsStore, blobs: BlobStore, operation: Operation) -> int:
    """The time of the first entry that was written here."""
    capability, author = operation.capability, operation.author
    if operation.kind in LOCAL:
        entries = []
        for item in operation.items:
            info, content = await blobs.stage_bytes(item.content)
            entries.append(NewEntry(item.key, bytes(info.hash), info.size, content if item.content else None))
        written = await store.write_batch(capability, author, entries)
        first = written[0].entry.record.timestamp
        assert [each.entry for each in written] == operation.signed(first)
        return first
    if operation.kind == "insert":
        received = await store.insert(capability.id, operation.received)
        assert not any(isinstance(outcome, Exception) for outcome in received.outcomes)
    else:
        values = [Value(entry, ContentStatus.MISSING) for entry in operation.received]
        whole = IdRange(bytes(64), bytes(64))
        processed = await store.process(capability.id, [RangeItems(whole, values, have_local=True)])
        assert not processed.rejected
    return 0


async def migrate(path: Path, _run: int) -> None:
    """Open a database of an older version, have the aggregates built, write."""
    report("begun")
    database = await Database.open(path)
    store = DocsStore(database)
    report("opened")
    for capability in CAPABILITIES:
        await store.summary(capability.id)
    report("built")
    for capability in CAPABILITIES:
        await store.write(capability, AUTHORS[0], b"new", bytes(32), 1)
    report("done")
    await asyncio.Event().wait()


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        work, path, run = json.loads(line)
        child = os.fork()
        if child == 0:
            report("child", pid=os.getpid())
            asyncio.run({"write": write, "migrate": migrate}[work](Path(path), run))
        _, status = os.waitpid(child, 0)
        os.write(1, b"\n")  # the child's last line may be cut off
        report("ended", status=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
