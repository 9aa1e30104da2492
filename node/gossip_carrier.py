"""Contents of gossip that are too large for a message travel as blobs."""

from __future__ import annotations

from collections.abc import Sequence

from ..blobs import Blobs, Hash
from ..transport import EndpointId
from ..transport.errors import DecodeError

__all__ = ["LIMIT", "BlobCarrier"]

LIMIT = 16 << 20  # bytes: a content is in memory as a whole, for each subscription's queue again
NAME = 32 + 8


class BlobCarrier:
    """A `Carrier` whose names are the blob's hash and its size, little endian. An hour later they may be collected."""

    limit = LIMIT

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def put(self, content: bytes) -> bytes:
        info = await self._blobs.add_bytes(content, tag=False)
        return bytes(info.hash) + info.size.to_bytes(8, "little")

    async def get(self, name: bytes, sources: Sequence[EndpointId]) -> bytes:
        if len(name) != NAME:
            raise DecodeError(f"a content's name is {NAME} bytes, not {len(name)}")
        hash, size = Hash(name[:32]), int.from_bytes(name[32:], "little")
        if size > LIMIT:
            raise DecodeError(f"a content of {size} bytes is more than the {LIMIT} that are fetched")
        if await self._blobs.size(hash) is None:
            await self._blobs.fetch(hash, sources, max_size=size, tag=False)
        return await self._blobs.read(hash, size=LIMIT)
