"""Messages of ``tidings/docs/1`` and their bytes (``docs/protocol.md``).

Each is a msgpack map with text keys. A stream begins with one request, which is answered by one frame. Keys that a
version does not know are ignored, so that a later one can say more. Decoders raise DecodeError for anything that is not
one message, and check every length and count before they use it. Long lists are bytes of fixed-size records: an array
costs the reader sixty times its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

import msgpack  # type: ignore[import-untyped]

from ...transport.errors import DecodeError
from ...transport.postcard import Reader, Writer
from .entry import MAX_ID_SIZE, SignedEntry
from .reconcile import ContentStatus, Value
from .validity import MAX_KEY_SIZE

__all__ = [
    "MAX_DIGESTS",
    "MAX_NEWS",
    "MAX_NEWS_FRAME",
    "MAX_REQUEST",
    "MAX_TOLD",
    "NONCE_SIZE",
    "Accepted",
    "Differ",
    "Digest",
    "DigestRequest",
    "FollowRequest",
    "News",
    "Refused",
    "RefusedReason",
    "Request",
    "SyncAgain",
    "SyncRequest",
    "TellRequest",
    "decode_answer",
    "decode_news",
    "decode_request",
    "encode_answer",
    "encode_news",
    "encode_request",
]

MAX_REQUEST = 1 << 16  # bytes of a request or of its answer
NONCE_SIZE = 32
MAX_DIGESTS = 768  # documents in a request: 55 kB
MAX_SHARE = 4096  # bytes of a share record
MAX_REVOCATIONS = 512  # in a request or an answer, of
MAX_REVOCATION = 104  # bytes each, so that all fit beside the rest
MAX_WHY = 500  # characters
MAX_NEWS = 128  # entries in one frame of a followed document
MAX_NEWS_FRAME = 1 << 20  # bytes: entries with keys of the largest size are 550 kB
MAX_CONTENTS = 1024  # hashes in one frame
MAX_TOLD = 60_000  # bytes of the entries in a request to take them
DIGEST_SIZE = 32 + 32 + 8
MAX_FIELDS = 32  # keys in a map
MAX_ITEMS = 1024  # in any array


class RefusedReason(Enum):
    NOT_FOUND = "not found"
    """The document is not here, or not open, or not for this peer."""
    DENIED = "denied"
    """The share that was presented does not let the peer read."""
    SYNCING = "already syncing"
    """Our own dial to the peer goes before."""
    BUSY = "busy"
    """Too many at once: come again later."""
    UNKNOWN = "unknown"
    """A reason of a later version."""


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """Sync a document, or what lies below ``prefix``. Sync messages follow without waiting for the answer, unless
    the document is restricted: then its ``share`` must first have shown that the acceptor may read as well.

    ``share`` is what lets us read a restricted document; ``revoked`` are records of what no longer lets anybody.
    """

    namespace: bytes
    nonce: bytes
    prefix: bytes | None = None
    share: bytes | None = None
    revoked: Sequence[bytes] = ()


class Digest(NamedTuple):
    """How a document stands: XOR fingerprint and count of all its entries."""

    namespace: bytes
    fingerprint: bytes
    size: int


@dataclass(frozen=True, slots=True)
class DigestRequest:
    """Which of these differ there?"""

    digests: Sequence[Digest]


@dataclass(frozen=True, slots=True)
class FollowRequest:
    """Send what is stored below the prefix from now on."""

    namespace: bytes
    prefix: bytes
    share: bytes | None = None


@dataclass(frozen=True, slots=True)
class TellRequest:
    """Take what was written here. ``values`` are `MAX_NEWS` at most, and of `MAX_TOLD` bytes."""

    namespace: bytes
    values: Sequence[Value]
    share: bytes | None = None


Request = SyncRequest | DigestRequest | FollowRequest | TellRequest


@dataclass(frozen=True, slots=True)
class Accepted:
    """To a sync, with the acceptor's nonce, or to a follow or a tell, without. ``share`` is what the acceptor has to
    show."""

    nonce: bytes | None = None
    revoked: Sequence[bytes] = ()
    share: bytes | None = None


@dataclass(frozen=True, slots=True)
class Differ:
    """To a digest: positions in the request, ascending. What the asker may not read is left out."""

    positions: Sequence[int]


@dataclass(frozen=True, slots=True)
class Refused:
    """``why`` is for people."""

    reason: RefusedReason
    why: str


Answer = Accepted | Differ | Refused


@dataclass(frozen=True, slots=True)
class News:
    """Stored at the provider since the last frame, and contents that it has got for what it sent before."""

    values: Sequence[Value]
    contents: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class SyncAgain:
    """More happened than fits the queue."""


def encode_request(request: Request) -> bytes:
    match request:
        case SyncRequest(namespace, nonce, prefix, share, revoked):
            fields = {"do": "sync", "doc": namespace, "nonce": nonce, "prefix": prefix, "share": share}
            return _pack(fields | {"revoked": list(revoked)})
        case DigestRequest(digests):
            return _pack({"do": "digest", "docs": b"".join(d + f + n.to_bytes(8, "big") for d, f, n in digests)})
        case FollowRequest(namespace, prefix, share):
            return _pack({"do": "follow", "doc": namespace, "prefix": prefix, "share": share})
        case TellRequest(namespace, values, share):
            return _pack({"do": "tell", "doc": namespace, "entries": _write_values(values), "share": share})


def decode_request(payload: bytes) -> Request:
    fields = _Fields(payload, MAX_REQUEST)
    match fields.text("do"):
        case "sync":
            nonce = fields.exactly("nonce", NONCE_SIZE)
            return SyncRequest(fields.exactly("doc", 32), nonce, fields.prefix(), fields.share(), fields.revoked())
        case "digest":
            records = fields.records("docs", DIGEST_SIZE, MAX_DIGESTS)
            return DigestRequest([Digest(r[:32], r[32:64], int.from_bytes(r[64:], "big")) for r in records])
        case "follow":
            prefix = fields.prefix()
            if prefix is None:
                raise DecodeError("a request to follow a document names no prefix")
            return FollowRequest(fields.exactly("doc", 32), prefix, fields.share())
        case "tell":
            return TellRequest(fields.exactly("doc", 32), fields.values(MAX_TOLD), fields.share())
        case other:
            raise DecodeError(f"a request to {other!r} is not known here")


def encode_answer(answer: Answer) -> bytes:
    match answer:
        case Accepted(nonce, revoked, share):
            return _pack({"ok": True, "nonce": nonce, "revoked": list(revoked), "share": share})
        case Differ(positions):
            return _pack({"ok": True, "differ": b"".join(position.to_bytes(2, "big") for position in positions)})
        case Refused(reason, why):
            return _pack({"refused": reason.value, "why": why[:MAX_WHY]})


def decode_answer(payload: bytes) -> Answer:
    fields = _Fields(payload, MAX_REQUEST)
    if "refused" in fields:
        known = {reason.value: reason for reason in RefusedReason}
        return Refused(known.get(fields.text("refused"), RefusedReason.UNKNOWN), fields.text("why", ""))
    if "differ" in fields:
        positions = [int.from_bytes(record, "big") for record in fields.records("differ", 2, MAX_DIGESTS)]
        if any(a >= b for a, b in pairwise(positions)):
            raise DecodeError("positions of documents do not ascend")
        return Differ(positions)
    if not fields.flag("ok"):
        raise DecodeError("an answer says neither yes nor no")
    nonce = fields.exactly("nonce", NONCE_SIZE) if "nonce" in fields else None
    return Accepted(nonce, fields.revoked(), fields.share())


def encode_news(news: News | SyncAgain) -> bytes:
    """Of at most `MAX_NEWS` entries."""
    if isinstance(news, SyncAgain):
        return _pack({"again": True})
    return _pack({"entries": _write_values(news.values), "contents": b"".join(news.contents)})


def decode_news(payload: bytes) -> News | SyncAgain:
    fields = _Fields(payload, MAX_NEWS_FRAME)
    if fields.flag("again"):
        return SyncAgain()
    return News(fields.values(MAX_NEWS_FRAME), fields.records("contents", 32, MAX_CONTENTS))


class _Fields:
    """A decoded map; every value is checked as it is taken."""

    def __init__(self, payload: bytes, limit: int) -> None:
        if len(payload) > limit:
            raise DecodeError(f"a message of {len(payload)} bytes where at most {limit} are allowed")
        try:
            value = msgpack.unpackb(
                payload,
                raw=False,
                strict_map_key=True,
                max_str_len=limit,
                max_bin_len=limit,
                max_array_len=MAX_ITEMS,
                max_map_len=MAX_FIELDS,
                max_ext_len=0,
            )
        except (ValueError, OverflowError, msgpack.UnpackException) as error:
            raise DecodeError(f"not a msgpack message: {type(error).__name__}") from error
        if not isinstance(value, dict):
            raise DecodeError("a message is not a map")
        self._fields: Mapping[object, object] = value

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        value = self._fields.get(name, default)
        if not isinstance(value, str) or len(value) > MAX_WHY:
            raise DecodeError(f"{name!r} is not a short text")
        return value

    def flag(self, name: str) -> bool:
        value = self._fields.get(name, False)
        if not isinstance(value, bool):
            raise DecodeError(f"{name!r} is not true or false")
        return value

    def octets(self, name: str, limit: int) -> bytes:
        """Empty where it is missing."""
        return _octets(self._fields.get(name), name, limit) if name in self else b""

    def exactly(self, name: str, size: int) -> bytes:
        value = self.octets(name, size)
        if len(value) != size:
            raise DecodeError(f"{name!r} has {len(value)} bytes where {size} are needed")
        return value

    def prefix(self) -> bytes | None:
        if "prefix" not in self:
            return None
        prefix = self.octets("prefix", MAX_KEY_SIZE)
        if not prefix:
            raise DecodeError("the prefix of a part of a document is empty")
        return prefix

    def share(self) -> bytes | None:
        return self.octets("share", MAX_SHARE) if "share" in self else None

    def revoked(self) -> tuple[bytes, ...]:
        value = self._fields.get("revoked")
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > MAX_REVOCATIONS:
            raise DecodeError(f"'revoked' is not a list of at most {MAX_REVOCATIONS} records")
        return tuple(_octets(record, "revoked", MAX_REVOCATION) for record in value)

    def values(self, limit: int) -> list[Value]:
        data = Reader(self.octets("entries", limit))
        values: list[Value] = []
        while data.remaining:
            if len(values) == MAX_NEWS:
                raise DecodeError(f"a message has more than {MAX_NEWS} entries")
            status = ContentStatus(data.variant(3))
            values.append(Value(SignedEntry.read(data), status))
        return values

    def records(self, name: str, size: int, most: int) -> list[bytes]:
        data = self.octets(name, size * most)
        if len(data) % size:
            raise DecodeError(f"{name!r} is not a run of records of {size} bytes")
        return [data[start : start + size] for start in range(0, len(data), size)]


def _write_values(values: Sequence[Value]) -> bytes:
    out = Writer()
    for entry, status in values:
        out.u8(status)
        entry.write(out)
    return out.finish()


def _octets(value: object, name: str, limit: int) -> bytes:
    if not isinstance(value, bytes) or len(value) > limit:
        raise DecodeError(f"{name!r} is not bytes of at most {limit}")
    return value


def _pack(fields: Mapping[str, object]) -> bytes:
    return bytes(msgpack.packb({name: value for name, value in fields.items() if value not in (None, [])}))


assert MAX_NEWS * (MAX_ID_SIZE - 0xFFFF + MAX_KEY_SIZE + 256) < MAX_NEWS_FRAME
