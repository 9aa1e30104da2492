"""One peer: who dials it, which connection is used, what waits for it.

```
            send                    dialled, or it dialled us
   Idle ──────────────▶ Dialing ──────────────────────────────▶ Connected
    ▲                      │ failed: the topics are told,            │ last connection ended: the topics are told
    └──────────────────────┴─────────────────────────────────────────┘
```
Exactly one dial at a time, owned by the state, so that a failed one never leaves a queue behind that nobody empties;
after a failure, or a connection that ended young, the next waits (back-off). Of several connections the newest is
sent on, the others are still read: both sides may have dialled at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Protocol

from ...errors import TidingsError
from ...transport import Connection, EndpointId
from ...transport.bucket import Bucket
from ...transport.errors import ConnectionClosed
from ..core.config import LivenessConfig
from ..core.messages import Message
from .link import CLOSE_DONE, CLOSE_FAULT, CLOSE_MALFORMED, CLOSE_STALLED, Link
from .outbound import Outbound, OutboundQueue

__all__ = ["Connected", "Dialing", "Idle", "Peer", "PeerHost"]

logger = logging.getLogger(__name__)

BACKOFF = 0.25  # seconds before the second dial; doubles ...
BACKOFF_MAX = 10.0  # ... up to this
STABLE = 5.0  # seconds after which a connection counts as a success
MAX_LINKS = 4  # connections of one peer; more, and the oldest is closed
RATE = 20_000.0  # messages a second, and at once, that are read of a peer: several times what a swarm of ours carries
BATCH = 64 << 10  # bytes written at once
PATIENCE = 0.5  # seconds that a broadcast waits for a crowded peer, once
FULL_TIMEOUT = 30.0  # seconds that messages may be dropped before the peer is disconnected
FLUSH_TIMEOUT = 1.0  # seconds for the last messages, and again for their acknowledgement


@dataclass(frozen=True, slots=True)
class Idle:
    pass


@dataclass(frozen=True, slots=True)
class Dialing:
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class Connected:
    """At least one link."""


class PeerHost(Protocol):
    """What a peer tells the driver."""

    def on_message(self, peer: Peer, topic: bytes, message: Message) -> None: ...

    def admits(self, peer: Peer, topic: bytes) -> bool | Awaitable[bool]:
        """Whether what the peer sends for the topic may come in."""

    def vet(self, peer: Peer, message: Message) -> Message | Awaitable[Message]:
        """The message without what is forged in it."""

    def on_fault(self, peer: Peer, what: str) -> None:
        """It did what no honest peer does."""

    def on_lost(self, peer: Peer, *, alive: bool) -> None:
        """No connection is left, or none could be made; ``alive``: the last one ended in good order."""


class Peer:
    """``dial`` makes a connection or raises; its task and the links' are the peer's, until `aclose`."""

    def __init__(self, id: EndpointId, host: PeerHost, dial: Callable[[], Awaitable[Connection]], rng: Random) -> None:
        self.id = id
        self.queue = OutboundQueue()
        self.state: Idle | Dialing | Connected = Idle()
        self.active_at = _now()
        """When something of use was last sent or received."""
        self._host = host
        self._dial = dial
        self._rng = rng
        self._failures = 0
        self._allowance = Bucket(RATE, RATE, self.active_at)
        self._not_before = 0.0
        self._links: list[Link] = []
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._stalled = False
        self._writing = False
        self._batches = 0
        self._progress = (0, 0)
        self._progress_at = self.active_at
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, item: Outbound) -> None:
        """Queue ``item``, and see to it that there is a connection. Never waits."""
        self.active_at = _now()
        self.queue.push(item, self.active_at)
        self._work.set()
        if isinstance(self.state, Idle):
            self.state = Dialing(self._spawn(self._connect(), "dial"))

    async def room(self) -> None:
        """Wait while much is queued for a peer that reads; one that does not is not waited for a second time."""
        if self.queue.crowded and not self._stalled:
            self._room.clear()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._room.wait()
            except TimeoutError:
                self._stalled = True

    def attach(self, connection: Connection) -> None:
        """Use ``connection`` from now on: it is the newest."""
        if isinstance(self.state, Dialing) and self.state.task is not asyncio.current_task() and self._waiting():
            self.state.task.cancel()
        link = Link(connection, self)
        self._links.append(link)
        self.state = Connected()
        self.active_at = _now()
        self._spawn(self._serve(link), "link")
        self._work.set()
        if len(self._links) > MAX_LINKS:
            self._links[0].connection.close(CLOSE_DONE, "a newer connection is used")

    def check(self, now: float, liveness: LivenessConfig) -> None:
        """Called now and then: have a silent peer answer; disconnect one that does not read, or not fast enough."""
        if not self._links:
            return
        connection = self._links[-1].connection
        if now - connection.heard_at >= liveness.probe_after:
            connection.ping()
        progress = (self._batches, connection.unacknowledged_total())
        if not self._writing or progress != self._progress:
            self._progress, self._progress_at = progress, now
        full_since = self.queue.full_since
        stalled = now - self._progress_at > liveness.stalled_after and not self.is_silent(now, liveness)
        if stalled or (full_since is not None and now - full_since > FULL_TIMEOUT):
            logger.info("%r does not read its messages, or too slowly: disconnected", self.id)
            for link in self._links:
                link.connection.close(CLOSE_STALLED, "messages are not read")

    def is_silent(self, now: float, liveness: LivenessConfig) -> bool:
        """Whether a connected peer was asked and has not answered."""
        if not self._links:
            return False
        connection = self._links[-1].connection
        return now - connection.heard_at > max(liveness.dead_after, 4 * (connection.rtt or 0.0))

    @property
    def heard_at(self) -> float:
        """When a packet came last; 0 where there is no connection."""
        return self._links[-1].connection.heard_at if self._links else 0.0

    @property
    def round_trip(self) -> float | None:
        """Seconds, as the connection in use has measured."""
        return self._links[-1].connection.rtt if self._links else None

    @property
    def connected(self) -> bool:
        return bool(self._links)

    @property
    def forgettable(self) -> bool:
        """Nothing is known here that a new object would not know."""
        return isinstance(self.state, Idle) and not self._tasks and _now() >= self._not_before

    def put_out(self, why: str) -> None:
        """End its connections; the driver does not talk to it for now."""
        for link in self._links:
            link.connection.close(CLOSE_MALFORMED, why)

    async def retire(self) -> None:
        """No topic needs this peer: end its connections in good order, unless something is sent meanwhile."""
        since = self.active_at
        await self._finish_links()
        if self.active_at == since:
            for link in self._links:
                link.connection.close(CLOSE_DONE, "close from disconnect")

    async def aclose(self) -> None:
        """Send what waits, as far as the peer takes it in a second or two, close, and end every task."""
        if isinstance(self.state, Dialing):
            self.state.task.cancel()
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                while self._links and (self.queue or self._writing):
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            pass
        await self._finish_links()
        for link in self._links:
            link.connection.close(CLOSE_DONE, "close from disconnect")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish_links(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                for link in list(self._links):
                    await link.finish()
        except TimeoutError:
            pass

    # Dialling

    def _waiting(self) -> bool:
        return _now() < self._not_before

    async def _connect(self) -> None:
        await asyncio.sleep(max(0.0, self._not_before - _now()))
        try:
            connection = await self._dial()
        except Exception as error:
            if isinstance(error, TidingsError):
                logger.debug("%r cannot be dialled: %s", self.id, error)
            else:
                logger.exception("a fault of ours while dialling %r", self.id)
            if isinstance(self.state, Dialing) and self.state.task is asyncio.current_task():
                self._lost(alive=False)
            return
        self.attach(connection)

    def _lost(self, *, alive: bool) -> None:
        self.state = Idle()
        self._failures = min(self._failures + 1, 16)
        wait = min(BACKOFF * 2 ** (self._failures - 1), BACKOFF_MAX)
        self._not_before = _now() + wait * self._rng.uniform(0.8, 1.2)
        self.queue.clear()
        self._after_taking()
        self._host.on_lost(self, alive=alive)

    # Connections

    async def _serve(self, link: Link) -> None:
        alive = False
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(link))
                alive = _in_good_order(await link.receive())
                sender.cancel()
        except Exception:
            logger.exception("%r: a fault of ours ends the connection", link.connection)
            link.connection.close(CLOSE_FAULT, "internal error")
        finally:
            self._links.remove(link)
        self._work.set()  # an older link may be the newest now
        if not self._links:
            if _now() - link.opened_at >= STABLE:
                self._failures = 0
            self._lost(alive=alive)

    async def _send(self, link: Link) -> None:
        while True:
            newest = self._links[-1] is link
            if newest and self.queue:
                self._writing = True
                try:
                    await link.write(self.queue.take(BATCH))
                finally:
                    self._writing = False
                    self._batches += 1
                self._after_taking()
                continue
            if not newest:
                await link.finish()
            if not self.queue or not newest:
                self._work.clear()
                await self._work.wait()

    def _after_taking(self) -> None:
        if not self.queue.crowded:
            self._stalled = False
            self._room.set()

    # What links tell

    def admits(self, topic: bytes) -> bool | Awaitable[bool]:
        return self._host.admits(self, topic)

    def vet(self, message: Message) -> Message | Awaitable[Message]:
        return self._host.vet(self, message)

    def on_message(self, topic: bytes, message: Message) -> None:
        self._host.on_message(self, topic, message)

    def throttle(self, cost: int) -> float:
        return self._allowance.take(cost, _now())

    def on_malformed(self) -> None:
        self._host.on_fault(self, "malformed")

    def _spawn(self, work: Coroutine[None, None, None], what: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"gossip {what} {self.id.short()}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _in_good_order(ended: ConnectionClosed) -> bool:
    return ended.application and ended.code == CLOSE_DONE


def _now() -> float:
    return asyncio.get_running_loop().time()
