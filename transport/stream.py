"""QUIC streams as an application uses them: write with back-pressure, read with credit, finish, reset, stop.

Back-pressure is real on both sides: `SendStream.write` waits while the peer has not acknowledged what was written
before, and the peer may only send as much as `RecvStream.read` has taken away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from .errors import ConnectionClosed, DecodeError, StreamReset, StreamStopped
from .keys import EndpointId

__all__ = ["BiStream", "RecvStream", "SendStream", "StreamHost"]

SEND_BUFFER = 1 << 20  # unacknowledged bytes a stream may hold: at 50 ms round trip, 20 MB/s
SHARED_SEND_BUFFER = 8 << 20  # and all streams of a connection together, before each is held to FAIR_SHARE
FAIR_SHARE = 64 << 10
SMALL_CHUNK = 1024  # received pieces are joined up to this size


class StreamHost(Protocol):
    """What a stream needs of its connection; ``id`` is the stream's."""

    @property
    def remote_id(self) -> EndpointId: ...

    def write_stream(self, id: int, data: bytes, *, end: bool = False) -> None: ...

    def reset_stream(self, id: int, code: int) -> None: ...

    def stop_stream(self, id: int, code: int) -> None: ...

    def credit(self, id: int, size: int, *, stream_too: bool = True) -> None: ...

    def unacknowledged(self, id: int) -> int: ...

    def unacknowledged_total(self) -> int: ...

    def send_finished(self, id: int) -> bool: ...


