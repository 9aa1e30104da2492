"""One live document: gossip in, gossip out, and when to sync (``reference/iroh-protocols.md`` 2.7).

The gossip topic of a document is its id. New entries travel as `Put`; whatever gossip loses is found by syncs, which
run when a neighbour comes, when a comparison finds a difference (`digests`), when a `SyncReport` tells of news, and
after failures with growing delays. Neighbours that speak iroh only cannot be compared with: heads go to them about once
a minute, and every ten minutes or so one of them is synced with in full.

Everything that comes from a peer waits in bounded queues; when one overflows, that peer is synced with instead. A
payload that cannot be decoded costs that payload. Tasks run while there is something to do and timers while there is a
neighbour, so that an open document that nobody shares costs its memory and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from itertools import islice

from ... import gossip as swarm
from ...blobs import Hash
from ...errors import TidingsError
from ...transport import EndpointAddr, EndpointId
from ...transport.errors import DecodeError
from ..access.encryption import DocumentCipher
from ..contents.download import Downloads
from ..doc_entry import Entry
from ..errors import InvalidEntry, KeyTooLarge, SyncViolation, TooFarAhead
from ..events import (
    ContentReady,
    EventHub,
    InsertLocal,
    InsertRemote,
    NeighborDown,
    NeighborUp,
    PendingContentReady,
    SyncFinished,
    SyncReason,
)
from ..model.entry import SignedEntry
from ..model.keys import NamespaceId
from ..model.messages import MAX_OP_SIZE, Op, Put, SyncReport, decode_op, encode_op
from ..model.messages import ContentReady as ContentReadyOp
from ..model.part import in_part
from ..model.reconcile import ContentStatus, Tally, Value
from ..model.validity import MAX_AHEAD_US
from ..status import PeerStatus, Synced
from ..sync.native import IncomingSync
from ..sync.sessions import SessionContext, Sessions

__all__ = ["LiveDocument"]

logger = logging.getLogger(__name__)

MAX_INCOMING = 1024  # received messages that wait: 4 MB
INCOMING_BATCH = 256  # entries in one transaction
MAX_OUTGOING = 1024  # operations that wait for gossip
REPORT_EVERY = 60.0  # seconds between two reports of our heads, give or take half
REPORTS_TO_SYNC = 10  # of those until a full sync with one neighbour
SOON = 1.0  # seconds until an entry that gossip could not carry is reported
QUIET = 2.0  # seconds without a change until a changed document is compared with a neighbour
STORE_AGAIN = 1.0  # seconds after the store could not be written
EVENTS_BETWEEN_YIELDS = 256  # published before others have their turn: a message can bring 100,000
USEFUL_PEERS = 16  # peers of late syncs that may have contents
FEW_PEERS = 2  # remembered peers below which one that dialled us is remembered, too
NEAREST = 8  # peers asked where any will do


class LiveDocument:
    """`start` it, `aclose` it. ``events`` gets what happens."""

    __slots__ = (
        "_anchors",
        "_callers",
        "_changed_at",
        "_context",
        "_downloads",
        "_events",
        "_gossip",
        "_incoming",
        "_outgoing",
        "_quiet_timer",
        "_report_all",
        "_report_timer",
        "_reports",
        "_sender",
        "_sessions",
        "_store",
        "_taker",
        "_topic",
        "_upkeep",
        "_useful",
        "cipher",
        "namespace",
        "neighbors",
        "prefix",
    )

    def __init__(
        self,
        context: SessionContext,
        gossip: swarm.Gossip,
        downloads: Downloads,
        namespace: NamespaceId,
        events: EventHub,
        cipher: DocumentCipher | None = None,
        prefix: bytes | None = None,
    ) -> None:
        """``prefix``: of the part that is held; None: the whole document."""
        self.namespace = namespace
        self.prefix = prefix
        self.neighbors: dict[EndpointId, None] = {}
        self.cipher = cipher
        self._context = context
        self._store = context.store
        self._gossip = gossip
        self._downloads = downloads
        self._events = events
        self._anchors: dict[EndpointId, None] = {}  # from tickets and of old: tried again whatever happens
        self._useful: dict[EndpointId, EndpointAddr] = {}  # dialled and synced with, the latest last
        self._callers: dict[EndpointId, EndpointAddr] = {}  # the same of those that dialled us, and prove nothing by it
        self._incoming: deque[swarm.Received] | None = None
        self._outgoing: deque[tuple[Op, bool]] | None = None
        self._taker: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._report_timer: asyncio.TimerHandle | None = None
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._changed_at = 0.0
        self._reports = 0
        self._report_all = False
        self._topic: swarm.Topic | None = None
        self._sessions = Sessions(context, namespace, self, prefix)

    async def start(
        self, peers: Sequence[EndpointId], remembered: Sequence[EndpointAddr], *, patiently: bool = False
    ) -> None:
        """Join the topic, with ``peers`` and those remembered, and sync with each.

        ``patiently``: this is one of many documents; they are compared with those remembered, which takes one request
        for all that share a peer, and synced where they differ.
        """
        for addr in remembered:
            self._context.endpoint.lookup.add(addr)
        fresh = [peer for peer in peers if peer != self._context.endpoint.id]
        of_old = [addr.id for addr in remembered if addr.id != self._context.endpoint.id]
        self._anchors = dict.fromkeys([*fresh, *of_old])
        self._topic = await self._gossip.attach(bytes(self.namespace), self._on_event, list(self._anchors))
        self._downloads.join(self.namespace, self)
        for peer in self._anchors:
            if patiently and peer not in fresh:
                self._context.digests.compare(self, peer, otherwise="join")
            else:
                self._sessions.want(peer, "join")

    async def join(self, peers: Sequence[EndpointId]) -> None:
        """More peers, from another ticket."""
        fresh = [peer for peer in peers if peer != self._context.endpoint.id]
        self._anchors |= dict.fromkeys(fresh)
        if self._topic is not None:
            await self._topic.join_peers(fresh)
        for peer in fresh:
            self._sessions.want(peer, "join")

    async def accept(self, call: IncomingSync) -> None:
        """Serve a sync that a peer dialled."""
        await self._sessions.accept(call)

    def want(self, peer: EndpointId, reason: SyncReason) -> None:
        self._sessions.want(peer, reason)

    async def sync(self, peer: EndpointId | None, timeout: float) -> Synced:
        """See `Doc.synced`."""
        return await self._sessions.synced(peer, timeout)

    def peers(self) -> tuple[PeerStatus, ...]:
        return self._sessions.status([*self.neighbors, *self._anchors], self.neighbors.keys())

    def inserted(self, entry: SignedEntry) -> None:
        """This node wrote ``entry``: it is durable, tell everybody."""
        if self._events.is_heard:
            self._events.publish(InsertLocal(Entry(entry, self._downloads, self.cipher)))
        self.pass_on(entry)

    def changed(self) -> None:
        """Entries were stored, also by another process: see whether a neighbour has the same once it is quiet."""
        self._changed_at = _now()
        if self.neighbors and self._quiet_timer is None:
            self._quiet_timer = _later(QUIET, self._quiet)

    async def aclose(self) -> None:
        """Leave the topic, end the sessions, close the events."""
        try:
            await self.leave()
        finally:
            self._events.close()

    async def leave(self) -> None:
        """`aclose`, but the events go on."""
        self._downloads.leave(self.namespace)
        self._context.digests.leave(self)
        for timer in (self._report_timer, self._quiet_timer):
            if timer is not None:
                timer.cancel()
        try:
            if self._topic is not None:
                await self._topic.aclose()  # before the tasks: it starts some
        finally:
            self._incoming = self._outgoing = None  # nothing starts again
            tasks = [task for task in (self._taker, self._sender, self._upkeep) if task is not None]
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                await self._sessions.aclose()

    # For the downloads.

    def candidates(self) -> Iterable[bytes]:
        return map(bytes, [*reversed(self._useful), *self.neighbors, *self._anchors, *reversed(self._callers)])

    def content_here(self, hash: bytes, peer: bytes | None) -> None:
        self._events.publish(ContentReady(Hash(hash)))
        if self._context.followers is not None:
            self._context.followers.content_here(self.namespace, hash)
        if any(bytes(neighbor) != peer for neighbor in self.neighbors):  # who gave it knows
            self._broadcast(ContentReadyOp(hash), neighbors_only=True)

    def contents_idle(self) -> None:
        self._events.publish(PendingContentReady())

    # From gossip.

    def _on_event(self, event: swarm.Event) -> None:
        match event:
            case swarm.Received():
                self._on_message(event)
            case swarm.NeighborUp(peer):
                self.neighbors[peer] = None
                self._events.publish(NeighborUp(peer))
                self._context.digests.meet(self, peer)
                self._downloads.peer_appeared(self.namespace, bytes(peer))
                if self._report_timer is None:
                    self._report_after(REPORT_EVERY * self._context.rng.uniform(0.5, 1.5))
            case swarm.NeighborDown(peer):
                self.neighbors.pop(peer, None)
                self._events.publish(NeighborDown(peer))
                self._context.digests.part(self, peer)

    def _on_message(self, received: swarm.Received) -> None:
        if self._incoming is None:
            self._incoming = deque()
        if len(self._incoming) >= MAX_INCOMING:
            self._sessions.want(received.delivered_from, "report")
            return
        self._incoming.append(received)
        if self._taker is None:
            self._start_taker(self._incoming)

    def _start_taker(self, incoming: deque[swarm.Received]) -> None:
        self._taker = self._context.tasks.start(self._take(incoming), f"entries of {self.namespace.short()}")
        self._taker.add_done_callback(self._taken)

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._taker = None
        if not self._incoming or task.cancelled() or self._context.tasks.closed:
            self._incoming = None
        else:
            self._start_taker(self._incoming)  # something came between the last look and the end

    async def _take(self, incoming: deque[swarm.Received]) -> None:
        while incoming:
            entries: list[tuple[SignedEntry, EndpointId, bool]] = []
            reports: dict[EndpointId, Mapping[bytes, int]] = {}
            try:
                while incoming and len(entries) < INCOMING_BATCH:
                    received = incoming.popleft()
                    peer = received.delivered_from
                    match self._decode(received):
                        case Put(entry):
                            # Whoever wrote it: who is not trusted may not decide either what of others we get.
                            if await self._context.access.takes(peer, self.namespace):
                                entries.append((entry, peer, received.is_direct))
                            else:
                                self._missed(peer)
                        case ContentReadyOp(hash):
                            self._downloads.announced(self.namespace, hash, bytes(peer))
                        case SyncReport(namespace, heads) if namespace == bytes(self.namespace):
                            reports[peer] = heads
                if entries:
                    await self._store_entries(entries)
                for peer, heads in reports.items():
                    if await self._is_news(heads):
                        self._sessions.want(peer, "report")
            except TidingsError:
                logger.exception("entries of %s could not be stored", self.namespace.short())
                self.sync_neighbors()
                await asyncio.sleep(STORE_AGAIN)

    def _missed(self, peer: EndpointId) -> None:
        """An entry from ``peer`` was not taken, and gossip delivers it no second time: see whether another has it."""
        others = [other for other in self.neighbors if other != peer]
        if others:
            self._context.digests.compare(self, self._context.rng.choice(others))

    def _decode(self, received: swarm.Received) -> Op | None:
        try:
            return decode_op(received.content)
        except DecodeError as error:
            peer = received.delivered_from
            logger.warning("a gossip message in %s from %s: %s", self.namespace.short(), peer.short(), error)
            return None

    async def _store_entries(self, entries: Sequence[tuple[SignedEntry, EndpointId, bool]]) -> None:
        received = await self._store.insert(self.namespace, [entry for entry, _, _ in entries])
        stored: dict[EndpointId, list[Value]] = {}
        for (entry, peer, is_direct), outcome in zip(entries, received.outcomes, strict=True):
            if isinstance(outcome, InvalidEntry):
                logger.warning("an entry in %s from %s: %s", self.namespace.short(), peer.short(), outcome)
            elif outcome.stored:
                status = ContentStatus.COMPLETE if is_direct else ContentStatus.MISSING
                stored.setdefault(peer, []).append(Value(entry, status))
        for peer, values in stored.items():
            await self.stored(peer, values, received.missing)

    async def take_values(self, peer: EndpointId, values: Sequence[Value]) -> list[Value]:
        """Entries that a tidings peer has stored: those that are new here, durable and told to the program.

        Raises SyncViolation where one is such as none would store; the others are in.
        """
        good = [each for each in values if self.prefix is None or in_part(each.entry.id.key, self.prefix)]
        wrong: InvalidEntry | str | None = None if len(good) == len(values) else "an entry outside of the part"
        good = await self._store.unknown(good)  # what we wrote comes back, and two providers tell the same
        received = await self._store.insert(self.namespace, [each.entry for each in good])
        stored: list[Value] = []
        for value, outcome in zip(good, received.outcomes, strict=True):
            if not isinstance(outcome, InvalidEntry):
                if outcome.stored:
                    stored.append(value)
            elif isinstance(outcome, TooFarAhead | KeyTooLarge):  # a clock is wrong, or limits differ: nobody's malice
                logger.warning("an entry in %s from %s: %s", self.namespace.short(), peer.short(), outcome)
            else:
                wrong = outcome
        if stored:
            await self.stored(peer, stored, received.missing)
        if wrong is not None:
            raise SyncViolation(f"the peer sent what no node stores: {wrong}", peer=peer)
        return stored

    async def told(self, peer: EndpointId, values: Sequence[Value]) -> None:
        """A partial replica brings what it wrote. Raises SyncViolation."""
        for entry, _ in await self.take_values(peer, values):
            self.pass_on(entry)

    def pass_on(self, entry: SignedEntry) -> None:
        self._broadcast(Put(entry))

    async def _is_news(self, heads: Mapping[bytes, int]) -> bool:
        """Whether the peer has something newer of some author. What lies in the far future cannot be valid."""
        latest = time.time_ns() // 1000 + MAX_AHEAD_US
        ours = await self._store.heads(self.namespace)
        return any(ours.get(author, -1) < timestamp <= latest for author, timestamp in heads.items())

    # From syncs.

    async def stored(self, peer: EndpointId, values: Sequence[Value], missing: Set[bytes]) -> None:
        """Entries of others are durable: tell the program, and want their contents."""
        heard = self._events.is_heard
        offered: list[bytes] = []
        for index, (entry, theirs) in enumerate(values, 1):
            ours = ContentStatus.MISSING if entry.record.hash in missing else ContentStatus.COMPLETE
            if heard:
                self._events.publish(InsertRemote(Entry(entry, self._downloads, self.cipher), peer, ours))
            if ours is ContentStatus.MISSING and theirs is ContentStatus.COMPLETE:
                offered.append(entry.record.hash)
            if index % EVENTS_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
        self._downloads.stored(self.namespace, len(missing), offered, bytes(peer))

    async def synced(self, event: SyncFinished, tally: Tally) -> None:
        self._events.publish(event)
        if event.error is not None:
            return
        if tally.heads:
            self._broadcast(SyncReport(bytes(self.namespace), tally.heads), neighbors_only=True)
        if event.prefix != self.prefix:  # a peer that has less than we need is none to dial
            self._downloads.synced(self.namespace, bytes(event.peer))
            return
        addr = self._context.endpoint.lookup.get(event.peer) or EndpointAddr(event.peer)
        called = event.reason == "accept"
        peers = self._callers if called else self._useful
        is_latest = bool(peers) and next(reversed(peers.values())) == addr
        peers.pop(event.peer, None)
        peers[event.peer] = addr
        if len(peers) > USEFUL_PEERS:
            del peers[next(iter(peers))]
        self._downloads.synced(self.namespace, bytes(event.peer))
        if not self.neighbors and self._topic is not None and await self._context.access.is_restricted(self.namespace):
            await self._topic.join_peers([event.peer])  # the sync was where both showed what lets them into the swarm
        if self.prefix is None and event.peer not in self.neighbors:
            self._context.digests.remember(self, event.peer)
            if event.reason == "digest" and self._topic is not None:
                await self._topic.join_peers([event.peer])  # it had news that never came to us: the swarm is in pieces
        if not is_latest:
            with suppress(TidingsError):  # the disk is full: the sync itself went well
                # Anybody can call, and often: callers never push out those that we found ourselves.
                if not called or len(await self._store.remembered_peers(self.namespace)) < FEW_PEERS:
                    await self._store.remember_peer(self.namespace, addr)

    def is_known(self, peer: EndpointId) -> bool:
        return peer in self.neighbors or peer in self._anchors

    def nearest(self) -> Iterable[EndpointId]:
        callers = () if self.prefix is not None else reversed(self._callers)  # a part has its providers
        found = [*self.neighbors, *reversed(self._useful), *self._anchors, *callers]
        return list(islice(dict.fromkeys(found), NEAREST))

    def sync_neighbors(self) -> None:
        for peer in self.neighbors:
            self._sessions.want(peer, "report")

    # Upkeep and what goes out.

    def _quiet(self) -> None:
        self._quiet_timer = None
        left = self._changed_at + QUIET - _now()
        if left > 0:
            self._quiet_timer = _later(left, self._quiet)
        elif self.neighbors:
            self._context.digests.compare(self, self._context.rng.choice(sorted(self.neighbors)))

    def _report_after(self, delay: float) -> None:
        if self._report_timer is not None:
            self._report_timer.cancel()
        self._report_timer = _later(delay, self._report)

    def _report_soon(self) -> None:
        """Neighbours who hear of newer heads come and sync."""
        self._report_all = True
        self._report_after(SOON)

    def _report(self) -> None:
        self._report_timer = None
        if not self.neighbors:
            return
        self._report_after(REPORT_EVERY * self._context.rng.uniform(0.5, 1.5))
        incomparable = sorted(peer for peer in self.neighbors if not self._context.digests.speaks(peer))
        if incomparable or self._report_all:
            self._report_all = False
            self._start_upkeep(self._report_heads)
        self._reports += 1
        if incomparable and self._reports % REPORTS_TO_SYNC == 0:
            self._sessions.want(self._context.rng.choice(incomparable), "again")

    async def _report_heads(self) -> None:
        try:
            heads = await self._store.heads(self.namespace)
        except TidingsError:
            logger.exception("upkeep of %s", self.namespace.short())
            return
        if heads:
            # To neighbours only: gossip would swallow an equal report within 90 seconds.
            self._broadcast(SyncReport(bytes(self.namespace), heads), neighbors_only=True)

    def _start_upkeep(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """One thing at a time: whatever finds another at work comes again by itself."""
        if self._upkeep is None or self._upkeep.done():
            self._upkeep = self._context.tasks.start(work(), f"upkeep of {self.namespace.short()}")

    def _broadcast(self, op: Op, *, neighbors_only: bool = False) -> None:
        if not self.neighbors or self._topic is None:
            return  # whoever comes is synced with
        if self._outgoing is None:
            self._outgoing = deque()
        if len(self._outgoing) >= MAX_OUTGOING:
            self._report_soon()
            return
        self._outgoing.append((op, neighbors_only))
        if self._sender is None:
            self._start_sender(self._topic, self._outgoing)

    def _start_sender(self, topic: swarm.Topic, outgoing: deque[tuple[Op, bool]]) -> None:
        self._sender = self._context.tasks.start(self._send(topic, outgoing), f"broadcasts of {self.namespace.short()}")
        self._sender.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sender = None
        if not self._outgoing or self._topic is None or task.cancelled() or self._context.tasks.closed:
            self._outgoing = None
        else:
            self._start_sender(self._topic, self._outgoing)  # something came between the last look and the end

    async def _send(self, topic: swarm.Topic, outgoing: deque[tuple[Op, bool]]) -> None:
        while outgoing:
            op, neighbors_only = outgoing.popleft()
            payload = encode_op(op)
            if len(payload) > MAX_OP_SIZE:
                self._report_soon()
                continue
            try:
                await (topic.broadcast_neighbors(payload) if neighbors_only else topic.broadcast(payload))
            except TidingsError as error:
                logger.warning("a broadcast in %s: %s", self.namespace.short(), error)


def _later(delay: float, action: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay, action)


def _now() -> float:
    return asyncio.get_running_loop().time()
