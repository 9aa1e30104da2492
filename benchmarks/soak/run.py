"""The whole swarm: its processes, and what they tell put together."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .census import Growth, growth
from .ledger import DUE, Ledger

__all__ = ["Outcome", "Plan", "soak"]

ROOT = Path(__file__).parents[2]
START_TIMEOUT = 300.0
ENTERED = "started", "came back", "came new"
WENT = "left", "vanished"


@dataclass(frozen=True)
class Plan:
    """``rate`` messages a second and a change of nodes ``every`` so many seconds, of all processes together."""

    nodes: int = 50
    seconds: float = 600.0
    processes: int = 4
    rate: float = 5.0
    every: float = 1.0
    seed: int = 0


@dataclass
class Outcome:
    ledger: Ledger = field(default_factory=Ledger)
    did: Counter[str] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)  # seconds by which an event loop was late
    parts: dict[int, list[dict[str, float]]] = field(default_factory=dict)  # sample -> what each process holds
    kinds: dict[int, Counter[str]] = field(default_factory=dict)  # sample -> objects
    left: Counter[str] = field(default_factory=Counter)
    here: int = 0

    def take(self, what: str, at: float, *more: Any) -> None:
        """A line of a process."""
        self.did[what] += 1
        if what in ENTERED:
            self.here += 1
            self.ledger.enter(more[0], at)
        elif what in WENT:
            self.here -= 1
            self.ledger.leave(more[0], at)
        elif what == "said":
            self.ledger.say(*more, at)
        elif what in {"heard", "caught up"}:
            self.ledger.hear(*more, at)
        elif what == "missed":
            self.did["told as missed"] += more[0]
        elif what == "late":
            self.late.append(more[0])
        elif what == "sample":
            number, figures, kinds = more
            self.parts.setdefault(number, []).append(figures)
            self.kinds.setdefault(number, Counter()).update(kinds)
        elif what == "left behind":
            self.left.update(more[0])

    def samples(self) -> list[dict[str, float]]:
        """Of all processes together."""
        return [{name: sum(each[name] for each in parts) for name in parts[0]} for parts in self.parts.values()]

    def grown(self) -> list[Growth]:
        return growth(self.samples())

    @property
    def good(self) -> bool:
        return not (any(each.grew for each in self.grown()) or any(self.left.values()) or self.ledger.lost)


class Part:
    """A process."""

    def __init__(self, process: asyncio.subprocess.Process, take: Callable[..., None]) -> None:
        self._process = process
        self._take = take
        self._told: dict[str, asyncio.Future[Any]] = {}

    async def read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            what, at, *more = json.loads(line)
            if what in {"ready", "quiet"}:
                self._future(what).set_result(more)
            else:
                self._take(what, at, *more)
        if await self._process.wait():
            raise RuntimeError(f"a process of the swarm ended with status {self._process.returncode}")

    async def told(self, what: str, timeout: float) -> Any:
        async with asyncio.timeout(timeout):
            return await self._future(what)

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def _future(self, what: str) -> asyncio.Future[Any]:
        return self._told.setdefault(what, asyncio.get_running_loop().create_future())


@asynccontextmanager
async def part(take: Callable[..., None], **work: object) -> AsyncIterator[Part]:
    call = [sys.executable, "-m", "benchmarks.soak.worker", json.dumps(work)]
    process = await asyncio.create_subprocess_exec(*call, cwd=ROOT, stdin=-1, stdout=-1, limit=1 << 24)
    try:
        yield Part(process, take)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def soak(plan: Plan, show: Callable[[Outcome, float], None]) -> Outcome:
    """``show`` is called about every second with what is known and the part of the time that is over."""
    outcome = Outcome()
    count = plan.processes
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as readers:

        async def start(index: int, known: list[str]) -> Part:
            nodes = plan.nodes // count + (index < plan.nodes % count)
            options = {"seconds": plan.seconds, "rate": plan.rate / count, "every": plan.every * count}
            started = await stack.enter_async_context(
                part(outcome.take, index=index, nodes=nodes, seed=plan.seed, known=known, **options)
            )
            readers.create_task(started.read())
            return started

        parts = [await start(0, [])]
        [known] = await parts[0].told("ready", START_TIMEOUT)
        parts += [await start(index, known) for index in range(1, count)]
        for each in parts:
            await each.told("ready", START_TIMEOUT)
            show(outcome, 0.0)
        for each in parts:
            each.go_on()
        begun = time.monotonic()
        quiet = asyncio.gather(*(each.told("quiet", plan.seconds + START_TIMEOUT) for each in parts))
        while not quiet.done():
            await asyncio.sleep(1)
            outcome.ledger.judge(time.monotonic())
            show(outcome, (time.monotonic() - begun) / plan.seconds)
        await quiet
        ended = time.monotonic()
        while outcome.ledger.open(time.monotonic()) and time.monotonic() < ended + DUE:
            await asyncio.sleep(0.2)
        outcome.ledger.close(time.monotonic())
        for each in parts:
            each.go_on()
    return outcome
