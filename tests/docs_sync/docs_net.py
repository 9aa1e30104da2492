"""Whole nodes on loopback: endpoint, database, blobs, gossip and documents, without tidings.node."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from tidings.blobs import Blobs
from tidings.docs_sync import Docs
from tidings.gossip import Gossip
from tidings.storage import Database
from tidings.transport import Endpoint, Router, SecretKey


class Node:
    def __init__(self, endpoint, database, blobs, gossip, docs) -> None:
        self.endpoint = endpoint
        self.database = database
        self.blobs = blobs
        self.gossip = gossip
        self.docs = docs

    @property
    def id(self):
        return self.endpoint.id


@asynccontextmanager
async def node(
    directory: Path,
    *,
    secret: SecretKey | None = None,
    in_memory: bool = True,
    port: int = 0,
    access=None,
    database: str | None = None,
):
    """``database``: the URL of a PostgreSQL database."""
    directory.mkdir(exist_ok=True, parents=True)  # noqa: ASYNC240
    opened = await Database.open(database or (None if in_memory else directory / "node.db"))
    async with Endpoint.bind(secret_key=secret, bind=[f"127.0.0.1:{port}"]) as endpoint:
        blobs = Blobs(endpoint, opened, directory / "blobs")
        gossip = Gossip(endpoint)
        docs = Docs(endpoint, opened, blobs, gossip, access=access)
        handlers = {Gossip.ALPN: gossip.handle, Blobs.ALPN: blobs.handle}
        router = Router(endpoint, handlers | dict.fromkeys(Docs.ALPNS, docs.handle))
        try:
            yield Node(endpoint, opened, blobs, gossip, docs)
        finally:
            await docs.aclose()
            await gossip.aclose()
            await router.aclose()
            await blobs.aclose()
    await opened.aclose()


async def eventually(condition, timeout: float = 15.0) -> None:
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.02)


async def contents(doc) -> dict:
    return {entry.key: await entry.content(10) async for entry in doc.entries(newest=True)}
