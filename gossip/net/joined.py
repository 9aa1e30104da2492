"""A topic that somebody here is subscribed to: its core, and whom it tells what."""

from __future__ import annotations

import asyncio
from functools import partial

from ...transport import EndpointId
from ..core.envelope import Kind
from ..core.log import Entry
from ..core.topic_core import TopicCore
from ..core.voice import Voice
from ..subscription import Event, Received, Sink
from .door import Door
from .keeping import Keeping
from .parcels import Parcels
from .signatures import Checker

__all__ = ["JoinedTopic", "received"]


class JoinedTopic:
    __slots__ = (
        "_has_neighbors",
        "checker",
        "core",
        "door",
        "id",
        "keeping",
        "parcels",
        "since",
        "subscriptions",
        "voice",
        "wake",
    )

    def __init__(self, id: bytes, core: TopicCore, door: Door, checker: Checker, parcels: Parcels) -> None:
        self.id = id
        self.core = core
        self.door = door
        self.checker = checker
        self.parcels = parcels
        self.keeping: Keeping | None = None
        self.voice = Voice(id)
        self.subscriptions: list[Sink] = []
        self.since: dict[Sink, float] = {}
        self.wake: asyncio.TimerHandle | None = None
        self._has_neighbors: asyncio.Event | None = None

    async def joined(self) -> None:
        """Return once there is a neighbour."""
        if not self.core.neighbors:
            if self._has_neighbors is None:
                self._has_neighbors = asyncio.Event()
            await self._has_neighbors.wait()

    def note_neighbors(self) -> None:
        """A neighbour may have come."""
        if self._has_neighbors is not None and self.core.neighbors:
            self._has_neighbors.set()
            self._has_neighbors = None

    def emit(self, event: Event) -> None:
        for subscription in self.subscriptions:
            subscription.push(event)

    def emit_message(self, entry: Entry, event: Received) -> None:
        """To those whose subscription wants what was new at that time."""
        carried = is_carried(entry)
        if carried or self.parcels:
            self.parcels.push(event, carried, partial(self._deliver, entry.at))
        else:
            self._deliver(entry.at, event)

    def replay(self, subscription: Sink, me: EndpointId, since: float) -> None:
        """Tell it what the log has."""
        for entry in self.kept(since):
            self.parcels.push(received(entry, me, None, late=False), is_carried(entry), subscription.push)

    def kept(self, since: float) -> list[Entry]:
        """What the log has that was new after ``since``."""
        return [] if self.core.log is None else [entry for entry in self.core.log.log if entry.at >= since]

    def _deliver(self, at: float, event: Event) -> None:
        for subscription in self.subscriptions:
            if at >= self.since[subscription]:
                subscription.push(event)


def is_carried(entry: Entry) -> bool:
    return entry.envelope is not None and entry.envelope.kind is Kind.CARRIED


def received(entry: Entry, peer: EndpointId, round: int | None, *, late: bool) -> Received:
    """As a subscriber sees it."""
    envelope = entry.envelope
    caught_up = round is None and bool(entry.id)
    if envelope is None:
        return Received(entry.content, peer, round, caught_up=caught_up)
    author = EndpointId(envelope.author)
    return Received(
        envelope.body, peer, round, author, envelope.number, envelope.time / 1e6, caught_up=caught_up, late=late
    )
