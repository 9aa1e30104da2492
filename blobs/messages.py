"""What is asked on a stream of ``/iroh-bytes/4``, and the codes that refuse it (reference 3.2, 3.4).

A request is one byte for its kind and a postcard body, up to the end of the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from ..transport.errors import DecodeError
from ..transport.postcard import Reader, Writer
from .errors import NotProvided, Refused, UnsupportedRequest
from .hash import HASH_SIZE, Hash
from .ranges import ChunkRanges, ChunkRangesSeq

__all__ = ["ALPN", "MAX_REQUEST", "GetManyRequest", "GetRequest", "ResetCode", "decode_request", "refusal"]

ALPN = b"/iroh-bytes/4"
MAX_REQUEST = 1 << 20  # iroh's limit for a request's bytes

GET, OBSERVE, PUSH, GET_MANY = 0, 1, 8, 9
_KNOWN = {OBSERVE: "Observe", PUSH: "Push"}


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


def decode_request(data: bytes) -> GetRequest | GetManyRequest:
    """`UnsupportedRequest` for the other kinds, `DecodeError` for what is no request."""
    reader = Reader(data)
    kind = reader.u8()
    if kind == GET_MANY:
        hashes = tuple(Hash(reader.raw(HASH_SIZE)) for _ in range(reader.count(MAX_REQUEST, each=HASH_SIZE)))
        many = GetManyRequest(hashes, ChunkRangesSeq.read(reader))
        reader.end()
        return many
    if kind != GET:
        if kind > GET_MANY:
            raise DecodeError(f"{kind} is not a kind of request")
        raise UnsupportedRequest(f"this node answers Get and GetMany, not {_KNOWN.get(kind, f'request {kind}')}")
    request = GetRequest(Hash(reader.raw(HASH_SIZE)), ChunkRangesSeq.read(reader))
    reader.end()
    return request


def refusal(code: int, hash: Hash, peer: object) -> NotProvided | Refused:
    """What a reset of the answer with ``code`` means to the one who asked for ``hash``."""
    if code == ResetCode.PERMISSION:
        return Refused(f"the peer does not allow blob {hash.short()} to be fetched by this node", peer=peer)
    if code == ResetCode.LIMIT:
        return Refused(f"the peer has too many requests to send blob {hash.short()}; try again later", peer=peer)
    return NotProvided(f"the peer does not have all of blob {hash.short()}, or could not read it", peer=peer)
