"""A process with a part of the swarm: tells what happens, samples what it holds, and counts what is left in the end.

Each line of standard output is ``[what, time, ...]``. It says that it is "ready", that it is "quiet" when its time is
over, and goes on from either once it got a line on standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from random import Random

from tidings.transport import Connection, EndpointTicket

from .census import census, descriptors, objects
from .swarm import Swarm

WARM_UP = 0.25  # the part of the time before the first sample
SAMPLES = 40  # looking at all objects takes some tenths of a second
NUMBERS = 10**9  # members and messages of a process


def tell(what: str, *more: object) -> None:
    print(json.dumps([what, time.monotonic(), *more]), flush=True)


async def sample(seconds: float) -> None:
    begun, step = time.monotonic(), seconds / SAMPLES
    for number in range(1, SAMPLES + 1):
        at = begun + number * step
        await asyncio.sleep(at - time.monotonic())
        tell("late", time.monotonic() - at)
        if number > WARM_UP * SAMPLES:
            tell("sample", number, *census())


async def work(index: int, nodes: int, seconds: float, rate: float, every: float, seed: int, known: list[str]) -> None:
    before = descriptors(), asyncio.all_tasks()
    addrs = [EndpointTicket.parse(text).addr for text in known]
    async with Swarm(nodes, index * NUMBERS, addrs, Random(seed * 1000 + index), tell) as swarm:
        tell("ready", [str(EndpointTicket(addr)) for addr in swarm.addrs()])
        await asyncio.to_thread(sys.stdin.readline)
        async with asyncio.TaskGroup() as group:
            group.create_task(sample(seconds))
            group.create_task(swarm.churn(every, seconds))
            group.create_task(swarm.talk(rate, seconds))
        tell("quiet")
        await asyncio.to_thread(sys.stdin.readline)
    left = {
        "tasks": len(asyncio.all_tasks() - before[1]),
        "connections": objects()[Connection],
        "descriptors": descriptors() - before[0],
    }
    tell("left behind", left)


if __name__ == "__main__":
    asyncio.run(work(**json.loads(sys.argv[1])))
