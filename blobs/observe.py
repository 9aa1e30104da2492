"""Observe: what a peer has of a blob, now and as it changes (reference 3.2, 3.4).

The answer is a sequence of items without an end, each behind its length as a varint: the size as far as it is known
(varint, 0 for nothing), and the boundaries of the chunks that are there, each a varint. The first item is the whole
set, each later one what has changed since.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ..transport.connection import Connection
from ..transport.errors import DecodeError, StreamReset
from ..transport.postcard import Reader, Writer
from ..transport.stream import RecvStream
from .hash import Hash
from .messages import ObserveRequest, ResetCode, refusal
from .ranges import MAX_WIDTHS, ChunkRanges

__all__ = ["decode_item", "encode_item", "observe", "read_length"]

MAX_ITEM = 1 << 20  # bytes


async def observe(connection: Connection, hash: Hash) -> AsyncGenerator[tuple[int, ChunkRanges], None]:
    """Yield (size, chunks that are there) whenever the peer says something new. Closing it ends the request."""
    stream = await connection.open_bi()
    await stream.send.write(ObserveRequest(hash).encode())
    await stream.send.finish()
    have = ChunkRanges.NONE
    try:
        while True:
            size, changed = decode_item(await stream.recv.read_exactly(await read_length(stream.recv, MAX_ITEM)))
            have ^= changed
            yield size, have
    except StreamReset as error:
        raise refusal(error.code, hash, connection.remote_id) from error
    finally:
        stream.recv.stop(ResetCode.INTERNAL)


def encode_item(size: int, changed: ChunkRanges) -> bytes:
    out = Writer().varint(size).varint(len(changed.boundaries))
    for boundary in changed.boundaries:
        out.varint(boundary)
    body = out.finish()
    return Writer().octets(body).finish()


def decode_item(body: bytes) -> tuple[int, ChunkRanges]:
    """Without the length before it. `DecodeError`."""
    reader = Reader(body)
    size = reader.varint()
    boundaries = tuple(reader.varint() for _ in range(reader.count(MAX_WIDTHS)))
    reader.end()
    try:
        return size, ChunkRanges(boundaries)
    except ValueError as error:
        raise DecodeError(f"what a peer has: {error}") from None


async def read_length(recv: RecvStream, limit: int) -> int:
    """A varint, of at most ``limit``; `DecodeError`."""
    length = shift = 0
    while True:
        byte = (await recv.read_exactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
        if shift > 28:
            raise DecodeError("a length has no end")
    if length > limit:
        raise DecodeError(f"{length} bytes are announced: {limit} are allowed")
    return length
