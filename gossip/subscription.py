"""What a subscriber of a topic sees, and the queue in which it waits."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ..transport import EndpointId

__all__ = ["CAPACITY", "Delivery", "Event", "Lagged", "NeighborDown", "NeighborUp", "Received", "Sink", "Subscription"]

logger = logging.getLogger(__name__)

CAPACITY = 1024  # events: half a second at the speed of a fast swarm, and at most 4 MiB of content


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
    """A message of the topic, each content once. Who wrote it is not known: sign the content where that matters."""

    content: bytes
    delivered_from: EndpointId
    """The neighbour that it came from; not its author, unless `is_direct`."""
    round: int | None
    """How many nodes passed it on; None for a message to direct neighbours only."""

    @property
    def is_direct(self) -> bool:
        """Whether ``delivered_from`` is the author, as far as that peer is honest."""
        return not self.round


@dataclass(frozen=True, slots=True)
class Lagged:
    """The subscriber was too slow: its ``count`` oldest events are gone. Of a document, read the state again."""

    count: int


Event = NeighborUp | NeighborDown | Received | Lagged


E = TypeVar("E")


class Subscription(Generic[E]):
    """A bounded queue; when it is full the oldest event goes, and `Lagged` says how many before the next."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._events: deque[E] = deque()
        self._lost = 0
        self._arrived = asyncio.Event()
        self._closed = False

    def push(self, event: E) -> None:
        if self._closed:
            return
        if len(self._events) >= self._capacity:
            self._events.popleft()
            self._lost += 1
        self._events.append(event)
        self._arrived.set()

    def close(self) -> None:
        """No more events; what is queued can still be read."""
        self._closed = True
        self._arrived.set()

    async def next(self) -> E | Lagged | None:
        """The next event; None after the last of a closed subscription. A cancelled call loses nothing."""
        while not self._events:
            if self._closed:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        if self._lost:
            lagged, self._lost = Lagged(self._lost), 0
            return lagged
        return self._events.popleft()


class Sink(Protocol):
    """Who takes the events of a topic."""

    def push(self, event: Event) -> None: ...
    def close(self) -> None: ...


class Delivery:
    """Gives each event to a function at once, for who takes part in so many topics that a queue for each is much."""

    __slots__ = ("_deliver",)

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
