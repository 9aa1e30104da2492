"""What two tidings endpoints tell each other about ways (ALPN ``tidings/paths/1``): msgpack maps in frames.

``{"tag": 8 bytes, "key": 32 bytes, ...}`` comes first, from both sides: how pings to the sender are sealed (`probes`).
Every message has ``"direct"``, a list of IP (4 or 16 bytes) and port (2 bytes, big-endian) in 6 or 18 bytes, and
``"relays"``, a list of URLs: all places where the sender may be reached from now on. Other names are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import msgpack  # type: ignore[import-untyped]

from ..addr import IpAddr, RelayUrl, TransportAddr
from ..errors import DecodeError, InvalidAddress
from .probes import KEY_SIZE, TAG_SIZE, ProbeKey

__all__ = ["MAX_DIRECT", "MAX_MESSAGE", "PATHS_ALPN", "Signal"]

PATHS_ALPN = b"tidings/paths/1"
MAX_DIRECT = 20  # addresses of a peer that are asked: a peer that lies makes us send pings to strangers
MAX_RELAYS = 4
MAX_MESSAGE = 16_384  # bytes
BROADCAST = ip_address("255.255.255.255")
IP_SIZES = (4 + 2, 16 + 2)


@dataclass(frozen=True, slots=True)
class Signal:
    """Where the sender is; ``key`` in its first message."""

    addrs: tuple[TransportAddr, ...]
    key: ProbeKey | None = None

    def encode(self) -> bytes:
        message: dict[str, Any] = {
            "direct": [addr.ip.packed + addr.port.to_bytes(2, "big") for addr in _direct(self.addrs)],
            "relays": [addr.url for addr in self.addrs if isinstance(addr, RelayUrl)][:MAX_RELAYS],
        }
        if self.key is not None:
            message |= {"tag": self.key.tag, "key": self.key.key}
        data: bytes = msgpack.packb(message)
        return data

    @classmethod
    def decode(cls, data: bytes) -> Signal:
        """DecodeError for anything that is none."""
        try:
            message = msgpack.unpackb(data, raw=False, strict_map_key=True)
        except (ValueError, msgpack.UnpackException) as error:
            raise DecodeError(f"a message about ways is not msgpack: {error}") from error
        if not isinstance(message, dict):
            raise DecodeError("a message about ways is a map")
        direct = [_ip_addr(each) for each in _list(message, "direct", MAX_DIRECT)]
        relays = [_relay(each) for each in _list(message, "relays", MAX_RELAYS)]
        key = None
        if "key" in message:
            key = ProbeKey(_octets(message, "tag", TAG_SIZE), _octets(message, "key", KEY_SIZE))
        return cls((*direct, *relays), key)


def _direct(addrs: Iterable[TransportAddr]) -> list[IpAddr]:
    return [addr for addr in addrs if isinstance(addr, IpAddr)][:MAX_DIRECT]


def _list(message: Mapping[str, Any], name: str, most: int) -> list[Any]:
    value = message.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise DecodeError(f'"{name}" in a message about ways is a list of at most {most}')
    return value


def _octets(message: Mapping[str, Any], name: str, size: int) -> bytes:
    value = message.get(name)
    if not isinstance(value, bytes) or len(value) != size:
        raise DecodeError(f'"{name}" in a message about ways has {size} bytes')
    return value


def _ip_addr(value: object) -> IpAddr:
    if not isinstance(value, bytes) or len(value) not in IP_SIZES:
        raise DecodeError("an address in a message about ways has 6 or 18 bytes")
    addr = IpAddr(ip_address(value[:-2]), int.from_bytes(value[-2:], "big"))
    if not addr.port or addr.ip.is_unspecified or addr.ip.is_multicast or addr.ip == BROADCAST:
        raise DecodeError(f"{addr} is no address of an endpoint")
    return addr


def _relay(value: object) -> RelayUrl:
    try:
        return RelayUrl(value if isinstance(value, str) else "")
    except InvalidAddress as error:
        raise DecodeError(str(error)) from error
