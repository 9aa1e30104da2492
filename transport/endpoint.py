"""An endpoint: one key, one socket for each address family, relays, any number of connections in and out.

async with Endpoint.bind(secret_key=key, alpns=[b"echo/1"]) as endpoint:
    connection = await endpoint.connect(ticket.addr, b"echo/1")
"""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import ifaddr

from ..errors import UsageError
from .addr import EndpointAddr, IpAddr, RelayUrl, TransportAddr
from .connection import Connection
from .dial import dial
from .discovery.finder import AddressFinder
from .driver import Driver
from .errors import EndpointClosed, InvalidAddress, Unreachable
from .keys import EndpointId, SecretKey
from .lookup import MemoryLookup
from .lookup.publisher import Publisher
from .lookup.service import Lookup, resolve
from .lookup.services import OpenedLookup, service_of
from .network import NetworkChange, NetworkWatch, watch
from .network.port_mapping import PortMapping
from .opening import Opening
from .paths.keeper import PathKeeper
from .paths.place import RelayPlace
from .paths.signal import PATHS_ALPN
from .relay.relays import RelayConfig, Relays
from .report import NetReport, Reporter
from .resumption import Tickets
from .udp import UdpSocket

__all__ = ["Endpoint"]

logger = logging.getLogger(__name__)

ANY = ("0.0.0.0:0", "[::]:0")
CONNECT_TIMEOUT = ONLINE_TIMEOUT = 10.0  # seconds
MAX_UNACCEPTED = 1024  # connections that nobody has taken from `incoming`; more are refused
BUSY = 0x71D0  # application close code: too many connections waiting
MAX_ALPN = 255


