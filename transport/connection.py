"""A connection to a peer that has proved its key: streams, datagrams, and the end.

A `Connection` belongs to the endpoint's driver, which feeds its engine with datagrams and time and calls `pump` after
every change; what comes out are events for streams here and datagrams for the socket. Nothing in this file waits for
the network by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal, Protocol

from aioquic.quic import events
from aioquic.quic.packet import QuicErrorCode

from .engine import Engine
from .errors import ConnectionClosed, DatagramTooLarge
from .keys import EndpointId
from .paths import PathInfo
from .paths.place import Place
from .paths.route import Route
from .stream import BiStream, RecvStream, SendStream

__all__ = ["NO_PACKET", "Connection", "ConnectionHost"]

logger = logging.getLogger(__name__)

KEEP_ALIVE = 5.0  # seconds without a packet from the peer before the dialling side pings (iroh's heartbeat)
HANDSHAKE_TIMEOUT = 10.0  # seconds for a handshake that somebody else started
MAX_UNACCEPTED = 1024  # streams waiting for accept_bi or accept_uni; more, and the connection is closed
MAX_DATAGRAMS = 1024  # received and unread (the oldest is dropped), or queued to send (the newest is)
MAX_DATAGRAM_BYTES = 2 << 20  # received and unread: a peer's may be as large as UDP allows
MAX_REASON = 200  # bytes of a close reason that is sent
OVERLOADED = 0x71D1  # application close code: too many streams that nobody accepted


NO_PACKET = "no packet from the peer for too long"
"""The reason of a connection that ended by silence."""


class ConnectionHost(Protocol):
    """What a connection needs of the driver under it."""

    def touch(self, connection: Connection) -> None:
        """The connection has something to send: call `pump` soon."""


class Connection:
    """Made by `Endpoint.connect` and `Endpoint.incoming`; both ends have proved their keys."""

    def __init__(self, host: ConnectionHost, engine: Engine, route: Route, *, now: float) -> None:
        self._host = host
        self._engine = engine
        self._route = route
        self._remote: EndpointId | None = None
        self._alpn = b""
        self._closed: ConnectionClosed | None = None
        self._closing_here = False
        self._send: dict[int, SendStream] = {}
        self._recv: dict[int, RecvStream] = {}
        self._bi: deque[BiStream] = deque()
        self._uni: deque[RecvStream] = deque()
        self._received: deque[bytes] = deque()
        self._received_size = 0
        self._dropped_datagrams = 0
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._established = False
        self._confirmed = False
        self._last_place: Place | None = None
        self._heard_at = self._kept_at = self._started_at = now
        self.on_established: Callable[[Connection], None] | None = None
        self.on_connection_id: Callable[[bytes, bool], None] | None = None

    # -- who ------------------------------------------------------------------------------------------------------

    @property
    def remote_id(self) -> EndpointId:
        """The key that the peer has proved."""
        assert self._remote is not None, "a connection is handed out only after its handshake"
        return self._remote

    @property
    def alpn(self) -> bytes:
        """The protocol that both sides agreed on."""
        return self._alpn

    @property
    def is_client(self) -> bool:
        """Whether this side dialled."""
        return self._engine.configuration.is_client

    @property
    def rtt(self) -> float:
        """Smoothed round-trip time in seconds; the QUIC initial value until one was measured."""
        measured = self._engine.rtt
        return self._engine.configuration.initial_rtt if measured is None else measured

    def paths(self) -> list[PathInfo]:
        """The ways to the peer that are known to work, the one in use first."""
        return self._route.paths()

    async def watch_paths(self) -> AsyncIterator[list[PathInfo]]:
        """`paths` now, and whenever a way comes, goes or is chosen; ends with the connection."""
        while True:
            yield self.paths()
            try:
                await self._wait("paths")
            except ConnectionClosed:
                return

    def note_paths(self) -> None:
        """What `paths` says has changed."""
        self._wake("paths")

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._established else "connecting"
        return f"<Connection {'to' if self.is_client else 'from'} {self._remote!r} {self._alpn!r} {state}>"

    @property
    def replayable(self) -> bool:
        """Whether what comes now may be a copy of what the peer has sent once before (early data, RFC 9001 9.2).

        Only on connections of protocols that take early data, until `confirmed`.
        """
        return not self._confirmed

    async def confirmed(self) -> bool:
        """Wait for the end of the handshake; whether the peer took what was sent before. ConnectionClosed.

        What it did not take was sent again.
        """
        while not self._confirmed:
            await self._wait("confirmed")
        return self._engine.early_data_accepted

    # -- streams --------------------------------------------------------------------------------------------------

    async def open_bi(self) -> BiStream:
        """Open a stream both ways; waits while the peer allows no more of them."""
        id = await self._open(unidirectional=False)
        stream = BiStream(SendStream(self, id), RecvStream(self, id))
        self._send[id], self._recv[id] = stream.send, stream.recv
        return stream

    async def open_uni(self) -> SendStream:
        """Open a stream that only we send on; waits while the peer allows no more of them."""
        id = await self._open(unidirectional=True)
        self._send[id] = stream = SendStream(self, id)
        return stream

    async def accept_bi(self) -> BiStream:
        """The next stream that the peer opened both ways; ConnectionClosed once there will be none."""
        while not self._bi:
            await self._wait("bi")
        return self._bi.popleft()

    async def accept_uni(self) -> RecvStream:
        """The next stream that the peer opened to send on; ConnectionClosed once there will be none."""
        while not self._uni:
            await self._wait("uni")
        return self._uni.popleft()

    # -- datagrams ------------------------------------------------------------------------------------------------

    @property
    def max_datagram_size(self) -> int:
        """Bytes of the largest datagram that can be sent now; 0 where the peer takes none."""
        return self._engine.max_datagram

    def send_datagram(self, data: bytes) -> None:
        """Send unreliably, without waiting: when too many are queued, the new one is dropped as the network might do.

        DatagramTooLarge where it does not fit one packet; ConnectionClosed after the end.
        """
        self._check_open()
        if len(data) > self.max_datagram_size:
            raise DatagramTooLarge(
                f"a datagram of {len(data)} bytes does not fit: at most {self.max_datagram_size} go to this peer now"
            )
        if self._engine.queued_datagrams >= MAX_DATAGRAMS:
            self._dropped_datagrams += 1
            return
        self._engine.send_datagram_frame(bytes(data))
        self._host.touch(self)

    async def read_datagram(self) -> bytes:
        """The next datagram; the oldest unread ones are dropped where the program is slower than the peer."""
        while not self._received:
            await self._wait("datagram")
        data = self._received.popleft()
        self._received_size -= len(data)
        return data

    @property
    def dropped_datagrams(self) -> int:
        """How many datagrams were dropped here, for want of room, in either direction."""
        return self._dropped_datagrams

    # -- the end --------------------------------------------------------------------------------------------------

    @property
    def heard_at(self) -> float:
        """When the last packet came from the peer, by the loop's clock."""
        return self._heard_at

    def ping(self) -> None:
        """Have the peer answer at once; see `heard_at`. Without effect on a connection that is over."""
        if self._established and self._engine.ending is None:
            self._engine.keep_alive()
            self._host.touch(self)

    @property
    def closed(self) -> ConnectionClosed | None:
        """Why the connection is over, or None while it is not."""
        return self._closed

    def close(self, code: int = 0, reason: str = "") -> None:
        """End the connection at once; the peer sees ``code`` and ``reason``. What is unsent is lost.

        To end politely, finish the streams and wait for `SendStream.stopped` first.
        """
        if self._closed is None:
            self._closing_here = self._engine.ending is None
            short = reason.encode()[:MAX_REASON].decode(errors="ignore")
            self._engine.close(error_code=code, reason_phrase=short)
            self._host.touch(self)
            self._note_end()

    async def wait_closed(self) -> ConnectionClosed:
        """Wait for the end, and return (not raise) why."""
        while self._closed is None:
            await self._wait("closed")
        return self._closed

    # -- what streams call ----------------------------------------------------------------------------------------

    def write_stream(self, id: int, data: bytes, *, end: bool = False) -> None:
        self._check_open()
        self._engine.send_stream_data(id, data, end)
        self._host.touch(self)

    def reset_stream(self, id: int, code: int) -> None:
        if self._closed is None and not self._engine.send_finished(id):
            self._engine.reset_stream(id, code)
            self._host.touch(self)

    def stop_stream(self, id: int, code: int) -> None:
        if self._closed is None:
            self._engine.stop_receiving(id, code)
            self._host.touch(self)

    def credit(self, id: int, size: int, *, stream_too: bool = True) -> None:
        if self._closed is None and self._engine.credit(id, size, stream_too=stream_too):
            self._host.touch(self)

    def unacknowledged(self, id: int) -> int:
        return self._engine.unacknowledged(id)

    def unacknowledged_total(self) -> int:
        return sum(map(self._engine.unacknowledged, self._send))

    def send_finished(self, id: int) -> bool:
        return self._engine.send_finished(id)

    # -- what the driver calls ------------------------------------------------------------------------------------

    @property
    def established(self) -> bool:
        """Both sides have accepted each other, or early data may go; set once, never cleared."""
        return self._established

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def route(self) -> Route:
        return self._route

    @property
    def place(self) -> Place | None:
        """Where datagrams for the peer go now; None while nobody has answered a dial."""
        return self._route.place

    def receive(self, datagram: bytes, place: Place, now: float) -> None:
        self._heard_at = now
        self._route.receive(datagram, place, now)
        self._engine.end_silence()

    def deadline(self) -> float | None:
        """When `on_timer` must be called, in the loop's time; None once the connection is over."""
        at = self._engine.get_timer()
        if at is None or self._engine.ending is not None:
            return at
        if not self._established:
            return at if self.is_client else min(at, self._started_at + HANDSHAKE_TIMEOUT)
        return min(at, max(self._heard_at, self._kept_at) + KEEP_ALIVE) if self.is_client else at

    def on_timer(self, now: float) -> None:
        engine_at = self._engine.get_timer()
        if engine_at is not None and now >= engine_at:
            self._engine.handle_timer(now)
        if self._engine.ending is not None:
            return
        if not self._established:
            if not self.is_client and now >= self._started_at + HANDSHAKE_TIMEOUT:
                self._engine.close(error_code=QuicErrorCode.NO_ERROR, reason_phrase="the handshake took too long")
        elif self.is_client and now >= max(self._heard_at, self._kept_at) + KEEP_ALIVE:
            self._kept_at = now
            self._engine.keep_alive()

    def pump(self, now: float) -> Sequence[tuple[bytes, Place]]:
        """Hand events to streams and waiters; returns the datagrams to send. To be called after every change."""
        self._handle_events()
        datagrams = [] if self._engine.over else self._route.address(self._engine.datagrams_to_send(now))
        self._handle_events()
        if not self._confirmed and self._engine.ending is None:
            self._advance()
        if self._route.place != self._last_place:
            self._last_place = self._route.place
            self.note_paths()
        self._note_end()
        self._progress()
        return datagrams

    # -- inside ---------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """The handshake may have come to where the connection can be used, or to its end."""
        engine = self._engine
        if not self._established and (engine.confirmed or engine.early):
            self._remote = engine.peer_id or engine.expected
            self._alpn = engine.alpn
            self._establish()
        if engine.confirmed:
            self._confirmed = True
            self._route.settle()
            self._wake("confirmed")

    def _establish(self) -> None:
        self._established = True
        self._wake("established")
        if self.on_established is not None:
            self.on_established(self)

    async def wait_established(self) -> None:
        """Wait until the connection can be used; ConnectionClosed where it never will."""
        while not self._established:
            await self._wait("established")

    async def _open(self, *, unidirectional: bool) -> int:
        while True:
            self._check_open()
            id = self._engine.open_stream(unidirectional=unidirectional)
            if id is not None:
                return id
            await self._wait("credit")

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed.with_traceback(None)  # one object for all: it must not collect every place it went by

    async def _wait(self, what: str) -> None:
        """Until `_wake` is called for ``what``; raises where the connection is over."""
        self._check_open()
        waiter = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(what, [])
        waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in waiters:
                waiters.remove(waiter)

    def _wake(self, what: str) -> None:
        for waiter in self._waiting.pop(what, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _handle_events(self) -> None:
        while (event := self._engine.next_event()) is not None:
            match event:
                case events.StreamDataReceived():
                    if (stream := self._receiving(event.stream_id)) is not None:
                        stream.on_data(event.data, event.end_stream)
                        if event.end_stream:
                            self._recv.pop(event.stream_id, None)
                case events.StreamReset():
                    if (stream := self._receiving(event.stream_id)) is not None:
                        stream.on_reset(event.error_code, self._engine.received(event.stream_id))
                        self._recv.pop(event.stream_id, None)
                case events.StopSendingReceived():
                    if event.stream_id not in self._send and not self._engine.send_finished(event.stream_id):
                        self._receiving(event.stream_id)  # nothing else of this stream has come yet
                    if (sender := self._send.get(event.stream_id)) is not None:
                        sender.on_stopped(event.error_code)
                case events.DatagramFrameReceived():
                    self._received.append(event.data)
                    self._received_size += len(event.data)
                    while len(self._received) > MAX_DATAGRAMS or self._received_size > MAX_DATAGRAM_BYTES:
                        self._received_size -= len(self._received.popleft())
                        self._dropped_datagrams += 1
                    self._wake("datagram")
                case events.ConnectionIdIssued() | events.ConnectionIdRetired():
                    if self.on_connection_id is not None:
                        issued = isinstance(event, events.ConnectionIdIssued)
                        self.on_connection_id(event.connection_id, issued)

    def _receiving(self, id: int) -> RecvStream | None:
        """The receiving half of a stream, made and queued for accept where the peer has just opened it."""
        stream = self._recv.get(id)
        if stream is not None or self._closed is not None or (id & 1 == 0) == self.is_client:
            return stream
        if len(self._bi) + len(self._uni) >= MAX_UNACCEPTED:
            self.close(OVERLOADED, "too many streams that nobody accepts")
            return None
        self._recv[id] = stream = RecvStream(self, id)
        if id & 2:
            self._uni.append(stream)
            self._wake("uni")
        else:
            self._send[id] = SendStream(self, id)
            self._bi.append(BiStream(self._send[id], stream))
            self._wake("bi")
        return stream

    def _progress(self) -> None:
        """Acknowledgements and new limits may let somebody go on."""
        for id, stream in list(self._send.items()):
            stream.on_progress()
            if self._engine.send_finished(id):
                del self._send[id]
        self._wake("credit")

    def _note_end(self) -> None:
        """As soon as the end is known everybody who waits learns it; the engine may go on to close politely."""
        end = self._engine.ending
        if end is None or self._closed is not None:
            return
        by: Literal["local", "peer", "network"] = "network"
        if self._closing_here:
            by = "local"
        elif self._engine.ended_by_peer:
            by = "peer"
        reason = end.reason_phrase
        if by == "network" and reason == "Idle timeout":
            reason = NO_PACKET
        application = end.frame_type is None
        peer = self._remote or self._engine.peer_id
        self._closed = ConnectionClosed(int(end.error_code), reason, by=by, application=application, peer=peer)
        for sender in self._send.values():
            sender.on_lost(self._closed)
        for receiver in self._recv.values():
            receiver.on_lost(self._closed)
        self._send.clear()
        self._recv.clear()
        self._wake("closed")
        for what in list(self._waiting):
            for waiter in self._waiting.pop(what):
                if not waiter.done():
                    waiter.set_exception(self._closed)
        logger.debug("%r: %s", self, self._closed)
