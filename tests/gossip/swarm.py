"""Real endpoints on loopback, each with gossip and a router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tidings.gossip import Event, Gossip, Received, Topic, TopicConfig
from tidings.transport import Endpoint, EndpointAddr, Router, SecretKey

LOCAL = ["127.0.0.1:0"]


@dataclass
class Member:
    endpoint: Endpoint
    gossip: Gossip
    router: Router

    @property
    def addr(self) -> EndpointAddr:
        return self.endpoint.addr()

    async def aclose(self) -> None:
        await self.gossip.aclose()
        await self.router.aclose()
        await self.endpoint.aclose()


async def member(
    key: SecretKey | None = None, bind: list[str] | None = None, config: TopicConfig | None = None
) -> Member:
    endpoint = await Endpoint.bind(secret_key=key, bind=bind or LOCAL)
    gossip = Gossip(endpoint, config=config)
    return Member(endpoint, gossip, Router(endpoint, gossip.handlers))


@asynccontextmanager
async def members(count: int, config: TopicConfig | None = None) -> AsyncIterator[list[Member]]:
    made = [await member(config=config) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            await each.aclose()


async def event(topic: Topic, wanted: Callable[[Event], bool], timeout: float = 10) -> Event:
    """The next event that is ``wanted``; the others are skipped."""
    async with asyncio.timeout(timeout):
        async for each in topic:
            if wanted(each):
                return each
    raise AssertionError("the topic ended")


async def heard(topic: Topic, content: bytes, timeout: float = 10) -> Received:
    found = await event(topic, lambda each: isinstance(each, Received) and each.content == content, timeout)
    assert isinstance(found, Received)
    return found


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)
