"""Messages of documents and their bytes (``reference/iroh-protocols.md`` 2.5 to 2.7, Appendix A).

On a sync stream: `Init`, `Sync`, `Abort`, each a frame, and between tidings peers `Check` and lists. In gossip: `Put`,
`ContentReady`, `SyncReport`.
Encoders give the payload without the frame's length. Decoders raise DecodeError for anything that is not one message
and nothing else, and check every count against a limit before they make room for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from ...transport.errors import DecodeError
from ...transport.postcard import Reader, Writer
from .entry import MAX_ID_SIZE, MIN_ID_SIZE, SignedEntry
from .ranges import IdRange
from .reconcile import (
    SHORT,
    ContentStatus,
    Message,
    Part,
    RangeFingerprint,
    RangeItems,
    RangeList,
    RangeWant,
    Value,
)

__all__ = [
    "MAX_OP_SIZE",
    "Abort",
    "AbortReason",
    "Check",
    "ContentReady",
    "Init",
    "Op",
    "Put",
    "Sync",
    "SyncMessage",
    "SyncReport",
    "decode_op",
    "decode_sync",
    "encode_op",
    "encode_sync",
]

MAX_PARTS = 65_536  # in a received message; a peer splits each of our at most 4096 parts a few ways
MAX_VALUES = 1 << 20  # in a received part; the frame limit is reached long before
MIN_ENTRY_SIZE = 128 + 1 + MIN_ID_SIZE + 1 + 32 + 1
MAX_SHORTS = 1 << 20  # bytes of a received list
MAX_HEADS = 4096  # in a received report

MAX_OP_SIZE = 4057
"""The largest content that gossip carries with its default message size."""

_KINDS = (RangeFingerprint, RangeItems, RangeList, RangeWant)


class AbortReason(IntEnum):
    NOT_FOUND = 0
    ALREADY_SYNCING = 1
    INTERNAL_ERROR = 2


@dataclass(frozen=True, slots=True)
class Init:
    """The dialler's first message: which document, and how it stands here."""

    namespace: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Sync:
    message: Message


@dataclass(frozen=True, slots=True)
class Abort:
    """The acceptor's refusal."""

    reason: AbortReason


@dataclass(frozen=True, slots=True)
class Check:
    """Begins the second pass: one range, with a keyed fingerprint (`keyed`). On ``tidings/docs/1`` only."""

    message: Message


SyncMessage = Init | Sync | Abort | Check


@dataclass(frozen=True, slots=True)
class Put:
    """A new entry."""

    entry: SignedEntry


@dataclass(frozen=True, slots=True)
class ContentReady:
    """The sender now has the blob of this hash."""

    hash: bytes


@dataclass(frozen=True, slots=True)
class SyncReport:
    """How far the sender is: the time of the newest entry, in microseconds, of each author."""

    namespace: bytes
    heads: Mapping[bytes, int]


Op = Put | ContentReady | SyncReport


def encode_sync(message: SyncMessage) -> bytes:
    out = Writer()
    match message:
        case Init(namespace, parts):
            out.u8(0).raw(namespace)
            _write_message(out, parts)
        case Sync(parts):
            out.u8(1)
            _write_message(out, parts)
        case Abort(reason):
            out.u8(2).u8(reason)
        case Check(parts):
            out.u8(3)
            _write_message(out, parts)
    return out.finish()


def decode_sync(payload: bytes) -> SyncMessage:
    data = Reader(payload)
    message: SyncMessage
    match data.variant(4):
        case 0:
            message = Init(data.raw(32), _read_message(data))
        case 1:
            message = Sync(_read_message(data))
        case 2:
            message = Abort(AbortReason(data.variant(3)))
        case _:
            message = Check(_read_message(data))
    data.end()
    return message


def encode_op(op: Op) -> bytes:
    """At most `MAX_OP_SIZE` bytes, except a `Put` with a key of more than about 3.8 kB, which gossip cannot carry."""
    out = Writer()
    match op:
        case Put(entry):
            out.u8(0)
            entry.write(out)
        case ContentReady(hash):
            out.u8(1).raw(hash)
        case SyncReport(namespace, heads):
            out.u8(2).raw(namespace).octets(_encode_heads(heads, MAX_OP_SIZE - 36))
    return out.finish()


def decode_op(payload: bytes) -> Op:
    data = Reader(payload)
    op: Op
    match data.variant(3):
        case 0:
            op = Put(SignedEntry.read(data))
        case 1:
            op = ContentReady(data.raw(32))
        case _:
            op = SyncReport(data.raw(32), _decode_heads(data.octets(len(payload))))
    data.end()
    return op


def _encode_heads(heads: Mapping[bytes, int], limit: int) -> bytes:
    """Newest first, as many as fit ``limit`` bytes: what is left out is older, and the next report may have it."""
    newest = sorted(heads.items(), key=lambda head: (-head[1], head[0]))
    pieces = [Writer().varint(timestamp).raw(author).finish() for author, timestamp in newest]
    size = kept = 0
    for piece in pieces:
        if size + len(piece) > limit - 3:  # the count takes up to three bytes
            break
        size += len(piece)
        kept += 1
    return Writer().varint(kept).raw(b"".join(pieces[:kept])).finish()


def _decode_heads(payload: bytes) -> dict[bytes, int]:
    data = Reader(payload)
    heads: dict[bytes, int] = {}
    for _ in range(data.count(MAX_HEADS, each=33)):
        timestamp, author = data.varint(), data.raw(32)
        heads[author] = max(timestamp, heads.get(author, 0))
    data.end()
    return heads


def _write_message(out: Writer, parts: Message) -> None:
    out.varint(len(parts))
    for part in parts:
        out.u8(_KINDS.index(type(part))).octets(part.range.x).octets(part.range.y)
        match part:
            case RangeFingerprint():
                out.raw(part.fingerprint)
            case RangeItems():
                out.varint(len(part.values))
                for entry, status in part.values:
                    entry.write(out)
                    out.u8(status)
                out.flag(part.have_local)
            case _:
                out.octets(part.shorts)


def _read_message(data: Reader) -> list[Part]:
    # The smallest part: a discriminant, two bounds, an empty list.
    return [_read_part(data) for _ in range(data.count(MAX_PARTS, each=2 * (1 + MIN_ID_SIZE) + 2))]


def _read_part(data: Reader) -> Part:
    kind = _KINDS[data.variant(len(_KINDS))]
    range_ = IdRange(_read_bound(data), _read_bound(data))
    if kind is RangeFingerprint:
        return RangeFingerprint(range_, data.raw(32))
    if kind is RangeItems:
        count = data.count(MAX_VALUES, each=MIN_ENTRY_SIZE + 1)
        values = [Value(SignedEntry.read(data), ContentStatus(data.variant(3))) for _ in range(count)]
        return RangeItems(range_, values, data.flag())
    shorts = data.octets(MAX_SHORTS)
    if len(shorts) % SHORT:
        raise DecodeError(f"a list of a range has {len(shorts)} bytes, {SHORT} for each entry are needed")
    return RangeList(range_, shorts) if kind is RangeList else RangeWant(range_, shorts)


def _read_bound(data: Reader) -> bytes:
    bound = data.octets(MAX_ID_SIZE)
    if len(bound) < MIN_ID_SIZE:
        raise DecodeError(f"a bound of a range has {len(bound)} bytes, at least {MIN_ID_SIZE} are needed")
    return bound
