"""One sync of one document over one bidirectional stream (``reference/iroh-protocols.md`` 2.6).

The dialler sends Init; the two alternate; whoever has nothing to say finishes its half, the other sees the end and
finishes too. Both then wait until theirs was received and read to the end of the other's. One connection each sync.

A peer costs at most: a message of `MAX_FRAME` in memory at a time over *all* sessions that receive a large one (an
unmodified Rust peer sends a first sync as one message), `SMALL_FRAME` for each other session, and no wait without end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence, Set

from ..transport import BiStream, frame
from ..transport.errors import ConnectionClosed, DecodeError
from .errors import SyncRefused, SyncViolation
from .keys import NamespaceId
from .messages import Abort, AbortReason, Init, Sync, SyncMessage
from .reconcile import Message, RangeItems, Tally, Value
from .store import WHOLE_DOCUMENT, DocsStore
from .views import View

__all__ = ["ALPN", "FrameReader", "SyncSession", "refuse"]

logger = logging.getLogger(__name__)

ALPN = b"/iroh-sync/1"
MAX_FRAME = 64 << 20  # bytes: a first sync of 250,000 entries from a peer that does not cut it
SMALL_FRAME = 4 << 20  # ours have at most about 2 MB; larger ones are received one at a time
FRAME_TIMEOUT = 60.0  # seconds for a message to come whole, the peer's thinking included
WRITE_TIMEOUT = 60.0  # seconds for the peer to take one of ours
CLOSE_TIMEOUT = 10.0
FRUITLESS_ROUNDS = 256  # messages in a row without an entry either way; 64 splits in two are 128

OnStored = Callable[[Sequence[Value], Set[bytes]], Awaitable[None]]
"""What a message brought, once it is durable, and the hashes of its contents that are not here."""


class FrameReader:
    """Reads sync messages for all sessions of a node, of which one at a time may be large."""

    def __init__(self, store: DocsStore) -> None:
        self._store = store
        self._large = asyncio.Lock()

    async def read(self, stream: BiStream) -> SyncMessage | None:
        """The next message, None at the end of the peer's half. Raises DecodeError, TimeoutError."""
        async with asyncio.timeout(FRAME_TIMEOUT):
            head = await stream.recv.read(4)
            if not head:
                return None
            head += await stream.recv.read_exactly(4 - len(head))
        size = int.from_bytes(head, "big")
        if size > MAX_FRAME:
            raise DecodeError(f"a sync message of {size} bytes where at most {MAX_FRAME} are allowed")
        if size <= SMALL_FRAME:
            return await self._read_payload(stream, size)
        async with asyncio.timeout(FRAME_TIMEOUT):
            await self._large.acquire()
        try:
            return await self._read_payload(stream, size)
        finally:
            self._large.release()

    async def _read_payload(self, stream: BiStream, size: int) -> SyncMessage:
        async with asyncio.timeout(FRAME_TIMEOUT):
            payload = await stream.recv.read_exactly(size)
        return await self._store.decode(payload)


class SyncSession:
    """`dial` or `accept` once; `tally` says what was moved, also after an error."""

    def __init__(
        self,
        store: DocsStore,
        frames: FrameReader,
        namespace: NamespaceId,
        stream: BiStream,
        on_stored: OnStored,
        view: View = WHOLE_DOCUMENT,
    ) -> None:
        self.tally = Tally()
        self._store = store
        self._frames = frames
        self._namespace = namespace
        self._stream = stream
        self._on_stored = on_stored
        self._view = view
        self._fruitless = 0

    async def dial(self) -> None:
        """Raises SyncRefused, SyncViolation, DecodeError, TimeoutError, and what streams raise."""
        await self._send(Init(bytes(self._namespace), await self._store.initial_message(self._namespace)))
        await self._alternate()
        await _close(self._stream)

    async def accept(self, init: Init) -> None:
        """Serve the session that ``init`` opened. Raises as `dial`."""
        try:
            if await self._step(init.message):
                await self._alternate()
        except SyncRefused as error:
            raise SyncViolation("the peer aborted a sync that it began") from error
        await _close(self._stream)

    async def _alternate(self) -> None:
        while (received := await self._frames.read(self._stream)) is not None:
            match received:
                case Sync(message):
                    if not await self._step(message):
                        return
                case Abort(reason):
                    what = reason.name.lower().replace("_", " ")
                    raise SyncRefused(f"the peer does not sync document {self._namespace.short()}: {what}", reason)
                case Init():
                    raise SyncViolation("the peer began the same sync twice")

    async def _step(self, message: Message) -> bool:
        """Take a message and answer it; False where there is nothing to answer."""
        result = await self._store.process(self._namespace, message, self._view)
        sent = sum(len(part.values) for part in result.reply if isinstance(part, RangeItems))
        self.tally.received += result.received
        self.tally.rejected += len(result.rejected)
        self.tally.note(result.stored)
        if result.rejected:
            logger.warning("%d entries refused, the first: %s", len(result.rejected), result.rejected[0])
        if result.stored:
            await self._on_stored(result.stored, result.missing)
        if not result.reply:
            return False
        self._fruitless = 0 if sent or result.stored else self._fruitless + 1
        if self._fruitless > FRUITLESS_ROUNDS:
            raise SyncViolation(f"{FRUITLESS_ROUNDS} messages brought nothing: the peer does not converge")
        await self._send(Sync(result.reply))
        self.tally.sent += sent
        return True

    async def _send(self, message: SyncMessage) -> None:
        await _write(self._stream, await self._store.encode(message))


async def refuse(store: DocsStore, stream: BiStream, reason: AbortReason) -> None:
    """The acceptor's answer to an Init that it does not serve."""
    await _write(stream, await store.encode(Abort(reason)))
    await _close(stream)


async def _write(stream: BiStream, payload: bytes) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT):
        await stream.send.write(frame(payload))


async def _close(stream: BiStream) -> None:
    async with asyncio.timeout(CLOSE_TIMEOUT):
        await stream.send.finish()
        await stream.recv.read_to_end(0)
        try:
            await stream.send.stopped()
        except ConnectionClosed as closed:
            # The peer has read everything, or it would not have finished, and closed before its word came through.
            if closed.by != "peer" or closed.code != 0:
                raise
