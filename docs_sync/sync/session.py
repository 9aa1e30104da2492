"""One sync of one document over one bidirectional stream (``reference/iroh-protocols.md`` 2.6).

The dialler sends Init; the two alternate; whoever has nothing to say finishes its half, the other sees the end and
finishes too. Both then wait until theirs was received and read to the end of the other's. Between tidings peers whoever
has nothing to say first sends `Check` instead, and the second pass (`keyed`) goes on from there.

A peer costs at most: a message of `MAX_FRAME` in memory at a time over *all* sessions that receive a large one (an
unmodified Rust peer sends a first sync as one message), `SMALL_FRAME` for each other session, and the time that its
`Pace` allows.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from random import SystemRandom
from typing import TypeVar

from ...errors import StoreError
from ...transport import BiStream, EndpointId, RecvStream, frame
from ...transport.errors import ConnectionClosed, DecodeError
from ..access.control import RECHECK
from ..errors import MessageTooLarge, SyncRefused, SyncViolation
from ..model.keyed import first_check
from ..model.keys import NamespaceId
from ..model.messages import Abort, AbortReason, Check, Init, Sync, SyncMessage
from ..model.reconcile import Message, Part, RangeFingerprint, RangeItems, RangeList, RangeWant, Tally
from ..store.documents import WHOLE_DOCUMENT, DocsStore, OnStored
from ..store.views import View
from .pull import Pull

__all__ = ["ALPN", "FrameReader", "OnStored", "Pace", "SyncSession", "close", "refuse"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
_rng = SystemRandom()  # nobody is to know which window is looked at

ALPN = b"/iroh-sync/1"
MAX_FRAME = 64 << 20  # bytes: a first sync of 250,000 entries from a peer that does not cut it
SMALL_FRAME = 4 << 20  # ours have at most about 2 MB; larger ones are received one at a time
FRAME_TIMEOUT = 60.0  # seconds until the peer's next message begins: a large document takes it a while to look through
MAX_INIT = 1 << 18  # bytes of an Init: one fingerprint of a range between two ids of the longest
STALL_TIMEOUT = 10.0  # seconds without a byte in the middle of a message
WRITE_TIMEOUT = 60.0  # seconds for the peer to take one of ours
CLOSE_TIMEOUT = 10.0
PATIENCE = 120.0  # seconds that a peer may have kept a session waiting when nothing moves; it grows back with
MIN_RATE = 16_384  # bytes a second
LINE_TIMEOUT = 180.0  # seconds until others have received and stored their large messages
LARGE_TURN = 20.0  # seconds for which a large message goes on coming while others wait to receive theirs
FRUITLESS_ROUNDS = 256  # messages in a row that brought nothing here; 64 splits in two are 128
ENOUGH_SENT = 64  # entries that we send in a message for it not to count: who asks for few again and again gets nowhere


class Pace:
    """How long the peer of a session may still keep it waiting, so that none holds one for ever by being slow.

    Every wait uses up time, every byte that moves gives 1 / `MIN_RATE` seconds back, up to `PATIENCE`. What this side
    takes to think does not count. Bytes alone are no progress: rounds in a row that brought nothing (`count`) may have
    waited for `PATIENCE` in all, whatever moved.
    """

    def __init__(self) -> None:
        self._left = PATIENCE
        self._waited = 0.0  # seconds in this round
        self._wasted = 0.0  # seconds in the rounds before it that brought nothing

    async def wait(self, work: Awaitable[T], most: float) -> T:
        """What ``work`` gives, within ``most`` seconds. Raises TimeoutError."""
        started = _now()
        try:
            async with asyncio.timeout(min(most, max(self._left, 0.0))):
                return await work
        finally:
            self._left -= (waited := _now() - started)
            self._waited += waited

    def moved(self, size: int) -> None:
        self._left = min(PATIENCE, self._left + size / MIN_RATE)

    def count(self, *, fruitless: bool) -> None:
        """A message was taken. Raises TimeoutError."""
        self._wasted = self._wasted + self._waited if fruitless else 0.0
        self._waited = 0.0
        if self._wasted > PATIENCE:
            raise TimeoutError("messages that brought nothing came too slowly")


class FrameReader:
    """Reads sync messages for all sessions of a node, of which one at a time may be large."""

    def __init__(self, store: DocsStore) -> None:
        self._store = store
        self._large = asyncio.Lock()
        self._in_line = 0
        self._line_since = 0.0

    @asynccontextmanager
    async def next(self, stream: BiStream, pace: Pace, limit: int) -> AsyncGenerator[SyncMessage | None, None]:
        """The next message, None at the end of the peer's half. Raises DecodeError, TimeoutError.

        While the block lasts, a large message is the only one in memory.
        """
        head = await pace.wait(stream.recv.read(4), FRAME_TIMEOUT)
        if not head:
            yield None
            return
        head += await pace.wait(stream.recv.read_exactly(4 - len(head)), STALL_TIMEOUT)
        size = int.from_bytes(head, "big")
        if size > limit:
            raise MessageTooLarge(size, limit)
        if size <= SMALL_FRAME:
            yield await self._store.decode(await _payload(stream.recv, size, pace))
            return
        await self._stand_in_line()
        try:
            began = _now()
            yield await self._store.decode(await _payload(stream.recv, size, pace, lambda: self._check_turn(began)))
        finally:
            self._large.release()

    async def read_init(self, stream: BiStream, pace: Pace) -> Init:
        """What begins a sync. Raises SyncViolation for anything else, and as `next`."""
        async with self.next(stream, pace, MAX_INIT) as message:
            if not isinstance(message, Init):
                raise SyncViolation("the peer began a sync without saying of what")
            return message

    async def _stand_in_line(self) -> None:
        if not self._in_line:
            self._line_since = _now()
        self._in_line += 1
        try:
            async with asyncio.timeout(LINE_TIMEOUT):
                await self._large.acquire()
        finally:
            self._in_line -= 1

    def _check_turn(self, began: float) -> None:
        if self._in_line and _now() - max(began, self._line_since) > LARGE_TURN:
            raise TimeoutError("a large message came too slowly while others waited")


async def _payload(recv: RecvStream, size: int, pace: Pace, check: Callable[[], None] = lambda: None) -> bytes:
    pieces = []
    while size:
        piece = await pace.wait(recv.read(size), STALL_TIMEOUT)
        if not piece:
            raise DecodeError(f"a sync message ended {size} bytes early")
        size -= len(piece)
        pieces.append(piece)
        pace.moved(len(piece))
        check()
    return b"".join(pieces)


class SyncSession:
    """`dial` or `accept` once; `tally` says what was moved, also after an error.

    ``renew`` is called every `RECHECK` seconds of a session that goes on: it gives the view as it is now, or raises
    NotAllowed. ``check_key`` is that of the second check, between tidings peers; ``agreed`` is the peer where it and
    we are to remember what both have; ``pull`` is for one that would send too much at a time.
    """

    def __init__(
        self,
        store: DocsStore,
        frames: FrameReader,
        namespace: NamespaceId,
        stream: BiStream,
        on_stored: OnStored,
        view: View = WHOLE_DOCUMENT,
        *,
        renew: Callable[[View], Awaitable[View]] | None = None,
        check_key: bytes | None = None,
        agreed: EndpointId | None = None,
        pull: Pull | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.tally = Tally()
        self._store = store
        self._frames = frames
        self._namespace = namespace
        self._stream = stream
        self._on_stored = on_stored
        self._view = view
        self._renew = renew
        self._renew_at = _now() + RECHECK
        self._check_key = check_key
        self._agreed = agreed
        self._pull = pull
        self._pace = pace or Pace()
        self._fruitless = 0

    async def dial(self) -> None:
        """Raises SyncRefused, SyncViolation, NotAllowed, DecodeError, TimeoutError, and what streams raise."""
        await self.begin()
        await self.go_on()

    async def begin(self) -> None:
        """The dialler's first message."""
        message = await self._store.initial_message(self._namespace, self._view)
        if self._pull is not None:
            _, message = self._pull.take(message)
        await self._send(Init(bytes(self._namespace), message))

    async def go_on(self) -> None:
        """The rest of `dial`."""
        await self._alternate()
        await self._end()

    async def accept(self, init: Init) -> None:
        """Serve the session that ``init`` opened. Raises as `dial`."""
        try:
            if await self._step(init.message, first=True):
                await self._alternate()
        except SyncRefused as error:
            raise SyncViolation("the peer aborted a sync that it began") from error
        await self._end()

    async def _end(self) -> None:
        await close(self._stream, kept=self._check_key is not None)
        if self._agreed is not None and not self.tally.rejected:
            with suppress(StoreError):  # the disk is full: the sync itself went well
                await self._store.agree(self._namespace, self._agreed)

    async def _alternate(self) -> None:
        most = MAX_FRAME if self._check_key is None else SMALL_FRAME  # tidings peers cut theirs
        while True:
            async with self._frames.next(self._stream, self._pace, most) as received:
                if received is None or not await self._take(received):
                    return

    async def _take(self, received: SyncMessage) -> bool:
        """False at the end of our half."""
        match received:
            case Sync(message):
                return await self._step(message)
            case Check(message):
                self._take_check(message)
                # Where entries were refused, what differs by that would differ again.
                return not self.tally.rejected and await self._step(message)
            case Abort(reason):
                what = reason.name.lower().replace("_", " ")
                raise SyncRefused(f"the peer does not sync document {self._namespace.short()}: {what}", reason)
            case Init():
                raise SyncViolation("the peer began the same sync twice")

    def _refuse_lists(self, message: Message) -> None:
        if self._check_key is None and any(isinstance(part, RangeList | RangeWant) for part in message):
            raise SyncViolation("a list came where iroh's protocol is spoken, which has none")

    async def _step(self, message: Message, *, first: bool = False) -> bool:
        """Take a message and answer it; False where there is nothing to answer."""
        self._refuse_lists(message)
        if self._pull is None:
            return await self._answer(message, first=first) or await self._send_check()
        now, probes = self._pull.take(message)
        done = await self._answer(now, probes)
        while not done and (kept := self._pull.next()):
            done = await self._answer(kept)
        return done

    async def _answer(self, message: Message, more: Sequence[Part] = (), *, first: bool = False) -> bool:
        """Store what the message brings; send the answer and ``more``. False where there was nothing to send."""
        if self._renew is not None and _now() >= self._renew_at:
            self._view = await self._renew(self._view)
            self._renew_at = _now() + RECHECK
        result = await self._store.process(
            self._namespace, message, self._view, self._on_stored, self._agreed if first else None
        )
        sent = sum(len(part.values) for part in result.reply if isinstance(part, RangeItems))
        self.tally.received += result.received
        self.tally.rejected += len(result.rejected)
        self.tally.note(result.stored)
        if result.rejected:
            logger.warning("%d entries refused, the first: %s", len(result.rejected), result.rejected[0])
        reply = [*result.reply, *more]
        if not reply:
            return False
        self._fruitless = 0 if result.stored else max(0, self._fruitless + 1 - sent // ENOUGH_SENT)
        if self._fruitless > FRUITLESS_ROUNDS:
            raise SyncViolation(f"{FRUITLESS_ROUNDS} messages brought nothing: the peer does not converge")
        self._pace.count(fruitless=self._fruitless > 0)
        await self._send(Sync(reply))
        self.tally.sent += sent
        return True

    async def _send_check(self) -> bool:
        """Begin the second pass, where this is the end of the first; False where it is the end of all."""
        if self._check_key is None or self._view.key is not None:
            return False
        if self.tally.rejected:  # what differs by that will differ again
            return False
        read = functools.partial(first_check, key=self._check_key, rng=_rng)
        message = await self._store.look(self._namespace, self._view, read)
        self._view = replace(self._view, key=self._check_key)
        await self._send(Check(message))
        return True

    def _take_check(self, message: Message) -> None:
        if self._check_key is None or self._view.key is not None:
            raise SyncViolation("the peer began a second check where none may begin")
        if len(message) != 1 or not isinstance(message[0], RangeFingerprint):
            raise SyncViolation("a second check begins with one fingerprint")
        self._view = replace(self._view, key=self._check_key)

    async def _send(self, message: SyncMessage) -> None:
        payload = frame(await self._store.encode(message))
        await self._pace.wait(self._stream.send.write(payload), WRITE_TIMEOUT)
        self._pace.moved(len(payload))


async def refuse(store: DocsStore, stream: BiStream, reason: AbortReason) -> None:
    """The acceptor's answer to an Init that it does not serve."""
    async with asyncio.timeout(CLOSE_TIMEOUT):
        await stream.send.write(frame(await store.encode(Abort(reason))))
    await close(stream)


async def close(stream: BiStream, *, kept: bool = False) -> None:
    """Nothing more to say; return when the peer says nothing more either and, unless the connection is ``kept`` and
    sees to that, has heard everything."""
    async with asyncio.timeout(CLOSE_TIMEOUT):
        await stream.send.finish()
        await stream.recv.read_to_end(0)
        if kept:
            return
        try:
            await stream.send.stopped()
        except ConnectionClosed as closed:
            # The peer has read everything, or it would not have finished, and closed before its word came through.
            if closed.by != "peer" or closed.code != 0:
                raise


def _now() -> float:
    return asyncio.get_running_loop().time()
