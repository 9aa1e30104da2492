"""What `Doc.set` acknowledged survives ``kill -9``, content and all."""

import asyncio
import random
import sys
from pathlib import Path

from docs_net import contents, node

WRITER = Path(__file__).with_name("crash_writer.py")


async def test_kill_nine(tmp_path: Path) -> None:
    rng = random.Random(1)
    acknowledged = -1
    for _ in range(6):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(WRITER), str(tmp_path), str(acknowledged + 1), stdout=asyncio.subprocess.PIPE
        )
        enough = acknowledged + rng.randint(1, 60)
        while acknowledged < enough:
            acknowledged = int(await process.stdout.readline())
        await asyncio.sleep(rng.random() * 0.01)
        process.kill()
        rest = (await process.stdout.read()).split(b"\n")[:-1]
        acknowledged = int(rest[-1]) if rest else acknowledged
        await process.wait()
        async with node(tmp_path, in_memory=False) as a:
            [doc] = [doc async for doc in a.docs.list()]
            held = await contents(doc)
            deleted = {n - 5 for n in range(acknowledged + 1) if n % 10 == 9}
            in_flight = acknowledged + 1  # may have been done, in whole or half, and not told any more
            certain = set(range(in_flight)) - ({in_flight - 5} if in_flight % 10 == 9 else set())
            for n in certain:
                assert held.get(b"key/%d" % n) == (None if n in deleted else b"value %d" % n)
            assert len(held) - (in_flight - len(deleted)) in (-1, 0, 1)
