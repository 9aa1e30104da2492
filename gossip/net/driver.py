"""Gossip over an endpoint: runs the cores of all topics and shares one connection for each peer between them.

Nothing here waits for a peer: a message that arrives is handed to its topic's core at once, and what the core wants
sent goes into that peer's own bounded queue (`peers.Peer`). Timers are the loop's. The only task is a slow sweep that
closes connections that no topic needs, and keeps our own addresses up to date.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

from ...errors import TidingsError, UsageError
from ...transport import Connection, Endpoint, EndpointId
from ...transport.errors import DecodeError
from ..carrier import MAX_NAME, Carrier
from ..core.catch_up import CatchUp
from ..core.codec import decode_addresses, encode_addresses
from ..core.config import TopicConfig
from ..core.envelope import MAGIC, MAX_BODY, Envelope, Kind
from ..core.log import Entry, LogConfig
from ..core.log_messages import Give, LogMessage
from ..core.messages import Disconnect, Message
from ..core.outputs import (
    Deliver,
    Down,
    Fault,
    Learned,
    Measure,
    Missing,
    Output,
    Ready,
    Send,
    SendLog,
    SendSwap,
    Up,
)
from ..core.records import seal_record
from ..core.swap_messages import OptimizeReply, SwapMessage
from ..core.topic_core import TopicCore
from ..keeper import Keeper, KeptTopic
from ..sent import ALONE, REPEATED, Sent
from ..stats import Stats
from ..subscription import Missed, NeighborDown, NeighborUp, Received, Sink
from .door import Admit, Door, Guards
from .joined import JoinedTopic, is_carried, received
from .keeping import Keeping
from .link import CLOSE_BUSY
from .log_driver import LOG_ALPN, LogPeers
from .parcels import Parcels
from .peer_set import DIAL_TIMEOUT, SWEEP, PeerSet
from .signatures import Checker, open_all

__all__ = ["Driver"]

logger = logging.getLogger(__name__)

ROUND_TRIP_SWEEPS = 8  # sweeps between two looks at how far our neighbours are
ADDRESS_SWEEPS = 40  # sweeps between two looks at our own addresses


class Driver:
    def __init__(
        self, endpoint: Endpoint, config: TopicConfig, rng: Random, carrier: Carrier | None, keeper: Keeper | None
    ) -> None:
        self._endpoint = endpoint
        self._config = config
        self._rng = rng
        self._me = bytes(endpoint.id)
        self._addresses = self._data = b""
        self._topics: dict[bytes, JoinedTopic] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._guards = Guards()
        self._carrier = carrier
        self._keeper = keeper
        self._ending: set[asyncio.Task[None]] = set()
        self.stats = Stats()
        self.peers = PeerSet(endpoint, config.liveness, rng, self.stats, self)
        self._logs = LogPeers(lambda peer: endpoint.connect(peer, LOG_ALPN, timeout=DIAL_TIMEOUT), self)
        self.closed = False

    # Topics

    async def load(self, id: bytes, log: LogConfig | None) -> KeptTopic | None:
        """What is kept of a topic that is not joined yet, for `subscribe`. Raises StoreError."""
        if self._keeper is None or id in self._topics:
            return None
        kept = await self._keeper.load(id, messages=log is not None and log.stored)
        for peer, data in kept.peers:
            self._learn(peer, data)
        return kept

    def subscribe(
        self,
        id: bytes,
        subscription: Sink,
        log: LogConfig | None = None,
        since: float | None = None,
        kept: KeptTopic | None = None,
    ) -> JoinedTopic:
        """Add ``subscription`` to topic ``id``, which is joined by the first; it hears of the neighbours there are.

        ``since``, by the loop's clock: it hears of the messages that were new after that, too. UsageError where the
        topic is joined without the ``log`` that is asked for.
        """
        if self._sweeper is None:
            self._refresh_addresses()
            self._sweeper = asyncio.create_task(self._sweep(), name="gossip sweep")
        topic = self._topics.get(id)
        if topic is None:
            topic = self._topics[id] = self._join(id, log, _now() if since is None else since, kept)
        elif log is not None and topic.core.log is None:
            raise UsageError("the topic is subscribed here without a log: give the first subscription one")
        for peer in topic.core.neighbors:
            subscription.push(NeighborUp(EndpointId(peer)))
        topic.subscriptions.append(subscription)
        topic.since[subscription] = float("-inf") if topic.core.log is None else _now() if since is None else since
        if topic.core.log is not None and since is not None:
            topic.core.log.look_back(since, _now())
            self._drain(topic)
            topic.replay(subscription, EndpointId(self._me), since)
        return topic

    def _join(self, id: bytes, log: LogConfig | None, since: float, kept: KeptTopic | None) -> JoinedTopic:
        core = TopicCore(self._me, self._config, self._rng, log, since)
        core.set_data(self._data)
        door = Door(id, self._guards, self)
        checker = Checker(id, lambda batch: self._checked(topic, batch))
        parcels = Parcels(id, self._carrier, lambda: [EndpointId(peer) for peer in core.neighbors])
        topic = JoinedTopic(id, core, door, checker, parcels)
        if kept is not None and self._keeper is not None:
            offset = 0
            if core.log is not None and kept.messages:
                ahead = time.time() - _now()
                core.restore([(each.content, each.at - ahead, _opened(each.content)) for each in kept.messages], _now())
                offset = kept.messages[-1].position - core.log.log.high
            topic.keeping = Keeping(id, core, self._keeper, stored=log is not None and log.stored, offset=offset)
            core.membership.recall(kept.peers, _now())
            self._drain(topic)
        return topic

    def unsubscribe(self, topic: JoinedTopic, subscription: Sink) -> None:
        """Remove it; the last one leaves the topic, saying good-bye."""
        subscription.close()
        if subscription in topic.subscriptions:
            topic.subscriptions.remove(subscription)
            del topic.since[subscription]
            if not topic.subscriptions:
                self._leave(topic)

    def join(self, topic: JoinedTopic, peers: Iterable[EndpointId]) -> None:
        topic.core.join([bytes(peer) for peer in peers], _now())
        self._drain(topic)

    async def broadcast(self, topic: JoinedTopic, content: bytes, *, signed: bool) -> Sent:
        kind = Kind.CONTENT
        if signed and len(content) > MAX_BODY:
            assert self._carrier is not None
            content, kind = await self._carrier.put(content), Kind.CARRIED
            assert len(content) <= MAX_NAME
        await self._room(topic)
        if signed:
            content = topic.voice.sign(self._endpoint.secret_key, content, kind)
        new = topic.core.broadcast(content, _now())
        sent = self._became(topic, new=new)
        self.stats.refused += not sent
        self._drain(topic)
        return sent

    async def history(self, topic: JoinedTopic, since: float) -> AsyncIterator[Received]:
        if topic.core.log is None:
            raise UsageError("the topic keeps no log: subscribe with log=True")
        me = EndpointId(self._me)
        for entry in topic.kept(since):
            event = received(entry, me, None, late=False)
            if is_carried(entry):
                try:
                    event = replace(event, content=await topic.parcels.get(event.content))
                except TidingsError as error:
                    logger.info("a content of topic %s is not there any more: %s", topic.id[:5].hex(), error)
                    continue
            yield event

    def _became(self, topic: JoinedTopic, *, new: bool) -> Sent:
        if not new:
            return Sent(0, 0, REPEATED)
        peers = [self.peers.get(id) for id in topic.core.neighbors]
        ready = sum(peer is not None and peer.connected and not peer.queue.crowded for peer in peers)
        if not peers and topic.core.log is None:
            return Sent(0, 0, ALONE)
        return Sent(ready, len(peers) - ready, None)

    async def broadcast_neighbors(self, topic: JoinedTopic, content: bytes) -> None:
        await self._room(topic)
        topic.core.broadcast_neighbors(content)
        self._drain(topic)

    async def _room(self, topic: JoinedTopic) -> None:
        """Slow a writer down to what its neighbours read, but not to a neighbour that does not read."""
        for id in topic.core.neighbors:
            peer = self.peers.get(id)
            if peer is not None:
                await peer.room()

    def sizes(self) -> tuple[int, int]:
        return len(self._topics), sum(len(topic.core.membership.active) for topic in self._topics.values())

    def _leave(self, topic: JoinedTopic) -> list[asyncio.Task[Any]]:
        """The tasks that are being ended."""
        if topic.keeping is not None:
            for task in topic.keeping.close():
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
        topic.core.leave()
        self._drain(topic)
        if topic.wake is not None:
            topic.wake.cancel()
        self._topics.pop(topic.id, None)
        return [*topic.door.close(), *topic.checker.close(), *topic.parcels.close()]

    # Peers

    def accept(self, connection: Connection) -> None:
        """Take over a connection that a peer made."""
        if self.closed:
            connection.close(CLOSE_BUSY, "gossip is closed here")
        else:
            self.peers.accept(connection)

    def on_message(self, peer: bytes, topic: bytes, message: Message) -> bool:
        joined = self._topics.get(topic)
        if joined is None:
            return False  # as iroh does; whoever joins too early asks again
        joined.core.receive(peer, message, _now())
        self._drain(joined)
        return True

    def admits(self, peer: bytes, topic: bytes) -> bool | Awaitable[bool]:
        joined = self._topics.get(topic)
        if joined is None:
            return True
        if joined.checker.crowded or any(subscription.blocks for subscription in joined.subscriptions):
            return self._admits_with_room(joined, peer)
        return joined.door.admits(peer)

    async def _admits_with_room(self, joined: JoinedTopic, peer: bytes) -> bool:
        await joined.checker.room()
        for subscription in list(joined.subscriptions):
            await subscription.room()
        verdict = joined.door.admits(peer)
        return verdict if isinstance(verdict, bool) else await verdict

    def on_lost(self, peer: bytes, *, alive: bool) -> None:
        for topic in list(self._topics.values()):
            topic.core.peer_disconnected(peer, _now(), alive=alive)
            self._drain(topic)

    def wants(self, peer: bytes) -> bool:
        return any(topic.core.wants(peer) for topic in self._topics.values())

    def neighbors(self) -> set[bytes]:
        return {peer for topic in self._topics.values() for peer in topic.core.membership.active}

    # What the cores want done

    def _drain(self, topic: JoinedTopic) -> None:
        while outputs := topic.core.poll():
            self._do(topic, outputs)
        if topic.keeping is not None:
            topic.keeping.note()
        self._set_timer(topic)

    def _do(self, topic: JoinedTopic, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(peer, message):
                    topic.door.send(peer, message)
                case Deliver():
                    self._deliver(topic, output)
                case SendLog(peer, log_message):
                    if topic.door.admitted(peer):
                        self._logs.send(peer, topic.id, log_message)
                case Ready(entry, peer, round, late):
                    self._emit(topic, entry, peer, round, late=late)
                case Missing(gap):
                    self.stats.missed += gap.last - gap.first + 1
                    topic.emit(Missed(EndpointId(gap.author), gap.first, gap.last))
                case Up(peer):
                    topic.note_neighbors()
                    topic.emit(NeighborUp(EndpointId(peer)))
                case Down(peer):
                    topic.emit(NeighborDown(EndpointId(peer)))
                case Learned(peer, data):
                    self._learn(peer, data)
                case Measure(peer):
                    self._measure(topic, peer)
                case SendSwap(peer, swap_message):
                    if topic.door.admitted(peer):
                        self._logs.send(peer, topic.id, swap_message)
                case Fault(peer, what):
                    self.peers.fault(peer, what)

    def _set_timer(self, topic: JoinedTopic) -> None:
        deadline = topic.core.next_deadline()
        if topic.wake is not None:
            if topic.wake.when() == deadline and not topic.wake.cancelled():
                return
            topic.wake.cancel()
            topic.wake = None
        if deadline is not None:
            topic.wake = asyncio.get_running_loop().call_at(deadline, self._on_timer, topic)

    def _on_timer(self, topic: JoinedTopic) -> None:
        topic.wake = None
        topic.core.handle_timer(_now())
        self._drain(topic)

    # What is delivered

    def _deliver(self, topic: JoinedTopic, output: Deliver) -> None:
        if output.content.startswith(MAGIC):
            topic.checker.push(output)
        else:
            self._hand_on(topic, output, None)

    def _checked(self, topic: JoinedTopic, batch: list[tuple[Deliver, Envelope | None]]) -> None:
        for output, envelope in batch:
            if envelope is None:
                self.stats.forged += 1
            else:
                self._hand_on(topic, output, envelope)
        self._drain(topic)

    def _hand_on(self, topic: JoinedTopic, output: Deliver, envelope: Envelope | None) -> None:
        peer, content, round = output.peer, output.content, output.round
        if topic.core.log is not None and round is not None:
            topic.core.arrived(peer, content, envelope, round, _now())
        else:
            self._emit(topic, Entry(b"", content, _now(), envelope), peer, round, late=False)

    def _emit(self, topic: JoinedTopic, entry: Entry, peer: bytes, round: int | None, *, late: bool) -> None:
        event = received(entry, EndpointId(peer), round, late=late)
        self.stats.delivered += 1
        if event.caught_up:
            self.stats.caught_up += 1
        elif event.sent_at is not None:
            self.stats.note_delay(time.time() - event.sent_at)
        topic.emit_message(entry, event)

    # Logs

    async def serve_log(self, connection: Connection) -> None:
        if not self.peers.turned_away(connection):
            await self._logs.serve(connection)

    async def on_log_message(self, peer: bytes, id: bytes, message: LogMessage | SwapMessage) -> None:
        topic = self._topics.get(id)
        if topic is None or not topic.door.admitted(peer):
            return
        if isinstance(message, SwapMessage):
            self.stats.trades += message == OptimizeReply(True)
            topic.core.receive_swap(peer, message, _now())
            self._drain(topic)
        elif topic.core.log is not None:
            await self._on_log(topic, topic.core.log, peer, message)

    async def _on_log(self, topic: JoinedTopic, log: CatchUp, peer: bytes, message: LogMessage) -> None:
        if isinstance(message, Give):
            contents = [content for content, _ in message.contents]
            if any(content.startswith(MAGIC) for content in contents):
                opened = await asyncio.to_thread(open_all, contents, topic.id)
            else:
                opened = [None] * len(contents)
            if self._topics.get(topic.id) is not topic:
                return
            given = [
                (content, age, envelope)
                for (content, age), envelope in zip(message.contents, opened, strict=True)
                if envelope is not None or not content.startswith(MAGIC)
            ]
            self.stats.forged += len(message.contents) - len(given)
            topic.core.given(peer, given, message.gone, _now())
        else:
            log.receive(peer, message, _now())
        self._drain(topic)

    def _measure(self, topic: JoinedTopic, peer: bytes) -> None:
        """After what is being done: the answer may come at once."""
        if topic.door.admitted(peer) and not self.peers.is_out(peer):
            asyncio.get_running_loop().call_soon(self._logs.measure, peer)

    def on_log_reached(self, peer: bytes, seconds: float) -> None:
        self._measured(peer, seconds)

    def _measured(self, peer: bytes, seconds: float | None) -> None:
        for topic in list(self._topics.values()):
            if topic.core.xbot is not None:
                topic.core.measured(peer, seconds, _now())
                self._drain(topic)

    def on_log_fault(self, peer: bytes) -> None:
        self.peers.fault(peer, "malformed")

    def on_log_lost(self, peer: bytes, *, spoken: bool) -> None:
        self._measured(peer, None)
        for topic in list(self._topics.values()):
            if topic.core.log is not None:
                if spoken:
                    topic.core.log.lost(peer, _now())
                else:
                    topic.core.log.not_spoken(peer, _now())
                self._drain(topic)

    def send(self, topic: bytes, peer: bytes, message: Message) -> None:
        """To a peer that may get it."""
        self.peers.send(topic, peer, message)

    def _learn(self, peer: bytes, data: bytes) -> None:
        with suppress(DecodeError):
            self._endpoint.lookup.add(decode_addresses(peer, data))

    # Who is let in

    def guard(self, admit: Admit) -> None:
        """From now on ask ``admit``, too: all have to agree."""
        self._guards.admits.append(admit)

    def reconsider(self, id: bytes) -> None:
        """Ask about the peers of topic ``id`` again; who is refused now is put out."""
        topic = self._topics.get(id)
        if topic is not None:
            topic.door.reconsider(topic.core.wants)

    def put_out(self, topic: bytes, peer: bytes) -> None:
        """The program refused it."""
        joined = self._topics.get(topic)
        if joined is not None:
            if peer in joined.core.neighbors:
                self.send(topic, peer, Disconnect(alive=False))
            joined.core.peer_disconnected(peer, _now(), alive=False)
            self._drain(joined)

    # The sweep

    async def _sweep(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(SWEEP)
            count += 1
            if count % ADDRESS_SWEEPS == 0:
                self._refresh_addresses()
            if count % ROUND_TRIP_SWEEPS == 0:
                self._note_round_trips()
            await self.peers.sweep()

    def _note_round_trips(self) -> None:
        for topic in self._topics.values():
            for id in topic.core.membership.active:
                peer = self.peers.get(id)
                if peer is not None and peer.round_trip is not None:
                    topic.core.note_round_trip(id, peer.round_trip)

    def _refresh_addresses(self) -> None:
        addresses = encode_addresses(self._endpoint.addr())
        if addresses != self._addresses:
            self._addresses = addresses
            self._data = seal_record(self._endpoint.secret_key, addresses, time.time_ns() // 1000)
            for topic in self._topics.values():
                topic.core.set_data(self._data)

    async def aclose(self) -> None:
        """Leave every topic, tell the neighbours, close every connection, end every task."""
        if self.closed:
            return
        self.closed = True
        ending: list[asyncio.Task[Any]] = []
        for topic in list(self._topics.values()):
            for subscription in topic.subscriptions:
                subscription.close()
            topic.subscriptions.clear()
            ending += self._leave(topic)
        await asyncio.gather(*ending, *self._ending, return_exceptions=True)
        await self._logs.aclose()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self.peers.aclose()


def _opened(content: bytes) -> Envelope | None:
    """The envelope of a message that was checked before it was kept."""
    with suppress(DecodeError):
        return Envelope.open(content, None)
    return None


def _now() -> float:
    return asyncio.get_running_loop().time()
