"""One node of the swarm: an endpoint with gossip, in one topic with a log, and a subscriber that reads all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Self

from tidings.gossip import Event, Gossip, LogConfig
from tidings.transport import Endpoint, EndpointAddr, Router, SecretKey

__all__ = ["Member"]

TOPIC = "soak"
LOG = LogConfig(messages=1024, age=75.0)  # full long before the end, so that it does not look like a leak


class Member:
    """One stay: who comes back has another ``number`` and the same key."""

    def __init__(self, number: int, key: SecretKey) -> None:
        self.number = number
        self.key = key

    @classmethod
    async def enter(
        cls, number: int, key: SecretKey, known: Sequence[EndpointAddr], on_event: Callable[[int, Event], None]
    ) -> Self:
        """``on_event(number, event)`` is called with all that the subscriber reads."""
        self = cls(number, key)
        self.endpoint = await Endpoint.bind(secret_key=key, bind=["127.0.0.1:0"])
        self.gossip = Gossip(self.endpoint)
        self.router = Router(self.endpoint, self.gossip.handlers)
        self.topic = await self.gossip.subscribe(TOPIC, known, log=LOG)
        self._reader = asyncio.create_task(self._read(on_event))
        return self

    async def _read(self, on_event: Callable[[int, Event], None]) -> None:
        async for event in self.topic:
            on_event(self.number, event)

    async def leave(self) -> None:
        """In good order."""
        await self.gossip.aclose()
        await self.router.aclose()
        await self.endpoint.aclose()
        await self._reader

    async def vanish(self) -> None:
        """Without a word: from now on nothing comes in or goes out. Then it is cleared away, as in a process's end."""
        self.endpoint._driver.receive = lambda datagrams: None
        self.endpoint._driver.send = lambda datagrams: None
        await self.leave()
