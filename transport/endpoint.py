"""An endpoint: one key, one socket for each address family, any number of connections in and out.

async with Endpoint.bind(secret_key=key, alpns=[b"echo/1"]) as endpoint:
    connection = await endpoint.connect(ticket.addr, b"echo/1")
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import ifaddr

from ..errors import UsageError
from .addr import EndpointAddr, IpAddr
from .connection import Connection
from .dial import dial
from .driver import Driver
from .errors import EndpointClosed, InvalidAddress, Unreachable
from .keys import EndpointId, SecretKey
from .lookup import MemoryLookup
from .lookup.service import Lookup, resolve
from .opening import Opening
from .udp import UdpSocket

__all__ = ["Endpoint"]

logger = logging.getLogger(__name__)

ANY = ("0.0.0.0:0", "[::]:0")
CONNECT_TIMEOUT = 10.0  # seconds
MAX_UNACCEPTED = 1024  # connections that nobody has taken from `incoming`; more are refused
BUSY = 0x71D0  # application close code: too many connections waiting
MAX_ALPN = 255


class Endpoint:
    """Made by `Endpoint.bind`. Dials peers by their key and accepts those who dial ours."""

    def __init__(self, secret: SecretKey, sockets: Sequence[UdpSocket], services: Sequence[Lookup] = ()) -> None:
        self._secret = secret
        self._services = services
        self._closed = False
        self._incoming: deque[Connection] = deque()
        self._arrived = asyncio.Event()
        self._driver = Driver(secret, sockets, self._on_incoming)
        self.lookup = MemoryLookup()

    @classmethod
    def bind(
        cls,
        *,
        secret_key: SecretKey | None = None,
        alpns: Sequence[bytes] = (),
        bind: Sequence[str] = ANY,
        lookup: Sequence[Lookup] = (),
    ) -> Opening[Endpoint]:
        """Open the sockets; ``await`` it, or use it with ``async with``.

        ``secret_key`` is the identity, a new one unless given. ``alpns`` are the protocols accepted; without any the
        endpoint only dials. ``bind`` are ``address:port`` texts, at most one for each family; port 0 takes a free one.
        By default both families are bound, IPv6 where the machine has it. ``lookup`` are services that say where an
        id is, beside the endpoint's own memory. Raises InvalidAddress where an address cannot be bound.
        """
        secret = secret_key or SecretKey.generate()
        protocols, places, services = _check_alpns(alpns), tuple(bind), tuple(lookup)

        async def open() -> Endpoint:
            endpoint = cls(secret, _open_sockets(places), services)
            if protocols:
                endpoint.set_alpns(protocols)
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

    def addr(self) -> EndpointAddr:
        """This endpoint's id and the addresses it is bound to, interface by interface (loopback if nothing else)."""
        places: list[IpAddr] = []
        for local in self.bound():
            places += _interface_addresses(local) if local.ip.is_unspecified else [local]
        return EndpointAddr.of(self.id, places)

    def set_alpns(self, alpns: Sequence[bytes]) -> None:
        """Accept exactly these protocols from now on; connections that exist are not touched.

        Of several that a peer offers at once, the first in this order is taken.
        """
        self._check_open()
        self._driver.accept(_check_alpns(alpns))

    async def connect(
        self, target: EndpointAddr | EndpointId | str, alpn: bytes, *others: bytes, timeout: float = CONNECT_TIMEOUT
    ) -> Connection:
        """Dial a key; returns once the peer has proved it and has accepted ours.

        ``target`` is an id (also as text) whose addresses the lookups know, or an address. ``others`` are protocols
        that will do as well: the peer picks one in the same handshake, and `Connection.alpn` says which. Raises
        Unreachable (nobody there, or no address known), WrongIdentity (somebody else is there), ProtocolRefused (it
        speaks none of them), IdentityRefused (it does not want us), UsageError.
        """
        self._check_open()
        alpns = _check_alpns([alpn, *others])
        if isinstance(target, str):
            target = EndpointId.parse(target)
        wanted = target if isinstance(target, EndpointAddr) else EndpointAddr(target)
        if wanted.id == self.id:
            raise UsageError("this is the endpoint's own id: an endpoint cannot dial itself")
        known = self.lookup.get(wanted.id)
        addrs = list(dict.fromkeys([*wanted.direct, *(known.direct if known else ())]))
        usable = self._usable(addrs)
        if not usable and not self._services:
            hint = "none of its addresses can be reached from here" if addrs else "no address of it is known"
            raise Unreachable(f"{hint}: {wanted.id}. Ask for a ticket, or add an address to the lookup")
        try:
            more = self._look_up(wanted.id) if self._services else None
            connection = await dial(self._driver, wanted.id, alpns, usable, timeout, more)
        except Unreachable:
            self._check_open()  # closed while it dialled: nothing wrong with the peer
            raise
        self._remember_path(connection)
        return connection

    async def _look_up(self, id: EndpointId) -> AsyncGenerator[Sequence[IpAddr], None]:
        async with aclosing(resolve(self._services, id)) as records:
            async for record in records:
                yield self._usable(record.addr.direct)

    def _usable(self, addrs: Sequence[IpAddr]) -> list[IpAddr]:
        return [addr for addr in addrs if addr.port and self._driver.has_family(addr.ip.version)]

    async def incoming(self) -> AsyncIterator[Connection]:
        """Connections that others make, for ever; ends when the endpoint closes. Use one iterator at a time."""
        while True:
            while self._incoming:
                connection = self._incoming.popleft()
                if connection.closed is None:
                    yield connection
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()

    def connections(self) -> list[Connection]:
        """The connections that are open now."""
        return self._driver.connections()

    async def aclose(self) -> None:
        """Close every connection (code 0) and the sockets. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._arrived.set()
            self._driver.close()
            await asyncio.sleep(0)  # whoever waited on a connection learns of the end before this returns

    def __repr__(self) -> str:
        return f"<Endpoint {self.id.short()} on {', '.join(map(str, self.bound()))}>"

    def _on_incoming(self, connection: Connection) -> None:
        if len(self._incoming) >= MAX_UNACCEPTED:
            connection.close(BUSY, "too many connections are waiting here")
            return
        self._incoming.append(connection)
        self._arrived.set()
        self._remember_path(connection)

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
