"""Endpoints with blobs on loopback, and providers that do as they like."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tidings.blobs import ALPN, Blobs, BlobSettings
from tidings.storage import Database
from tidings.transport import BiStream, Connection, Endpoint, EndpointAddr, Router


class Peer:
    """An endpoint with blobs, served, counting the connections to it."""

    def __init__(self, endpoint: Endpoint, blobs: Blobs) -> None:
        self.endpoint, self.blobs = endpoint, blobs
        self.connections: list[Connection] = []

    async def handle(self, connection: Connection) -> None:
        self.connections.append(connection)
        await self.blobs.handle(connection)


MakePeer = Callable[..., Awaitable[Peer]]
Answer = Callable[[BiStream], Awaitable[None]]


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[MakePeer]:
    async with contextlib.AsyncExitStack() as stack:

        async def make(**options: Any) -> Peer:
            database = await Database.open(None)
            stack.push_async_callback(database.aclose)
            endpoint = await stack.enter_async_context(Endpoint.bind(bind=["127.0.0.1:0"]))
            blobs = Blobs(endpoint, database, tmp_path / endpoint.id.short(), BlobSettings(**options))
            stack.push_async_callback(blobs.aclose)
            peer = Peer(endpoint, blobs)
            await stack.enter_async_context(Router(endpoint, {ALPN: peer.handle}))
            return peer

        yield make


@pytest.fixture
async def liar() -> AsyncIterator[Callable[[Answer], Awaitable[EndpointAddr]]]:
    """Makes providers that read the request and then do as they like."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(answer: Answer) -> EndpointAddr:
            async def handle(connection: Connection) -> None:
                while True:
                    stream = await connection.accept_bi()
                    await stream.recv.read_to_end(1000)
                    await answer(stream)

            endpoint = await stack.enter_async_context(Endpoint.bind(bind=["127.0.0.1:0"]))
            await stack.enter_async_context(Router(endpoint, {ALPN: handle}))
            return endpoint.addr()

        yield make
