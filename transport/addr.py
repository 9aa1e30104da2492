"""Where an endpoint may be reached: IP sockets, relays, custom transports (``reference/iroh-transport.md`` 2f).

An `EndpointAddr` is an id and a set of such places. None of them is trusted: whatever answers there must hold the
key. In postcard the set is sorted: relays, then IPv4, IPv6, custom; then by bytes and port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import DecodeError, InvalidAddress
from .keys import EndpointId
from .postcard import U16, Reader, Writer

__all__ = ["CustomAddr", "EndpointAddr", "IpAddr", "RelayUrl", "TransportAddr", "read_ip_addr", "write_ip_addr"]

MAX_ADDRESSES = 128  # in one EndpointAddr from the wire; iroh stores 30 for each peer
MAX_URL = 2048
MAX_CUSTOM = 1024


@dataclass(frozen=True, slots=True)
class IpAddr:
    """An IP address and a UDP port. IPv4-mapped IPv6 is written as IPv4; flow and scope are dropped."""

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    def __post_init__(self) -> None:
        if not 0 <= self.port <= U16:
            raise InvalidAddress(f"{self.port} is not a port")
        if isinstance(self.ip, ipaddress.IPv6Address):
            canonical = self.ip.ipv4_mapped or ipaddress.IPv6Address(int(self.ip))
            object.__setattr__(self, "ip", canonical)

    @classmethod
    def of(cls, host: str, port: int) -> IpAddr:
        try:
            return cls(ipaddress.ip_address(host), port)
        except ValueError as error:
            raise InvalidAddress(f"{host!r} is not an IP address") from error

    @classmethod
    def parse(cls, text: str) -> IpAddr:
        """From ``1.2.3.4:567`` or ``[2001:db8::1]:567``."""
        host, colon, port = text.rpartition(":")
        if not (colon and port.isascii() and port.isdigit() and len(port) <= 5):
            raise InvalidAddress(f"{text!r} is not an address: write 192.0.2.1:4433 or [2001:db8::1]:4433")
        return cls.of(host[1:-1] if host.startswith("[") and host.endswith("]") else host, int(port))

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"

    def sort_key(self) -> tuple[object, ...]:
        return (1, self.ip.version, self.ip.packed, self.port)


@dataclass(frozen=True, slots=True)
class RelayUrl:
    """The URL of a relay, normalised as a browser would: lower-case host, a path of at least ``/``, no default port.

    Equality is by text; a trailing dot of the host is kept.
    """

    url: str

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise InvalidAddress(f"{self.url!r} is not a relay URL") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or len(self.url) > MAX_URL:
            raise InvalidAddress(f"{self.url!r} is not a relay URL: write https://relay.example/")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
            host += f":{port}"
        query = f"?{parts.query}" if parts.query else ""
        object.__setattr__(self, "url", f"{parts.scheme}://{host}{parts.path or '/'}{query}")

    @property
    def host(self) -> str:
        """A name, without the dot at its end, or an IP address without brackets."""
        return (urlsplit(self.url).hostname or "").rstrip(".")

    @property
    def is_encrypted(self) -> bool:
        return self.url.startswith("https:")

    def __str__(self) -> str:
        return self.url

    def sort_key(self) -> tuple[object, ...]:
        return (0, self.url.encode())


@dataclass(frozen=True, slots=True)
class CustomAddr:
    """An address of a transport that is neither IP nor relay: a number for the transport, bytes for the place."""

    transport: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.transport:x}_{self.data.hex()}"

    def sort_key(self) -> tuple[object, ...]:
        return (2, self.transport, self.data)


TransportAddr = IpAddr | RelayUrl | CustomAddr


@dataclass(frozen=True, slots=True)
class EndpointAddr:
    """An endpoint's id and the places where it may be reached. ``EndpointAddr(id)`` alone is a valid address."""

    id: EndpointId
    addrs: frozenset[TransportAddr] = frozenset()

    @classmethod
    def of(cls, id: EndpointId, addrs: Iterable[TransportAddr] = ()) -> EndpointAddr:
        return cls(id, frozenset(addrs))

    @property
    def direct(self) -> list[IpAddr]:
        """The IP addresses, sorted."""
        return [addr for addr in self.sorted() if isinstance(addr, IpAddr)]

    @property
    def relays(self) -> list[RelayUrl]:
        return [addr for addr in self.sorted() if isinstance(addr, RelayUrl)]

    def sorted(self) -> list[TransportAddr]:
        return sorted(self.addrs, key=lambda addr: addr.sort_key())

    def merged(self, other: EndpointAddr) -> EndpointAddr:
        return EndpointAddr(self.id, self.addrs | other.addrs)

    def write(self, out: Writer) -> None:
        out.raw(bytes(self.id)).varint(len(self.addrs))
        for addr in self.sorted():
            match addr:
                case RelayUrl():
                    out.u8(0).string(addr.url)
                case IpAddr():
                    out.u8(1)
                    write_ip_addr(out, addr)
                case CustomAddr():
                    out.u8(2).varint(addr.transport).octets(addr.data)

    @classmethod
    def read(cls, data: Reader) -> EndpointAddr:
        id = EndpointId(data.raw(32))
        return cls.of(id, [_read_transport_addr(data) for _ in range(data.count(MAX_ADDRESSES, each=2))])

    def __str__(self) -> str:
        return f"{self.id} at {', '.join(map(str, self.sorted())) or 'no known address'}"


def write_ip_addr(out: Writer, addr: IpAddr) -> None:
    """Rust's ``SocketAddr``: ``00`` and 4 bytes, or ``01`` and 16; then the port as a varint."""
    out.u8(0 if addr.ip.version == 4 else 1).raw(addr.ip.packed).varint(addr.port)


def read_ip_addr(data: Reader) -> IpAddr:
    packed = data.raw(4 if data.variant(2) == 0 else 16)
    return IpAddr(ipaddress.ip_address(packed), data.varint(U16))


def read_relay_url(data: Reader) -> RelayUrl:
    try:
        return RelayUrl(data.string(MAX_URL))
    except InvalidAddress as error:
        raise DecodeError(str(error)) from error


def _read_transport_addr(data: Reader) -> TransportAddr:
    match data.variant(3):
        case 0:
            return read_relay_url(data)
        case 1:
            return read_ip_addr(data)
        case _:
            return CustomAddr(data.varint(), data.octets(MAX_CUSTOM))
