"""What documents cost, beside the Rust peer where it can do the work."""

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from itertools import chain

from rich.table import Table

from .pairs import KINDS, ON_DISK, ROUNDS, Ours, quantile, two
from .wire import measure

SIZES = 1_000, 20_000, 100_000
EDITS = 10


async def inserts(report, count=3000):
    one, batch, unsynced = {kind: [] for kind in KINDS}, [], []
    for _ in range(ROUNDS):
        for kind in KINDS:
            async with KINDS[kind]() as peer:
                await peer.do("start", **ON_DISK[kind])
                doc, author = (await peer.do("doc_create"))["doc"], await peer.do("doc_author")
                one[kind].append(count / await peer.do("doc_fill", timeout=300, doc=doc, author=author, count=count))
                if kind == "tidings":
                    seconds = await peer.do("doc_fill_batch", timeout=300, doc=doc, count=10 * count, prefix="b/")
                    batch.append(10 * count / seconds)
        async with Ours("tidings") as peer:
            await peer.do("start", fsync=False)
            doc = (await peer.do("doc_create"))["doc"]
            unsynced.append(count / await peer.do("doc_fill", timeout=300, doc=doc, author=None, count=count))
    report.row("insert, one by one, awaited (ours durable)", "/s", one["tidings"], one["rust"], 0)
    report.row("- with fsync=False: survives kill -9", "/s", unsynced, one["rust"], 0)
    report.row("insert in a batch; Rust one by one", "/s", batch, one["rust"], 0)


async def _filled(kind, a, count):
    doc = (await a.do("doc_create"))["doc"]
    author = await a.do("doc_author")
    if kind == "tidings":
        for start in range(0, count, 10_000):
            some = min(10_000, count - start)
            await a.do("doc_fill_batch", timeout=600, doc=doc, count=some, first=start)
    else:
        await a.do("doc_fill", timeout=600, doc=doc, author=author, count=count)
    return doc, author


async def _edit(a, doc, author, count, round):
    """`EDITS` new entries, anywhere between those of `_filled`."""
    for n in random.Random(round).sample(range(count), EDITS):
        key = f"key/{n:08d}/{round}".encode().hex()
        await a.do("doc_set", doc=doc, author=author, key=key, value=b"new".hex())


async def _resync(a, b, doc, joined, author, count, round, *, strangers=False):
    """Milliseconds until `EDITS` new entries of one side are at the other, which opens the document for it."""
    await b.do("doc_leave", doc=joined)
    await _edit(a, doc, author, count, round)
    if strangers:
        await a.do("doc_forget")
        await b.do("doc_forget")
    await asyncio.sleep(0.5)
    return 1000 * await b.do("doc_resync", timeout=120, doc=joined, peer=a.started["id"], count=EDITS)


async def _first_sync(a, b, ticket, count):
    """The document there, and entries a second: until all are there, and until their contents are, too."""
    start = time.perf_counter()
    joined = (await b.do("doc_join", timeout=3600, ticket=ticket))["doc"]
    await b.do("doc_wait", timeout=3600, doc=joined, count=count)
    entries = time.perf_counter() - start
    await b.do("doc_contents", timeout=3600, doc=joined, count=count)
    whole = time.perf_counter() - start
    await asyncio.sleep(3)
    return joined, count / entries, count / whole


async def _sync_once(kind, count, rounds):
    """Of one pair of peers: the first sync's two rates, and the times of later ones."""
    async with two(kind) as (a, b):
        doc, author = await _filled(kind, a, count)
        ticket = await a.do("doc_share", doc=doc, mode="write")
        joined, entries, whole = await _first_sync(a, b, ticket, count)
        again = [await _resync(a, b, doc, joined, author, count, round) for round in range(rounds)]
        strangers = [
            await _resync(a, b, doc, joined, author, count, round, strangers=True)
            for round in range(rounds, 2 * rounds if kind == "tidings" else rounds)
        ]
        return entries, whole, again, strangers


async def syncs(report, sizes=SIZES):
    for count in sizes:
        found = {}
        for kind in KINDS:
            runs = [await _sync_once(kind, count, 5) for _ in range(1 if count > 20_000 else ROUNDS)]
            entries, whole, again, strangers = zip(*runs, strict=True)
            found[kind] = entries, whole, list(chain(*again)), list(chain(*strangers))
        (entries, whole, again, strangers), rust = found["tidings"], found["rust"]
        report.row(f"first sync of {count:,} entries", "/s", entries, rust[0], 0)
        report.row("- with their contents", "/s", whole, rust[1], 0)
        report.row(f"re-sync, {EDITS} of {count:,} entries are new", "ms", again, rust[2], 1)
        report.row("- of two that never synced before", "ms", strangers, rust[2], 1)


