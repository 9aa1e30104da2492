"""``python -m benchmarks.memory --size 1024``: one blob between two nodes in two processes; the peak memory of each.

The one adds a file and serves it; the other fetches and exports it. Exit status 1 where a process took more than 150 MB
(10^6 bytes), or where the bytes differ.
"""

import argparse
import asyncio
import filecmp
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 150_000_000  # bytes
LOOPBACK = ["127.0.0.1:0"]
MIB = 1 << 20


def peak() -> int:
    """Bytes of the largest resident size of this process so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def tell(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def serve(place: Path) -> None:
    from tidings import Node

    async with Node.open(place / "serving", bind=LOOPBACK) as node:
        began = time.perf_counter()
        blob = await node.blobs.add_path(place / "original")
        tell(ticket=str(node.blobs.ticket(blob.hash)), seconds=time.perf_counter() - began)
        await asyncio.to_thread(sys.stdin.readline)
        tell(peak=peak())


async def fetch(place: Path, ticket: str) -> None:
    from tidings import Node

    async with Node.open(place / "fetching", bind=LOOPBACK) as node:
        began = time.perf_counter()
        blob = await node.blobs.fetch(ticket)
        fetched = time.perf_counter()
        await node.blobs.export(blob.hash, place / "copy")
        tell(peak=peak(), fetch=fetched - began, export=time.perf_counter() - fetched)


async def transfer(mib: int) -> dict[str, float]:
    """Peaks in bytes and times in seconds of one transfer; AssertionError where the copy is not the original."""
    with tempfile.TemporaryDirectory(prefix="tidings-memory-") as scratch:
        place = Path(scratch)
        await asyncio.to_thread(write_random, place / "original", mib)
        call = [sys.executable, __file__, "--in", scratch]
        serving = await asyncio.create_subprocess_exec(*call, "serve", stdin=-1, stdout=-1)
        assert serving.stdin is not None and serving.stdout is not None
        try:
            added = json.loads(await serving.stdout.readline())
            fetching = await asyncio.create_subprocess_exec(*call, "fetch", added["ticket"], stdout=-1)
            fetched = json.loads((await fetching.communicate())[0])
            served = json.loads((await serving.communicate(b"\n"))[0])
        finally:
            if serving.returncode is None:
                serving.kill()
                await serving.communicate()
        same = await asyncio.to_thread(filecmp.cmp, place / "original", place / "copy", shallow=False)
        assert same, "the copy differs"
        return {
            "serving": served["peak"],
            "fetching": fetched["peak"],
            "add": added["seconds"],
            "fetch": fetched["fetch"],
            "export": fetched["export"],
        }


def write_random(path: Path, mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", type=int, default=1024, help="MiB of the blob")
    options.add_argument("--in", dest="place", help=argparse.SUPPRESS)
    options.add_argument("part", nargs="*", help=argparse.SUPPRESS)
    args = options.parse_args()
    match args.part:
        case ["serve"]:
            return asyncio.run(serve(Path(args.place)))
        case ["fetch", ticket]:
            return asyncio.run(fetch(Path(args.place), ticket))
    found = asyncio.run(transfer(args.size))
    for what in ("add", "fetch", "export"):
        print(f"{what:8} {found[what]:6.1f} s  {args.size * MIB / found[what] / 1e6:6.0f} MB/s")
    for who in ("serving", "fetching"):
        print(f"{who:8} peak {found[who] / 1e6:.1f} MB")
    sys.exit(max(found["serving"], found["fetching"]) > LIMIT)


if __name__ == "__main__":
    main()
