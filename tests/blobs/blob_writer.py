"""A process that imports, fetches, exports and collects until it is killed: ``blob_writer.py DIRECTORY TICKET SEED``.

When it starts it looks at every byte of what an earlier run has left. It prints ``ready``, then a line a step.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from random import Random

from tidings.blobs import Blobs, BlobTicket
from tidings.storage import Database
from tidings.transport import Endpoint


async def check(blobs: Blobs, directory: Path) -> None:
    async for checked in blobs.verify():
        assert not checked.bad, f"{checked} is called complete"
    for path in (directory / "out").iterdir():
        if path.suffix == ".part":
            path.unlink()
            continue
        data = await asyncio.to_thread(path.read_bytes)
        assert data == Random(int(path.name)).randbytes(len(data)) and len(data) == size_of(int(path.name)), path


def size_of(number: int) -> int:
    return Random(number).choice([100, 16384, 16385, 400_000, 5_000_000])


async def main(directory: Path, ticket: BlobTicket, seed: int) -> None:
    rng = Random(seed)
    database = await Database.open(directory / "node.db", fsync=False)
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint:
        blobs = Blobs(endpoint, database, directory / "blobs")
        await check(blobs, directory)
        print("ready", flush=True)

        async def step() -> str:
            number = rng.randrange(1 << 30)
            match rng.choice(["bytes", "path", "fetch", "fetch", "export", "collect", "folder"]):
                case "bytes":
                    await blobs.add_bytes(Random(number).randbytes(size_of(number)), tag=rng.random() < 0.5)
                    return "add"
                case "path":
                    source = directory / "source"
                    await asyncio.to_thread(source.write_bytes, Random(number).randbytes(size_of(number)))
                    await blobs.add_path(source, tag=rng.random() < 0.5)
                    return "add"
                case "fetch":
                    if await blobs.has(ticket.hash):
                        await blobs.tags.set("fetched", ticket.hash)
                        await blobs.tags.delete("fetched")
                        await blobs.collect(grace=-1)
                        return "forget"
                    await blobs.fetch(ticket, tag=False)
                    return "fetch"
                case "export":
                    info = await blobs.add_bytes(Random(number).randbytes(size_of(number)), tag=False)
                    await blobs.export(info.hash, directory / "out" / str(number))
                    return "export"
                case "folder":
                    hashes = [(await blobs.add_bytes(b"%d" % at, tag=False)).hash for at in range(5)]
                    await blobs.add_collection([(str(at), hash) for at, hash in enumerate(hashes)])
                    return "collection"
                case _:
                    for tag in await blobs.tags.list():
                        await blobs.tags.delete(tag.name)
                    await blobs.collect(grace=rng.choice([-1, 1]))
                    return "collect"

        while True:
            print(await step(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), BlobTicket.parse(sys.argv[2]), int(sys.argv[3])))
