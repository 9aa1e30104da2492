"""What an endpoint publishes about itself, as lines of text (``reference/iroh-transport.md`` 2d).

    relay=https://relay.example/
    addr=192.0.2.1:4433
    user-data=anything, up to 245 bytes

A line is one TXT string of DNS. Rust endpoints refuse all of it where a line has a key that they do not know, so there
are never others; and they cut a value at its second "=", so what has one in it is not published. Of what we read, lines
that say nothing to us are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import UsageError
from ..addr import CustomAddr, EndpointAddr, IpAddr, RelayUrl, TransportAddr
from ..errors import InvalidAddress
from ..keys import EndpointId

__all__ = ["MAX_LINE", "MAX_USER_DATA", "Record"]

MAX_LINE = 255  # bytes of a TXT string (RFC 1035 3.3)
MAX_USER_DATA = 245  # bytes
MAX_LINES = 64  # that are looked at


@dataclass(frozen=True, slots=True)
class Record:
    """Where an endpoint is, and a text of its own that travels along."""

    addr: EndpointAddr
    user_data: str | None = None

    def __post_init__(self) -> None:
        if self.user_data is not None and (len(self.user_data.encode()) > MAX_USER_DATA or "=" in self.user_data):
            raise UsageError(f"user data is at most {MAX_USER_DATA} bytes of text without '='")

    def lines(self) -> list[str]:
        """Relays, then addresses, then the user data."""
        lines = [f"{'relay' if isinstance(addr, RelayUrl) else 'addr'}={addr}" for addr in self.addr.sorted()]
        if self.user_data is not None:
            lines.append(f"user-data={self.user_data}")
        return [line for line in lines if line.count("=") == 1 and len(line.encode()) <= MAX_LINE]

    @classmethod
    def parse(cls, id: EndpointId, lines: Iterable[str]) -> Record:
        addrs: list[TransportAddr] = []
        user_data: str | None = None
        for line, _ in zip(lines, range(MAX_LINES), strict=False):
            key, _, value = line.partition("=")
            try:
                match key:
                    case "relay":
                        addrs.append(RelayUrl(value))
                    case "addr":
                        addrs.append(_place(value))
                    case "user-data" if len(value.encode()) <= MAX_USER_DATA:
                        user_data = value.partition("=")[0]
            except InvalidAddress:
                continue
        return cls(EndpointAddr.of(id, addrs), user_data)


def _place(text: str) -> IpAddr | CustomAddr:
    """An IP address with its port, or a custom transport's ``<number>_<bytes>``, both in hexadecimal."""
    transport, separator, data = text.partition("_")
    if not separator:
        return IpAddr.parse(text)
    try:
        number = int(transport, 16)
        return CustomAddr(number, bytes.fromhex(data)) if 0 <= number < 1 << 64 else IpAddr.parse(text)
    except ValueError as error:
        raise InvalidAddress(f"{text!r} is not an address") from error
