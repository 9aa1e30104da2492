"""What a subscriber of a topic sees, and the queue in which it waits."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from ..transport import EndpointId
from .errors import SubscriberTooSlow

__all__ = [
    "CAPACITY",
    "LOG_CAPACITY",
    "Delivery",
    "Event",
    "Lagged",
    "Missed",
    "NeighborDown",
    "NeighborUp",
    "Received",
    "Sink",
    "Subscription",
    "WhenFull",
]

logger = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds that a message waits for room; half of what makes a neighbour take us for one that stalls
CAPACITY = 1024  # events: half a second at the speed of a fast swarm, and at most 4 MiB of content
LOG_CAPACITY = 8192  # with a log, where what waited for an earlier message comes all at once: twice `order.MAX_HELD`


@dataclass(frozen=True, slots=True)
class NeighborUp:
    """``peer`` is a neighbour in this topic now."""

    peer: EndpointId


@dataclass(frozen=True, slots=True)
class NeighborDown:
    """``peer`` is not a neighbour any more."""

    peer: EndpointId


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the topic. Where it is signed, ``author`` wrote it; else each content comes once, from whomever."""

    content: bytes
    delivered_from: EndpointId
    """The neighbour that it came from; not its author, unless `is_direct`."""
    round: int | None
    """How many nodes passed it on; None for a message to direct neighbours only, and for one that was caught up."""
    author: EndpointId | None = None
    """Who signed it; None for a message that is not signed."""
    number: int | None = None
    """Its place among the messages that the author sent in this stay in the topic, from 1."""
    sent_at: float | None = None
    """When, in Unix time by the author's clock."""
    caught_up: bool = False
    """Whether it came from a neighbour's log, after the time at which it was sent around."""
    late: bool = False
    """Whether it comes out of its author's order: it was reported as `Missed` before."""

    @property
    def is_direct(self) -> bool:
        """Whether ``delivered_from`` is the author, as far as that peer is honest."""
        return not self.round and not self.caught_up


@dataclass(frozen=True, slots=True)
class Lagged:
    """The subscriber was too slow: its ``count`` oldest events are gone. Of a document, read the state again."""

    count: int


@dataclass(frozen=True, slots=True)
class Missed:
    """``author``'s messages from number ``first`` to ``last`` did not come, though later ones did.

    They were looked for in the logs of neighbours. Should one still come, it is `Received` as ``late``. Or nobody had
    the content of a large one: then it is that one alone, and it does not come.
    """

    author: EndpointId
    first: int
    last: int


Event = NeighborUp | NeighborDown | Received | Missed | Lagged


E = TypeVar("E")


WhenFull = Literal["drop", "block", "fail"]
"""What becomes of a subscriber that does not read fast enough.

``drop``: the oldest event goes, and `Lagged` says how many before the next. ``block``: the neighbours' messages of this
topic are read no faster, as long as one comes out within a second; then as ``drop``. ``fail``: the subscription ends,
and whoever reads it gets what is queued and then `SubscriberTooSlow`.
"""


class Subscription(Generic[E]):
    """A bounded queue."""

    def __init__(self, capacity: int = CAPACITY, when_full: WhenFull = "drop") -> None:
        self._capacity = capacity
        self._when_full = when_full
        self._room = asyncio.Event()
        self._failed = False
        self.lost = 0
        """Events that were dropped for want of room, since the beginning."""
        self._events: deque[E] = deque()
        self._lost = 0
        self._arrived = asyncio.Event()
        self._closed = False

    def push(self, event: E) -> None:
        if self._closed:
            return
        if len(self._events) >= self._capacity:
            if self._when_full == "fail":
                self._failed = True
                self.close()
                return
            self._events.popleft()
            self._lost += 1
            self.lost += 1
        self._events.append(event)
        self._arrived.set()

    def close(self) -> None:
        """No more events; what is queued can still be read."""
        self._closed = True
        self._arrived.set()
        self._room.set()

    @property
    def blocks(self) -> bool:
        """Whether messages are to wait for `room`."""
        return self._when_full == "block" and len(self._events) >= self._capacity and not self._closed

    async def room(self) -> None:
        """Return when there is room, or after `PATIENCE` without."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self.blocks:
                    self._room.clear()
                    await self._room.wait()

    async def next(self) -> E | Lagged | None:
        """The next event; None after the last of a closed subscription. A cancelled call loses nothing.

        SubscriberTooSlow after the last of one that failed.
        """
        while not self._events:
            if self._failed:
                raise SubscriberTooSlow(
                    f"more than {self._capacity} events were not read in time: subscribe again, read faster or"
                    " give a larger capacity"
                )
            if self._closed:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        if self._lost:
            lagged, self._lost = Lagged(self._lost), 0
            return lagged
        self._room.set()
        return self._events.popleft()


class Sink(Protocol):
    """Who takes the events of a topic."""

    lost: int

    def push(self, event: Event) -> None: ...
    def close(self) -> None: ...
    @property
    def blocks(self) -> bool: ...
    async def room(self) -> None: ...


class Delivery:
    """Gives each event to a function at once, for who takes part in so many topics that a queue for each is much."""

    __slots__ = ("_deliver",)

    blocks = False
    lost = 0

    def __init__(self, deliver: Callable[[Event], None]) -> None:
        self._deliver: Callable[[Event], None] | None = deliver

    def push(self, event: Event) -> None:
        if self._deliver is not None:
            try:
                self._deliver(event)
            except Exception:  # whoever listens badly does not stop the topic
                logger.exception("a subscriber failed")

    def close(self) -> None:
        self._deliver = None

    async def room(self) -> None:
        """There always is."""
