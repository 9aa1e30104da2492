"""One connection to a peer: topic streams in, topic streams out (``reference/iroh-protocols.md`` 1.1).

Each topic has one unidirectional stream in each direction, opened by its first message; its first frame is the topic
id. Two nodes may share thousands of topics, and a peer allows a hundred streams: the one that was not used for longest
is ended, and the next message of its topic opens another, as after a Disconnect.

A stream is read in a task of its own, so that one that stays silent delays nobody. Bytes that are not the protocol
close the connection (and nothing more): stopping only the stream would leave an iroh peer waiting for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Protocol

from ...transport import Connection, RecvStream, SendStream, frame, read_frame
from ...transport.errors import ConnectionClosed, DecodeError, StreamReset, StreamStopped
from ..core.codec import MAX_MESSAGE, decode
from ..core.messages import BroadcastMessage, Message
from .outbound import Outbound, ends_stream

__all__ = ["Link"]

logger = logging.getLogger(__name__)

TOPIC_SIZE = 32
HEADER_TIMEOUT = 10.0  # seconds from the opening of a stream to its topic
WRITE_TIMEOUT = 10.0  # seconds that a peer may keep the next message waiting before it counts as gone
MAX_SENDING = 64  # streams that we keep open: an iroh peer allows 100, some of which are on their way out
MAX_STREAMS = 512  # open topic streams from one peer
MEMBERSHIP_COST = 100  # a Join or a Shuffle makes several others work: 200 a second, where a busy swarm has a few
YIELD_EVERY = 32  # messages handled before other tasks get a turn

CLOSE_DONE = 0
CLOSE_MALFORMED = 1
CLOSE_STALLED = 2
CLOSE_BUSY = 3
CLOSE_FAULT = 4


class LinkOwner(Protocol):
    def admits(self, topic: bytes) -> bool | Awaitable[bool]:
        """Whether what comes for the topic may come in."""

    def vet(self, message: Message) -> Message | Awaitable[Message]:
        """A message of the membership without what is forged in it."""

    def on_message(self, topic: bytes, message: Message) -> None: ...

    def throttle(self, cost: int) -> float:
        """Seconds to wait after messages worth ``cost``. Flow control then slows the peer down."""

    def on_malformed(self) -> None:
        """Bytes came that are not the protocol."""


class Link:
    """The owner gets what arrives, in order within a topic.

    What is not admitted is read and dropped. Stopping its stream would end all topics of an iroh peer, which takes the
    failed write for the end of the connection.
    """

    def __init__(self, connection: Connection, owner: LinkOwner) -> None:
        self.connection = connection
        self.opened_at = _now()
        self._owner = owner
        self._streams: dict[bytes, SendStream] = {}  # the latest used last
        self._writing = asyncio.Lock()  # a stream must not be finished under a write that waits
        self._reading = 0

    # Out

    async def write(self, batch: Sequence[Outbound]) -> None:
        """Send ``batch``. Returns early where the connection ends; a peer that does not read is disconnected."""
        frames: dict[bytes, list[bytes]] = {}
        try:
            async with asyncio.timeout(WRITE_TIMEOUT) as patience, self._writing:
                for item in batch:
                    frames.setdefault(item.topic, []).append(item.frame)
                    if ends_stream(item.message):
                        await self._write(item.topic, frames.pop(item.topic))
                        await self._finish(item.topic)
                        patience.reschedule(_now() + WRITE_TIMEOUT)
                for topic, parts in frames.items():
                    await self._write(topic, parts)
                    patience.reschedule(_now() + WRITE_TIMEOUT)
        except TimeoutError:
            logger.info("%r does not read its messages: disconnected", self.connection)
            self.connection.close(CLOSE_STALLED, "messages are not read")
        except ConnectionClosed:
            pass

    async def _write(self, topic: bytes, parts: list[bytes]) -> None:
        stream = self._streams.pop(topic, None)
        if stream is None:
            while len(self._streams) >= MAX_SENDING:
                await self._finish(next(iter(self._streams)))
            stream = await self.connection.open_uni()
            parts = [frame(topic), *parts]
        self._streams[topic] = stream
        try:
            await stream.write(b"".join(parts))
        except StreamStopped:
            # Not a protocol of ours, but harmless: the next message opens a new stream.
            del self._streams[topic]

    async def _finish(self, topic: bytes) -> None:
        stream = self._streams.pop(topic, None)
        if stream is not None:
            with suppress(StreamStopped):
                await stream.finish()

    async def finish(self) -> None:
        """End the streams that we send on. Returns once the peer has everything, or cannot get it any more."""
        async with self._writing:
            streams = list(self._streams.values())
            self._streams.clear()
            for stream in streams:
                with suppress(StreamStopped, ConnectionClosed):
                    await stream.finish()
        for stream in streams:
            with suppress(StreamStopped, ConnectionClosed):
                await stream.stopped()

    # In

    async def receive(self) -> ConnectionClosed:
        """Read until the connection ends, and everything that arrived before; returns why it ended."""
        async with asyncio.TaskGroup() as readers:
            while True:
                try:
                    stream = await self.connection.accept_uni()
                except ConnectionClosed as error:
                    ended = error
                    break
                if self._reading >= MAX_STREAMS:
                    self._refuse(f"more than {MAX_STREAMS} streams")
                    continue
                self._reading += 1
                readers.create_task(self._read(stream))
        return ended

    async def _read(self, stream: RecvStream) -> None:
        try:
            async with asyncio.timeout(HEADER_TIMEOUT):
                topic = await read_frame(stream, TOPIC_SIZE)
            if topic is None:
                return
            if len(topic) != TOPIC_SIZE:
                raise DecodeError(f"a topic is {TOPIC_SIZE} bytes, not {len(topic)}")
            owner, count, cost = self._owner, 0, 0
            while (payload := await read_frame(stream, MAX_MESSAGE)) is not None:
                message = decode(payload)
                admitted = owner.admits(topic)
                if admitted if isinstance(admitted, bool) else await admitted:
                    if not isinstance(message, BroadcastMessage):
                        vetted = owner.vet(message)
                        message = await vetted if isinstance(vetted, Awaitable) else vetted
                    owner.on_message(topic, message)
                count += 1
                cost += 1 if isinstance(message, BroadcastMessage) else MEMBERSHIP_COST
                if count % YIELD_EVERY == 0:
                    await asyncio.sleep(owner.throttle(cost))
                    cost = 0
        except TimeoutError:
            self._refuse("a stream without a topic")
        except DecodeError as error:
            self._refuse(str(error))
        except (StreamReset, ConnectionClosed):
            pass
        finally:
            self._reading -= 1

    def _refuse(self, why: str) -> None:
        logger.info("%r: %s: disconnected", self.connection, why)
        self.connection.close(CLOSE_MALFORMED, why)
        self._owner.on_malformed()


def _now() -> float:
    return asyncio.get_running_loop().time()
