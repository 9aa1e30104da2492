"""Blobs beside iroh-blobs (``aster-rpc``), whose calls take and give bytes, and what it has no call for.

Both have their stores on the disk. Rows without a second column stand alone: several slow providers beside one of
them, thousands of files at once, a range in the middle of 10 GiB.
"""

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from .pairs import KINDS, ON_DISK, ROUNDS, Rust, two

__all__ = ["blob_files", "blob_providers", "blob_range", "blobs"]

GIB = 1 << 30
FILE = GIB  # added and fetched
PLAIN = 64 << 20
RATE = 8 << 20  # bytes a second of a slow provider
SHARED = 96 << 20
FILES, FILE_SIZE = 10_000, 4096


class Plain(Rust):
    script = Path(__file__).with_name("plain_peer.py")


async def blobs(report):
    """Rust's calls take and give bytes; ours a file. The limit: what one stream of ours, aioquic's, and TCP carry."""
    added, fetched, raw = {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS}, []
    for _ in range(ROUNDS):
        raw.append(await _raw_stream())  # in turn with the fetches: the machine is not as fast at all times
        for kind in KINDS:
            async with two(kind) as (a, b):
                there = await a.do("blob_add_file", timeout=300, size=FILE)
                added[kind].append(FILE / there["seconds"] / 1e6)
                ticket = await a.do("blob_ticket", hash=there["hash"])
                seconds = (await b.do("blob_fetch", timeout=300, ticket=ticket))["seconds"]
                fetched[kind].append(FILE / seconds / 1e6)
    async with two("tidings") as (a, b):
        there = await a.do("blob_add_file", timeout=300, size=FILE)
        ticket = await a.do("blob_ticket", hash=there["hash"])
        cpu = await b.do("blob_fetch_cpu", timeout=300, ticket=ticket)
    referred, without = [await _add(refer=True) for _ in range(ROUNDS)], []
    os.environ["TIDINGS_TREE"] = "numpy"
    try:
        without += [await _add(refer=False) for _ in range(ROUNDS)]
    finally:
        del os.environ["TIDINGS_TREE"]
    quic = [await _plain("quic", PLAIN) for _ in range(ROUNDS)]
    tcp = [await _plain("tcp", FILE) for _ in range(ROUNDS)]

    size = f"{FILE >> 20} MiB"
    beside = [ours / alone for ours, alone in zip(fetched["tidings"], raw, strict=True)]
    report.row(f"add a file of {size}, copied (Rust: bytes) (wanted: 1)", "MB/s", added["tidings"], added["rust"])
    report.row("    by reference (wanted: 1)", "MB/s", referred, added["rust"])
    report.row("    copied, without the kernel (wanted: 80)", "MB/s", without)
    report.row(f"fetch a blob of {size}, into the store", "MB/s", fetched["tidings"], fetched["rust"])
    report.row(f"    {size} on one stream of ours", "MB/s", raw)
    report.row("    the fetch beside that (wanted: 0.9)", "times", beside, digits=2)
    report.row(f"    {PLAIN >> 20} MiB on one stream of plain aioquic", "MB/s", quic)
    report.row(f"    {size} over TCP", "MB/s", tcp)
    part = 100 * cpu["verifying"] / cpu["fetching"]
    report.row("    verification, of the fetch's CPU time (wanted: under 10)", "%", [part])


async def _add(**how):
    async with KINDS["tidings"]() as peer:
        await peer.do("start", **ON_DISK["tidings"])
        return FILE / (await peer.do("blob_add_file", timeout=300, size=FILE, **how))["seconds"] / 1e6


async def _raw_stream():
    alpn = b"bench/1".hex()
    async with KINDS["tidings"]() as a, KINDS["tidings"]() as b:
        await a.do("stream_start", alpns=[alpn])
        place = await b.do("stream_start", alpns=[alpn])
        accepting = asyncio.create_task(b.do("accept"))
        out = await a.do("connect", peer=place["id"], addrs=place["addrs"], alpn=alpn)
        there = await accepting
        reading = asyncio.create_task(b.do("download", timeout=300, connection=there["connection"]))
        seconds = await a.do("upload", timeout=300, connection=out["connection"], size=FILE)
        assert await reading == FILE
        return FILE / seconds / 1e6


async def _plain(kind, size):
    async with Plain("plain") as a, Plain("plain") as b:
        port = await b.do(f"{kind}_listen")
        return size / await a.do(f"{kind}_send", timeout=300, port=port, size=size) / 1e6


async def blob_providers(report):
    """Four of limited rate beside one of them."""
    alone, together = [], []
    for count, found in ((1, alone), (4, together)):
        for _ in range(ROUNDS):
            found.append(await _providers(count))
    report.row(f"fetch {SHARED >> 20} MiB from one provider of {RATE >> 20} MiB/s", "MB/s", alone)
    report.row("    from four of them", "MB/s", together)
    ratio = sorted(together)[ROUNDS // 2] / sorted(alone)[ROUNDS // 2]
    report.row("    four, beside one (wanted: 3.5)", "times", [ratio], digits=2)


async def _providers(count):
    async with AsyncExitStack() as stack:
        providers = [await stack.enter_async_context(KINDS["tidings"]()) for _ in range(count)]
        tickets = []
        for provider in providers:
            await provider.do("start")
            there = await provider.do("blob_add_file", timeout=300, size=SHARED)
            tickets.append(await provider.do("blob_serve_slowly", hash=there["hash"], rate=RATE))
        fetcher = await stack.enter_async_context(KINDS["tidings"]())
        await fetcher.do("start")
        return SHARED / (await fetcher.do("blob_fetch_from", timeout=300, tickets=tickets))["seconds"] / 1e6


async def blob_files(report):
    rates, adds = [], []
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as folder:
        for number in range(FILES):
            (Path(folder) / f"{number}.bin").write_bytes(os.urandom(FILE_SIZE))
        for _ in range(ROUNDS):
            async with two("tidings") as (a, b):
                there = await a.do("collection_add_folder", timeout=300, folder=folder)
                adds.append(FILES / there["seconds"])
                took = await b.do("collection_fetch", timeout=300, ticket=there["ticket"])
                rates.append(FILES / took["seconds"])
    work = f"{FILES:,} files of 4 KiB as a collection"
    report.row(f"{work}: add", "files/s", adds, digits=0)
    report.row(f"{work}: fetch by one request (wanted: 1,500)", "files/s", rates, digits=0)


async def blob_range(report):
    """A MiB in the middle of 10 GiB, most of which are holes on the disk; read by a node that has nothing of it."""
    async with two("tidings") as (a, b):
        there = await a.do("blob_add_sparse", timeout=600, size=10 * GIB)
        ticket = await a.do("blob_ticket", hash=there["hash"])
        got = await b.do("blob_open", timeout=60, ticket=ticket, offset=5 * GIB, size=1 << 20)
        sent = (await a.do("blob_served"))["bytes_sent"]
    groups = (1 << 20) // 16384
    least = 8 + (1 << 20) + 64 * (groups - 1 + _depth(10 * GIB) - _depth(1 << 20))
    report.row("1 MiB in the middle of 10 GiB", "ms", [1000 * got["seconds"]])
    report.row("    bytes sent beside the range and its proof (wanted: 1.02)", "times", [sent / least], digits=3)
    report.row("    memory of the reader (wanted: under 150)", "MB", [got["rss"] / 1e6])
    report.row("    memory of the provider, which has added it", "MB", [there["rss"] / 1e6])


def _depth(size):
    """Levels of pairs above a group."""
    return (-(-size // 16384) - 1).bit_length()
