"""One live document: gossip in, gossip out, and when to sync (``reference/iroh-protocols.md`` 2.7).

The gossip topic of a document is its id. New entries travel as `Put`; whatever gossip loses is found by syncs, which
run when a neighbour comes, when a `SyncReport` tells of news, after failures with growing delays, and now and then
anyway: heads go to the neighbours about once a minute, and every ten minutes or so one is synced with in full.

Everything that comes from a peer waits in bounded queues. When one overflows, or gossip says that it lost something,
the neighbours are synced with instead. A payload that cannot be decoded costs that payload.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress

from .. import gossip as swarm
from ..blobs import Hash
from ..errors import TidingsError
from ..transport import BiStream, EndpointAddr, EndpointId
from ..transport.errors import DecodeError
from .doc_entry import Entry
from .download import Downloads
from .encryption import DocumentCipher
from .entry import SignedEntry
from .errors import InvalidEntry
from .events import (
    ContentReady,
    EventHub,
    InsertLocal,
    InsertRemote,
    NeighborDown,
    NeighborUp,
    PendingContentReady,
    SyncFinished,
)
from .keys import NamespaceId
from .messages import MAX_OP_SIZE, Init, Op, Put, SyncReport, decode_op, encode_op
from .messages import ContentReady as ContentReadyOp
from .reconcile import ContentStatus, Tally, Value
from .sessions import SessionContext, Sessions
from .tasks import Tasks
from .validity import MAX_AHEAD_US
from .wanted import MAX_WANTED

__all__ = ["LiveDocument"]

logger = logging.getLogger(__name__)

MAX_INCOMING = 1024  # received entries that wait for their signatures to be checked
INCOMING_BATCH = 256  # of them in one transaction
MAX_OUTGOING = 1024  # operations that wait for gossip
TICK = 1.0  # seconds between two looks at what is due
REPORT_EVERY = 60.0  # seconds between two reports of our heads, give or take half
REPORTS_TO_SYNC = 10  # of those until a full sync with one neighbour
SOON = 1.0  # seconds until an entry that gossip could not carry is reported
EVENTS_BETWEEN_YIELDS = 256  # published before others have their turn: a message can bring 100,000
USEFUL_PEERS = 16  # peers of late syncs that may have contents


class LiveDocument:
    """`start` it, `aclose` it. ``events`` gets what happens."""

    def __init__(
        self,
        context: SessionContext,
        gossip: swarm.Gossip,
        downloads: Downloads,
        namespace: NamespaceId,
        events: EventHub,
        cipher: DocumentCipher | None = None,
    ) -> None:
        self.namespace = namespace
        self.neighbors: set[EndpointId] = set()
        self._context = context
        self._store = context.store
        self._gossip = gossip
        self._downloads = downloads
        self._events = events
        self.cipher = cipher
        self._anchors: set[EndpointId] = set()  # from tickets and of old: tried again whatever happens
        self._useful: deque[EndpointAddr] = deque(maxlen=USEFUL_PEERS)
        self._incoming: asyncio.Queue[tuple[SignedEntry, EndpointId, bool]] = asyncio.Queue(MAX_INCOMING)
        self._outgoing: asyncio.Queue[tuple[Op, bool]] = asyncio.Queue(MAX_OUTGOING)
        self._pending: set[bytes] = set()  # offered contents that have not settled since the last sync
        self._pending_told = True
        self._report_at = 0.0
        self._reports = 0
        self._topic: swarm.Topic | None = None
        self._tasks = Tasks()
        self._sessions = Sessions(context, namespace, self._on_stored, self._on_synced, self._is_known)

    async def start(self, peers: Sequence[EndpointId]) -> None:
        """Join the topic, with ``peers`` and those remembered, and sync with each."""
        remembered = await self._store.remembered_peers(self.namespace)
        for addr in remembered:
            self._context.endpoint.lookup.add(addr)
        anchors = [*peers, *(addr.id for addr in remembered)]
        self._anchors.update(peer for peer in anchors if peer != self._context.endpoint.id)
        self._topic = await self._gossip.subscribe(bytes(self.namespace), list(self._anchors))
        self._downloads.join(self.namespace, self)
        self._report_at = self._next_report()
        name = self.namespace.short()
        for work, what in ((self._receive(self._topic), "gossip"), (self._take_incoming(), "entries of")):
            self._tasks.start(work, f"{what} {name}")
        self._tasks.start(self._send_outgoing(self._topic), f"broadcasts of {name}")
        self._tasks.start(self._tick(), f"upkeep of {name}")
        for peer in self._anchors:
            self._sessions.want(peer, "join")
        await self._want_missing()

    async def join(self, peers: Sequence[EndpointId]) -> None:
        """More peers, from another ticket."""
        fresh = [peer for peer in peers if peer != self._context.endpoint.id]
        self._anchors.update(fresh)
        if self._topic is not None:
            await self._topic.join_peers(fresh)
        for peer in fresh:
            self._sessions.want(peer, "join")

    async def accept(self, peer: EndpointId, stream: BiStream, init: Init) -> None:
        """Serve a sync that the peer dialled."""
        await self._sessions.accept(peer, stream, init)

    def inserted(self, entry: SignedEntry) -> None:
        """This node wrote ``entry``: it is durable, tell everybody."""
        self._events.publish(InsertLocal(Entry(entry, self._downloads, self.cipher)))
        self._broadcast(Put(entry))

    async def aclose(self) -> None:
        """Leave the topic, end the sessions, close the events."""
        self._downloads.leave(self.namespace)
        await self._tasks.aclose()
        await self._sessions.aclose()
        if self._topic is not None:
            await self._topic.aclose()
        self._events.close()

    # For the downloads.

    def candidates(self) -> Iterable[bytes]:
        return map(bytes, [*(addr.id for addr in reversed(self._useful)), *self.neighbors, *self._anchors])

    def content_settled(self, hash: bytes, *, here: bool) -> None:
        if here:
            self._events.publish(ContentReady(Hash(hash)))
            self._broadcast(ContentReadyOp(hash), neighbors_only=True)
        self._pending.discard(hash)
        self._tell_pending()

    # From gossip.

    async def _receive(self, topic: swarm.Topic) -> None:
        async for event in topic:
            match event:
                case swarm.NeighborUp(peer):
                    self.neighbors.add(peer)
                    self._events.publish(NeighborUp(peer))
                    self._sessions.want(peer, "neighbor")
                    self._downloads.peer_appeared(self.namespace)
                case swarm.NeighborDown(peer):
                    self.neighbors.discard(peer)
                    self._events.publish(NeighborDown(peer))
                case swarm.Received():
                    await self._on_message(event)
                case swarm.Lagged():
                    self.sync_neighbors()

    async def _on_message(self, received: swarm.Received) -> None:
        peer = received.delivered_from
        try:
            op = decode_op(received.content)
        except DecodeError as error:
            logger.warning("a gossip message in %s from %s: %s", self.namespace.short(), peer.short(), error)
            return
        match op:
            case Put(entry):
                # Whoever wrote it: who is trusted with nothing may not decide either what of others we get, and when.
                if not await self._context.access.takes(peer, self.namespace):
                    return
                try:
                    self._incoming.put_nowait((entry, peer, received.is_direct))
                except asyncio.QueueFull:
                    self._sessions.want(peer, "report")
            case ContentReadyOp(hash):
                self._downloads.announced(hash, bytes(peer))
            case SyncReport(namespace, heads):
                if namespace == bytes(self.namespace) and await self._is_news(heads):
                    self._sessions.want(peer, "report")

    async def _is_news(self, heads: Mapping[bytes, int]) -> bool:
        """Whether the peer has something newer of some author. What lies in the far future cannot be valid."""
        latest = time.time_ns() // 1000 + MAX_AHEAD_US
        ours = await self._store.heads(self.namespace)
        return any(ours.get(author, -1) < timestamp <= latest for author, timestamp in heads.items())

    async def _take_incoming(self) -> None:
        while True:
            batch = [await self._incoming.get()]
            while len(batch) < INCOMING_BATCH and not self._incoming.empty():
                batch.append(self._incoming.get_nowait())
            try:
                received = await self._store.insert(self.namespace, [entry for entry, _, _ in batch])
            except TidingsError:
                logger.exception("entries of %s could not be stored", self.namespace.short())
                self.sync_neighbors()
                await asyncio.sleep(TICK)
                continue
            stored: dict[EndpointId, list[Value]] = {}
            for (entry, peer, is_direct), outcome in zip(batch, received.outcomes, strict=True):
                if isinstance(outcome, InvalidEntry):
                    logger.warning("an entry in %s from %s: %s", self.namespace.short(), peer.short(), outcome)
                elif outcome.stored:
                    status = ContentStatus.COMPLETE if is_direct else ContentStatus.MISSING
                    stored.setdefault(peer, []).append(Value(entry, status))
            for peer, values in stored.items():
                await self._on_stored(peer, values, received.missing)

    # From syncs.

    async def _on_stored(self, peer: EndpointId, values: Sequence[Value], missing: Set[bytes]) -> None:
        """Entries of others are durable: tell the program, and want their contents."""
        for index, (entry, theirs) in enumerate(values):
            if index % EVENTS_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
            ours = ContentStatus.MISSING if entry.record.hash in missing else ContentStatus.COMPLETE
            self._events.publish(InsertRemote(Entry(entry, self._downloads, self.cipher), peer, ours))
            if ours is ContentStatus.MISSING:
                self._want(entry.record.hash, entry.record.size, peer if theirs is ContentStatus.COMPLETE else None)

    async def _on_synced(self, event: SyncFinished, tally: Tally) -> None:
        self._events.publish(event)
        if event.error is not None:
            return
        addr = self._context.endpoint.lookup.get(event.peer) or EndpointAddr(event.peer)
        is_latest = bool(self._useful) and self._useful[-1] == addr
        self._useful = deque((old for old in self._useful if old.id != event.peer), maxlen=USEFUL_PEERS)
        self._useful.append(addr)
        self._downloads.peer_appeared(self.namespace)
        if not self.neighbors and self._topic is not None and await self._context.access.is_restricted(self.namespace):
            await self._topic.join_peers([event.peer])  # the sync was where both showed what lets them into the swarm
        if tally.heads:
            self._broadcast(SyncReport(bytes(self.namespace), tally.heads), neighbors_only=True)
        self._pending_told = False
        self._tell_pending()
        if not is_latest:
            with suppress(TidingsError):  # the disk is full: the sync itself went well
                await self._store.remember_peer(self.namespace, addr)

    def _is_known(self, peer: EndpointId) -> bool:
        return peer in self.neighbors or peer in self._anchors

    def sync_neighbors(self) -> None:
        for peer in self.neighbors:
            self._sessions.want(peer, "report")

    # Contents.

    def _want(self, hash: bytes, size: int, provider: EndpointId | None) -> None:
        room = self._downloads.want(self.namespace, hash, size, None if provider is None else bytes(provider))
        if room and provider is not None:
            self._pending.add(hash)

    async def _want_missing(self) -> None:
        for hash, size in (await self._store.missing_content(self.namespace, MAX_WANTED)).items():
            self._want(hash, size, None)

    def _tell_pending(self) -> None:
        if not self._pending and not self._pending_told:
            self._pending_told = True
            self._events.publish(PendingContentReady())

    # Upkeep and what goes out.

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._sessions.tick()
            try:
                if self._downloads.take_overflown(self.namespace):
                    await self._want_missing()
                if _now() >= self._report_at:
                    self._report_at = self._next_report()
                    await self._report()
            except TidingsError:
                logger.exception("upkeep of %s", self.namespace.short())

    async def _report(self) -> None:
        if not self.neighbors:
            return
        heads = await self._store.heads(self.namespace)
        if heads:
            # To neighbours only: gossip would swallow an equal report within 90 seconds.
            self._broadcast(SyncReport(bytes(self.namespace), heads), neighbors_only=True)
        self._reports += 1
        if self._reports % REPORTS_TO_SYNC == 0 and self.neighbors:
            self._sessions.want(self._context.rng.choice(sorted(self.neighbors)), "again")

    def _next_report(self) -> float:
        return _now() + REPORT_EVERY * self._context.rng.uniform(0.5, 1.5)

    def _broadcast(self, op: Op, *, neighbors_only: bool = False) -> None:
        if not self.neighbors:
            return  # whoever comes is synced with
        try:
            self._outgoing.put_nowait((op, neighbors_only))
        except asyncio.QueueFull:
            self._report_soon()

    async def _send_outgoing(self, topic: swarm.Topic) -> None:
        while True:
            op, neighbors_only = await self._outgoing.get()
            payload = encode_op(op)
            if len(payload) > MAX_OP_SIZE:
                self._report_soon()
                continue
            try:
                await (topic.broadcast_neighbors(payload) if neighbors_only else topic.broadcast(payload))
            except TidingsError as error:
                logger.warning("a broadcast in %s: %s", self.namespace.short(), error)

    def _report_soon(self) -> None:
        """Neighbours who hear of newer heads come and sync."""
        self._report_at = min(self._report_at, _now() + SOON)


def _now() -> float:
    return asyncio.get_running_loop().time()
