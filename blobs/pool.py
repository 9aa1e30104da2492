"""Connections to providers, kept for a while: documents fetch thousands of small blobs from the same few peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

from ..transport.addr import EndpointAddr
from ..transport.connection import Connection
from ..transport.endpoint import Endpoint
from ..transport.keys import EndpointId

__all__ = ["ConnectionPool", "Provider", "provider_id"]

IDLE = 5.0  # seconds a connection stays open that nobody uses
MAX_IN_USE = 64  # fetches that hold a connection at a time; others wait
CONNECT_TIMEOUT = 10.0

Provider: TypeAlias = EndpointAddr | EndpointId | str
"""Who has a blob: an address, or an id that the endpoint's lookup knows, or its text."""


def provider_id(provider: Provider) -> EndpointId:
    """`InvalidKey` for text that is no id."""
    if isinstance(provider, EndpointAddr):
        return provider.id
    return EndpointId.parse(provider) if isinstance(provider, str) else provider


class _Slot:
    def __init__(self) -> None:
        self.dialling = asyncio.Lock()
        self.connection: Connection | None = None
        self.users = 0
        self.expiry: asyncio.TimerHandle | None = None


class ConnectionPool:
    """One connection for each provider, shared by all who fetch from it."""

    def __init__(self, endpoint: Endpoint, alpn: bytes) -> None:
        self._endpoint = endpoint
        self._alpn = alpn
        self._slots: dict[EndpointId, _Slot] = {}
        self._room = asyncio.Semaphore(MAX_IN_USE)

    @asynccontextmanager
    async def connection(self, provider: Provider) -> AsyncIterator[tuple[Connection, bool]]:
        """An open connection, and whether it was open before. Raises what `Endpoint.connect` raises."""
        id = provider_id(provider)
        async with self._room:
            slot = self._slots.setdefault(id, _Slot())
            slot.users += 1
            if slot.expiry is not None:
                slot.expiry.cancel()
                slot.expiry = None
            try:
                async with slot.dialling:
                    reused = slot.connection is not None and slot.connection.closed is None
                    if slot.connection is None or not reused:
                        slot.connection = await self._endpoint.connect(provider, self._alpn, timeout=CONNECT_TIMEOUT)
                    connection = slot.connection
                yield connection, reused
            finally:
                slot.users -= 1
                if slot.users == 0:
                    slot.expiry = asyncio.get_running_loop().call_later(IDLE, self._expire, id)

    async def aclose(self) -> None:
        """Close every connection; fetches that go on fail."""
        for id in list(self._slots):
            self._expire(id)

    def _expire(self, id: EndpointId) -> None:
        slot = self._slots.pop(id, None)
        if slot is None:
            return
        if slot.expiry is not None:
            slot.expiry.cancel()
        if slot.connection is not None:
            slot.connection.close(0, "idle")
