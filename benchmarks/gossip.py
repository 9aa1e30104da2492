"""Gossip beside Rust's: swarms of 2, 5 and 10 nodes of one kind, each node in a process of its own.

One node says everything. At a slow pace each message is timed until the last of the others has it; then comes a burst,
as fast as `broadcast` takes it, in which nothing may be lost. The clock is the machine's, which all processes share.

Ours are plain messages, as Rust's; with a log they are signed, checked by each node and kept.
"""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

from .pairs import KINDS, ROUNDS, introduce, quantile

__all__ = ["gossip"]

TOPIC = (b"\x2a" * 32).hex()
SIZES = 2, 5, 10
SIZE = 100  # bytes of a message
SLOW, PAUSE = 200, 0.02  # messages, and seconds from one to the next
BURST = 10_000
SETTLE = 3.0  # seconds for the swarm to find its links
WARM_UP = 50  # messages by which the tree settles
ATTEMPTS = 3
PATIENCE = 5.0  # seconds without anything new after which the rest of a burst is lost


async def gossip(report):
    for size in SIZES:
        rounds = {name: [] for name in RUNS}
        for _ in range(ROUNDS):  # by turns, so that what else the machine does slows all of them
            for name, of in RUNS.items():
                rounds[name].append(await joined_round(name, *of, size))
        for title, key, unit, digits in FIGURES:
            here = {name: [found[key] for found in each] for name, each in rounds.items()}
            report.row(f"gossip, {size} nodes: {title}", unit, here["ours"], here["rust"], digits)
            report.row("    with a log, signed", unit, here["log"], here["rust"], digits)


RUNS = {"ours": ("tidings", {}), "log": ("tidings", {"log": True}), "rust": ("rust", {})}
FIGURES = [
    ("to the last, p50 (wanted: at most 2.5)", "p50", "ms", 2),
    ("to the last, p99", "p99", "ms", 2),
    (f"burst of {BURST:,}, at each (wanted: 0.4)", "rate", "/s", 0),
    ("lost of the burst (wanted: 0)", "lost", "", 0),
]


async def joined_round(name, kind, options, size):
    """A round; where a node never joins, which is said, another one."""
    for _ in range(ATTEMPTS):
        try:
            return await one_round(kind, options, size)
        except TimeoutError:
            print(f"  {name}, {size} nodes: a node did not join within its time; once more", flush=True)
    raise TimeoutError(f"{size} nodes never joined")


async def one_round(kind, options, size):
    async with swarm(kind, options, size) as nodes:
        await say(nodes, 0, WARM_UP, PAUSE)
        sent = await say(nodes, WARM_UP, SLOW, PAUSE)
        came = [await node.do("gossip_heard", first=WARM_UP, count=SLOW, times=True) for node in nodes[1:]]
        delays = [1000 * (max(there) - at) for at, *there in zip(sent, *came, strict=True) if None not in there]
        start = (await say(nodes, WARM_UP + SLOW, BURST, 0.0))[0]
        burst = [await node.do("gossip_heard", first=WARM_UP + SLOW, count=BURST) for node in nodes[1:]]
        rates = [each["count"] / (each["last"] - start) for each in burst]
        return {
            "p50": quantile(delays, 0.5),
            "p99": quantile(delays, 0.99),
            "rate": sum(rates) / len(rates),
            "lost": sum(BURST - each["count"] for each in burst),
        }


async def say(nodes, first, count, pause):
    """Have the first node say it. Returns when each was said, once all others have all, or nothing more comes."""
    sent = await nodes[0].do("gossip_say", topic=0, first=first, count=count, size=SIZE, pause=pause, timeout=300)
    loop = asyncio.get_running_loop()
    before, since = 0, loop.time()
    while before < count * (len(nodes) - 1) and loop.time() < since + PATIENCE:
        await asyncio.sleep(0.2)
        counts = [(await node.do("gossip_heard", first=first, count=count))["count"] for node in nodes[1:]]
        if sum(counts) > before:
            before, since = sum(counts), loop.time()
    return sent


@asynccontextmanager
async def swarm(kind, options, size):
    """``size`` nodes in one topic; all know the first one's address."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(KINDS[kind]()) for _ in range(size)]
        started = await asyncio.gather(*(node.do("start") for node in nodes))
        await introduce(nodes[0], nodes[1:])
        # The Rust call returns with the first neighbour, ours at once.
        await asyncio.gather(
            *(
                node.do("gossip_subscribe", topic=TOPIC, bootstrap=[started[0]["id"]] if at else [], **options)
                for at, node in enumerate(nodes)
            )
        )
        await asyncio.gather(*(node.do("gossip_listen", topic=0) for node in nodes))
        await asyncio.sleep(SETTLE)
        yield nodes
