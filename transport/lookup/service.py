"""What a lookup service is, and asking several at once.

class Phonebook:
    async def resolve(self, id):
        yield Record(EndpointAddr.of(id, [IpAddr.parse("192.0.2.1:4433")]))

    async def publish(self, record):
        ...
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

from ..errors import LookupFailed
from ..keys import EndpointId
from .records import Record

__all__ = ["Lookup", "resolve"]

logger = logging.getLogger(__name__)

WAITING = 64  # records of one question that nobody has taken; the services wait then


class Lookup(Protocol):
    """A service that knows where endpoints are. What it says is a hint: who answers there must hold the key."""

    def resolve(self, id: EndpointId) -> AsyncIterator[Record]:
        """Records of ``id`` as they are found; ends when nothing more will come. It may raise what it likes."""

    async def publish(self, record: Record) -> None:
        """Tell others where we are, until told something else; called again every few minutes. It may do nothing.

        The record names relays alone, unless the service has an attribute ``publishes_direct`` that is true.
        """


async def resolve(services: Sequence[Lookup], id: EndpointId) -> AsyncGenerator[Record, None]:
    """Of all services at once, as they answer. Close the generator when one has sufficed: the others are given up.

    Raises LookupFailed where every service ended and none said anything. A service that fails costs nobody else.
    """
    found: asyncio.Queue[Record | None] = asyncio.Queue(WAITING)
    problems: list[str] = []

    async def ask(service: Lookup) -> None:
        try:
            async for record in service.resolve(id):
                if record.addr.id == id and record.addr.addrs:
                    await found.put(record)
        except Exception as error:
            logger.info("%s does not say where %s is: %s", type(service).__name__, id.short(), error)
            problems.append(f"{type(service).__name__}: {error}")
        finally:
            if not closed:  # else nobody listens, and there may be no room
                await found.put(None)

    closed = False
    asking = [asyncio.create_task(ask(service), name=f"where is {id.short()}") for service in services]
    try:
        left, any_found = len(asking), False
        while left:
            record = await found.get()
            if record is None:
                left -= 1
            else:
                any_found = True
                yield record
        if not any_found:
            said = "; ".join(problems) or f"{len(asking)} services know nothing of it"
            raise LookupFailed(f"nobody says where {id.short()} is ({said}): ask it for a ticket")
    finally:
        closed = True
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
