"""``python -m benchmarks [NAME ...]``: the same work for tidings and for the Rust peer, in one run, in processes.

Each row is the median of the rounds (with the least and the most). The last column is tidings / Rust, so that a slow
machine slows both. Names: startup, streams; tree, blobs, providers, files, range; of documents inserts, syncs,
wire, latency, many; gossip; and relay, which stands alone; all unless given. ``million`` is run only by name, as it
takes some ten minutes.
"""

import asyncio
import platform
import subprocess
import sys
from importlib.metadata import version

from rich.console import Console

from .blobs import blob_files, blob_providers, blob_range, blobs
from .documents import inserts, latency, many, million, syncs, wire
from .gossip import gossip
from .pairs import ROOT, ROUNDS, Ours, Report, Rust
from .relay import relay
from .tree import tree_speed

ALPN = b"bench/1".hex()
console = Console(width=118)


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


SECTIONS = {
    "startup": startup,
    "streams": streams,
    "tree": tree_speed,
    "blobs": blobs,
    "providers": blob_providers,
    "files": blob_files,
    "range": blob_range,
    "inserts": inserts,
    "syncs": syncs,
    "wire": wire,
    "latency": latency,
    "many": many,
    "gossip": gossip,
    "relay": relay,
}
BY_NAME = SECTIONS | {"million": million}


async def main(names):
    report = Report()
    try:
        for name in names or SECTIONS:
            console.print(f"[dim]{name} ...", highlight=False)
            await BY_NAME[name](report)
    finally:
        report.show(console)
    packages = ["aioquic", "cryptography", "PyNaCl", "SQLAlchemy", "numpy", "iroh", "aster-rpc"]
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    console.print(f"python {platform.python_version()}, {versions}; commit {commit.strip()}", highlight=False)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