class SendStream:
    """The sending half of a stream. One task writes at a time."""

    def __init__(self, connection: StreamHost, id: int) -> None:
        self.id = id
        self._connection = connection
        self._ended = False
        self._stop_code: int | None = None
        self._lost: ConnectionClosed | None = None
        self._writable: asyncio.Future[None] | None = None
        self._done: asyncio.Future[None] | None = None

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; waits while the peer is slow.

        Cancelled, a prefix of ``data`` has been sent: reset the stream then. Raises StreamStopped where the peer wants
        no more, ConnectionClosed where the connection ended.
        """
        view = memoryview(data).cast("B")
        while True:
            self._check()
            if self._ended:
                raise RuntimeError("this stream was finished or reset; open another one")
            room = self._room()
            if room > 0:
                self._connection.write_stream(self.id, bytes(view[:room]))
                view = view[room:]
            if not view:
                return
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writable)

    async def finish(self) -> None:
        """Mark the end of the stream. Does not wait for the peer: `stopped` does."""
        self._check()
        if not self._ended:
            self._ended = True
            self._connection.write_stream(self.id, b"", end=True)

    async def stopped(self) -> int | None:
        """Wait until the peer has acknowledged everything up to the end (None), or has stopped us (its code)."""
        while True:
            if self._stop_code is not None:
                return self._stop_code
            if self._connection.send_finished(self.id):
                return None
            self._check()
            if self._done is None:
                self._done = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._done)

    def reset(self, code: int) -> None:
        """Give the stream up: what was not delivered is dropped, the peer sees ``code``."""
        if self._lost is None and self._stop_code is None:
            self._ended = True
            self._connection.reset_stream(self.id, code)

    def _room(self) -> int:
        mine = self._connection.unacknowledged(self.id)
        if self._connection.unacknowledged_total() < SHARED_SEND_BUFFER:
            return SEND_BUFFER - mine
        return FAIR_SHARE - mine

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost.with_traceback(None)
        if self._stop_code is not None:
            raise StreamStopped(self._stop_code, peer=self._connection.remote_id)

    # Called by the connection.

    def on_progress(self) -> None:
        """Acknowledgements arrived: let the writer look whether there is room again."""
        if self._writable is not None and self._connection.unacknowledged(self.id) <= SEND_BUFFER // 2:
            _wake(self._writable)
            self._writable = None
        if self._done is not None and self._connection.send_finished(self.id):
            _wake(self._done)
            self._done = None

    def on_stopped(self, code: int) -> None:
        if self._stop_code is None:
            self._stop_code = code
        self._wake_all()

    def on_lost(self, error: ConnectionClosed) -> None:
        self._lost = error
        self._wake_all()

    def _wake_all(self) -> None:
        for waiter in (self._writable, self._done):
            _wake(waiter)
        self._writable = self._done = None


class RecvStream:
    """The receiving half of a stream. One task reads at a time."""

    def __init__(self, connection: StreamHost, id: int) -> None:
        self.id = id
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._head = 0  # bytes of the first chunk that were read
        self._ended = False
        self._stopped = False
        self._error: StreamReset | ConnectionClosed | None = None
        self._readable: asyncio.Future[None] | None = None
        self._credited = 0

    async def read(self, n: int = 65_536) -> bytes:
        """At least one byte and at most ``n``; ``b""`` at the end of the stream.

        What arrived before the connection ended can still be read. Raises StreamReset, ConnectionClosed.
        """
        if self._stopped:
            raise RuntimeError("this stream was stopped here; it cannot be read any more")
        while not self._chunks:
            if self._ended:
                return b""
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self._readable is None:
                self._readable = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._readable)
        return self._take(n)

    async def read_exactly(self, n: int) -> bytes:
        """Exactly ``n`` bytes; DecodeError where the stream ends before. Cancelled, what was read is lost."""
        pieces: list[bytes] = []
        missing = n
        while missing:
            piece = await self.read(missing)
            if not piece:
                raise DecodeError(f"a stream ended {missing} bytes early", peer=self._connection.remote_id)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    async def read_to_end(self, limit: int) -> bytes:
        """Everything up to the end; DecodeError where that is more than ``limit`` bytes."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read(min(65_536, limit - size + 1)):
            size += len(piece)
            if size > limit:
                raise DecodeError(f"a stream is longer than {limit} bytes", peer=self._connection.remote_id)
            pieces.append(piece)
        return b"".join(pieces)

    def stop(self, code: int) -> None:
        """Ask the peer to stop sending; what is unread is thrown away."""
        if self._stopped:
            return
        self._stopped = True
        unread = sum(map(len, self._chunks)) - self._head
        self._chunks.clear()
        self._head = 0
        self._credit(unread)
        if not self._ended and self._error is None:
            self._connection.stop_stream(self.id, code)

    def _take(self, n: int) -> bytes:
        first = self._chunks[0]
        if self._head == 0 and len(first) <= n:
            # The common case, and a cheap way to hand over many packets at once.
            taken = [self._chunks.popleft()]
            size = len(first)
            while self._chunks and size + len(self._chunks[0]) <= n:
                piece = self._chunks.popleft()
                size += len(piece)
                taken.append(piece)
            out = taken[0] if len(taken) == 1 else b"".join(taken)
        else:
            out = first[self._head : self._head + n]
            self._head += len(out)
            if self._head == len(first):
                self._chunks.popleft()
                self._head = 0
        self._credit(len(out))
        return out

    def _credit(self, size: int) -> None:
        self._credited += size
        self._connection.credit(self.id, size)

    # Called by the connection.

    def on_data(self, data: bytes, end: bool) -> None:
        if data:
            if self._stopped:
                self._credit(len(data))
            elif self._chunks and len(self._chunks[-1]) + len(data) <= SMALL_CHUNK:
                self._chunks[-1] += data  # a window of single bytes must not cost fifty times its size
            else:
                self._chunks.append(data)
        if end:
            self._ended = True
            self._connection.credit(self.id, 0)  # the engine forgets what it counted for this stream
        self._notify()

    def on_reset(self, code: int, final_size: int) -> None:
        """The peer gave up: unread bytes are dropped, and with those never sent count as read for the connection."""
        self._chunks.clear()
        self._head = 0
        self._error = StreamReset(code, peer=self._connection.remote_id)
        self._connection.credit(self.id, final_size - self._credited, stream_too=False)
        self._notify()

    def on_lost(self, error: ConnectionClosed) -> None:
        if self._error is None:
            self._error = error
        self._notify()

    def _notify(self) -> None:
        _wake(self._readable)
        self._readable = None


class BiStream:
    """Both halves of a bidirectional stream."""

    def __init__(self, send: SendStream, recv: RecvStream) -> None:
        self.send = send
        self.recv = recv

    @property
    def id(self) -> int:
        return self.send.id


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
