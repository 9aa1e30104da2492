"""The answers to a Get: blob after blob on one stream, verified as they arrive.

Received bytes wait until enough are there to be verified in one go. That runs on the event loop: 512 KiB by the kernel
in a third of a millisecond, 1 MiB by numpy in 7 ms. (In a thread, numpy's thousands of short calls each give the
interpreter's lock away, and beside a busy event loop wait for it: 150 MiB/s alone, under 0.5 beside it.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from ..errors import PeerError
from ..transport.connection import Connection
from ..transport.errors import StreamReset
from ..transport.stream import RecvStream
from .bao import HEADER, Decoder, Leaf, Pairs, response_size
from .errors import HashMismatch, NotProvided, Stalled, TooLarge, Truncated
from .geometry import GROUP
from .hash import Hash
from .messages import GetManyRequest, GetRequest, ResetCode, refusal
from .ranges import ChunkRanges, ChunkRangesSeq
from .store import MAX_SIZE
from .tree import batch_size

__all__ = ["STALL_TIMEOUT", "Answers", "Verified", "ask", "get_ranges"]

STALL_TIMEOUT = 20.0  # seconds without STALL_BYTES before the provider is given up
STALL_BYTES = GROUP  # a byte now and then must not keep a fetch, and its turn, for ever
GATHER = 0.02  # seconds to wait for a batch to fill

Verified = tuple[int, list[Leaf | Pairs]]
"""The size of the blob by the peer's claim, and what was verified of it."""


