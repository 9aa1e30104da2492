"""Fetching many small blobs by one request: what documents need thousands of at a time.

Alone, each would cost a stream, a round trip and a transaction, a hundred times what its bytes do. Here `GetMany` asks
for up to `MAX_BLOBS`; the answers come back to back, each a size (u64, little-endian) and the bytes, for a blob of one
chunk group has no tree. All that came is kept in one transaction, also where the answer breaks off: iroh's provider
resets the stream at the first blob that it does not have, ours ends it there. A single one is asked for by `Get`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import NetworkError, PeerError, UsageError
from ..transport.connection import Connection
from ..transport.errors import ConnectionClosed, StreamReset
from .bao import HEADER
from .errors import HashMismatch, NotProvided, Stalled, TooLarge, Truncated
from .geometry import GROUP
from .hash import Hash
from .messages import GetManyRequest, GetRequest, ResetCode, refusal
from .pool import ConnectionPool, Provider
from .ranges import ChunkRangesSeq
from .store import BlobStore

__all__ = ["MAX_BLOBS", "MAX_BYTES", "MAX_SMALL", "Delivery", "fetch_small"]

logger = logging.getLogger(__name__)

MAX_SMALL = GROUP  # bytes of a blob without a tree
MAX_BLOBS = 512  # of one request
MAX_BYTES = 512 * 1024  # of one answer, which is held in memory
STALL_BYTES = GROUP  # as `fetch.STALL_BYTES`


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a request. ``error``: why it broke off; None where all came.

    ``at_fault``: the blob that the error is about, where that is certain. Of the others nothing is known.
    """

    came: Sequence[Hash]
    error: PeerError | NetworkError | UsageError | None = None
    at_fault: Hash | None = None


async def fetch_small(
    store: BlobStore,
    pool: ConnectionPool,
    wanted: Sequence[tuple[Hash, int]],
    provider: Provider,
    *,
    stall_timeout: float,
) -> Delivery:
    """Ask ``provider`` for blobs of at most so many bytes each, up to `MAX_SMALL`. Raises StoreError alone."""
    if not 0 < len(wanted) <= MAX_BLOBS or sum(min(size, MAX_SMALL) for _, size in wanted) > MAX_BYTES:
        raise UsageError(f"one request is for 1 to {MAX_BLOBS} blobs of {MAX_BYTES} bytes together")
    answer = _Answer(wanted)
    error: PeerError | NetworkError | UsageError | None = None
    retry = True
    while retry:
        retry = False
        try:
            async with pool.connection(provider) as (connection, reused):
                try:
                    await _ask(connection, answer, stall_timeout)
                except ConnectionClosed:
                    if not reused or answer.arrived:
                        raise
                    retry = True  # the peer had closed an idle connection: dial once more
        except (PeerError, NetworkError, UsageError) as failure:
            logger.info("%d blobs: %s", len(wanted), failure)
            error = failure
    if answer.came:
        await store.keep(answer.came)
    at_fault = answer.next if isinstance(error, HashMismatch | TooLarge | Truncated | NotProvided) else None
    if isinstance(error, NotProvided) and len(wanted) > 1 and not answer.ended:
        at_fault = None  # a reset drops what was on its way
    return Delivery([hash for hash, _ in answer.came], error, at_fault)


class _Answer:
    """Takes the bytes of an answer apart and checks each blob."""

    def __init__(self, wanted: Sequence[tuple[Hash, int]]) -> None:
        self.wanted = wanted
        self.came: list[tuple[Hash, bytes]] = []
        self.arrived = 0
        self.ended = False
        self._buffer = bytearray()

    @property
    def next(self) -> Hash | None:
        """What the next bytes are of; None after the last."""
        return None if len(self.came) == len(self.wanted) else self.wanted[len(self.came)][0]

    def feed(self, data: bytes, peer: object) -> None:
        """Raises TooLarge, HashMismatch."""
        self.arrived += len(data)
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= HEADER.size and self.next is not None:
            hash, most = self.wanted[len(self.came)]
            (size,) = HEADER.unpack_from(self._buffer, at)
            if size > min(most, MAX_SMALL):
                raise TooLarge(
                    f"blob {hash.short()} has {size} bytes by the peer's claim, {min(most, MAX_SMALL)} were expected",
                    peer=peer,
                )
            start, stop = at + HEADER.size, at + HEADER.size + size
            if stop > len(self._buffer):
                break
            content = bytes(self._buffer[start:stop])
            if Hash.of(content) != hash:
                raise HashMismatch(f"the bytes do not belong to blob {hash.short()}", peer=peer)
            self.came.append((hash, content))
            at = stop
        del self._buffer[:at]
        if self.next is None and self._buffer:
            raise HashMismatch("the answer goes on after the last blob", peer=peer)

    def end(self, peer: object) -> None:
        """The stream ended. Raises NotProvided, Truncated."""
        self.ended = True
        if self.next is not None and self._buffer:
            raise Truncated(f"the answer ended before blob {self.next.short()} did", peer=peer)
        if self.next is not None:
            raise NotProvided(f"the peer does not have blob {self.next.short()}", peer=peer)


async def _ask(connection: Connection, answer: _Answer, stall_timeout: float) -> None:
    peer = connection.remote_id
    hashes = tuple(hash for hash, _ in answer.wanted)
    request = GetManyRequest(hashes) if len(hashes) > 1 else GetRequest(hashes[0], ChunkRangesSeq.blob())
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(stall_timeout):
            stream = await connection.open_bi()
            await stream.send.write(request.encode())
            await stream.send.finish()
        before, look_at = 0, loop.time() + stall_timeout
        try:
            while answer.next is not None:
                async with asyncio.timeout_at(look_at):
                    data = await stream.recv.read(MAX_BYTES)
                if not data:
                    answer.end(peer)
                answer.feed(data, peer)
                if answer.arrived - before >= STALL_BYTES:
                    before, look_at = answer.arrived, loop.time() + stall_timeout
        finally:
            stream.recv.stop(ResetCode.INTERNAL)  # harmless after the end
    except StreamReset as error:
        raise refusal(error.code, answer.next or hashes[0], peer) from error
    except TimeoutError as error:
        raise Stalled(
            f"peer {peer.short()} sent next to nothing for {stall_timeout:g} s: try again, or another peer"
        ) from error
