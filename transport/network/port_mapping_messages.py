"""Asking a router for a port: NAT-PMP (RFC 6886) and PCP (RFC 6887), the messages of both.

Both are asked at UDP port 5351 of the default gateway; a router that knows only NAT-PMP refuses PCP's version, and the
other way round.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ..addr import IpAddr
from ..errors import DecodeError

__all__ = ["NONCE_SIZE", "PORT", "Mapped", "PcpRequest", "PmpAddress", "PmpRequest", "decode_pcp", "decode_pmp"]

PORT = 5351
NONCE_SIZE = 12
UDP = 17  # IANA's number
PMP, PCP = 0, 2  # versions
PMP_ADDRESS, PMP_MAP_UDP, PCP_MAP = 0, 1, 1
RESPONSE = 128
_PCP_REQUEST = struct.Struct(">BBHI16s 12sB3xHH16s")
_PCP_RESPONSE = struct.Struct(">BBBBI I12x 12sB3xHH16s")
_PMP_MAP = struct.Struct(">BBHHHI")
_PMP_MAPPED = struct.Struct(">BBHIHHI")
_PMP_ADDRESS = struct.Struct(">BBHI4s")
PROBLEMS = {
    PMP: {
        1: "it does not know NAT-PMP",
        2: "it is not allowed",
        3: "it has no address itself",
        4: "it has no port left",
    },
    PCP: {
        1: "it does not know PCP",
        2: "it is not allowed",
        8: "it has no port left",
        12: "another device has the port",
    },
}


@dataclass(frozen=True, slots=True)
class Mapped:
    """``port`` of the router leads to ours, for ``lifetime`` seconds. ``ip`` is the router's; PMP asks for it apart."""

    port: int
    lifetime: int
    ip: IPv4Address | IPv6Address | None = None

    @property
    def addr(self) -> IpAddr | None:
        return None if self.ip is None else IpAddr(self.ip, self.port)


@dataclass(frozen=True, slots=True)
class PmpRequest:
    """Lifetime 0 gives the port back."""

    port: int
    lifetime: int
    suggested: int = 0

    def encode(self) -> bytes:
        return _PMP_MAP.pack(PMP, PMP_MAP_UDP, 0, self.port, self.suggested, self.lifetime)


@dataclass(frozen=True, slots=True)
class PmpAddress:
    """What is the router's address?"""

    def encode(self) -> bytes:
        return bytes((PMP, PMP_ADDRESS))


@dataclass(frozen=True, slots=True)
class PcpRequest:
    """``client`` is our address as the router sees it; ``nonce`` says in later requests that they are ours."""

    client: IPv4Address
    port: int
    lifetime: int
    nonce: bytes
    suggested: int = 0

    def encode(self) -> bytes:
        return _PCP_REQUEST.pack(
            PCP,
            PCP_MAP,
            0,
            self.lifetime,
            _mapped(self.client),
            self.nonce,
            UDP,
            self.port,
            self.suggested,
            _mapped(None),
        )


def decode_pmp(data: bytes, port: int) -> Mapped | IPv4Address:
    """An answer about our ``port``, or the router's address. Raises DecodeError, with the router's reason."""
    if len(data) < 4 or data[0] != PMP or data[1] < RESPONSE:
        raise DecodeError("no answer of NAT-PMP")
    _refuse(PMP, int.from_bytes(data[2:4], "big"))
    try:
        if data[1] == RESPONSE + PMP_ADDRESS:
            *_, ip = _PMP_ADDRESS.unpack(data)
            return IPv4Address(ip)
        if data[1] == RESPONSE + PMP_MAP_UDP:
            *_, internal, external, lifetime = _PMP_MAPPED.unpack(data)
            if internal == port:
                return Mapped(external, lifetime)
    except struct.error as error:
        raise DecodeError(f"an answer of NAT-PMP has {len(data)} bytes") from error
    raise DecodeError("an answer of NAT-PMP to another question")


def decode_pcp(data: bytes, port: int, nonce: bytes) -> Mapped:
    """An answer about our ``port``. Raises DecodeError, with the router's reason."""
    if len(data) < 4 or data[0] != PCP or data[1] != RESPONSE + PCP_MAP:
        raise DecodeError("no answer of PCP")
    _refuse(PCP, data[3])
    try:
        _, _, _, _, lifetime, _, answered, protocol, internal, external, ip = _PCP_RESPONSE.unpack(data[:60])
    except struct.error as error:
        raise DecodeError(f"an answer of PCP has {len(data)} bytes") from error
    if (answered, protocol, internal) != (nonce, UDP, port):
        raise DecodeError("an answer of PCP to another question")
    address = IPv6Address(ip)
    return Mapped(external, lifetime, address.ipv4_mapped or address)


def _refuse(version: int, code: int) -> None:
    if code:
        raise DecodeError(f"the router refuses: {PROBLEMS[version].get(code, f'code {code}')}")


def _mapped(ip: IPv4Address | None) -> bytes:
    """IPv4 as IPv6 has it; zeros where there is none (RFC 6887 5)."""
    return bytes(10) + b"\xff\xff" + (bytes(4) if ip is None else ip.packed)
