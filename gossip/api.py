"""Gossip as a program uses it.

gossip = Gossip(endpoint)
router = Router(endpoint, gossip.handlers)
async with await gossip.subscribe("news", bootstrap=[addr]) as topic:
    await topic.joined(timeout=10)
    await topic.broadcast(b"hello")
    async for event in topic: ...
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random, SystemRandom
from types import TracebackType
from typing import ClassVar, Literal, Self, get_args

from blake3 import blake3

from ..errors import UsageError
from ..transport import Connection, Endpoint, EndpointAddr, EndpointId
from .carrier import Carrier
from .core.codec import MAX_CONTENT
from .core.config import TopicConfig
from .core.envelope import MAX_BODY
from .core.log import LogConfig
from .errors import InvalidTopic, JoinTimeout, MessageTooLarge, TopicClosed
from .keeper import Keeper, KeptTopic
from .net.door import Admit
from .net.driver import Driver
from .net.joined import JoinedTopic
from .net.log_driver import LOG_ALPN
from .net.peer_set import ALPN
from .sent import Sent
from .stats import Stats
from .subscription import CAPACITY, LOG_CAPACITY, Delivery, Event, Received, Subscription, WhenFull

__all__ = ["Gossip", "Topic", "topic_id"]

TOPIC_SIZE = 32


def topic_id(topic: bytes | str) -> bytes:
    """The 32 bytes that name a topic; a text is hashed (BLAKE3 of its UTF-8)."""
    if isinstance(topic, str):
        try:
            return blake3(topic.encode()).digest()
        except UnicodeEncodeError:
            raise InvalidTopic(f"the topic {topic!r} is not whole text: give it in UTF-8") from None
    if isinstance(topic, bytes | bytearray) and len(topic) == TOPIC_SIZE:
        return bytes(topic)
    raise InvalidTopic(f"a topic is {TOPIC_SIZE} bytes, or a text of any length that is hashed")


class Gossip:
    """All topics of one endpoint. Give `handlers` to the router, and close it before the endpoint.

    ``admit(peer, topic)`` says, at once or when awaited, who may be in which topic; without it everybody may.
    """

    ALPN: ClassVar[bytes] = ALPN

    def __init__(
        self,
        endpoint: Endpoint,
        admit: Admit | None = None,
        *,
        config: TopicConfig | None = None,
        carrier: Carrier | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._endpoint = endpoint
        rng = Random(SystemRandom().getrandbits(128))  # noqa: S311 - chance among peers, not a secret
        self._driver = Driver(endpoint, config or TopicConfig(), rng, carrier, keeper)
        self._keeps = keeper is not None
        self._largest = MAX_BODY if carrier is None else max(carrier.limit, MAX_BODY)
        if admit is not None:
            self.guard(admit)

    async def subscribe(
        self,
        topic: bytes | str,
        bootstrap: Sequence[EndpointAddr | EndpointId | str] = (),
        *,
        capacity: int | None = None,
        when_full: WhenFull = "drop",
        log: LogConfig | bool = False,
        since: float | None = None,
    ) -> Topic:
        """Join ``topic`` through ``bootstrap``, all of them at once, and return without waiting for an answer.

        Peers that do not answer are asked again, more and more slowly. Without ``bootstrap`` we wait for others to
        join through us. ``capacity`` events, 1,024 or with a log 8,192, are kept for a slow reader; ``when_full`` says
        what happens then. A second subscription to a topic is a second view of the same membership.

        With a ``log`` the last messages are kept here, and compared with the logs of neighbours: who was cut off gets
        what it missed; messages are signed, and come in each author's order. ``since``, in Unix time, implies a log,
        and asks for what was sent after that as far as anybody still has it; 0 for all.

        In a node with a directory, peers of the topic are remembered and asked again the next time, and ``log`` with
        ``stored=True`` is there again after a restart.

        Raises InvalidTopic, InvalidKey, TopicClosed (after `aclose`), StoreError.
        """
        id = topic_id(topic)
        peers = self._peers(bootstrap)
        if capacity is not None and capacity < 1:
            raise UsageError("a subscription needs room for one event at least")
        if when_full not in get_args(WhenFull):
            raise UsageError(f"when_full is one of {', '.join(get_args(WhenFull))}, not {when_full!r}")
        if isinstance(log, LogConfig):
            kept: LogConfig | None = log
        else:
            kept = LogConfig() if log or since is not None else None
        at = None if since is None else _by_our_clock(since)
        if kept is not None and kept.stored and not self._keeps:
            raise UsageError("there is no store to keep the log in: open a Node, or give Gossip a keeper")
        if capacity is None:
            capacity = CAPACITY if kept is None else LOG_CAPACITY
        before = await self._driver.load(id, kept)
        return self._subscribe(id, peers, Subscription(capacity, when_full), kept, at, before)

    async def attach(
        self,
        topic: bytes | str,
        deliver: Callable[[Event], None],
        bootstrap: Sequence[EndpointAddr | EndpointId | str] = (),
    ) -> Topic:
        """As `subscribe`, but each event is given to ``deliver`` at once, which must neither wait nor work for long.

        Such a topic needs no task and no queue, so that one can take part in ten thousands; it cannot be iterated.
        """
        id = topic_id(topic)
        peers = self._peers(bootstrap)
        return self._subscribe(id, peers, Delivery(deliver))

    def guard(self, admit: Admit) -> None:
        """From now on ask ``admit`` as well about peers that are not in a topic yet: all have to agree.

        A refused peer does not learn that the topic is known here. It is asked about again when it tries again.
        """
        self._driver.guard(admit)

    def reconsider(self, topic: bytes | str) -> None:
        """Ask about the peers that are in ``topic`` again: who may not be there any more is put out. Never waits."""
        self._driver.reconsider(topic_id(topic))

    @property
    def handlers(self) -> dict[bytes, Callable[[Connection], Awaitable[None]]]:
        """For the router: the swarms' protocol, which is iroh's, and that of logs, which is ours."""
        return {ALPN: self.handle, LOG_ALPN: self._driver.serve_log}

    async def handle(self, connection: Connection) -> None:
        """Serve a connection that a peer made; for the router. Returns when it is over."""
        self._driver.accept(connection)
        await connection.wait_closed()

    @property
    def dropped(self) -> int:
        """Messages not sent because a peer did not read fast enough, since the beginning."""
        return self._driver.peers.dropped

    def scores(self) -> dict[EndpointId, float]:
        """Peers that did what no honest peer does, with their points: at 100 a peer is put out, for a minute at first.

        A frame that is not the protocol, or a content under another's id, is 60; points halve every minute.
        """
        return {EndpointId(peer): points for peer, points in self._driver.peers.scores().items()}

    @property
    def stats(self) -> Stats:
        """What was counted since the beginning; `GossipCollector` makes metrics of it."""
        return self._driver.stats

    def sizes(self) -> tuple[int, int]:
        """How many topics are subscribed, and how many neighbours there are in all of them together."""
        return self._driver.sizes()

    async def aclose(self) -> None:
        """Leave every topic politely and close every connection; takes two seconds at most. Safe to call twice."""
        await self._driver.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def _subscribe(
        self,
        id: bytes,
        peers: list[EndpointId],
        sink: Subscription[Event] | Delivery,
        log: LogConfig | None = None,
        since: float | None = None,
        before: KeptTopic | None = None,
    ) -> Topic:
        if self._driver.closed:
            raise TopicClosed("gossip was closed here: open the node again")
        handle = Topic(self, self._driver, self._driver.subscribe(id, sink, log, since, before), sink)
        if peers:
            self._driver.join(handle._joined, peers)
        return handle

    def _peers(self, targets: Sequence[EndpointAddr | EndpointId | str]) -> list[EndpointId]:
        if isinstance(targets, str):
            raise UsageError("give bootstrap peers as a list, even a single one")
        ids = []
        for target in targets:
            if isinstance(target, EndpointAddr):
                self._endpoint.lookup.add(target)
                ids.append(target.id)
            else:
                ids.append(EndpointId.parse(target) if isinstance(target, str) else target)
        return [id for id in ids if id != self._endpoint.id]


class Topic:
    """A subscription; made by `Gossip.subscribe`. Iterate it for events; the last handle to close leaves the topic.

    Membership and messages of one topic know nothing of another.
    """

    def __init__(
        self, gossip: Gossip, driver: Driver, joined: JoinedTopic, subscription: Subscription[Event] | Delivery
    ) -> None:
        self._gossip = gossip
        self._driver = driver
        self._joined = joined
        self._subscription = subscription
        self._closed = False

    @property
    def id(self) -> bytes:
        """The topic's 32 bytes."""
        return self._joined.id

    @property
    def lost(self) -> int:
        """Events that this subscription did not get, since it was not read fast enough."""
        return self._subscription.lost

    def neighbors(self) -> list[EndpointId]:
        """The peers that we are connected with in this topic now, five at most."""
        return [EndpointId(peer) for peer in self._joined.core.neighbors]

    def roles(self) -> dict[EndpointId, Literal["eager", "lazy"]]:
        """Of each neighbour: ``eager``, we push it every message; ``lazy``, we tell it what we have, and it may ask."""
        tree = self._joined.core.tree
        roles: dict[EndpointId, Literal["eager", "lazy"]] = {EndpointId(peer): "eager" for peer in tree.eager}
        roles.update({EndpointId(peer): "lazy" for peer in tree.lazy})
        return roles

    async def joined(self, timeout: float = 30.0) -> None:
        """Wait until there is a neighbour. JoinTimeout after ``timeout`` seconds; asking goes on behind that."""
        self._check()
        try:
            async with asyncio.timeout(timeout):
                await self._joined.joined()
        except TimeoutError:
            raise JoinTimeout(
                f"no peer of topic {self.id[:5].hex()} answered within {timeout:g} s: check that a bootstrap peer is"
                " running, can be reached and is subscribed to the same topic"
            ) from None

    async def broadcast(self, data: bytes, *, signed: bool | None = None) -> Sent:
        """Send ``data`` to everybody in the topic.

        Up to 4057 bytes (3909 where it is signed) travel as a message. Where there is a carrier, as in a `Node`, it
        keeps what is larger, up to its ``limit``, and whoever gets the message, which is signed then, fetches that.

        It waits only while our neighbours' queues are crowded (at most half a second for each that does not read).
        Without a log, who joins later does not get it, nor does anybody while we have no neighbour: see `joined`.

        ``signed``: as the topic has a log. A signed message says who wrote it and which of the author's it is; programs
        of iroh's see that around the content.

        The protocol knows plain messages by their content. The same bytes again within 90 seconds, from whomever, are
        refused: sign them, or put a counter or a time into them.

        Raises MessageTooLarge, TopicClosed.
        """
        if signed is None:
            signed = self._joined.core.log is not None or len(data) > MAX_CONTENT
        content = self._content(data, self._gossip._largest if signed else MAX_CONTENT)
        return await self._driver.broadcast(self._joined, content, signed=signed)

    async def history(self, since: float = 0.0) -> AsyncIterator[Received]:
        """The messages in our log that were new after ``since``, in Unix time; the oldest first. UsageError: no log."""
        self._check()
        async for event in self._driver.history(self._joined, _by_our_clock(since)):
            yield event

    async def broadcast_neighbors(self, data: bytes) -> None:
        """Send ``data`` to our direct neighbours only. Here the same bytes may be sent again. Raises as `broadcast`."""
        await self._driver.broadcast_neighbors(self._joined, self._content(data))

    async def join_peers(self, peers: Sequence[EndpointAddr | EndpointId | str]) -> None:
        """Join the topic through more peers, as `Gossip.subscribe` does."""
        self._check()
        self._driver.join(self._joined, self._gossip._peers(peers))

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event; the iteration ends when the topic is closed."""
        if isinstance(self._subscription, Delivery):
            raise UsageError("the events of this topic are delivered: subscribe to iterate them")
        event = await self._subscription.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """End this subscription. With the last one of the topic, its neighbours are told that we leave."""
        if not self._closed:
            self._closed = True
            self._driver.unsubscribe(self._joined, self._subscription)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def _check(self) -> None:
        if self._closed or self._driver.closed:
            raise TopicClosed("this topic was closed here: subscribe again")

    def _content(self, data: bytes, most: int = MAX_CONTENT) -> bytes:
        self._check()
        if not isinstance(data, bytes | bytearray | memoryview):
            raise UsageError("a message is bytes: encode text first")
        content = bytes(data)
        if len(content) > most:
            raise MessageTooLarge(
                f"{len(content)} bytes are more than the {most} that are sent here: give Gossip a carrier, or put the"
                " content in a blob and broadcast its ticket"
            )
        return content


def _by_our_clock(unix_time: float) -> float:
    """The same moment by the loop's clock."""
    return asyncio.get_running_loop().time() - (time.time() - unix_time)
