"""A node that is killed: it checks what the runs before it were told is safe, and writes on for ever.

Called with a directory and the number of acknowledged steps; prints ``ready``, then the number of each step once it was
acknowledged. The steps are a function of their number, so that each run knows what must be there.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from tidings import Doc, Hash, Node

GROUPS = ("small", "large", "file")
KEYS = 12  # of each group, all of one length: none is another's prefix
SIZES = {"small": (1, 2000), "large": (16_385, 200_000), "file": (17_000, 900_000)}


def step(number: int) -> tuple[str, int]:
    """A key and the size of its new content; 0: everything that starts with the key is deleted."""
    rng = random.Random(number)
    group = rng.choice(GROUPS)
    if number % 7 == 6:
        return (f"{group}/{rng.randrange(KEYS):02}" if rng.random() < 0.8 else f"{group}/"), 0
    return f"{group}/{rng.randrange(KEYS):02}", rng.randint(*SIZES[group])


def content(number: int, size: int) -> bytes:
    return random.Random(-number).randbytes(size)


def state(count: int) -> dict[bytes, bytes]:
    """The document after ``count`` steps."""
    held: dict[str, int] = {}
    for number in range(count):
        key, size = step(number)
        if size == 0:
            held = {name: value for name, value in held.items() if not name.startswith(key)}
        else:
            held[key] = number
    return {key.encode(): content(number, step(number)[1]) for key, number in held.items()}


async def take(node: Node, doc: Doc, number: int, scratch: Path) -> None:
    key, size = step(number)
    if size == 0:
        await doc.delete(key)
    elif key.startswith("file/"):
        scratch.write_bytes(content(number, size))  # noqa: ASYNC240
        blob = await node.blobs.add_path(scratch)
        await doc.set_hash(key, blob.hash, blob.size)
    else:
        await doc.set(key, content(number, size))


async def check(node: Node, doc: Doc, count: int) -> None:
    """``count`` steps are there, and the next one wholly or not at all; every blob is what its name says."""
    held = {entry.key: await entry.content(5) async for entry in doc.entries()}
    assert held in (state(count), state(count + 1)), f"after {count} steps: {sorted(held)}"
    for blob in await node.blobs.list():
        assert Hash.of(await node.blobs.read(blob.hash)) == blob.hash
    for path in Path(sys.argv[1], "node", "blobs").rglob("*.data"):  # noqa: ASYNC240
        assert str(Hash.of(path.read_bytes())) == path.stem, f"half written: {path}"


async def main(directory: Path, count: int) -> None:
    async with Node.open(directory / "node", bind=["127.0.0.1:0"]) as node:
        [doc] = [doc async for doc in node.docs.list()] or [await node.docs.create()]
        await check(node, doc, count)
        os.write(1, b"ready\n")
        while True:
            await take(node, doc, count, directory / "scratch")
            os.write(1, b"%d\n" % count)
            count += 1


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
