"""Messages on a stream: a length of four bytes, big-endian, then the message (gossip and documents; not blobs)."""

from __future__ import annotations

from .errors import DecodeError
from .stream import RecvStream

__all__ = ["frame", "read_frame"]

LENGTH_SIZE = 4


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(LENGTH_SIZE, "big") + payload


async def read_frame(stream: RecvStream, limit: int) -> bytes | None:
    """The next message of at most ``limit`` bytes; None where the stream ends between two messages.

    DecodeError for a longer one, before any of it is read, and for a stream that ends inside one.
    """
    head = await stream.read(LENGTH_SIZE)
    if not head:
        return None
    if len(head) < LENGTH_SIZE:
        head += await stream.read_exactly(LENGTH_SIZE - len(head))
    size = int.from_bytes(head, "big")
    if size > limit:
        raise DecodeError(f"a message of {size} bytes where at most {limit} are allowed")
    return await stream.read_exactly(size)