class Endpoint:
    """Made by `Endpoint.bind`. Dials peers by their key and accepts those who dial ours."""

    def __init__(
        self,
        secret: SecretKey,
        sockets: Sequence[UdpSocket],
        services: Sequence[Lookup] = (),
        own_services: Sequence[OpenedLookup] = (),
        relays: Sequence[RelayConfig] | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        early: frozenset[bytes] = frozenset(),
        port_mapping: bool = False,
    ) -> None:
        self._secret = secret
        self._services = services
        self._own_services = own_services
        self._closed = False
        self._incoming: deque[Connection] = deque()
        self._arrived = asyncio.Event()
        self._driver = Driver(secret, sockets, self._on_incoming, Tickets(early))
        self._relays: Relays | None = None
        self._finder = AddressFinder(self._driver, self._on_addresses_found, tls)
        if relays is not None:
            self._relays = Relays(
                secret,
                relays,
                on_datagrams=self._on_relayed,
                on_change=self._on_relays_changed,
                tls=tls,
                proxy=proxy,
            )
            self._driver.send_relayed = self._send_relayed
            self._reporter = Reporter(self._relays, self._finder, self._driver.has_family, tls, proxy)
        self._port_mapping: PortMapping | None = None
        if port_mapping and (four := next((local.port for local in self.bound() if local.ip.version == 4), None)):
            self._port_mapping = PortMapping(four, self._on_addresses_found)
        self._watch: NetworkWatch | None = None
        self.lookup = MemoryLookup()
        self._paths = PathKeeper(
            self._driver,
            self._relays,
            self.lookup,
            own_addrs=lambda: self.addr().sorted(),
            is_usable=self._is_usable,
        )
        self._finder.ask(relays or ())
        self._publisher = Publisher(self._services, self.addr)

    @classmethod
    def bind(
        cls,
        *,
        secret_key: SecretKey | None = None,
        alpns: Sequence[bytes] = (),
        bind: Sequence[str] = ANY,
        lookup: Sequence[Lookup | str] = (),
        relays: Sequence[RelayConfig | RelayUrl | str] | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        early_data: Sequence[bytes] = (),
        port_mapping: bool = False,
    ) -> Opening[Endpoint]:
        """Open the sockets; ``await`` it, or use it with ``async with``.

        ``secret_key`` is the identity, a new one unless given. ``alpns`` are the protocols accepted; without any the
        endpoint only dials. ``bind`` are ``address:port`` texts, at most one for each family; port 0 takes a free one.
        By default both families are bound, IPv6 where the machine has it. ``lookup`` are services that say where an
        id is, beside the endpoint's own memory, and are told where this one is: objects with the two methods of
        `Lookup`, or texts: ``https://lookup.example/pkarr``, ``dns:lookup.example``, ``local`` (the local network).

        ``relays`` are those that this endpoint may have as its home, where others find it who cannot reach it
        directly; an empty list is enough to reach peers through theirs, and None (the default) uses no relay at all.
        ``tls`` checks relays with ``https`` URLs, against the system's authorities by default; ``proxy`` is the URL of
        an HTTP proxy on the way to them.

        ``early_data`` are protocols for which peers that come back may send before the handshake is over. Somebody on
        the way can repeat what they sent: see `Connection.replayable`.

        ``port_mapping``: ask the router for a port that leads here (PCP, NAT-PMP), so that peers behind any NAT reach
        this endpoint directly.

        Raises InvalidAddress where an address cannot be bound, or a text is no relay's URL; UsageError.
        """
        secret = secret_key or SecretKey.generate()
        protocols, places, services = _check_alpns(alpns), tuple(bind), tuple(lookup)
        early = frozenset(_check_alpns(early_data))
        map = None if relays is None else [RelayConfig.of(relay) for relay in relays]

        async def open() -> Endpoint:
            # What may be refused comes first: nothing is open then.
            own = [service_of(each, secret, tls=tls, proxy=proxy) for each in services if isinstance(each, str)]
            asked = [*(each for each in services if not isinstance(each, str)), *own]
            endpoint = cls(secret, _open_sockets(places), asked, own, map, tls, proxy, early, port_mapping)
            if protocols:
                endpoint.set_alpns(protocols)
            if not all(local.ip.is_loopback for local in endpoint.bound()):
                endpoint._watch = watch(endpoint._on_network_change)
            return endpoint

        return Opening(open)

    @property
    def id(self) -> EndpointId:
        return self._secret.public

    @property
    def secret_key(self) -> SecretKey:
        return self._secret

    def bound(self) -> list[IpAddr]:
        """The sockets' own addresses; an unspecified one (0.0.0.0, ::) means every interface."""
        return [socket.local for socket in self._driver.sockets]

    @property
    def relays(self) -> Relays:
        """The relays in use, to be changed while the endpoint runs. UsageError where it was opened without any."""
        if self._relays is None:
            raise UsageError("this endpoint was opened without relays: pass `relays=[...]`, which may be empty")
        return self._relays

    async def online(self, timeout: float = ONLINE_TIMEOUT) -> None:
        """Wait until others can find us through a relay, ``timeout`` seconds at most; Unreachable where they cannot."""
        try:
            async with asyncio.timeout(timeout):
                await self.relays.online()
        except TimeoutError:
            problems = "; ".join(f"{status.url}: {status.problem}" for status in self.relays.statuses())
            raise Unreachable(f"no relay let us in within {timeout:g} s ({problems or 'there is none'})") from None

    @property
    def port_mapping(self) -> PortMapping | None:
        """What the router was asked for; None unless that was wanted."""
        return self._port_mapping

    async def report(self) -> NetReport:
        """Measure what the network lets this endpoint do, some seconds long. UsageError where it has no relays."""
        assert self.relays is not None
        return await self._reporter.report()

    def addr(self) -> EndpointAddr:
        """This endpoint's id and where it can be reached: its home relay, its own addresses, and those that relays see.

        Its own are the ones of every interface that it is bound to, loopback if there is nothing else.
        """
        places: list[TransportAddr] = []
        if self._relays is not None and self._relays.home is not None:
            places.append(self._relays.home)
        for local in self.bound():
            places += _interface_addresses(local) if local.ip.is_unspecified else [local]
        places += self._finder.found()
        if self._port_mapping is not None and self._port_mapping.addr is not None:
            places.append(self._port_mapping.addr)
        return EndpointAddr.of(self.id, places)

    def set_alpns(self, alpns: Sequence[bytes]) -> None:
        """Accept exactly these protocols from now on; connections that exist are not touched.

        Of several that a peer offers at once, the first in this order is taken.
        """
        self._check_open()
        self._driver.accept([*_check_alpns(alpns), PATHS_ALPN] if alpns else [])

    async def connect(
        self,
        target: EndpointAddr | EndpointId | str,
        alpn: bytes,
        *others: bytes,
        timeout: float = CONNECT_TIMEOUT,
        early_data: bool = False,
    ) -> Connection:
        """Dial a key; returns once the peer has proved it and has accepted ours.

        ``target`` is an id (also as text) whose addresses the lookups know, or an address. ``others`` are protocols
        that will do as well: the peer picks one in the same handshake, and `Connection.alpn` says which. Raises
        Unreachable (nobody there, or no address known), WrongIdentity (somebody else is there), ProtocolRefused (it
        speaks none of them), IdentityRefused (it does not want us), UsageError.

        ``early_data``: where the peer has given us a ticket on an earlier connection for the same protocol, return at
        once: what is sent then goes with the first packet, if ``alpn`` is one of those that the peer takes early data
        for. Somebody on the way can send it a second time: only for requests that do no harm twice. Errors of the dial
        come when the connection is used, or from `Connection.confirmed`.
        """
        self._check_open()
        alpns = _check_alpns([alpn, *others])
        if isinstance(target, str):
            target = EndpointId.parse(target)
        wanted = target if isinstance(target, EndpointAddr) else EndpointAddr(target)
        if wanted.id == self.id:
            raise UsageError("this is the endpoint's own id: an endpoint cannot dial itself")
        known = self.lookup.get(wanted.id)
        addrs = list(dict.fromkeys([*wanted.sorted(), *(known.sorted() if known else ())]))
        usable = self._usable(addrs)
        if not usable and not self._services:
            hint = "none of its addresses can be reached from here" if addrs else "no address of it is known"
            raise Unreachable(f"{hint}: {wanted.id}. Ask for a ticket, or add an address to the lookup")
        try:
            more = self._look_up(wanted.id) if self._services else None
            connection = await dial(self._driver, wanted.id, alpns, usable, timeout, more, early=early_data)
        except Unreachable:
            self._check_open()  # closed while it dialled: nothing wrong with the peer
            raise
        self._remember_path(connection)
        self._paths.add(connection, addrs)
        return connection

    async def _look_up(self, id: EndpointId) -> AsyncGenerator[Sequence[TransportAddr], None]:
        async with aclosing(resolve(self._services, id)) as records:
            async for record in records:
                yield self._usable(record.addr.sorted())

    def _usable(self, addrs: Sequence[TransportAddr]) -> list[TransportAddr]:
        return [addr for addr in addrs if self._is_usable(addr)]

    def _is_usable(self, addr: TransportAddr) -> bool:
        match addr:
            case IpAddr():
                return addr.port > 0 and self._driver.has_family(addr.ip.version)
            case RelayUrl():
                return self._relays is not None
            case _:
                return False

    def _send_relayed(self, place: RelayPlace, datagrams: list[bytes]) -> None:
        assert self._relays is not None
        self._relays.send(place.relay, place.id, datagrams)

    def _on_relayed(self, url: RelayUrl, peer: EndpointId, datagrams: Sequence[bytes]) -> None:
        place = RelayPlace(url, peer)
        self._driver.receive([(datagram, place) for datagram in datagrams if datagram])

    async def incoming(self) -> AsyncIterator[Connection]:
        """Connections that others make, for ever; ends when the endpoint closes. Use one iterator at a time."""
        while True:
            while self._incoming:
                if self._incoming[0].closed is None:
                    yield self._incoming.popleft()
                else:
                    self._incoming.popleft()
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()

    def connections(self) -> list[Connection]:
        """The connections that are open now."""
        return [connection for connection in self._driver.connections() if connection.alpn != PATHS_ALPN]

    async def aclose(self) -> None:
        """Close every connection (code 0) and the sockets. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._arrived.set()
            if self._watch is not None:
                await self._watch.aclose()
            await self._paths.aclose()
            if self._port_mapping is not None:
                await self._port_mapping.aclose()
            await self._finder.aclose()
            await self._publisher.aclose()
            for service in self._own_services:
                await service.aclose()
            self._driver.close()
            if self._relays is not None:
                await self._reporter.aclose()
                await self._relays.aclose()
            await asyncio.sleep(0)  # whoever waited on a connection learns of the end before this returns

    def __repr__(self) -> str:
        return f"<Endpoint {self.id.short()} on {', '.join(map(str, self.bound()))}>"

    def _on_network_change(self, change: NetworkChange) -> None:
        logger.info("%r: %s", self, change.why)
        self._driver.rebind()
        if self._relays is not None:
            self._relays.check(change.state.ips)
            self._reporter.network_changed()
        if self._port_mapping is not None:
            self._port_mapping.network_changed()
        self._finder.ask_again()
        self._paths.network_changed()
        self._publisher.update()

    def _on_addresses_found(self) -> None:
        self._paths.addresses_changed()
        self._publisher.update()

    def _on_relays_changed(self) -> None:
        self._finder.ask(self.relays.configs())
        self._paths.relays_changed()
        self._on_addresses_found()

    def _on_incoming(self, connection: Connection) -> None:
        if connection.alpn == PATHS_ALPN:
            self._paths.accept(connection)
            return
        if len(self._incoming) >= MAX_UNACCEPTED:
            connection.close(BUSY, "too many connections are waiting here")
            return
        self._incoming.append(connection)
        self._arrived.set()
        self._remember_path(connection)
        self._paths.add(connection)

    def _remember_path(self, connection: Connection) -> None:
        """Where a peer has proved its key is the best place to dial it again: endpoints send and accept on one port."""
        self.lookup.add(EndpointAddr.of(connection.remote_id, [path.addr for path in connection.paths()]))

    def _check_open(self) -> None:
        if self._closed:
            raise EndpointClosed("this endpoint is closed: bind a new one")


def _open_sockets(bind: Sequence[str]) -> list[UdpSocket]:
    addrs = [IpAddr.parse(text) for text in bind]
    if not addrs or len({addr.ip.version for addr in addrs}) != len(addrs):
        raise InvalidAddress("bind one address of each family: IPv4, IPv6, or both")
    sockets: list[UdpSocket] = []
    for addr in addrs:
        try:
            sockets.append(UdpSocket(addr))
        except OSError as error:
            if addr.ip.version == 6 and addr.ip.is_unspecified and len(addrs) > 1 and error.errno != errno.EADDRINUSE:
                logger.info("no IPv6 here: %s", error)
                continue
            for socket in sockets:
                socket.close()
            raise InvalidAddress(f"cannot bind {addr}: {error.strerror}. Choose another address or port 0") from error
    return sockets


def _check_alpns(alpns: Sequence[bytes]) -> list[bytes]:
    for alpn in alpns:
        if not 1 <= len(alpn) <= MAX_ALPN or not alpn.isascii():
            raise UsageError(f"{alpn!r} is not a protocol name: 1 to {MAX_ALPN} ASCII bytes, such as b'echo/1'")
    return list(alpns)


def _interface_addresses(local: IpAddr) -> list[IpAddr]:
    """The machine's addresses of the family of ``local``, without link-local ones (they need a zone)."""
    found: list[IpAddr] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            addr = IpAddr.of(host.partition("%")[0], local.port)
            if addr.ip.version == local.ip.version and not addr.ip.is_link_local:
                found.append(addr)
    return [addr for addr in found if not addr.ip.is_loopback] or found
