"""What a program hears of a document, and the queue in which it waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal
from weakref import WeakSet

from ..blobs import Hash
from ..gossip import Lagged, NeighborDown, NeighborUp
from ..gossip.subscription import Subscription
from ..transport import EndpointId
from .doc_entry import Entry
from .model.reconcile import ContentStatus

__all__ = [
    "ContentReady",
    "DocEvent",
    "EventHub",
    "EventStream",
    "InsertLocal",
    "InsertRemote",
    "InsertShared",
    "Lagged",
    "NeighborDown",
    "NeighborUp",
    "PendingContentReady",
    "SyncFinished",
    "SyncReason",
]

CAPACITY = 4096  # events that wait for a slow subscriber: about 4 MB

SyncReason = Literal["join", "neighbor", "report", "digest", "asked", "write", "again", "accept"]
"""Why a sync ran: we joined, a neighbour came, a report told of news, a comparison found a difference, the program
asked (`Doc.synced`), a partial replica wrote, once more after another or a failure, or the peer dialled."""


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
class InsertShared:
    """Another process of the same database stored ``entry``, its own or another node's."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class ContentReady:
    """A content that was missing is here."""

    hash: Hash


@dataclass(frozen=True, slots=True)
class PendingContentReady:
    """After a sync: every content that a peer offered has been fetched or has failed once."""


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
    prefix: bytes | None = None
    """Of the part that was synced, as it is stored; None: the whole document."""


DocEvent = (
    InsertLocal
    | InsertRemote
    | InsertShared
    | ContentReady
    | PendingContentReady
    | NeighborUp
    | NeighborDown
    | SyncFinished
    | Lagged
)


class EventStream:
    """The events since `Doc.events` was called. Iterate it; it ends when the document is closed.

    When it is full the oldest event goes, and `Lagged` takes its place.
    """

    def __init__(self) -> None:
        self._queue: Subscription[DocEvent] = Subscription(CAPACITY)

    def push(self, event: DocEvent) -> None:
        self._queue.push(event)

    def close(self) -> None:
        """No more events; what waits can still be read."""
        self._queue.close()

    def __aiter__(self) -> AsyncIterator[DocEvent]:
        return self

    async def __anext__(self) -> DocEvent:
        event = await self._queue.next()
        if event is None:
            raise StopAsyncIteration
        return event


class EventHub:
    """All subscribers of a document. One that nobody holds any more is forgotten."""

    __slots__ = ("_closed", "_streams")

    def __init__(self) -> None:
        self._streams: WeakSet[EventStream] | None = None  # which is large
        self._closed = False

    def subscribe(self) -> EventStream:
        stream = EventStream()
        self.add(stream)
        return stream

    def add(self, stream: EventStream) -> None:
        if self._streams is None:
            self._streams = WeakSet()
        self._streams.add(stream)
        if self._closed:
            stream.close()

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._streams)

    def publish(self, event: DocEvent) -> None:
        for stream in self._streams or ():
            stream.push(event)

    def close(self) -> None:
        self._closed = True
        for stream in self._streams or ():
            stream.close()
