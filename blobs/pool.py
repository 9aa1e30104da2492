"""Connections to providers, kept for a while: documents fetch thousands of small blobs from the same few peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

from ..transport.addr import EndpointAddr
from ..transport.connection import Connection
from ..transport.endpoint import Endpoint
from ..transport.errors import Unreachable
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
        self.dial: asyncio.Task[Connection] | None = None
        self.users = 0
        self.expiry: asyncio.TimerHandle | None = None

    @property
    def connection(self) -> Connection | None:
        """The connection, while it is open."""
        if self.dial is None or not self.dial.done() or self.dial.cancelled() or self.dial.exception() is not None:
            return None
        connection = self.dial.result()
        return connection if connection.closed is None else None


class ConnectionPool:
    """One connection for each provider, shared by all who fetch from it; so is a dial, and its failure."""

    def __init__(self, endpoint: Endpoint, alpn: bytes) -> None:
        self._endpoint = endpoint
        self._alpn = alpn
        self._slots: dict[EndpointAddr | EndpointId, _Slot] = {}
        self._room = asyncio.Semaphore(MAX_IN_USE)

    @asynccontextmanager
    async def connection(self, provider: Provider) -> AsyncIterator[tuple[Connection, bool]]:
        """An open connection, and whether it was open before. Raises what `Endpoint.connect` raises."""
        where = EndpointId.parse(provider) if isinstance(provider, str) else provider
        async with self._room:
            slot = self._slots.setdefault(where, _Slot())
            slot.users += 1
            if slot.expiry is not None:
                slot.expiry.cancel()
                slot.expiry = None
            try:
                connection = slot.connection
                if connection is not None:
                    yield connection, True
                    return
                if slot.dial is None or slot.dial.done():
                    slot.dial = asyncio.create_task(
                        self._endpoint.connect(where, self._alpn, timeout=CONNECT_TIMEOUT), name=f"dial {where}"
                    )
                    slot.dial.add_done_callback(_retrieve)
                yield await _wait(slot.dial), False
            finally:
                slot.users -= 1
                if slot.users == 0:
                    slot.expiry = asyncio.get_running_loop().call_later(IDLE, self._expire, where)

    async def aclose(self) -> None:
        """Close every connection; fetches that go on fail."""
        dials = [slot.dial for slot in self._slots.values() if slot.dial is not None and not slot.dial.done()]
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
        for where in list(self._slots):
            self._expire(where)

    def _expire(self, where: EndpointAddr | EndpointId) -> None:
        slot = self._slots.pop(where, None)
        if slot is None:
            return
        if slot.expiry is not None:
            slot.expiry.cancel()
        if slot.dial is not None:
            slot.dial.cancel()
        if slot.connection is not None:
            slot.connection.close(0, "idle")


async def _wait(dial: asyncio.Task[Connection]) -> Connection:
    await asyncio.wait([dial])  # cancelled here, the dial goes on for the others
    if dial.cancelled():
        raise Unreachable("the node stopped fetching while it dialled")
    return dial.result()


def _retrieve(dial: asyncio.Task[Connection]) -> None:
    """Whoever waited has the error; where nobody does any more it is no one's."""
    if not dial.cancelled():
        dial.exception()
