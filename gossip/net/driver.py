"""Gossip over an endpoint: runs the cores of all topics and shares one connection for each peer between them.

Nothing here waits for a peer: a message that arrives is handed to its topic's core at once, and what the core wants
sent goes into that peer's own bounded queue (`peers.Peer`). Timers are the loop's. The only task is a slow sweep that
closes connections that no topic needs, and keeps our own addresses up to date.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from random import Random

from ...errors import UsageError
from ...transport import Connection, Endpoint, EndpointId, frame
from ...transport.errors import DecodeError
from ..core.codec import MAX_MESSAGE, decode_addresses, encode, encode_addresses
from ..core.config import TopicConfig
from ..core.envelope import MAGIC, Envelope
from ..core.log import Entry, LogConfig
from ..core.log_messages import Give, LogMessage
from ..core.messages import Disconnect, Message
from ..core.outputs import Deliver, Down, Learned, Missing, Output, Ready, Send, SendLog, Up
from ..core.topic_core import TopicCore
from ..core.voice import Voice
from ..sent import ALONE, REPEATED, Sent
from ..stats import Stats
from ..subscription import Event, Missed, NeighborDown, NeighborUp, Received, Sink
from .admission import Admission
from .link import CLOSE_BUSY
from .log_driver import LOG_ALPN, LogPeers
from .outbound import Outbound
from .peers import Peer

__all__ = ["ALPN", "Admit", "Driver", "JoinedTopic"]

logger = logging.getLogger(__name__)

ALPN = b"/iroh-gossip/1"
MAX_PEERS = 1024  # connected or dialled at once; further ones are neither accepted nor dialled
LINGER = 5.0  # seconds that a connection stays open after the last topic that needed it
MAX_UNCHECKED = 4096  # signed messages of a topic that wait for their check: half a second of work
CHECKED_AT_ONCE = 256
SWEEP = 0.5  # seconds between two sweeps
ROUND_TRIP_SWEEPS = 4  # sweeps between two looks at how far our neighbours are
ADDRESS_SWEEPS = 20  # sweeps between two looks at our own addresses
DIAL_TIMEOUT = 10.0
ADMIT_TIMEOUT = 10.0  # seconds for the program to say whether a peer may come in
MAX_ASKED = 1024  # questions to the program at once; about further peers it is not asked, they are refused

Admit = Callable[[EndpointId, bytes], bool | Awaitable[bool]]
"""Whether a peer may be in a topic. One that raises, or takes `ADMIT_TIMEOUT`, refuses that peer for now."""


class JoinedTopic:
    """One topic that somebody here is subscribed to."""

    def __init__(self, id: bytes, core: TopicCore) -> None:
        self.id = id
        self.core = core
        self.subscriptions: list[Sink] = []
        self._has_neighbors: asyncio.Event | None = None
        self.wake: asyncio.TimerHandle | None = None
        self.admission = Admission()
        self.asked: dict[bytes, asyncio.Task[bool]] = {}
        self.since: dict[Sink, float] = {}
        self.voice = Voice(id)
        self.unchecked: deque[Deliver] = deque()
        self.checker: asyncio.Task[None] | None = None

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

    def emit_message(self, event: Received, at: float) -> None:
        """To those whose subscription wants what was new at that time."""
        for subscription in self.subscriptions:
            if at >= self.since[subscription]:
                subscription.push(event)


class Driver:
    def __init__(self, endpoint: Endpoint, config: TopicConfig, rng: Random) -> None:
        self._endpoint = endpoint
        self._config = config
        self._rng = rng
        self._me = bytes(endpoint.id)
        self._data = b""
        self._topics: dict[bytes, JoinedTopic] = {}
        self._peers: dict[bytes, Peer] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._encoded: tuple[Message | None, bytes] = (None, b"")
        self._dropped = 0
        self._guards: list[Admit] = []
        self._logs = LogPeers(lambda peer: endpoint.connect(peer, LOG_ALPN, timeout=DIAL_TIMEOUT), self)
        self._asked = 0
        self.stats = Stats()
        self.closed = False

    # Topics

    def subscribe(
        self, id: bytes, subscription: Sink, log: LogConfig | None = None, since: float | None = None
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
            core = TopicCore(self._me, self._config, self._rng, log, _now() if since is None else since)
            topic = JoinedTopic(id, core)
            topic.core.set_data(self._data)
            self._topics[id] = topic
        elif log is not None and topic.core.log is None:
            raise UsageError("the topic is subscribed here without a log: give the first subscription one")
        for peer in topic.core.neighbors:
            subscription.push(NeighborUp(EndpointId(peer)))
        topic.subscriptions.append(subscription)
        topic.since[subscription] = float("-inf") if topic.core.log is None else _now() if since is None else since
        if topic.core.log is not None and since is not None:
            topic.core.log.look_back(since, _now())
            self._drain(topic)
            for entry in topic.core.log.log:
                if entry.at >= since:
                    subscription.push(_received(entry, EndpointId(self._me), None, late=False))
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
        await self._room(topic)
        if signed:
            content = topic.voice.sign(self._endpoint.secret_key, content)
        new = topic.core.broadcast(content, _now())
        sent = self._became(topic, new=new)
        self.stats.refused += not sent
        self._drain(topic)
        return sent

    def history(self, topic: JoinedTopic, since: float) -> list[Received]:
        if topic.core.log is None:
            raise UsageError("the topic keeps no log: subscribe with log=True")
        me = EndpointId(self._me)
        return [_received(entry, me, None, late=False) for entry in topic.core.log.log if entry.at >= since]

    def _became(self, topic: JoinedTopic, *, new: bool) -> Sent:
        if not new:
            return Sent(0, 0, REPEATED)
        peers = [self._peers.get(id) for id in topic.core.neighbors]
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
            peer = self._peers.get(id)
            if peer is not None:
                await peer.room()

    def sizes(self) -> tuple[int, int]:
        return len(self._topics), sum(len(topic.core.membership.active) for topic in self._topics.values())

    def _leave(self, topic: JoinedTopic) -> None:
        topic.core.leave()
        self._drain(topic)
        if topic.wake is not None:
            topic.wake.cancel()
        for task in topic.asked.values():
            task.cancel()
        if topic.checker is not None:
            topic.checker.cancel()
        self._topics.pop(topic.id, None)

    # Peers

    @property
    def dropped(self) -> int:
        """Messages dropped because a peer's queue was full, since the beginning."""
        return self._dropped + sum(peer.queue.dropped for peer in self._peers.values())

    def accept(self, connection: Connection) -> None:
        """Take over a connection that a peer made."""
        if self.closed or (bytes(connection.remote_id) not in self._peers and len(self._peers) >= MAX_PEERS):
            connection.close(CLOSE_BUSY, "no more peers are taken here")
            return
        self._peer(bytes(connection.remote_id)).attach(connection)

    def on_message(self, peer: Peer, topic: bytes, message: Message) -> None:
        joined = self._topics.get(topic)
        if joined is None:
            return  # as iroh does; whoever joins too early asks again
        now = _now()
        peer.active_at = now
        self.stats.received[type(message).__name__] += 1
        joined.core.receive(bytes(peer.id), message, now)
        self._drain(joined)

    def admits(self, peer: Peer, topic: bytes) -> bool | Awaitable[bool]:
        joined = self._topics.get(topic)
        if joined is None:
            return True
        if any(subscription.blocks for subscription in joined.subscriptions):
            return self._admits_with_room(joined, peer)
        return self._admits(joined, peer)

    async def _admits_with_room(self, joined: JoinedTopic, peer: Peer) -> bool:
        for subscription in list(joined.subscriptions):
            await subscription.room()
        verdict = self._admits(joined, peer)
        return verdict if isinstance(verdict, bool) else await verdict

    def _admits(self, joined: JoinedTopic, peer: Peer) -> bool | Awaitable[bool]:
        if not self._guards:
            return True
        verdict = joined.admission.verdict(bytes(peer.id), _now())
        return self._answer(joined, bytes(peer.id)) if verdict is None else verdict

    def on_lost(self, peer: Peer, *, alive: bool) -> None:
        now = _now()
        for topic in list(self._topics.values()):
            topic.core.peer_disconnected(bytes(peer.id), now, alive=alive)
            self._drain(topic)

    def _peer(self, id: bytes) -> Peer:
        peer = self._peers.get(id)
        if peer is None:
            key = EndpointId(id)
            peer = self._peers[id] = Peer(key, self, self._dialer(key), self._rng)
        return peer

    def _dialer(self, id: EndpointId) -> Callable[[], Awaitable[Connection]]:
        return lambda: self._endpoint.connect(id, ALPN, timeout=DIAL_TIMEOUT)

    # What the cores want done

    def _drain(self, topic: JoinedTopic) -> None:
        while outputs := topic.core.poll():
            self._do(topic, outputs)
        self._set_timer(topic)

    def _do(self, topic: JoinedTopic, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(peer, message):
                    self._pass(topic, peer, message)
                case Deliver():
                    self._deliver(topic, output)
                case SendLog(peer, log_message):
                    if self._admitted(topic, peer):
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
        """Signed messages are checked beside the event loop, in the order of their coming."""
        if output.content.startswith(MAGIC):
            if len(topic.unchecked) < MAX_UNCHECKED:  # more are caught up, where there is a log
                topic.unchecked.append(output)
            if topic.checker is None:
                topic.checker = asyncio.create_task(self._check(topic), name=f"gossip signatures {topic.id[:5].hex()}")
        else:
            self._hand_on(topic, output, None)

    async def _check(self, topic: JoinedTopic) -> None:
        try:
            while topic.unchecked:
                batch = [topic.unchecked.popleft() for _ in range(min(len(topic.unchecked), CHECKED_AT_ONCE))]
                opened = await asyncio.to_thread(_open_all, [each.content for each in batch], topic.id)
                for output, envelope in zip(batch, opened, strict=True):
                    if envelope is None:
                        self.stats.forged += 1
                    else:
                        self._hand_on(topic, output, envelope)
                self._drain(topic)
        finally:
            topic.checker = None

    def _hand_on(self, topic: JoinedTopic, output: Deliver, envelope: Envelope | None) -> None:
        peer, content, round = output.peer, output.content, output.round
        if topic.core.log is not None and round is not None:
            topic.core.arrived(peer, content, envelope, round, _now())
        else:
            self._emit(topic, Entry(b"", content, _now(), envelope), peer, round, late=False)

    def _emit(self, topic: JoinedTopic, entry: Entry, peer: bytes, round: int | None, *, late: bool) -> None:
        event = _received(entry, EndpointId(peer), round, late=late)
        self.stats.delivered += 1
        if event.caught_up:
            self.stats.caught_up += 1
        elif event.sent_at is not None:
            self.stats.note_delay(time.time() - event.sent_at)
        topic.emit_message(event, entry.at)

    # Logs

    def _admitted(self, topic: JoinedTopic, peer: bytes) -> bool:
        """Where the program is asked about peers, logs wait until it has said yes for the topic's own sake."""
        return not self._guards or topic.admission.verdict(peer, _now()) is True

    async def serve_log(self, connection: Connection) -> None:
        await self._logs.serve(connection)

    async def on_log_message(self, peer: bytes, id: bytes, message: LogMessage) -> None:
        topic = self._topics.get(id)
        if topic is None or topic.core.log is None or not self._admitted(topic, peer):
            return
        if isinstance(message, Give):
            contents = [content for content, _ in message.contents]
            if any(content.startswith(MAGIC) for content in contents):
                opened = await asyncio.to_thread(_open_all, contents, id)
            else:
                opened = [None] * len(contents)
            if self._topics.get(id) is not topic:
                return
            given = [
                (content, age, envelope)
                for (content, age), envelope in zip(message.contents, opened, strict=True)
                if envelope is not None or not content.startswith(MAGIC)
            ]
            self.stats.forged += len(message.contents) - len(given)
            topic.core.given(peer, given, message.gone, _now())
        else:
            topic.core.log.receive(peer, message, _now())
        self._drain(topic)

    def on_log_lost(self, peer: bytes, *, spoken: bool) -> None:
        for topic in list(self._topics.values()):
            if topic.core.log is not None:
                if spoken:
                    topic.core.log.lost(peer, _now())
                else:
                    topic.core.log.not_spoken(peer, _now())
                self._drain(topic)

    def _pass(self, topic: JoinedTopic, peer: bytes, message: Message) -> None:
        """Send to who is admitted; ask the program about who is neither admitted nor refused."""
        verdict = topic.admission.verdict(peer, _now()) if self._guards else True
        if verdict:
            self._send(topic.id, peer, message)
        elif verdict is None and not isinstance(message, Disconnect):
            topic.admission.hold(peer, message)
            if self._ask(topic, peer) is None:
                topic.admission.settle(peer, False, _now())

    def _send(self, topic: bytes, id: bytes, message: Message) -> None:
        known = self._peers.get(id)
        if isinstance(message, Disconnect) and (known is None or not known.connected):
            return  # nobody there to take leave of
        if known is None and len(self._peers) >= MAX_PEERS:
            return  # as if it were not there; whoever asked asks again
        if self._encoded[0] is not message:
            self._encoded = (message, frame(encode(message)))
        framed = self._encoded[1]
        if len(framed) - 4 >= MAX_MESSAGE:
            # Only a payload at the limit can get here, with its hop count grown by a byte: an iroh reader refuses it.
            logger.debug("a message of %d bytes is not passed on", len(framed))
            return
        self.stats.sent[type(message).__name__] += 1
        (known or self._peer(id)).send(Outbound(topic, message, framed))

    def _learn(self, peer: bytes, data: bytes) -> None:
        with suppress(DecodeError):
            self._endpoint.lookup.add(decode_addresses(peer, data))

    # Who is let in

    def guard(self, admit: Admit) -> None:
        """From now on ask ``admit``, too: all have to agree."""
        self._guards.append(admit)

    def reconsider(self, id: bytes) -> None:
        """Ask about the peers of topic ``id`` again; who is refused now is put out."""
        topic = self._topics.get(id)
        if topic is not None and self._guards:
            topic.admission.forget_but(topic.core.wants)
            for peer in topic.admission.admitted:
                self._ask(topic, peer)

    async def _answer(self, topic: JoinedTopic, peer: bytes) -> bool:
        task = self._ask(topic, peer)
        try:
            return task is not None and await asyncio.shield(task)
        except asyncio.CancelledError:
            if task is not None and task.cancelled():
                return False  # the topic was left meanwhile
            raise

    def _ask(self, topic: JoinedTopic, peer: bytes) -> asyncio.Task[bool] | None:
        """One question about a peer at a time. None: too many are asked about already."""
        task = topic.asked.get(peer)
        if task is None and self._asked < MAX_ASKED and not self.closed:
            self._asked += 1
            task = asyncio.create_task(self._settle(topic, peer), name=f"gossip admission {peer[:5].hex()}")
            topic.asked[peer] = task
            task.add_done_callback(lambda _: self._asked_about(topic, peer))
        return task

    def _asked_about(self, topic: JoinedTopic, peer: bytes) -> None:
        self._asked -= 1
        topic.asked.pop(peer, None)

    async def _settle(self, topic: JoinedTopic, peer: bytes) -> bool:
        admitted = await self._judge(EndpointId(peer), topic.id)
        if self._topics.get(topic.id) is not topic:
            return False
        if not admitted and peer in topic.core.neighbors:
            self._send(topic.id, peer, Disconnect(alive=False))
        held = topic.admission.settle(peer, admitted, _now())
        for message in held:
            self._send(topic.id, peer, message)
        if not admitted:
            topic.core.peer_disconnected(peer, _now(), alive=False)
            self._drain(topic)
        return admitted

    async def _judge(self, peer: EndpointId, topic: bytes) -> bool:
        try:
            async with asyncio.timeout(ADMIT_TIMEOUT):
                for admit in self._guards:
                    answer = admit(peer, topic)
                    if not (await answer if inspect.isawaitable(answer) else answer):
                        return False
        except TimeoutError:
            logger.warning("whether %s may be in topic %s was not said in time: no", peer.short(), topic[:5].hex())
            return False
        except Exception:
            logger.exception("whether %s may be in topic %s: no", peer.short(), topic[:5].hex())
            return False
        return True

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
            now = _now()
            unused = []
            self._replace_silent(now)
            for id, peer in list(self._peers.items()):
                peer.check(now, self._config.liveness)
                wanted = any(topic.core.wants(id) for topic in self._topics.values())
                if peer.forgettable:
                    self._forget(id)
                elif not wanted and peer.connected and now - peer.active_at > LINGER:
                    unused.append(peer)
            await asyncio.gather(*(peer.retire() for peer in unused))

    def _replace_silent(self, now: float) -> None:
        """Neighbours that do not answer any more, while others do: where nobody does, it is we who are cut off."""
        liveness = self._config.liveness
        silent = {id for id, peer in self._peers.items() if peer.is_silent(now, liveness)}
        if not silent:
            return
        neighbors = {id for topic in self._topics.values() for id in topic.core.neighbors}
        if any(self._peers[id].connected for id in neighbors - silent if id in self._peers):
            for id in silent & neighbors:
                logger.info("%s does not answer: replaced", self._peers[id].id.short())
                self.on_lost(self._peers[id], alive=False)

    def _note_round_trips(self) -> None:
        measured = {id: peer.round_trip for id, peer in self._peers.items()}
        for topic in self._topics.values():
            for id in topic.core.membership.active:
                seconds = measured.get(id)
                if seconds is not None:
                    topic.core.tree.note_round_trip(id, seconds)

    def _forget(self, id: bytes) -> None:
        self._dropped += self._peers.pop(id).queue.dropped

    def _refresh_addresses(self) -> None:
        data = encode_addresses(self._endpoint.addr())
        if data != self._data:
            self._data = data
            for topic in self._topics.values():
                topic.core.set_data(data)

    async def aclose(self) -> None:
        """Leave every topic, tell the neighbours, close every connection, end every task."""
        if self.closed:
            return
        self.closed = True
        asked: list[asyncio.Task[bool]] = []
        checkers: list[asyncio.Task[None]] = []
        for topic in list(self._topics.values()):
            for subscription in topic.subscriptions:
                subscription.close()
            topic.subscriptions.clear()
            asked += topic.asked.values()
            if topic.checker is not None:
                checkers.append(topic.checker)
            self._leave(topic)
        await asyncio.gather(*asked, *checkers, return_exceptions=True)
        await self._logs.aclose()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await asyncio.gather(*(peer.aclose() for peer in self._peers.values()))
        self._peers.clear()


def _open_all(contents: list[bytes], topic: bytes) -> list[Envelope | None]:
    """None for one that is forged, and for a plain content."""
    opened: list[Envelope | None] = []
    for content in contents:
        try:
            opened.append(Envelope.open(content, topic))
        except DecodeError as error:
            logger.info("a message of topic %s is dropped: %s", topic[:5].hex(), error)
            opened.append(None)
    return opened


def _received(entry: Entry, peer: EndpointId, round: int | None, *, late: bool) -> Received:
    envelope = entry.envelope
    caught_up = round is None and bool(entry.id)
    if envelope is None:
        return Received(entry.content, peer, round, caught_up=caught_up)
    author = EndpointId(envelope.author)
    return Received(
        envelope.body, peer, round, author, envelope.number, envelope.time / 1e6, caught_up=caught_up, late=late
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
