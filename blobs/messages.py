"""What is asked on a stream of ``/iroh-bytes/4``, and the codes that refuse it (reference 3.2, 3.4).

A request is one byte for its kind and a postcard body, up to the end of the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from ..transport.errors import DecodeError
from ..transport.postcard import Reader, Writer
from .errors import Busy, NotProvided, Refused, UnsupportedRequest
from .hash import HASH_SIZE, Hash
from .ranges import ChunkRanges, ChunkRangesSeq

__all__ = [
    "ALPN",
    "MAX_REQUEST",
    "PUSH",
    "GetManyRequest",
    "GetRequest",
    "ObserveRequest",
    "PushRequest",
    "Request",
    "ResetCode",
    "decode_request",
    "refusal",
]

ALPN = b"/iroh-bytes/4"
MAX_REQUEST = 1 << 20  # iroh's limit for a request's bytes

GET, OBSERVE, PUSH, GET_MANY = 0, 1, 8, 9


class ResetCode(IntEnum):
    """Why a provider resets the stream of a request."""

    PERMISSION = 1
    LIMIT = 2
    INTERNAL = 3  # and whatever else: not there, not understood


@dataclass(frozen=True, slots=True)
class GetRequest:
    """Ranges of a blob and, where it is a sequence of hashes, of its children."""

    hash: Hash
    ranges: ChunkRangesSeq

    def encode(self) -> bytes:
        out = Writer().u8(GET).raw(bytes(self.hash))
        self.ranges.write(out)
        return out.finish()


@dataclass(frozen=True, slots=True)
class GetManyRequest:
    """Blobs by their hashes, which no sequence need hold; ``ranges`` counts from the first of them."""

    hashes: tuple[Hash, ...]
    ranges: ChunkRangesSeq = ChunkRangesSeq.EVERYTHING

    def encode(self) -> bytes:
        out = Writer().u8(GET_MANY).varint(len(self.hashes))
        for hash in self.hashes:
            out.raw(bytes(hash))
        self.ranges.write(out)
        return out.finish()

    def wanted(self) -> Iterator[tuple[Hash, ChunkRanges]]:
        """What is answered, in this order."""
        for index, ranges in self.ranges.wanted():
            if index >= len(self.hashes):
                return
            yield self.hashes[index], ranges


@dataclass(frozen=True, slots=True)
class ObserveRequest:
    """What of a blob is there, now and as it changes."""

    hash: Hash

    def encode(self) -> bytes:
        out = Writer().u8(OBSERVE).raw(bytes(self.hash))
        ChunkRanges.ALL.write(out)
        return out.finish()


@dataclass(frozen=True, slots=True)
class PushRequest:
    """What Get would ask for follows on the stream, as Get would answer it."""

    hash: Hash
    ranges: ChunkRangesSeq

    def encode(self) -> bytes:
        body = Writer().raw(bytes(self.hash))
        self.ranges.write(body)
        return Writer().u8(PUSH).octets(body.finish()).finish()

    @classmethod
    def decode(cls, body: bytes) -> PushRequest:
        """Of what stands between the length and the data."""
        reader = Reader(body)
        request = cls(Hash(reader.raw(HASH_SIZE)), ChunkRangesSeq.read(reader))
        reader.end()
        return request


Request = GetRequest | GetManyRequest | ObserveRequest | PushRequest


def decode_request(data: bytes) -> GetRequest | GetManyRequest | ObserveRequest:
    """Of a request that fills its stream: all but Push. `DecodeError` for what is none."""
    reader = Reader(data)
    request: GetRequest | GetManyRequest | ObserveRequest
    match reader.u8():
        case 0:
            request = GetRequest(Hash(reader.raw(HASH_SIZE)), ChunkRangesSeq.read(reader))
        case 1:
            request = ObserveRequest(Hash(reader.raw(HASH_SIZE)))
            ChunkRanges.read(reader)  # iroh's providers, too, tell all
        case 9:
            hashes = tuple(Hash(reader.raw(HASH_SIZE)) for _ in range(reader.count(MAX_REQUEST, each=HASH_SIZE)))
            request = GetManyRequest(hashes, ChunkRangesSeq.read(reader))
        case kind if kind <= GET_MANY:
            raise UnsupportedRequest(f"this node answers Get, GetMany, Observe and Push, not request {kind}")
        case kind:
            raise DecodeError(f"{kind} is not a kind of request")
    reader.end()
    return request


def refusal(code: int, hash: Hash, peer: object) -> NotProvided | Refused:
    """What a reset of the answer with ``code`` means to the one who asked for ``hash``."""
    if code == ResetCode.PERMISSION:
        return Refused(f"the peer does not allow blob {hash.short()} to be fetched by this node", peer=peer)
    if code == ResetCode.LIMIT:
        return Busy(f"the peer has too many requests to send blob {hash.short()}; try again later", peer=peer)
    return NotProvided(f"the peer does not have all of blob {hash.short()}, or could not read it", peer=peer)
