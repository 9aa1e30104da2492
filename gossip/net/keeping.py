"""Writes what is new of a topic to the keeper, now and then, in a task of its own.

A crash loses the last moment, which the logs of others have; what we said ourselves in it has nobody's number again,
for each stay in a topic is a session of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from contextlib import suppress

from ...errors import TidingsError
from ..core.topic_core import TopicCore
from ..keeper import Keeper, KeptMessage

__all__ = ["Keeping"]

logger = logging.getLogger(__name__)

WRITE_EVERY = 0.2  # seconds
PEERS_EVERY = 60.0
FIRST_PEERS = 5.0  # seconds after a topic was joined
MAX_BATCH = 256  # messages in one transaction: a megabyte at most
MAX_REMEMBERED = 16  # peers


class Keeping:
    """Of one topic. ``offset``: the position of a message is its index in the log and that."""

    __slots__ = ("_closing", "_core", "_keeper", "_known", "_news", "_offset", "_stored", "_task", "_topic", "_written")

    def __init__(self, topic: bytes, core: TopicCore, keeper: Keeper, *, stored: bool, offset: int) -> None:
        self._topic = topic
        self._core = core
        self._keeper = keeper
        self._stored = stored and core.log is not None
        self._offset = offset
        self._written = 0 if core.log is None else core.log.log.high
        self._known: list[tuple[bytes, bytes]] = []
        self._news = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name=f"gossip keeping {topic[:5].hex()}")

    def note(self) -> None:
        """Something may be new."""
        if self._stored and self._core.log is not None and self._core.log.log.high > self._written:
            self._news.set()

    def close(self) -> list[asyncio.Task[None]]:
        """Write the rest, before the core forgets it. The task that ends with that."""
        self._look()
        self._closing = True
        self._news.set()
        return [self._task]

    async def _run(self) -> None:
        wait = FIRST_PEERS
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    while not self._closing:
                        await self._news.wait()
                        self._news.clear()
                        if not self._closing:
                            await asyncio.sleep(WRITE_EVERY)
                        await self._write()
            wait = PEERS_EVERY
            self._look()
            if self._known:
                await self._try(self._keeper.remember(self._topic, self._known))
        await self._write()

    def _look(self) -> None:
        """Who is there; whom we knew last, where nobody is."""
        self._known = self._core.membership.known(MAX_REMEMBERED) or self._known

    async def _write(self) -> None:
        if not self._stored or self._core.log is None:
            return
        log = self._core.log.log
        ahead = time.time() - asyncio.get_running_loop().time()
        while entries := log.after(self._written, MAX_BATCH):
            messages = [KeptMessage(each.index + self._offset, each.at + ahead, each.content) for each in entries]
            if not await self._try(self._keeper.keep(self._topic, messages, log.first + self._offset)):
                return
            self._written = entries[-1].index

    async def _try(self, work: Awaitable[None]) -> bool:
        try:
            await work
        except Exception as error:
            fault = error if not isinstance(error, TidingsError) else None
            logger.warning("topic %s is not kept for now: %s", self._topic[:5].hex(), error, exc_info=fault)
            return False
        return True
