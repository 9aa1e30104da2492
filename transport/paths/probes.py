"""Pings between two endpoints, on the sockets of their QUIC connections.

::

    0b 'tdp' | kind 1 | tag 8 | number 8 | seal 16            37 bytes

The first byte is none that QUIC uses (RFC 9443), so the two are told apart at once. ``tag`` names the receiver's end of
a signalling connection and ``seal`` is a BLAKE3 hash of all before under the key that the receiver has named there:
both are known to the two ends alone. A pong has the number and the size of its ping: whoever sends pings under a false
address multiplies nothing.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum

from blake3 import blake3

from ..errors import DecodeError

__all__ = ["FIRST_BYTE", "KEY_SIZE", "TAG_SIZE", "Kind", "Probe", "ProbeKey", "tag_of"]

FIRST_BYTE = 0x0B
MAGIC = bytes((FIRST_BYTE,)) + b"tdp"
TAG_SIZE, KEY_SIZE, SEAL_SIZE = 8, 32, 16
_BODY = struct.Struct("!4sB8sQ")
SIZE = _BODY.size + SEAL_SIZE
MAX_REMEMBERED = 1024  # numbers of pings: one that comes twice is a copy


class Kind(IntEnum):
    PING = 1
    PONG = 2


@dataclass(frozen=True, slots=True)
class Probe:
    kind: Kind
    number: int


def tag_of(datagram: bytes) -> bytes | None:
    """Whose this is; None where it is no probe."""
    return datagram[5 : 5 + TAG_SIZE] if len(datagram) == SIZE and datagram[:4] == MAGIC else None


@dataclass(slots=True)
class ProbeKey:
    """One end's receiving key, made by it and told to the other over the signalling connection."""

    tag: bytes
    key: bytes = field(repr=False)
    _seen: set[int] = field(default_factory=set, repr=False)
    _order: deque[int] = field(default_factory=deque, repr=False)
    _forgotten: int = 0

    @classmethod
    def generate(cls) -> ProbeKey:
        return cls(os.urandom(TAG_SIZE), os.urandom(KEY_SIZE))

    def seal(self, probe: Probe) -> bytes:
        """For the end that has this key."""
        body = _BODY.pack(MAGIC, probe.kind, self.tag, probe.number)
        return body + blake3(body, key=self.key).digest(SEAL_SIZE)

    def open(self, datagram: bytes) -> Probe | None:
        """The probe; None where it is not the peer's, or a ping that has come before.

        DecodeError where the peer has made it wrong.
        """
        if len(datagram) != SIZE:
            raise DecodeError(f"a probe has {SIZE} bytes, not {len(datagram)}")
        body, seal = datagram[: _BODY.size], datagram[_BODY.size :]
        if not hmac.compare_digest(seal, blake3(body, key=self.key).digest(SEAL_SIZE)):
            return None
        magic, kind, tag, number = _BODY.unpack(body)
        if magic != MAGIC or tag != self.tag or kind not in (Kind.PING, Kind.PONG):
            raise DecodeError("the peer has sealed what is no probe")
        if kind == Kind.PING and not self._is_fresh(number):
            return None
        return Probe(Kind(kind), number)

    def _is_fresh(self, number: int) -> bool:
        if number in self._seen or number <= self._forgotten:
            return False
        self._seen.add(number)
        self._order.append(number)
        if len(self._order) > MAX_REMEMBERED:
            oldest = self._order.popleft()
            self._seen.discard(oldest)
            self._forgotten = max(self._forgotten, oldest)
        return True
