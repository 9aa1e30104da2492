"""The peers of all topics: who is connected or dialled, how each stands with us, who fell silent, who is of no use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol

from ...transport import Connection, Endpoint, EndpointId, frame
from ..core.codec import MAX_MESSAGE, encode
from ..core.config import LivenessConfig
from ..core.messages import Disconnect, Message
from ..core.records import Claims, RecordBook, check_records
from ..stats import Stats
from .link import CLOSE_BUSY, CLOSE_MALFORMED
from .outbound import Outbound
from .peers import Peer
from .standing import Standing

__all__ = ["ALPN", "DIAL_TIMEOUT", "SWEEP", "PeerSet", "PeerSetHost"]

logger = logging.getLogger(__name__)

ALPN = b"/iroh-gossip/1"
MAX_PEERS = 1024  # connected or dialled at once; further ones are neither accepted nor dialled
LINGER = 5.0  # seconds that a connection stays open after the last topic that needed it
DIAL_TIMEOUT = 10.0
SWEEP = 0.25  # seconds between two sweeps
FAULT_POINTS = 60.0  # for bytes that are not the protocol, or a content under another's id


class PeerSetHost(Protocol):
    """What the topics are told and asked. Peers are 32 raw bytes."""

    def on_message(self, peer: bytes, topic: bytes, message: Message) -> bool:
        """Whether there is such a topic here."""

    def admits(self, peer: bytes, topic: bytes) -> bool | Awaitable[bool]:
        """Whether what the peer sends for the topic may come in."""

    def on_lost(self, peer: bytes, *, alive: bool) -> None:
        """No connection is left, or none could be made; ``alive``: the last one ended in good order."""

    def wants(self, peer: bytes) -> bool:
        """Whether a connection is of use to a topic."""

    def neighbors(self) -> set[bytes]:
        """Of all topics."""


class PeerSet:
    def __init__(
        self, endpoint: Endpoint, liveness: LivenessConfig, rng: Random, stats: Stats, host: PeerSetHost
    ) -> None:
        self._endpoint = endpoint
        self._liveness = liveness
        self._rng = rng
        self._stats = stats
        self._host = host
        self._peers: dict[bytes, Peer] = {}
        self._standing = Standing()
        self._records = RecordBook()
        self._encoded: tuple[Message | None, bytes] = (None, b"")
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Messages dropped because a peer's queue was full, since the beginning."""
        return self._dropped + sum(peer.queue.dropped for peer in self._peers.values())

    def get(self, peer: bytes) -> Peer | None:
        return self._peers.get(peer)

    def accept(self, connection: Connection) -> None:
        """Take over a connection that a peer made."""
        peer = bytes(connection.remote_id)
        if peer not in self._peers and len(self._peers) >= MAX_PEERS:
            connection.close(CLOSE_BUSY, "no more peers are taken here")
        elif not self.turned_away(connection):
            self._peer(peer).attach(connection)

    def send(self, topic: bytes, peer: bytes, message: Message) -> None:
        """Queue ``message``, dialling the peer where there is no connection. Never waits."""
        known = self._peers.get(peer)
        if isinstance(message, Disconnect) and (known is None or not known.connected):
            return  # nobody there to take leave of
        if self.is_out(peer) or (known is None and len(self._peers) >= MAX_PEERS):
            return  # as if it were not there; whoever asked asks again
        if self._encoded[0] is not message:
            self._encoded = (message, frame(encode(message)))
        framed = self._encoded[1]
        if len(framed) - 4 >= MAX_MESSAGE:
            # Only a payload at the limit can get here, with its hop count grown by a byte: an iroh reader refuses it.
            logger.debug("a message of %d bytes is not passed on", len(framed))
            return
        self._stats.sent[type(message).__name__] += 1
        (known or self._peer(peer)).send(Outbound(topic, message, framed))

    async def aclose(self) -> None:
        await asyncio.gather(*(peer.aclose() for peer in self._peers.values()))
        self._peers.clear()

    def _peer(self, id: bytes) -> Peer:
        peer = self._peers.get(id)
        if peer is None:
            key = EndpointId(id)
            peer = self._peers[id] = Peer(key, self, self._dialer(key), self._rng)
        return peer

    def _dialer(self, id: EndpointId) -> Callable[[], Awaitable[Connection]]:
        return lambda: self._endpoint.connect(id, ALPN, timeout=DIAL_TIMEOUT)

    # Who misbehaves

    def fault(self, peer: bytes, what: str) -> None:
        """It did what no honest peer does."""
        self._stats.faults[what] += 1
        if self._standing.fault(peer, FAULT_POINTS, _now()):
            logger.warning("%s: too many faults (%s): put out for a while", EndpointId(peer).short(), what)
            known = self._peers.get(peer)
            if known is not None:
                known.put_out("too many faults")

    def is_out(self, peer: bytes) -> bool:
        return bool(self._standing) and self._standing.is_out(peer, _now())

    def turned_away(self, connection: Connection) -> bool:
        """Whether the peer is out; then its connection is closed."""
        out = self.is_out(bytes(connection.remote_id))
        if out:
            connection.close(CLOSE_MALFORMED, "too many faults: try again later")
        return out

    def scores(self) -> dict[bytes, float]:
        return self._standing.points(_now())

    # What peers tell

    def on_message(self, peer: Peer, topic: bytes, message: Message) -> None:
        self._stats.received[type(message).__name__] += 1
        if self._host.on_message(bytes(peer.id), topic, message):
            peer.active_at = _now()

    def admits(self, peer: Peer, topic: bytes) -> bool | Awaitable[bool]:
        return self._host.admits(bytes(peer.id), topic)

    def vet(self, peer: Peer, message: Message) -> Message | Awaitable[Message]:
        sender = bytes(peer.id)
        claims = self._records.unchecked(message, sender)
        return self._vet(message, sender, claims) if claims else self._records.vet(message, sender, {})

    async def _vet(self, message: Message, sender: bytes, claims: Claims) -> Message:
        times = await asyncio.to_thread(check_records, claims)
        return self._records.vet(message, sender, times)

    def on_fault(self, peer: Peer, what: str) -> None:
        self.fault(bytes(peer.id), what)

    def on_lost(self, peer: Peer, *, alive: bool) -> None:
        self._host.on_lost(bytes(peer.id), alive=alive)

    # Now and then

    async def sweep(self) -> None:
        """Replace who is silent, disconnect who does not read, end what nobody needs."""
        now = _now()
        unused = []
        self._replace_silent(now)
        for id, peer in list(self._peers.items()):
            peer.check(now, self._liveness)
            if peer.forgettable:
                self._dropped += self._peers.pop(id).queue.dropped
            elif peer.connected and now - peer.active_at > LINGER and not self._host.wants(id):
                unused.append(peer)
        await asyncio.gather(*(peer.retire() for peer in unused))

    def _replace_silent(self, now: float) -> None:
        """Neighbours that do not answer any more, while others do: where nobody does, it is we who are cut off."""
        silent = {id for id, peer in self._peers.items() if peer.is_silent(now, self._liveness)}
        if not silent:
            return
        neighbors = self._host.neighbors()
        latest = max((self._peers[id].heard_at for id in neighbors - silent if id in self._peers), default=0.0)
        for id in silent & neighbors:
            peer = self._peers[id]
            # Idle neighbours that live were heard so lately, each at another moment, when we were cut off from all.
            if latest > peer.heard_at + self._liveness.probe_after + SWEEP + (peer.round_trip or 0.0):
                logger.info("%s does not answer: replaced", peer.id.short())
                self._host.on_lost(id, alive=False)


def _now() -> float:
    return asyncio.get_running_loop().time()
