"""What a program hears of a document, and the queue in which it waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal
from weakref import WeakSet

from ..blobs import Hash
from ..transport import EndpointId
from .doc_entry import Entry
from .reconcile import ContentStatus

__all__ = [
    "ContentReady",
    "DocEvent",
    "EventHub",
    "EventStream",
    "InsertLocal",
    "InsertRemote",
    "Lagged",
    "NeighborDown",
    "NeighborUp",
    "PendingContentReady",
    "SyncFinished",
    "SyncReason",
]

CAPACITY = 4096  # events that wait for a slow subscriber: about 4 MB

SyncReason = Literal["join", "neighbor", "report", "again", "accept"]
"""Why a sync ran: we joined, a neighbour came, a report told of news, once more after another, or the peer dialled."""


@dataclass(frozen=True, slots=True)
class InsertLocal:
    """This node wrote ``entry``; a tombstone where it deleted."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class InsertRemote:
    """Another node's entry was stored; a tombstone where it deleted."""

    entry: Entry
    from_peer: EndpointId
    content_status: ContentStatus
    """COMPLETE: the content is here already; MISSING: `ContentReady` follows when it came."""


@dataclass(frozen=True, slots=True)
class ContentReady:
    """A content that was missing is here."""

    hash: Hash


@dataclass(frozen=True, slots=True)
class PendingContentReady:
    """After a sync: every content that a peer offered has been fetched or has failed once."""


@dataclass(frozen=True, slots=True)
class NeighborUp:
    peer: EndpointId


@dataclass(frozen=True, slots=True)
class NeighborDown:
    peer: EndpointId


@dataclass(frozen=True, slots=True)
class SyncFinished:
    """A sync with ``peer`` ended; ``error`` says why it failed. Times are seconds since 1970."""

    peer: EndpointId
    reason: SyncReason
    started: float
    finished: float
    received: int
    sent: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Lagged:
    """The subscriber was too slow: its ``count`` oldest events are gone. Read the document for its state."""

    count: int


DocEvent = (
    InsertLocal | InsertRemote | ContentReady | PendingContentReady | NeighborUp | NeighborDown | SyncFinished | Lagged
)


class EventStream:
    """The events since `Doc.events` was called. Iterate it; it ends when the document is closed.

    When it is full the oldest event goes, and `Lagged` takes its place.
    """

    def __init__(self) -> None:
        self._events: deque[DocEvent] = deque()
        self._lost = 0
        self._closed = False
        self._arrived = asyncio.Event()

    def push(self, event: DocEvent) -> None:
        if len(self._events) >= CAPACITY:
            self._events.popleft()
            self._lost += 1
        self._events.append(event)
        self._arrived.set()

    def close(self) -> None:
        """No more events; what waits can still be read."""
        self._closed = True
        self._arrived.set()

    def __aiter__(self) -> AsyncIterator[DocEvent]:
        return self

    async def __anext__(self) -> DocEvent:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        if self._lost:
            lagged, self._lost = Lagged(self._lost), 0
            return lagged
        return self._events.popleft()


class EventHub:
    """All subscribers of a document. One that nobody holds any more is forgotten."""

    def __init__(self) -> None:
        self._streams: WeakSet[EventStream] = WeakSet()
        self._closed = False

    def subscribe(self) -> EventStream:
        stream = EventStream()
        self.add(stream)
        return stream

    def add(self, stream: EventStream) -> None:
        self._streams.add(stream)
        if self._closed:
            stream.close()

    def publish(self, event: DocEvent) -> None:
        for stream in self._streams:
            stream.push(event)

    def close(self) -> None:
        self._closed = True
        for stream in self._streams:
            stream.close()