async def million(report, count=1_000_000):
    """The same with a million entries, ours alone, and what such a document costs a node that opens it."""
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as scratch:
        async with Ours("tidings") as a, Ours("tidings") as b:
            a.started, b.started = await a.do("start", directory=f"{scratch}/a"), await b.do("start")
            doc, author = await _filled("tidings", a, count)
            ticket = await a.do("doc_share", doc=doc, mode="write")
            joined, entries, whole = await _first_sync(a, b, ticket, count)
            report.row(f"first sync of {count:,} entries", "/s", [entries], digits=0)
            report.row("- with their contents", "/s", [whole], digits=0)
            again = [await _resync(a, b, doc, joined, author, count, round) for round in range(9)]
            report.row(f"re-sync, {EDITS} of {count:,} entries are new", "ms", again)
            again = [await _resync(a, b, doc, joined, author, count, 10 + n, strangers=True) for n in range(9)]
            report.row("- of two that never synced before", "ms", again)
        opened = [_open_document(f"{scratch}/a") for _ in range(3)]
        report.row(f"open a document of {count:,} entries", "ms", [1000 * seconds for seconds, _ in opened])
        report.row("memory that it takes, open and idle", "MB", [size / 1e6 for _, size in opened])
    await wire(report, sizes=(count,))


def _open_document(directory):
    program = """
import asyncio, gc, os, sys, time
from tidings import Node
def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
async def main():
    async with Node.open(sys.argv[1], bind=["127.0.0.1:0"]) as node:
        [doc] = [doc async for doc in node.docs.list()]
        before, start = resident(), time.perf_counter()
        await node.docs.open(doc.id)
        seconds = time.perf_counter() - start
        await asyncio.sleep(5)
        print(seconds, resident() - before)
asyncio.run(main())
"""
    run = subprocess.run([sys.executable, "-c", program, directory], capture_output=True, check=True)
    seconds, size = run.stdout.split()
    return float(seconds), int(size)


async def wire(report, sizes=(10_000, 100_000)):
    """Messages and bytes, both directions together, of a reconciliation in memory."""
    table = Table(
        title="reconciliation: messages (both sides) / bytes; Negentropy's from its JavaScript reference, as published",
        title_justify="left",
    )
    for column in ("entries", "differ", "nearby", "100 ms away", "Negentropy"):
        table.add_column(column, justify="right")
    for row in measure(sizes):
        table.add_row(*row)
    report.tables.append(table)


async def latency(report, count=300):
    results = {}
    for kind in KINDS:
        async with two(kind) as (a, b):
            doc = (await a.do("doc_create"))["doc"]
            author = await a.do("doc_author")
            await a.do("doc_set", doc=doc, author=author, key=b"first".hex(), value=b"x".hex())
            joined = await b.do("doc_join", timeout=60, ticket=await a.do("doc_share", doc=doc, mode="write"))
            await b.do("doc_wait", doc=joined["doc"], count=1)
            await asyncio.sleep(2)
            delays = []
            await b.do("doc_drain", doc=joined["doc"])
            for n in range(count):
                waiting = asyncio.create_task(b.do("doc_until", doc=joined["doc"], kind="insert"))
                await asyncio.sleep(0.002)
                before = await a.do("doc_set", doc=doc, author=author, key=f"k{n}".encode().hex(), value=b"v".hex())
                delays.append(1000 * ((await waiting)["time"] - before))
            results[kind] = delays
    ours, theirs = results["tidings"], results["rust"]
    report.row("live edit: set here to event there", "ms", ours, theirs, 2)
    worst, other = [quantile(ours, 0.99)], [quantile(theirs, 0.99)]
    report.row("live edit, the slowest of a hundred", "ms", worst, other, 2)


async def many(report, count=10_000):
    """A node with very many documents: opening them all, and the processor's time when nothing happens."""
    program = """
import asyncio, os, resource, sys, time
from tidings import Node
async def main(count):
    async with Node.open(sys.argv[2], bind=["127.0.0.1:0"]) as node:
        for _ in range(count):
            await (await node.docs.create()).close()
    def cpu():
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime
    async with Node.open(sys.argv[2], bind=["127.0.0.1:0"]) as node:
        start = time.perf_counter()
        assert len(await node.docs.open_all()) == count
        opened = time.perf_counter() - start
        await asyncio.sleep(5)
        before, start = cpu(), time.perf_counter()
        await asyncio.sleep(20)
        print(opened, (cpu() - before) / (time.perf_counter() - start))
asyncio.run(main(int(sys.argv[1])))
"""
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as directory:
        call = [sys.executable, "-c", program, str(count), directory]
        opened, busy = map(float, subprocess.run(call, capture_output=True, check=True).stdout.split())
    report.row(f"open {count:,} documents of one node", "s", [opened], digits=2)
    report.row("processor, all of them idle", "%", [100 * busy], digits=2)
