"""Kills `kill_writer` again and again; shared by the test and by ``python -m benchmarks.kill``."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

WRITER = Path(__file__).with_name("kill_writer.py")


class Writer:
    """One run; ``count`` steps are acknowledged so far, by this run and those before it."""

    def __init__(self, process: asyncio.subprocess.Process, count: int) -> None:
        self._process = process
        self.count = count

    async def line(self) -> None:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, f"it ended after {self.count} steps: see its words above"
        self._take(line)

    async def kill(self) -> None:
        assert self._process.stdout is not None
        if self._process.returncode is None:
            self._process.kill()
        for line in (await self._process.stdout.read()).splitlines():
            self._take(line)
        assert await self._process.wait() == -9, f"it ended by itself after {self.count} steps: see its words above"

    def _take(self, line: bytes) -> None:
        if line.strip() != b"ready":
            assert int(line) == self.count
            self.count += 1


@asynccontextmanager
async def writer(directory: Path, count: int) -> AsyncIterator[Writer]:
    """Killed at the end of the block."""
    call = [sys.executable, str(WRITER), str(directory), str(count)]
    process = await asyncio.create_subprocess_exec(*call, stdout=-1)
    writer = Writer(process, count)
    try:
        yield writer
    finally:
        try:
            await writer.kill()
        finally:
            process._transport.close()  # type: ignore[attr-defined]


async def kill_rounds(directory: Path, rounds: int, rng: random.Random) -> int:
    """How many steps were acknowledged in all. AssertionError where one was lost; the writer says more."""
    count = 0
    for _ in range(rounds):
        async with writer(directory, count) as run:
            if rng.random() < 0.25:  # while it starts, opens and checks, or soon after
                await asyncio.sleep(rng.uniform(0.2, 1.0))
            else:
                for _ in range(rng.randint(1, 50)):
                    await run.line()
                await asyncio.sleep(rng.random() * 0.02)
        count = run.count
    async with writer(directory, count) as run:
        await run.line()  # it has checked what is there
    return run.count
