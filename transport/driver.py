"""The asyncio driver under an endpoint: its sockets, its connections, one timer.

Every datagram goes to a connection by its connection id. A batch of received datagrams is fed first, then each touched
connection is pumped once, so that acknowledgements and data leave in few large sends. Datagrams that belong to nobody
are a new connection (if the endpoint accepts), a version to negotiate, a peer's stateless reset, or get one of ours; in
number and size those answers never exceed what came in (RFC 9000 8.1, 10.3).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler
from blake3 import blake3

from .connection import Connection
from .engine import CID_SIZE, INTERNAL_ERROR, RESET_TOKEN_SIZE, Engine, make_configuration
from .errors import EndpointClosed
from .keys import EndpointId, SecretKey
from .udp import SocketAddress, UdpSocket

__all__ = ["Driver"]

logger = logging.getLogger(__name__)

IDLE_TIMEOUT = 30.0  # seconds; the smaller of both sides' counts (iroh's figure)
RECEIVE_CALLS = 64  # system calls for each wake-up, so that timers and tasks get their turn
RETRY_ABOVE = 64  # handshakes under way from others: above, clients must prove their address first (RFC 9000 8.1.2)
MAX_HANDSHAKES = 1024  # above, new ones are dropped
MAX_HANDSHAKES_OF_HOST = 128  # from one IPv4 address or IPv6 /64: one host must not use them all up
MAX_CONNECTIONS = 65_536
SPARE_TIMERS = 64  # heap entries kept beside those in use before the heap is cleaned
MIN_INITIAL = 1200  # bytes of the datagram that may start a connection (RFC 9000 14.1)
MIN_RESET = 5 + RESET_TOKEN_SIZE  # bytes of the smallest stateless reset (RFC 9000 10.3)
RESET_INTERVAL = 0.02  # seconds between two stateless resets (iroh's figure)
PLACES_INTERVAL = 0.5  # seconds between two looks at where all peers are
INVALID_PACKET = "a packet from the peer made the engine fail"


class Driver:
    """Owns the sockets. ``on_incoming`` is called with each accepted connection once the peer's key is proved."""

    def __init__(self, secret: SecretKey, sockets: Sequence[UdpSocket], on_incoming: Callable[[Connection], None]):
        self._loop = asyncio.get_running_loop()
        self._secret = secret
        self._sockets = {socket.family: socket for socket in sockets}
        self._on_incoming = on_incoming
        self._server: QuicConfiguration | None = None
        self._by_cid: dict[bytes, Connection] = {}
        self._cids: dict[Connection, set[bytes]] = {}
        self._handshakes: dict[Connection, bytes] = {}
        self._handshakes_of: Counter[bytes] = Counter()
        self._touched: dict[Connection, None] = {}
        self._flush_handle: asyncio.Handle | None = None
        self._timers: list[tuple[float, int, Connection]] = []
        self._armed: dict[Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._order = itertools.count()
        self._retry = QuicRetryTokenHandler()
        self._reset_key = blake3(secret.to_bytes(), derive_key_context="tidings 2026-11 stateless reset").digest()
        self._reset_sent_at = 0.0
        self._places: dict[SocketAddress | None, list[bytes]] = {}  # connection ids by the peer's address
        self._places_at = -PLACES_INTERVAL
        for socket in sockets:
            self._loop.add_reader(socket.fileno(), self._on_readable, socket)

    @property
    def sockets(self) -> list[UdpSocket]:
        return list(self._sockets.values())

    def has_family(self, version: int) -> bool:
        """Whether there is a socket for IPv4 (4) or IPv6 (6)."""
        return any(socket.local.ip.version == version for socket in self._sockets.values())

    def accept(self, alpns: Sequence[bytes]) -> None:
        """Accept connections for these protocols from now on; none stops accepting."""
        self._server = (
            make_configuration(self._secret, is_client=False, alpns=alpns, idle=IDLE_TIMEOUT) if alpns else None
        )

    def dial(self, expected: EndpointId, alpns: Sequence[bytes], addr: SocketAddress) -> Connection:
        """Start a handshake with whoever is at ``addr`` and must hold ``expected``."""
        if self._closed:
            raise EndpointClosed("this endpoint is closed: bind a new one")
        now = self._loop.time()
        engine = Engine(
            configuration=make_configuration(self._secret, is_client=True, alpns=alpns, idle=IDLE_TIMEOUT),
            expected=expected,
            reset_token=self._reset_token,
        )
        connection = self._adopt(engine, now)
        engine.connect(addr, now)
        self.touch(connection)
        return connection

    def connections(self) -> list[Connection]:
        """Those that are open, their handshake done."""
        return [connection for connection in self._cids if connection.established and connection.closed is None]

    # -- connections ----------------------------------------------------------------------------------------------

    def _adopt(self, engine: Engine, now: float) -> Connection:
        connection = Connection(self, engine, now=now)
        self._cids[connection] = set()
        self._own(connection, engine.host_cid, True)
        connection.on_connection_id = lambda cid, issued: self._own(connection, cid, issued)
        return connection

    def _own(self, connection: Connection, cid: bytes, issued: bool) -> None:
        if issued:
            self._by_cid[cid] = connection
            self._cids[connection].add(cid)
        else:
            self._by_cid.pop(cid, None)
            self._cids[connection].discard(cid)

    def _forget(self, connection: Connection) -> None:
        for cid in self._cids.pop(connection, ()):
            self._by_cid.pop(cid, None)
        self._end_handshake(connection)
        self._touched.pop(connection, None)
        self._armed.pop(connection, None)
        connection.on_established = connection.on_connection_id = None

    # -- receiving ------------------------------------------------------------------------------------------------

    def _on_readable(self, socket: UdpSocket) -> None:
        now = self._loop.time()
        for datagram, addr in socket.receive(RECEIVE_CALLS):
            connection = self._by_cid.get(_destination_cid(datagram))
            if connection is None:
                self._receive_from_stranger(socket, datagram, addr, now)
            else:
                self._feed(connection, datagram, addr, now)
        self._flush()

    def _feed(self, connection: Connection, datagram: bytes, addr: SocketAddress, now: float) -> None:
        try:
            connection.receive(datagram, addr, now)
        except Exception:
            # The engine must not fail on any bytes; where it does, it costs this connection and nobody else.
            logger.exception("%s; closing %r", INVALID_PACKET, connection)
            connection.engine.close(error_code=INTERNAL_ERROR, frame_type=0, reason_phrase=INVALID_PACKET)
        self._touched[connection] = None

    def _receive_from_stranger(self, socket: UdpSocket, datagram: bytes, addr: SocketAddress, now: float) -> None:
        try:
            header = pull_quic_header(Buffer(data=datagram), host_cid_length=CID_SIZE)
        except ValueError:  # BufferReadError is one
            return
        if header.version is None:
            self._receive_short(socket, datagram, addr, now)
        elif self._server is None or len(datagram) < MIN_INITIAL:
            return
        elif header.version != QuicProtocolVersion.VERSION_1:
            if header.packet_type is not QuicPacketType.VERSION_NEGOTIATION:
                versions: list[int] = [QuicProtocolVersion.VERSION_1]
                answer = encode_quic_version_negotiation(header.destination_cid, header.source_cid, versions)
                socket.send([(answer, addr)])
        elif header.packet_type is QuicPacketType.INITIAL and len(header.destination_cid) >= CID_SIZE:
            self._receive_initial(socket, datagram, header, addr, now)

    def _receive_initial(
        self, socket: UdpSocket, datagram: bytes, header: QuicHeader, addr: SocketAddress, now: float
    ) -> None:
        """The first packet of a connection that somebody wants to make."""
        assert self._server is not None
        if len(self._handshakes) >= MAX_HANDSHAKES or len(self._cids) >= MAX_CONNECTIONS:
            return
        original, retried = header.destination_cid, None
        place = (str(addr[0]).partition("%")[0], addr[1])
        host = _host(place[0])
        if self._handshakes_of[host] >= MAX_HANDSHAKES_OF_HOST:
            return
        if header.token:
            try:
                original = self._retry.validate_token(
                    address=place, destination_cid=header.destination_cid, token=header.token, now=now
                )
                retried = header.destination_cid
            except ValueError:
                return
        elif len(self._handshakes) >= RETRY_ABOVE:
            source = os.urandom(CID_SIZE)
            token = self._retry.create_token(
                address=place,
                original_destination_connection_id=original,
                retry_source_connection_id=source,
                now=now,
            )
            answer = encode_quic_retry(
                version=QuicProtocolVersion.VERSION_1,
                source_cid=source,
                destination_cid=header.source_cid,
                original_destination_cid=original,
                retry_token=token,
            )
            socket.send([(answer, addr)])
            return
        engine = Engine(
            configuration=self._server,
            reset_token=self._reset_token,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        connection = self._adopt(engine, now)
        self._feed(connection, datagram, addr, now)
        if engine.peer_spoke:
            self._own(connection, header.destination_cid, True)
            self._handshakes[connection] = host
            self._handshakes_of[host] += 1
            connection.on_established = self._accepted
        else:
            self._forget(connection)  # nothing in the datagram could be decrypted

    def _accepted(self, connection: Connection) -> None:
        self._end_handshake(connection)
        self._on_incoming(connection)

    def _end_handshake(self, connection: Connection) -> None:
        host = self._handshakes.pop(connection, None)
        if host is not None:
            self._handshakes_of[host] -= 1
            if not self._handshakes_of[host]:
                del self._handshakes_of[host]

    def _receive_short(self, socket: UdpSocket, datagram: bytes, addr: SocketAddress, now: float) -> None:
        """A 1-RTT packet of a connection that is not here: the peer's reset of one of ours, or due for a reset."""
        if len(datagram) < MIN_RESET:
            return
        for connection in self._connections_at(addr, now):
            if connection.engine.is_reset(datagram):
                connection.engine.end_silently("the peer restarted and lost its state")
                self._touched[connection] = None
                return
        if len(datagram) > MIN_RESET and now >= self._reset_sent_at + RESET_INTERVAL:
            self._reset_sent_at = now
            noise = os.urandom(min(len(datagram) - 1, 2 * MIN_RESET) - RESET_TOKEN_SIZE)
            head = bytes((0x40 | noise[0] & 0x3F,))
            socket.send([(head + noise[1:] + self._reset_token(datagram[1 : 1 + CID_SIZE]), addr)])

    def _connections_at(self, addr: SocketAddress, now: float) -> list[Connection]:
        """By a table that is made anew at most once in a while: with many connections strangers must not make us look
        through all of them for each datagram. What is too new for it is found when the peer sends its next reset.
        """
        if now >= self._places_at + PLACES_INTERVAL:
            self._places_at, self._places = now, {}
            for connection in self._cids:
                self._places.setdefault(connection.engine.get_peer_address(), []).append(connection.engine.host_cid)
        found = map(self._by_cid.get, self._places.get(addr, ()))
        return [connection for connection in found if connection is not None]

    def _reset_token(self, cid: bytes) -> bytes:
        return blake3(cid, key=self._reset_key).digest(RESET_TOKEN_SIZE)

    # -- sending and time -----------------------------------------------------------------------------------------

    def touch(self, connection: Connection) -> None:
        self._touched[connection] = None
        if self._flush_handle is None:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        now = self._loop.time()
        while self._touched:
            connection = next(iter(self._touched))
            del self._touched[connection]
            if connection not in self._cids:
                continue
            try:
                datagrams = connection.pump(now)
            except Exception:
                logger.exception("the engine failed; dropping %r", connection)
                connection.engine.end_silently("the engine failed")
                datagrams = connection.pump(now)
            if datagrams:
                self._send(datagrams)
            if connection.engine.over:
                self._forget(connection)
            else:
                self._arm(connection)

    def _send(self, datagrams: list[tuple[bytes, SocketAddress]]) -> None:
        """All datagrams of one connection's turn; they go to one address but for probes of another."""
        for socket in self._sockets.values():
            length = 2 if socket.local.ip.version == 4 else 4
            batch = [datagram for datagram in datagrams if len(datagram[1]) == length]
            if batch:
                socket.send(batch)

    def _arm(self, connection: Connection) -> None:
        """One heap entry a connection at its earliest wish; later wishes are looked up when the entry comes due."""
        at = connection.deadline()
        armed = self._armed.get(connection)
        if at is None or (armed is not None and armed <= at):
            return
        self._armed[connection] = at
        heapq.heappush(self._timers, (at, next(self._order), connection))
        if len(self._timers) > 2 * len(self._armed) + SPARE_TIMERS:
            # Entries that an earlier wish has replaced would stay for up to the idle timeout, connection and all.
            self._timers = [entry for entry in self._timers if self._armed.get(entry[2]) == entry[0]]
            heapq.heapify(self._timers)
        if self._timers[0][2] is connection:
            self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._timers[0][0], self._on_timer) if self._timers else None

    def _on_timer(self) -> None:
        now = self._loop.time()
        while self._timers and self._timers[0][0] <= now:
            at, _, connection = heapq.heappop(self._timers)
            if self._armed.get(connection) != at:
                continue  # forgotten, or armed again for an earlier time
            del self._armed[connection]
            wish = connection.deadline()
            if wish is not None and wish <= now:
                try:
                    connection.on_timer(now)
                except Exception:
                    logger.exception("the engine failed; dropping %r", connection)
                    connection.engine.end_silently("the engine failed")
                self._touched[connection] = None
            else:
                self._arm(connection)
        self._flush()
        self._schedule()

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Tell every peer that its connection is over, and close the sockets.

        There is nothing to wait for: a CONNECTION_CLOSE is not acknowledged, and a peer that misses it finds out by
        silence.
        """
        self._server = None
        self._closed = True
        for connection in list(self._cids):
            connection.close()
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        for socket in self._sockets.values():
            self._loop.remove_reader(socket.fileno())
            socket.close()


def _host(ip: str) -> bytes:
    """What one host has: an IPv4 address, or the first half of an IPv6 one."""
    return ip_address(ip).packed[:8]


def _destination_cid(datagram: bytes) -> bytes:
    """The connection id of a packet without parsing the rest of its header (RFC 8999)."""
    if datagram[0] & 0x80:
        return datagram[6 : 6 + datagram[5]] if len(datagram) > 6 else b""
    return datagram[1 : 1 + CID_SIZE]