class Answers:
    """What comes on ``recv``, taken apart. Raises what the transport does, and `Stalled`."""

    def __init__(self, recv: RecvStream, peer: object, stall_timeout: float) -> None:
        self._recv = recv
        self._peer = peer
        self._stall_timeout = stall_timeout
        self._batch = batch_size()
        self._buffer = b""
        self._at = 0  # of the buffer, what is taken
        self._more: list[bytes] = []  # what came behind the buffer
        self._left = 0
        self._ended = False
        self._arrived = 0
        self._look_at = asyncio.get_running_loop().time() + stall_timeout

    async def blob(
        self, hash: Hash, ranges: ChunkRanges = ChunkRanges.ALL, *, max_size: int | None = None
    ) -> AsyncGenerator[Verified, None]:
        """The next blob. `NotProvided` where the stream ends before it, `Truncated` within it; `HashMismatch`,
        `TooLarge`. What was right before an error is yielded first.
        """
        if not await self._fill(HEADER.size):
            if self._left:
                raise Truncated(f"the answer ended before blob {hash.short()} began", peer=self._peer)
            raise NotProvided(f"the peer does not have blob {hash.short()}", peer=self._peer)
        (size,) = HEADER.unpack_from(self._buffer, self._at)
        limit = MAX_SIZE if max_size is None else max_size
        if size > limit:
            raise TooLarge(
                f"blob {hash.short()} has {size} bytes by the peer's claim, the limit is {limit}", peer=self._peer
            )
        if size <= GROUP and ranges == ChunkRanges.ALL:
            yield size, [Leaf(0, await self._small(hash, size))]
            return
        decoder = Decoder(hash, ranges, max_size=max_size, peer=self._peer, others_follow=True)
        left = response_size(size) if ranges == ChunkRanges.ALL else None  # else only the decoder knows
        rest = 0  # bytes that wait for the rest of their item
        while not decoder.finished:
            await self._gather(rest, left)
            data = self._take(self._left if left is None else min(self._left, left))
            over = self._ended and len(data) == rest
            items: list[Leaf | Pairs] = []
            wrong: PeerError | None = None
            try:
                for item in decoder.feed(data):
                    items.append(item)  # noqa: PERF402 - what came before an error stays
                if over:
                    decoder.end()
            except PeerError as error:
                wrong = error
            if items:
                yield size, items
            if wrong is not None:
                raise wrong
            back = decoder.take_back()
            rest = len(back)
            self._put_back(back)
            if left is not None:
                left -= len(data) - rest

    async def end(self) -> None:
        """Nothing may follow."""
        if self._left:
            raise HashMismatch("the answer goes on after its end", peer=self._peer)

    def _take(self, size: int) -> bytes:
        """Of what is here. All of it at a time, it is copied only once."""
        self._join()
        data = self._buffer[self._at : self._at + size]
        self._at += size
        self._left -= size
        return data

    def _put_back(self, data: bytes) -> None:
        if data:
            self._more[:0] = [data, self._buffer[self._at :]]
            self._buffer, self._at = b"", 0
            self._left += len(data)

    def _join(self) -> None:
        if self._more:
            self._buffer, self._at = b"".join((self._buffer[self._at :], *self._more)), 0
            self._more.clear()

    async def _small(self, hash: Hash, size: int) -> bytes:
        if not await self._fill(HEADER.size + size):
            raise Truncated(f"the answer ended before blob {hash.short()} did", peer=self._peer)
        data = self._take(HEADER.size + size)[HEADER.size :]
        if Hash.of(data) != hash:
            raise HashMismatch(f"the bytes do not belong to blob {hash.short()}", peer=self._peer)
        return data

    async def _fill(self, size: int) -> bool:
        """Wait until so many bytes are there; False where the stream ends before."""
        while self._left < size and not self._ended:
            await self._read(self._batch)
        self._join()
        return self._left >= size

    async def _gather(self, rest: int, most: int | None) -> None:
        """Wait for something beside the ``rest``, and then a moment for a batch of it."""
        wanted = rest + self._batch if most is None else min(rest + self._batch, most)
        if self._left <= rest and not await self._fill(rest + 1):
            return
        self._look_for_stall()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER):  # one for all reads: there are dozens in a batch
                while self._left < wanted and not self._ended:
                    self._took(await self._recv.read(wanted - self._left))

    async def _read(self, size: int) -> None:
        async with asyncio.timeout(self._stall_timeout):
            data = await self._recv.read(size)
        self._took(data)
        self._look_for_stall()

    def _took(self, data: bytes) -> None:
        self._arrived += len(data)
        self._more.append(data)
        self._left += len(data)
        self._ended = not data

    def _look_for_stall(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            if self._arrived < STALL_BYTES:
                raise TimeoutError
            self._arrived, self._look_at = 0, now + self._stall_timeout


@asynccontextmanager
async def ask(
    connection: Connection, request: GetRequest | GetManyRequest, hash: Hash, stall_timeout: float
) -> AsyncIterator[Answers]:
    """Send a request, for ``hash`` first of all. Leaving stops the peer.

    Raises `Refused`, `NotProvided` and `Stalled` for what the peer does to the stream.
    """
    peer = connection.remote_id
    try:
        async with asyncio.timeout(stall_timeout):
            stream = await connection.open_bi()
            await stream.send.write(request.encode())
            await stream.send.finish()
        try:
            yield Answers(stream.recv, peer, stall_timeout)
        finally:
            stream.recv.stop(ResetCode.INTERNAL)  # harmless after the end
    except StreamReset as error:
        raise refusal(error.code, hash, peer) from error
    except TimeoutError as error:
        raise Stalled(
            f"peer {peer.short()} sent next to nothing for {stall_timeout:g} s: try again, or another peer"
        ) from error


async def get_ranges(
    connection: Connection, hash: Hash, ranges: ChunkRanges, *, max_size: int | None, stall_timeout: float
) -> AsyncGenerator[Verified, None]:
    """Ask for ranges of one blob; see `Answers.blob` and `ask`. Closing it early stops the peer."""
    request = GetRequest(hash, ChunkRangesSeq.blob(ranges))
    async with ask(connection, request, hash, stall_timeout) as answers:
        async with aclosing(answers.blob(hash, ranges, max_size=max_size)) as verified:
            async for each in verified:
                yield each
        await answers.end()
