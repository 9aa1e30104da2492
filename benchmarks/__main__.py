"""``python -m benchmarks [NAME ...]``: the same work for tidings and for the Rust peer, in one run, in processes.

Each row is the median of the rounds (with the least and the most). The last column is tidings / Rust, so that a slow
machine slows both. Names: startup, streams, blobs, docs, latency, gossip; all unless given.
"""

import asyncio
import platform
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "interop"))
from rust import Rust

ROUNDS = 3
ALPN = b"bench/1".hex()
TOPIC = (b"\x2a" * 32).hex()
console = Console(width=110)


class Ours(Rust):
    """A tidings process behind the same pipe."""

    script = Path(__file__).with_name("tidings_peer.py")


KINDS = {"tidings": lambda: Ours("tidings"), "rust": lambda: Rust("aster")}


@asynccontextmanager
async def two(kind):
    """Two processes of one kind that know each other's address."""
    async with KINDS[kind]() as a, KINDS[kind]() as b:
        a.started, b.started = await a.do("start"), await b.do("start")
        for one, other in ((a, b), (b, a)):
            introduction = await other.do("doc_create")
            await one.do("learn", ticket=await other.do("doc_share", doc=introduction["doc"], mode="read"))
        yield a, b


def measured(values, unit, digits=1):
    low, mid, high = min(values), median(values), max(values)
    return mid, f"{mid:,.{digits}f} {unit}  ({low:,.{digits}f} to {high:,.{digits}f})"


class Report:
    def __init__(self):
        self.table = Table(title="tidings beside the Rust peer, same run", title_justify="left")
        for column in ("work", "tidings", "Rust", "ratio"):
            self.table.add_column(column, no_wrap=column != "work")

    def row(self, work, unit, ours, theirs=None, digits=1):
        mine, text = measured(ours, unit, digits)
        if theirs:
            other, other_text = measured(theirs, unit, digits)
            self.table.add_row(work, text, other_text, f"{mine / other:.2f}")
        else:
            self.table.add_row(work, text, "-", "-")


async def startup(report):
    for title, code in [
        ("import tidings", "import tidings"),
        ("import tidings and load Node", "from tidings import Node"),
    ]:
        seconds = []
        for _ in range(5):
            program = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
            seconds.append(
                float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
            )
        report.row(title, "ms", [1000 * s for s in seconds])
    program = """
import asyncio, tempfile, time
from pathlib import Path
from tidings import Node
async def main(path):
    for _ in range(2):
        t = time.perf_counter()
        async with Node.open(path, bind=["127.0.0.1:0"]):
            print(time.perf_counter() - t)
with tempfile.TemporaryDirectory() as d:
    asyncio.run(main(Path(d) / "node"))
"""
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout for _ in range(5)]
    lines = [run.split() for run in runs]
    report.row("open a node in a new directory", "ms", [1000 * float(line[0]) for line in lines])
    report.row("open that node again", "ms", [1000 * float(line[1]) for line in lines])


async def streams(report, size=64 << 20):
    results = {}
    for name, make, start in [
        ("ours", lambda: Ours("tidings"), {"name": "stream_start"}),
        ("shipped", lambda: Rust("iroh"), {"name": "start"}),
        ("mended", lambda: Rust("iroh"), {"name": "start", "fast_copy": True}),
    ]:
        count = size // 8 if name == "shipped" else size  # the wheel copies sent bytes one by one
        command, options = start.pop("name"), {"alpns": [ALPN], **start}
        rates = []
        async with make() as a, make() as b:
            await a.do(command, **options)
            place = await b.do(command, **options)
            for _ in range(ROUNDS):
                accepting = asyncio.create_task(b.do("accept"))
                out = await a.do("connect", peer=place["id"], addrs=place["addrs"], alpn=ALPN)
                there = await accepting
                reading = asyncio.create_task(b.do("download", timeout=120, connection=there["connection"]))
                seconds = await a.do("upload", timeout=120, connection=out["connection"], size=count)
                assert await reading == count
                rates.append(count / seconds / 1e6)
        results[name] = rates
    report.row("one stream; iroh wheel as shipped", "MB/s", results["ours"], results["shipped"])
    report.row("one stream; its sending loop replaced", "MB/s", results["ours"], results["mended"])


async def blobs(report, size=64 << 20):
    results = {}
    for kind in KINDS:
        rates = []
        for _ in range(ROUNDS):
            async with two(kind) as (a, b):
                hash = await a.do("blob_add_pattern", timeout=60, size=size)
                ticket = await a.do("blob_ticket", hash=hash)
                answer = await b.do("blob_download", timeout=120, ticket=ticket, check_pattern=size)
                assert answer["same"]
                rates.append(size / answer["seconds"] / 1e6)
        results[kind] = rates
    report.row(f"fetch a blob of {size >> 20} MiB", "MB/s", results["tidings"], results["rust"])


async def docs(report, count=5000):
    inserts, first = {}, {}
    for kind in KINDS:
        inserts[kind], first[kind] = [], []
        for _ in range(ROUNDS):
            async with two(kind) as (a, b):
                doc = (await a.do("doc_create"))["doc"]
                author = await a.do("doc_author")
                seconds = await a.do("doc_fill", timeout=300, doc=doc, author=author, count=count)
                inserts[kind].append(count / seconds)
                ticket = await a.do("doc_share", doc=doc, mode="write")
                start = time.perf_counter()
                joined = await b.do("doc_join", timeout=300, ticket=ticket)
                await b.do("doc_wait", timeout=300, doc=joined["doc"], count=count)
                first[kind].append(count / (time.perf_counter() - start))
    report.row("insert, one by one, awaited", "/s", inserts["tidings"], inserts["rust"], 0)
    report.row(f"first sync of {count:,} entries", "/s", first["tidings"], first["rust"], 0)


async def latency(report, count=200):
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


async def gossip(report, count=300):
    results = {}
    for kind in KINDS:
        async with two(kind) as (a, b):
            # The Rust call returns with the first neighbour, ours at once.
            await asyncio.gather(
                b.do("gossip_subscribe", topic=TOPIC, bootstrap=[]),
                a.do("gossip_subscribe", topic=TOPIC, bootstrap=[b.started["id"]]),
            )
            await asyncio.sleep(2)
            delays = []
            for n in range(count):
                waiting = asyncio.create_task(b.do("gossip_until", topic=0, kind="received"))
                before = await a.do("gossip_broadcast", topic=0, data=n.to_bytes(64, "big").hex())
                delays.append(1000 * ((await waiting)["time"] - before))
            results[kind] = delays
    report.row("gossip: broadcast to delivery, 2 nodes", "ms", results["tidings"], results["rust"], 2)


SECTIONS = {f.__name__: f for f in (startup, streams, blobs, docs, latency, gossip)}


async def main(names):
    report = Report()
    try:
        for name in names or SECTIONS:
            console.print(f"[dim]{name} ...", highlight=False)
            await SECTIONS[name](report)
    finally:
        console.print(report.table)
    packages = ["aioquic", "cryptography", "SQLAlchemy", "numpy", "iroh", "aster-rpc"]
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    console.print(f"python {platform.python_version()}, {versions}; commit {commit.strip()}", highlight=False)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
