"""The asyncio driver under an endpoint: its sockets and relays, its connections, one timer.

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
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from itertools import groupby
from operator import itemgetter
from socket import AF_INET, AF_INET6
from typing import Any, Protocol

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
from .paths.place import ANYWHERE, Place, RelayPlace
from .paths.probes import FIRST_BYTE
from .paths.route import Route
from .resumption import Tickets
from .udp import UdpSocket

__all__ = ["Driven", "Driver"]

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
HOLD = 0.03  # seconds in which a copy may come directly of what has come through a relay
MAX_HELD = 256
INVALID_PACKET = "a packet from the peer made the engine fail"

_PLACE = itemgetter(1)


class Driven(Protocol):
    """What a driver asks of a connection."""

    on_established: Callable[[Any], None] | None
    on_connection_id: Callable[[bytes, bool], None] | None

    @property
    def engine(self) -> Engine: ...
    @property
    def place(self) -> Place | None: ...
    def receive(self, datagram: bytes, place: Place, now: float) -> None: ...
    def deadline(self) -> float | None: ...
    def on_timer(self, now: float) -> None: ...
    def pump(self, now: float) -> Sequence[tuple[bytes, Place]]: ...
    def close(self) -> None: ...


class Driver:
    """Owns the sockets. ``on_incoming`` is called with each accepted connection once the peer's key is proved."""

    max_connections = MAX_CONNECTIONS

    def __init__(
        self,
        secret: SecretKey,
        sockets: Sequence[UdpSocket],
        on_incoming: Callable[[Connection], None],
        tickets: Tickets | None = None,
    ) -> None:
        """``send_relayed``, once set, takes what goes through relays; ``on_probe`` what is no packet of QUIC but a
        probe; ``on_end`` connections that are over."""
        self._loop = asyncio.get_running_loop()
        self._secret = secret
        self._sockets = {socket.family: socket for socket in sockets}
        self._on_incoming = on_incoming
        self._tickets = tickets or Tickets()
        self._server: QuicConfiguration | None = None
        self._by_cid: dict[bytes, Driven] = {}
        self._cids: dict[Driven, set[bytes]] = {}
        self._handshakes: dict[Driven, bytes] = {}
        self._handshakes_of: Counter[bytes] = Counter()
        self._touched: dict[Driven, None] = {}
        self._flush_handle: asyncio.Handle | None = None
        self._timers: list[list[Any]] = []  # a heap of [when, order, connection]
        self._armed: dict[Driven, list[Any]] = {}  # the entry that counts; others have None for a connection
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._held: dict[bytes, tuple[asyncio.TimerHandle, bytes, Place]] = {}
        self.send_relayed: Callable[[RelayPlace, list[bytes]], None] = lambda place, datagrams: None
        self.on_probe: Callable[[bytes, Place], None] = lambda datagram, place: None
        self.on_end: Callable[[Connection], None] = lambda connection: None
        self._order = itertools.count()
        self._retry = QuicRetryTokenHandler()
        self._reset_key = blake3(secret.to_bytes(), derive_key_context="tidings 2026-11 stateless reset").digest()
        self._reset_sent_at = 0.0
        self._places: dict[Place | None, list[bytes]] = {}  # connection ids by the peer's address
        self._places_at = -PLACES_INTERVAL
        for socket in sockets:
            self._loop.add_reader(socket.fileno(), self._on_readable, socket)

    @property
    def sockets(self) -> list[UdpSocket]:
        return list(self._sockets.values())

    def rebind(self) -> None:
        """Open the sockets anew: after a change of the network, or sleep, the old ones may lead nowhere.

        One that cannot be opened is left as it is, closed, and tried at the next call.
        """
        for family, old in list(self._sockets.items()):
            if old.fileno() >= 0:
                self._loop.remove_reader(old.fileno())
            new = old.rebound()
            if new is not None:
                self._sockets[family] = new
                self._loop.add_reader(new.fileno(), self._on_readable, new)

    def has_family(self, version: int) -> bool:
        """Whether there is a socket for IPv4 (4) or IPv6 (6)."""
        return any(socket.local.ip.version == version for socket in self._sockets.values())

    def accept(self, alpns: Sequence[bytes]) -> None:
        """Accept connections for these protocols from now on; none stops accepting."""
        self._server = (
            make_configuration(self._secret, is_client=False, alpns=alpns, idle=IDLE_TIMEOUT) if alpns else None
        )

    def dial(
        self, expected: EndpointId, alpns: Sequence[bytes], places: Iterable[Place], *, early: bool = False
    ) -> Connection:
        """Start a handshake with whoever answers first at ``places`` and must hold ``expected``.

        ``early``: with a ticket of it, where there is one, the connection can be used at once.
        """
        if self._closed:
            raise EndpointClosed("this endpoint is closed: bind a new one")
        now = self._loop.time()
        engine = Engine(
            configuration=make_configuration(
                self._secret,
                is_client=True,
                alpns=alpns,
                idle=IDLE_TIMEOUT,
                ticket=self._tickets.take(expected, alpns[0].decode("ascii"), early=early) if len(alpns) == 1 else None,
            ),
            expected=expected,
            reset_token=self.reset_token,
            tickets=self._tickets,
        )
        connection = self._connection(engine, now, places)
        engine.connect(ANYWHERE, now)
        self.drive(connection)
        return connection

    def dial_also(self, connection: Connection, places: Iterable[Place]) -> None:
        """Try further places for a dial that is under way."""
        self.send(connection.route.also(places))

    def connections(self) -> list[Connection]:
        """Those that are open, their handshake done."""
        return [
            connection
            for connection in self._cids
            if isinstance(connection, Connection) and connection.established and connection.closed is None
        ]

    # -- connections ----------------------------------------------------------------------------------------------

    def drive(self, connection: Driven) -> None:
        """Feed a connection and send what it wants to, until it is over."""
        self._cids[connection] = set()
        self._own(connection, connection.engine.host_cid, True)
        connection.on_connection_id = lambda cid, issued: self._own(connection, cid, issued)
        self.touch(connection)

    def _connection(self, engine: Engine, now: float, dialled: Iterable[Place] = ()) -> Connection:
        return Connection(self, engine, Route(engine, now, dialled), now=now)

    def _answer(self, original: bytes, retried: bytes | None, now: float) -> Driven:
        """The accepting end: the client chose ``original`` as our id, and ``retried`` the second time."""
        assert self._server is not None
        engine = Engine(
            configuration=self._server,
            reset_token=self.reset_token,
            tickets=self._tickets,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        return self._connection(engine, now)

    def _own(self, connection: Driven, cid: bytes, issued: bool) -> None:
        if issued:
            self._by_cid[cid] = connection
            self._cids[connection].add(cid)
        else:
            self._by_cid.pop(cid, None)
            self._cids[connection].discard(cid)

    def _forget(self, connection: Driven) -> None:
        for cid in self._cids.pop(connection, ()):
            self._by_cid.pop(cid, None)
        self._end_handshake(connection)
        self._touched.pop(connection, None)
        self._disarm(connection)
        if isinstance(connection, Connection):
            self.on_end(connection)
        connection.on_established = connection.on_connection_id = None

    # -- receiving ------------------------------------------------------------------------------------------------

    def _on_readable(self, socket: UdpSocket) -> None:
        self.receive(socket.receive(RECEIVE_CALLS))

    def receive(self, datagrams: Iterable[tuple[bytes, Place]]) -> None:
        """Take what has come, none of it empty."""
        now = self._loop.time()
        for datagram, place in datagrams:
            connection = self._by_cid.get(_destination_cid(datagram))
            if connection is None:
                self._receive_from_stranger(datagram, place, now)
            else:
                self._feed(connection, datagram, place, now)
        self._flush()

    def _feed(self, connection: Driven, datagram: bytes, place: Place, now: float) -> None:
        try:
            connection.receive(datagram, place, now)
        except Exception:
            # The engine must not fail on any bytes; where it does, it costs this connection and nobody else.
            logger.exception("%s; closing %r", INVALID_PACKET, connection)
            connection.engine.close(error_code=INTERNAL_ERROR, frame_type=0, reason_phrase=INVALID_PACKET)
        self._touched[connection] = None

    def _receive_from_stranger(self, datagram: bytes, place: Place, now: float) -> None:
        if datagram[0] == FIRST_BYTE:
            self.on_probe(datagram, place)
            return
        try:
            header = pull_quic_header(Buffer(data=datagram), host_cid_length=CID_SIZE)
        except ValueError:  # BufferReadError is one
            return
        if header.version is None:
            self._receive_short(datagram, place, now)
        elif self._server is None or len(datagram) < MIN_INITIAL:
            return
        elif header.version != QuicProtocolVersion.VERSION_1:
            if header.packet_type is not QuicPacketType.VERSION_NEGOTIATION:
                versions: list[int] = [QuicProtocolVersion.VERSION_1]
                answer = encode_quic_version_negotiation(header.destination_cid, header.source_cid, versions)
                self.send([(answer, place)])
        elif header.packet_type is QuicPacketType.INITIAL and len(header.destination_cid) >= CID_SIZE:
            if isinstance(place, RelayPlace):
                self._hold(datagram, header, place)
            else:
                self._release(header.destination_cid)
                self._receive_initial(datagram, header, place, now)

    def _hold(self, datagram: bytes, header: QuicHeader, place: Place) -> None:
        """Wait a moment for a copy that comes directly.

        A peer sends its first packet every way it knows. One that has no signalling with us (`Remote`) stays for good
        where it was answered (``reference/iroh-transport.md`` 2b).
        """
        cid = header.destination_cid
        if cid not in self._held and len(self._held) < MAX_HELD:
            timer = self._loop.call_later(HOLD, self._on_held, cid, header)
            self._held[cid] = timer, datagram, place

    def _release(self, cid: bytes) -> tuple[bytes, Place] | None:
        timer, datagram, place = self._held.pop(cid, (None, b"", None))
        if timer is None or place is None:
            return None
        timer.cancel()
        return datagram, place

    def _on_held(self, cid: bytes, header: QuicHeader) -> None:
        held = self._release(cid)
        if held is not None and self._server is not None:
            self._receive_initial(held[0], header, held[1], self._loop.time())
            self._flush()

    def _receive_initial(self, datagram: bytes, header: QuicHeader, place: Place, now: float) -> None:
        """The first packet of a connection that somebody wants to make."""
        assert self._server is not None
        if len(self._handshakes) >= MAX_HANDSHAKES or len(self._cids) >= self.max_connections:
            return
        original, retried = header.destination_cid, None
        relayed = isinstance(place, RelayPlace)  # its address is proved: the relay knows its key
        addr = ("", 0) if isinstance(place, RelayPlace) else (str(place[0]).partition("%")[0], place[1])
        host = _host(place)
        if self._handshakes_of[host] >= MAX_HANDSHAKES_OF_HOST:
            return
        if header.token and not relayed:
            try:
                original = self._retry.validate_token(
                    address=addr, destination_cid=header.destination_cid, token=header.token, now=now
                )
                retried = header.destination_cid
            except ValueError:
                return
        elif len(self._handshakes) >= RETRY_ABOVE and not relayed:
            source = os.urandom(CID_SIZE)
            token = self._retry.create_token(
                address=addr,
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
            self.send([(answer, place)])
            return
        connection = self._answer(original, retried, now)
        self.drive(connection)
        self._feed(connection, datagram, place, now)
        if connection.engine.peer_spoke:
            self._own(connection, header.destination_cid, True)
            self._handshakes[connection] = host
            self._handshakes_of[host] += 1
            connection.on_established = self._accepted
        else:
            self._forget(connection)  # nothing in the datagram could be decrypted

    def _accepted(self, connection: Any) -> None:
        self._end_handshake(connection)
        self._on_incoming(connection)

    def _end_handshake(self, connection: Driven) -> None:
        host = self._handshakes.pop(connection, None)
        if host is not None:
            self._handshakes_of[host] -= 1
            if not self._handshakes_of[host]:
                del self._handshakes_of[host]

    def _receive_short(self, datagram: bytes, place: Place, now: float) -> None:
        """A 1-RTT packet of a connection that is not here: the peer's reset of one of ours, or due for a reset."""
        if len(datagram) < MIN_RESET:
            return
        for connection in self._connections_at(place, now):
            if connection.engine.is_reset(datagram):
                connection.engine.end_silently("the peer restarted and lost its state")
                self._touched[connection] = None
                return
        if len(datagram) > MIN_RESET and now >= self._reset_sent_at + RESET_INTERVAL:
            self._reset_sent_at = now
            noise = os.urandom(min(len(datagram) - 1, 2 * MIN_RESET) - RESET_TOKEN_SIZE)
            head = bytes((0x40 | noise[0] & 0x3F,))
            self.send([(head + noise[1:] + self.reset_token(datagram[1 : 1 + CID_SIZE]), place)])

    def _connections_at(self, place: Place, now: float) -> list[Driven]:
        """By a table that is made anew at most once in a while: with many connections strangers must not make us look
        through all of them for each datagram. What is too new for it is found when the peer sends its next reset.
        """
        if now >= self._places_at + PLACES_INTERVAL:
            self._places_at, self._places = now, {}
            for connection in self._cids:
                self._places.setdefault(connection.place, []).append(connection.engine.host_cid)
        found = map(self._by_cid.get, self._places.get(place, ()))
        return [connection for connection in found if connection is not None]

    def reset_token(self, cid: bytes) -> bytes:
        return blake3(cid, key=self._reset_key).digest(RESET_TOKEN_SIZE)

    # -- sending and time -----------------------------------------------------------------------------------------

    def touch(self, connection: Driven) -> None:
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
                self.send(datagrams)
            if connection.engine.over:
                self._forget(connection)
            else:
                self._arm(connection)

    def send(self, datagrams: Iterable[tuple[bytes, Place]]) -> None:
        for place, run in groupby(datagrams, _PLACE):
            if isinstance(place, RelayPlace):
                self.send_relayed(place, [datagram for datagram, _ in run])
            elif (socket := self._sockets.get(AF_INET if len(place) == 2 else AF_INET6)) is not None:
                socket.send([(datagram, place) for datagram, _ in run])

    def _arm(self, connection: Driven) -> None:
        """One heap entry a connection at its earliest wish; later wishes are looked up when the entry comes due."""
        at = connection.deadline()
        armed = self._armed.get(connection)
        if at is None or (armed is not None and armed[0] <= at):
            return
        self._disarm(connection)
        entry = self._armed[connection] = [at, next(self._order), connection]
        heapq.heappush(self._timers, entry)
        if len(self._timers) > 2 * len(self._armed) + SPARE_TIMERS:
            # Entries that an earlier wish has replaced would stay for up to the idle timeout.
            self._timers = [entry for entry in self._timers if entry[2] is not None]
            heapq.heapify(self._timers)
        if self._timers[0] is entry:
            self._schedule()

    def _disarm(self, connection: Driven) -> None:
        entry = self._armed.pop(connection, None)
        if entry is not None:
            entry[2] = None  # a connection that is over must not be kept until its time has come

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._timers[0][0], self._on_timer) if self._timers else None

    def _on_timer(self) -> None:
        now = self._loop.time()
        while self._timers and self._timers[0][0] <= now:
            connection = heapq.heappop(self._timers)[2]
            if connection is None:
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
        for cid in list(self._held):
            self._release(cid)
        for connection in list(self._cids):
            connection.close()
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        for socket in self._sockets.values():
            if socket.fileno() >= 0:
                self._loop.remove_reader(socket.fileno())
            socket.close()


def _host(place: Place) -> bytes:
    """What one host has: an IPv4 address, the first half of an IPv6 one, a key behind a relay."""
    if isinstance(place, RelayPlace):
        return bytes(place.id)
    return ip_address(str(place[0]).partition("%")[0]).packed[:8]


def _destination_cid(datagram: bytes) -> bytes:
    """The connection id of a packet without parsing the rest of its header (RFC 8999)."""
    if datagram[0] & 0x80:
        return datagram[6 : 6 + datagram[5]] if len(datagram) > 6 else b""
    return datagram[1 : 1 + CID_SIZE]
