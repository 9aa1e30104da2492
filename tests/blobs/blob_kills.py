"""Kills what writes blobs, again and again; shared by the tests and by ``python -m benchmarks.kill --blobs``."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tidings.blobs import ALPN, Blobs, BlobSettings
from tidings.blobs.bao import encode
from tidings.blobs.partial import Partial
from tidings.blobs.ranges import ChunkRanges
from tidings.storage import Database
from tidings.transport import Endpoint, Router

WRITER = Path(__file__).with_name("blob_writer.py")
FETCHER = """
import asyncio, sys
from pathlib import Path
from tidings.blobs import Blobs
from tidings.storage import Database
from tidings.transport import Endpoint

async def main():
    database = await Database.open(Path(sys.argv[1]) / "node.db", fsync=False)
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint:
        blobs = Blobs(endpoint, database, Path(sys.argv[1]) / "blobs")
        await blobs.fetch(sys.argv[2], progress=lambda done, total: print(done, flush=True))

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Bytes of one blob: sent before the kill, found in the store after it, sent afterwards, and the least of these."""

    size: int
    sent_before: int
    found: int
    sent_after: int
    least_after: int


async def kill_and_resume(directory: Path, size: int, rng: Random) -> Resumed:
    """``kill -9`` a process that fetches, about half way, and let another fetch the rest."""
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    async with aclosing(await Database.open(None)) as database, Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint:
        blobs = Blobs(endpoint, database, directory / "provider", BlobSettings(upload_rate=size / 3))
        content = await blobs.add_bytes(rng.randbytes(size))
        async with Router(endpoint, {ALPN: blobs.handle}):
            command = sys.executable, "-c", FETCHER, str(directory), str(blobs.ticket(content.hash))
            process = await asyncio.create_subprocess_exec(*command, stdout=-1)
            assert process.stdout is not None
            while int(await process.stdout.readline()) < size / 2:
                pass
            await asyncio.sleep(rng.random() * 0.2)
            process.kill()
            await process.communicate()
            while blobs.served.active:
                await asyncio.sleep(0.05)
            before = blobs.served.bytes_sent
            name = str(content.hash)
            partial = Partial(content.hash, size, directory / "blobs" / "data" / name[:2] / name)
            list(partial.recover())
            have, here = partial.have, partial.bytes_here
            partial.close()
            process = await asyncio.create_subprocess_exec(*command, stdout=-1)
            await process.communicate()
            assert process.returncode == 0
            after = blobs.served.bytes_sent - before
            async with await blobs.reader(content.hash) as reader:
                rest = ChunkRanges.ALL - have
                least = sum(len(piece) for piece in encode(size, rest, reader.data_at, reader.outboard_at))
        await blobs.aclose()
    return Resumed(size, before, here, after, least)


async def kill_blobs(directory: Path, rounds: int, rng: Random) -> Counter[str]:
    """The steps that were done. AssertionError where a blob called complete, or an exported file, was not."""
    (directory / "out").mkdir(parents=True)
    done: Counter[str] = Counter()
    database = await Database.open(None)
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint:
        blobs = Blobs(endpoint, database, directory / "provider", BlobSettings(upload_rate=40_000_000))
        content = await blobs.add_bytes(rng.randbytes(12_000_000))
        async with Router(endpoint, {ALPN: blobs.handle}):
            ticket = str(blobs.ticket(content.hash))
            for number in range(rounds + 1):
                steps = await _run(directory, ticket, number, rng, to_the_end=number == rounds)
                done.update(steps)
        await blobs.aclose()
    await database.aclose()
    return done


async def _run(directory: Path, ticket: str, seed: int, rng: Random, *, to_the_end: bool) -> list[str]:
    """One process; the last is killed when it has looked at everything."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WRITER), str(directory), ticket, str(seed), stdout=-1
    )
    assert process.stdout is not None
    steps: list[str] = []
    try:
        ready = await process.stdout.readline()
        assert ready == b"ready\n", "it ended while it looked at what there was: see its words above"
        if not to_the_end:
            steps += [(await process.stdout.readline()).decode().strip() for _ in range(rng.randrange(8))]
            await asyncio.sleep(rng.random() * 0.3)
    finally:
        if process.returncode is None:
            process.kill()
        steps += (await process.stdout.read()).decode().split()
        code = await process.wait()
        process._transport.close()  # type: ignore[attr-defined]
    assert code == -9, "it ended by itself: see its words above"
    return steps
