"""Gossip as a program uses it.

gossip = Gossip(endpoint)
router = Router(endpoint, {gossip.ALPN: gossip.handle})
async with await gossip.subscribe("news", bootstrap=[addr]) as topic:
    await topic.joined(timeout=10)
    await topic.broadcast(b"hello")
    async for event in topic: ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random, SystemRandom
from types import TracebackType
from typing import ClassVar, Self

from blake3 import blake3

from ..errors import UsageError
from ..transport import Connection, Endpoint, EndpointAddr, EndpointId
from .codec import MAX_CONTENT
from .config import TopicConfig
from .driver import ALPN, Admit, Driver, JoinedTopic
from .errors import InvalidTopic, JoinTimeout, MessageTooLarge, TopicClosed
from .subscription import CAPACITY, Delivery, Event, Subscription

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
    """All topics of one endpoint. Give `handle` to the router, and close it before the endpoint.

    ``admit(peer, topic)`` says, at once or when awaited, who may be in which topic; without it everybody may.
    """

    ALPN: ClassVar[bytes] = ALPN

    def __init__(self, endpoint: Endpoint, admit: Admit | None = None, *, config: TopicConfig | None = None) -> None:
        self._endpoint = endpoint
        rng = Random(SystemRandom().getrandbits(128))  # noqa: S311 - chance among peers, not a secret
        self._driver = Driver(endpoint, config or TopicConfig(), rng)
        if admit is not None:
            self.guard(admit)

    async def subscribe(
        self,
        topic: bytes | str,
        bootstrap: Sequence[EndpointAddr | EndpointId | str] = (),
        *,
        capacity: int = CAPACITY,
    ) -> Topic:
        """Join ``topic`` through ``bootstrap``, all of them at once, and return without waiting for an answer.

        Peers that do not answer are asked again, more and more slowly. Without ``bootstrap`` we wait for others to
        join through us. ``capacity`` events are kept for a slow reader. A second subscription to a topic is a second
        view of the same membership.

        Raises InvalidTopic, InvalidKey, TopicClosed (after `aclose`).
        """
        id = topic_id(topic)
        peers = self._peers(bootstrap)
        if capacity < 1:
            raise UsageError("a subscription needs room for one event at least")
        if self._driver.closed:
            raise TopicClosed("gossip was closed here: open the node again")
        return self._subscribe(id, peers, Subscription(capacity))

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
        if self._driver.closed:
            raise TopicClosed("gossip was closed here: open the node again")
        return self._subscribe(id, peers, Delivery(deliver))

    def guard(self, admit: Admit) -> None:
        """From now on ask ``admit`` as well about peers that are not in a topic yet: all have to agree.

        A refused peer does not learn that the topic is known here. It is asked about again when it tries again.
        """
        self._driver.guard(admit)

    def reconsider(self, topic: bytes | str) -> None:
        """Ask about the peers that are in ``topic`` again: who may not be there any more is put out. Never waits."""
        self._driver.reconsider(topic_id(topic))

    async def handle(self, connection: Connection) -> None:
        """Serve a connection that a peer made; for the router. Returns when it is over."""
        self._driver.accept(connection)
        await connection.wait_closed()

    @property
    def dropped(self) -> int:
        """Messages not sent because a peer did not read fast enough, since the beginning."""
        return self._driver.dropped

    async def aclose(self) -> None:
        """Leave every topic politely and close every connection; takes two seconds at most. Safe to call twice."""
        await self._driver.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def _subscribe(self, id: bytes, peers: list[EndpointId], sink: Subscription[Event] | Delivery) -> Topic:
        handle = Topic(self, self._driver, self._driver.subscribe(id, sink), sink)
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

    def neighbors(self) -> list[EndpointId]:
        """The peers that we are connected with in this topic now, five at most."""
        return [EndpointId(peer) for peer in self._joined.core.neighbors]

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

    async def broadcast(self, data: bytes) -> None:
        """Send ``data``, at most 4057 bytes, to everybody in the topic.

        It waits only while our neighbours' queues are crowded (at most half a second for each that does not read).
        Who joins later does not get it, nor does anybody while we have no neighbour: see `joined`.

        The protocol knows messages by their content. The same bytes again within 90 seconds, from whomever, are
        swallowed: put a counter or a time into messages that may repeat.

        Raises MessageTooLarge, TopicClosed.
        """
        await self._driver.broadcast(self._joined, self._content(data))

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

    def _content(self, data: bytes) -> bytes:
        self._check()
        if not isinstance(data, bytes | bytearray | memoryview):
            raise UsageError("a message is bytes: encode text first")
        content = bytes(data)
        if len(content) > MAX_CONTENT:
            raise MessageTooLarge(
                f"{len(content)} bytes do not fit one gossip message, {MAX_CONTENT} do: put the content in a blob and"
                " broadcast its ticket"
            )
        return content
