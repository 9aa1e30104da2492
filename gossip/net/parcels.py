"""Contents that are too large for a message come by the carrier, and each author's messages still in their order.

What is fetched is bounded in number and time. A content that nobody gives is reported as `Missed`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ...errors import TidingsError
from ...transport import EndpointId
from ...transport.errors import DecodeError
from ..carrier import Carrier
from ..subscription import Event, Missed, Received

__all__ = ["Parcels"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_FETCHES = 8  # of one topic at once
MAX_WAITING = 1024  # messages of one author behind a content that is being fetched; then that content is given up
FETCH_TIMEOUT = 60.0  # seconds, of trying every source again and again
PAUSE = 0.1  # seconds before the second attempt; doubles ...
PAUSE_MAX = 5.0  # ... up to this


@dataclass(slots=True)
class _Waiting:
    event: Received
    deliver: Callable[[Event], None]
    content: asyncio.Task[bytes | None] | None
    """Of a message whose content is on its way; None as its result: it is given up."""


class Parcels:
    """Of one topic. ``sources`` names the peers to ask besides who passed a message on and who wrote it."""

    __slots__ = ("_carrier", "_fetching", "_queues", "_sources", "_tasks", "_topic")

    def __init__(self, topic: bytes, carrier: Carrier | None, sources: Callable[[], Sequence[EndpointId]]) -> None:
        self._topic = topic
        self._carrier = carrier
        self._sources = sources
        self._queues: dict[EndpointId, deque[_Waiting]] = {}
        self._fetching = asyncio.Semaphore(MAX_FETCHES)
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """Authors whose messages wait."""
        return len(self._queues)

    def push(self, event: Received, carried: bool, deliver: Callable[[Event], None]) -> None:
        """Hand ``event`` to ``deliver`` in its author's order. ``carried``: its content is the name of the real one."""
        author = event.author
        queue = self._queues.get(author) if author is not None else None
        if author is None or (queue is None and not carried):
            deliver(event)
            return
        content = self._spawn(self._fetch(event, author)) if carried else None
        if queue is None:
            queue = self._queues[author] = deque()
            self._spawn(self._pass_on(author, queue))
        queue.append(_Waiting(event, deliver, content))
        if len(queue) > MAX_WAITING and queue[0].content is not None:
            queue[0].content.cancel()

    async def get(self, name: bytes) -> bytes:
        """A content again. Raises TidingsError where nobody has it any more."""
        if self._carrier is None:
            raise TidingsError("no carrier was given to gossip")
        return await self._carrier.get(name, self._sources())

    def close(self) -> list[asyncio.Task[Any]]:
        """The tasks that are being ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def _pass_on(self, author: EndpointId, queue: deque[_Waiting]) -> None:
        while queue:
            waiting = queue[0]
            event: Event = waiting.event
            if waiting.content is not None:
                await asyncio.wait([waiting.content])
                content = None if waiting.content.cancelled() else waiting.content.result()
                event = _missed(waiting.event, author) if content is None else replace(waiting.event, content=content)
            queue.popleft()
            waiting.deliver(event)
        del self._queues[author]

    async def _fetch(self, event: Received, author: EndpointId) -> bytes | None:
        if self._carrier is None:
            logger.warning("%s sent a content that needs a carrier: give one to Gossip", author.short())
            return None
        pause = PAUSE
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                while True:
                    async with self._fetching:
                        try:
                            sources = dict.fromkeys((event.delivered_from, author, *self._sources()))
                            return await self._carrier.get(event.content, list(sources))
                        except DecodeError as error:
                            logger.info("a content of %s is given up: %s", author.short(), error)
                            return None
                        except TidingsError as error:
                            logger.debug("a content of %s is not there yet: %s", author.short(), error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, PAUSE_MAX)
        except TimeoutError:
            logger.info("a content of %s in topic %s is given up", author.short(), self._topic[:5].hex())
        except Exception:
            logger.exception("a content of %s in topic %s is given up", author.short(), self._topic[:5].hex())
        return None

    def _spawn(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=f"gossip content {self._topic[:5].hex()}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _missed(event: Received, author: EndpointId) -> Missed:
    number = event.number or 0
    return Missed(author, number, number)
