"""The frames of the relay protocol, each one binary WebSocket message (``reference/iroh-transport.md`` 2c).

A frame is its type, one byte for all that there are, and a body. Which types may come depends on who speaks and on the
version that both agreed on when they connected: v1 says `Health` where v2 says `Status`. What is not allowed, of the
wrong length, or longer than `MAX_BODY` raises DecodeError and ends the connection it came on.

What a relay forwards most it does not take apart: `forward` changes the type and the address of a datagram and leaves
the rest as it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from ..errors import DecodeError
from ..keys import KEY_SIZE, SIGNATURE_SIZE, EndpointId
from ..postcard import Reader, Writer

__all__ = [
    "MAX_BODY",
    "VERSIONS",
    "Challenge",
    "ClientAuth",
    "Confirmed",
    "Datagrams",
    "Denied",
    "EndpointGone",
    "Frame",
    "Health",
    "Ping",
    "Pong",
    "Restarting",
    "Role",
    "Status",
    "StatusCode",
    "Version",
    "decode",
    "encode",
    "forward",
]

Version = Literal["iroh-relay-v2", "iroh-relay-v1"]
VERSIONS: tuple[Version, ...] = ("iroh-relay-v2", "iroh-relay-v1")
"""Names of WebSocket subprotocols, the best first."""

Role = Literal["client", "server"]
"""Who sends a frame."""

MAX_BODY = 65_536
CHALLENGE_SIZE = 16
PING_SIZE = 8
MAX_REASON = 4096  # bytes of text from the other side that we keep
ADDRESSED = 1 + KEY_SIZE + 1  # bytes before a datagram: type, who, ECN


class StatusCode(IntEnum):
    HEALTHY = 0
    SAME_ID_ELSEWHERE = 1
    """A newer connection of this id gets what is sent to it; this one may still send."""
    RATE_LIMITED = 2


@dataclass(frozen=True, slots=True)
class Challenge:
    challenge: bytes


@dataclass(frozen=True, slots=True)
class ClientAuth:
    id: EndpointId
    signature: bytes


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The client is who it says, and may use the relay."""


@dataclass(frozen=True, slots=True)
class Denied:
    reason: str


@dataclass(frozen=True, slots=True)
class Datagrams:
    """QUIC packets of one sender to one receiver. ``peer``: to whom, from a client; from whom, from a server.

    ``segment``: the payload is many of this size, the last may be shorter; None: it is one. ``ecn``: the two bits.
    """

    peer: EndpointId
    payload: bytes
    segment: int | None = None
    ecn: int = 0

    def split(self) -> Iterator[bytes]:
        size = self.segment or len(self.payload)
        return (self.payload[start : start + size] for start in range(0, len(self.payload), size))


@dataclass(frozen=True, slots=True)
class EndpointGone:
    """An endpoint that had sent us datagrams has left the relay."""

    id: EndpointId


@dataclass(frozen=True, slots=True)
class Ping:
    data: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    data: bytes


@dataclass(frozen=True, slots=True)
class Health:
    """What is wrong with the connection, in words; empty: nothing any more."""

    problem: str


@dataclass(frozen=True, slots=True)
class Restarting:
    """The server goes down. Milliseconds after which to connect again, and for how long to try."""

    reconnect_in: int
    try_for: int


@dataclass(frozen=True, slots=True)
class Status:
    code: int
    """A `StatusCode`, or one that is not known yet."""


Frame = (
    Challenge | ClientAuth | Confirmed | Denied | Datagrams | EndpointGone | Ping | Pong | Health | Restarting | Status
)

_CHALLENGE, _AUTH, _CONFIRMED, _DENIED, _SEND, _SEND_BATCH, _RECEIVE, _RECEIVE_BATCH = range(8)
_GONE, _PING, _PONG, _HEALTH, _RESTARTING, _STATUS = range(8, 14)
_FROM_CLIENT = frozenset({_AUTH, _SEND, _SEND_BATCH, _PING, _PONG})
_FROM_SERVER = frozenset(range(14)) - {_AUTH, _SEND, _SEND_BATCH}
_NOT_IN = {"iroh-relay-v2": _HEALTH, "iroh-relay-v1": _STATUS}


