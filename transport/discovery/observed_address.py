"""OBSERVED_ADDRESS and its transport parameter (draft-seemann-quic-address-discovery; iroh-transport.md 2e).

::

    frame      9f81a6 (IPv4) or 9f81a7 (IPv6) | sequence number | IP 4 or 16 | port 2, big-endian
    parameter  9f81a176 | length 1 | 0: sends reports, 1: receives them, 2: both

Types, sequence numbers and lengths are QUIC varints.
"""

from __future__ import annotations

from ipaddress import ip_address

from aioquic._buffer import Buffer
from aioquic.buffer import encode_uint_var

from ..addr import IpAddr

__all__ = [
    "FRAME_SIZE",
    "OBSERVED_V4",
    "OBSERVED_V6",
    "RECEIVES",
    "SENDS",
    "encode_parameter",
    "frame_type",
    "pull_observed",
    "push_observed",
]

OBSERVED_V4, OBSERVED_V6 = 0x9F81A6, 0x9F81A7
PARAMETER = 0x9F81A176
SENDS, RECEIVES = 0, 1
FRAME_SIZE = 4 + 8 + 16 + 2  # bytes at most


def encode_parameter(role: int) -> bytes:
    return encode_uint_var(PARAMETER) + encode_uint_var(1) + encode_uint_var(role)


def frame_type(addr: IpAddr) -> int:
    return OBSERVED_V4 if addr.ip.version == 4 else OBSERVED_V6


def push_observed(buffer: Buffer, sequence: int, addr: IpAddr) -> None:
    """What follows the frame's type."""
    buffer.push_uint_var(sequence)
    buffer.push_bytes(addr.ip.packed)
    buffer.push_uint16(addr.port)


def pull_observed(buffer: Buffer, type: int) -> tuple[int, IpAddr]:
    """The sequence number and the address. BufferReadError where it is cut."""
    sequence = buffer.pull_uint_var()
    ip = ip_address(buffer.pull_bytes(4 if type == OBSERVED_V4 else 16))
    return sequence, IpAddr(ip, buffer.pull_uint16())
