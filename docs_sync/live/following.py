"""Following: a partial replica hears from its providers what is stored in its part.

Frames are taken one by one, each when the one before is stored, so that a provider that sends fast waits in its own
queue (`follow.FollowQueue`). A provider with bad frames costs that link; `providers.Providers` says who is next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from random import Random
from typing import Protocol

from ...errors import TidingsError
from ...transport import EndpointId
from ..errors import SyncRefused
from ..model.keys import NamespaceId
from ..model.native_messages import News, SyncAgain
from ..tasks import Tasks
from .providers import Providers

__all__ = ["Following", "Follows", "Listener"]

logger = logging.getLogger(__name__)

SYNC_EVERY = 1.0  # seconds at least between two syncs that one provider asks for


class Follows(Protocol):
    """`native.Links`."""

    def follow(
        self, peer: EndpointId, namespace: NamespaceId, prefix: bytes
    ) -> AsyncGenerator[News | SyncAgain, None]: ...


class Listener(Protocol):
    """The partial replica."""

    def link_up(self, peer: EndpointId) -> None:
        """The peer tells what it stores from now on."""

    def link_down(self, peer: EndpointId) -> None: ...

    def sync_again(self, peer: EndpointId) -> None:
        """More happened at the peer than it tells."""

    async def take_news(self, peer: EndpointId, news: News) -> None:
        """Raises SyncViolation, StoreError: the link is given up then."""


class Following:
    """Of the part of one document. `start` it, `aclose` it."""

    def __init__(self, links: Follows, namespace: NamespaceId, prefix: bytes, rng: Random, listener: Listener) -> None:
        self._links = links
        self._namespace = namespace
        self._prefix = prefix
        self._listener = listener
        self._providers = Providers(rng)
        self._wake = asyncio.Event()
        self._tasks = Tasks()

    def start(self) -> None:
        self._tasks.start(self._run(), f"links of {self._namespace.short()}")

    def add(self, peer: EndpointId) -> None:
        """A peer that may have the part."""
        self._providers.add(bytes(peer), _now())
        self._wake.set()

    async def aclose(self) -> None:
        await self._tasks.aclose()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            while (peer := self._providers.take(_now())) is not None:
                id = EndpointId(peer)
                self._tasks.start(self._follow(id), f"following {id.short()} for {self._namespace.short()}")
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._providers.next_due()):
                    await self._wake.wait()

    async def _follow(self, peer: EndpointId) -> None:
        came_up: float | None = None
        asked = -SYNC_EVERY
        try:
            async with aclosing(self._links.follow(peer, self._namespace, self._prefix)) as frames:
                async for news in frames:
                    if came_up is None:
                        came_up = _now()
                        self._listener.link_up(peer)
                    if isinstance(news, News):
                        await self._listener.take_news(peer, news)
                        continue
                    await asyncio.sleep(asked + SYNC_EVERY - _now())
                    asked = _now()
                    self._listener.sync_again(peer)
        except (TidingsError, TimeoutError) as error:
            if isinstance(error, SyncRefused) and came_up is None:
                self._listener.sync_again(peer)  # it may have no room for one more follower, but answer now and then
            logger.info("%s is not followed for %s: %s", peer.short(), self._namespace.short(), error or "too slow")
        finally:
            now = _now()
            self._providers.ended(bytes(peer), 0.0 if came_up is None else now - came_up, now)
            self._wake.set()
            if came_up is not None:
                self._listener.link_down(peer)


def _now() -> float:
    return asyncio.get_running_loop().time()