def encode(frame: Frame, *, by: Role) -> bytes:
    """The whole message. ``by``: the side that sends it."""
    out = Writer()
    match frame:
        case Challenge(challenge):
            out.u8(_CHALLENGE).raw(challenge)
        case ClientAuth(id, signature):
            out.u8(_AUTH).raw(bytes(id)).octets(signature)
        case Confirmed():
            out.u8(_CONFIRMED)
        case Denied(reason):
            out.u8(_DENIED).string(reason)
        case Datagrams(peer, payload, segment, ecn):
            first = _SEND if by == "client" else _RECEIVE
            out.u8(first if segment is None else first + 1).raw(bytes(peer)).u8(ecn)
            if segment is not None:
                out.raw(segment.to_bytes(2, "big"))
            out.raw(payload)
        case EndpointGone(id):
            out.u8(_GONE).raw(bytes(id))
        case Ping(data):
            out.u8(_PING).raw(data)
        case Pong(data):
            out.u8(_PONG).raw(data)
        case Health(problem):
            out.u8(_HEALTH).raw(problem.encode())
        case Restarting(reconnect_in, try_for):
            out.u8(_RESTARTING).raw(reconnect_in.to_bytes(4, "big")).raw(try_for.to_bytes(4, "big"))
        case Status(code):
            out.u8(_STATUS).u8(code)
    return out.finish()


def decode(data: bytes, *, by: Role, version: Version) -> Frame:
    """One message that the side ``by`` sent. Raises DecodeError."""
    kind = _kind(data)
    if kind not in (_FROM_CLIENT if by == "client" else _FROM_SERVER) or kind == _NOT_IN[version]:
        raise DecodeError(f"a frame of type {kind} is none that a {by} sends in {version}")
    body = Reader(data[1:])
    frame: Frame
    match kind:
        case 0:
            frame = Challenge(body.raw(CHALLENGE_SIZE))
        case 1:
            frame = ClientAuth(EndpointId(body.raw(KEY_SIZE)), body.octets(SIGNATURE_SIZE))
        case 2:
            frame = Confirmed()
        case 3:
            frame = Denied(body.string(MAX_REASON))
        case 4 | 5 | 6 | 7:
            return _datagrams(data, is_batch=kind % 2 == 1)
        case 8:
            frame = EndpointGone(EndpointId(body.raw(KEY_SIZE)))
        case 9:
            frame = Ping(body.raw(PING_SIZE))
        case 10:
            frame = Pong(body.raw(PING_SIZE))
        case 11:
            return Health(_text(data[1:]))
        case 12:
            frame = Restarting(int.from_bytes(body.raw(4), "big"), int.from_bytes(body.raw(4), "big"))
        case _:
            frame = Status(body.u8())
    body.end()
    return frame


def forward(data: bytes, source: bytes) -> tuple[bytes, bytes] | None:
    """Of a client's datagrams the id they are for, and the message for it; None for any other frame.

    Raises DecodeError.
    """
    kind = _kind(data)
    if kind not in (_SEND, _SEND_BATCH):
        return None
    _check_datagrams(data, is_batch=kind == _SEND_BATCH)
    return data[1 : 1 + KEY_SIZE], bytes((kind + 2,)) + source + data[1 + KEY_SIZE :]


def _kind(data: bytes) -> int:
    if not data or len(data) > 1 + MAX_BODY:
        raise DecodeError(f"a frame has {len(data)} bytes, 1 to {1 + MAX_BODY} are allowed")
    return data[0]  # a QUIC varint: types of 64 and more, which have more bytes, are not known


def _check_datagrams(data: bytes, *, is_batch: bool) -> None:
    start = ADDRESSED + 2 * is_batch
    if len(data) <= start or (is_batch and not any(data[ADDRESSED:start])):
        raise DecodeError("a frame of datagrams has none")


def _datagrams(data: bytes, *, is_batch: bool) -> Datagrams:
    _check_datagrams(data, is_batch=is_batch)
    peer, ecn = EndpointId(data[1 : 1 + KEY_SIZE]), data[ADDRESSED - 1]
    if not is_batch:
        return Datagrams(peer, data[ADDRESSED:], None, ecn)
    return Datagrams(peer, data[ADDRESSED + 2 :], int.from_bytes(data[ADDRESSED : ADDRESSED + 2], "big"), ecn)


def _text(data: bytes) -> str:
    try:
        return data[:MAX_REASON].decode()
    except UnicodeDecodeError as error:
        raise DecodeError("a text of the relay is not UTF-8") from error
