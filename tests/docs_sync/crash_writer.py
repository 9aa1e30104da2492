"""Run by test_crash: writes entries for ever and prints the number of each one that was acknowledged."""

import asyncio
import sys
from pathlib import Path

from docs_net import node


async def main(directory: Path) -> None:
    async with node(directory, in_memory=False) as a:
        [doc] = [doc async for doc in a.docs.list()] or [await a.docs.create()]
        start = int(sys.argv[2])
        for n in range(start, start + 100_000):
            await doc.set(f"key/{n}", b"value %d" % n)
            if n % 10 == 9:
                await doc.delete(f"key/{n - 5}")
            sys.stdout.write(f"{n}\n")
            sys.stdout.flush()


asyncio.run(main(Path(sys.argv[1])))
