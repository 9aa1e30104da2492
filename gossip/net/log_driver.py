"""Logs of peers over ``tidings/gossip-log/1``: one connection to a peer, one stream on it, frames of topic and message.

A connection is made when there is something to say and ends when nothing was said for a while. What cannot be sent in
time is dropped: every question is asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from ...errors import TidingsError
from ...transport import BiStream, Connection, EndpointId, frame, read_frame
from ...transport.errors import ConnectionClosed, DecodeError, ProtocolRefused, StreamReset, StreamStopped
from ..core.log_messages import MAX_FRAME, LogMessage, decode_log, encode_log
from ..core.swap_messages import SwapMessage
from .link import CLOSE_BUSY, CLOSE_DONE, CLOSE_FAULT, CLOSE_MALFORMED, CLOSE_STALLED, TOPIC_SIZE

__all__ = ["LOG_ALPN", "LogHost", "LogPeers"]

logger = logging.getLogger(__name__)

LOG_ALPN = b"tidings/gossip-log/1"
MAX_PEERS = 256
MAX_QUEUED = 1 << 20  # bytes for one peer; then what is new is dropped
MAX_ANSWERING = 256 << 10  # bytes for one peer above which nothing more is read from it
IDLE = 20.0  # seconds without a message in either direction
OPEN_TIMEOUT = 10.0  # seconds from a connection to its stream
WRITE_TIMEOUT = 10.0


class LogHost(Protocol):
    async def on_log_message(self, peer: bytes, topic: bytes, message: LogMessage | SwapMessage) -> None: ...
    def on_log_reached(self, peer: bytes, seconds: float) -> None:
        """There is a connection, with that round trip."""

    def on_log_fault(self, peer: bytes) -> None:
        """It sent bytes that are not the protocol."""

    def on_log_lost(self, peer: bytes, *, spoken: bool) -> None:
        """No connection is left, or none came about; ``spoken``: for another reason than that it has no such logs."""


class LogPeers:
    """All connections of this protocol. Its tasks end with `aclose`."""

    def __init__(self, dial: Callable[[EndpointId], Awaitable[Connection]], host: LogHost) -> None:
        self._dial = dial
        self._host = host
        self._peers: dict[bytes, _LogPeer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, peer: bytes, topic: bytes, message: LogMessage | SwapMessage) -> None:
        """Queue ``message``, and see to it that there is a connection. Never waits."""
        known = self._reach(peer)
        if known is not None:
            known.push(frame(topic + encode_log(message)))

    def measure(self, peer: bytes) -> None:
        """Have the host told of a connection, or that there is none."""
        known = self._reach(peer)
        if known is None:
            self._host.on_log_lost(peer, spoken=True)
        elif known.connection is not None:
            self._host.on_log_reached(peer, known.connection.rtt or 0.0)

    def _reach(self, peer: bytes) -> _LogPeer | None:
        known = self._peers.get(peer)
        if known is None and len(self._peers) < MAX_PEERS:
            known = self._peers[peer] = _LogPeer()
            self._spawn(self._call(peer, known), peer)
        return known

    async def serve(self, connection: Connection) -> None:
        """Talk over a connection that a peer made, until it ends."""
        peer = bytes(connection.remote_id)
        if peer not in self._peers and len(self._peers) >= MAX_PEERS:
            connection.close(CLOSE_BUSY, "no more logs are compared here")
            return
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                stream = await connection.accept_bi()
        except (TimeoutError, ConnectionClosed):
            connection.close(CLOSE_MALFORMED, "no stream was opened")
            return
        known = self._peers.get(peer)
        if known is None or known.stream is not None:
            known = self._peers[peer] = _LogPeer()  # the newest is used
        await self._talk(peer, known, connection, stream)

    async def aclose(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Awaitable[None], peer: bytes) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        task.set_name(f"gossip log {peer[:5].hex()}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, peer: bytes, known: _LogPeer) -> None:
        try:
            connection = await self._dial(EndpointId(peer))
            stream = await connection.open_bi()
        except Exception as error:
            if not isinstance(error, TidingsError):
                logger.exception("a fault of ours while dialling the log of %s", peer[:5].hex())
            if known.stream is None:  # else the peer has called meanwhile
                self._gone(peer, known, spoken=not isinstance(error, ProtocolRefused))
            return
        if known.stream is not None:
            connection.close(CLOSE_DONE, "another connection is used")
            return
        await self._talk(peer, known, connection, stream)

    async def _talk(self, peer: bytes, known: _LogPeer, connection: Connection, stream: BiStream) -> None:
        known.stream, known.connection = stream, connection
        self._host.on_log_reached(peer, connection.rtt or 0.0)
        code, why = CLOSE_DONE, "nothing more to say"
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(known, stream))
                try:
                    await self._read(peer, known, stream)
                finally:
                    writer.cancel()
        except* (DecodeError, StreamReset, StreamStopped) as group_error:
            code, why = CLOSE_MALFORMED, str(group_error.exceptions[0])
            logger.info("%r: %s: disconnected", connection, why)
            if isinstance(group_error.exceptions[0], DecodeError):
                self._host.on_log_fault(peer)
        except* TimeoutError:
            code, why = CLOSE_STALLED, "messages are not read"
        except* (_IdleError, ConnectionClosed):
            pass
        except* Exception:
            logger.exception("%r: a fault of ours ends the connection", connection)
            code, why = CLOSE_FAULT, "internal error"
        finally:
            connection.close(code, why)
            self._gone(peer, known, spoken=True)

    def _gone(self, peer: bytes, known: _LogPeer, *, spoken: bool) -> None:
        if self._peers.get(peer) is known:
            del self._peers[peer]
            self._host.on_log_lost(peer, spoken=spoken)

    async def _read(self, peer: bytes, known: _LogPeer, stream: BiStream) -> None:
        while (payload := await read_frame(stream.recv, TOPIC_SIZE + MAX_FRAME)) is not None:
            if len(payload) < TOPIC_SIZE:
                raise DecodeError("a log message without a topic")
            known.active_at = _now()
            await self._host.on_log_message(peer, payload[:TOPIC_SIZE], decode_log(payload[TOPIC_SIZE:]))
            await known.answered()

    async def _write(self, known: _LogPeer, stream: BiStream) -> None:
        while True:
            data = None
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE):
                    data = await known.next()
            if data is not None:
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await stream.send.write(data)
            elif _now() - known.active_at >= IDLE:
                raise _IdleError


class _IdleError(Exception):
    """Nothing was said for a while."""


class _LogPeer:
    """What waits for one peer."""

    def __init__(self) -> None:
        self.stream: BiStream | None = None
        self.connection: Connection | None = None
        self.active_at = _now()
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._work, self._room = asyncio.Event(), asyncio.Event()

    def push(self, data: bytes) -> None:
        if self._bytes + len(data) <= MAX_QUEUED:
            self.active_at = _now()
            self._frames.append(data)
            self._bytes += len(data)
            self._work.set()

    async def next(self) -> bytes:
        while not self._frames:
            self._work.clear()
            await self._work.wait()
        data = self._frames.popleft()
        self._bytes -= len(data)
        self._room.set()
        return data

    async def answered(self) -> None:
        """Wait until little waits."""
        while self._bytes > MAX_ANSWERING:
            self._room.clear()
            await self._room.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
