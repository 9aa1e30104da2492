"""Kills `blob_writer` again and again; shared by the test and by ``python -m benchmarks.kill --blobs``."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from random import Random

from tidings.blobs import ALPN, Blobs, BlobSettings
from tidings.storage import Database
from tidings.transport import Endpoint, Router

WRITER = Path(__file__).with_name("blob_writer.py")


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
