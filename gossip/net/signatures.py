"""Signed messages are checked beside the event loop, in the order of their coming."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from ...transport.errors import DecodeError
from ..core.envelope import Envelope
from ..core.outputs import Deliver

__all__ = ["Checker", "open_all"]

logger = logging.getLogger(__name__)

MAX_UNCHECKED = 4096  # signed messages of a topic that wait for their check: half a second of work
CHECKED_AT_ONCE = 256


class Checker:
    """Of one topic. ``checked`` gets each batch, with None for a message that is forged."""

    __slots__ = ("_checked", "_room", "_task", "_topic", "_waiting")

    def __init__(self, topic: bytes, checked: Callable[[list[tuple[Deliver, Envelope | None]]], None]) -> None:
        self._topic = topic
        self._checked = checked
        self._waiting: deque[Deliver] = deque()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def push(self, message: Deliver) -> None:
        """Where too many wait it is dropped; a log catches it up."""
        if len(self._waiting) < MAX_UNCHECKED:
            self._waiting.append(message)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"gossip signatures {self._topic[:5].hex()}")

    @property
    def crowded(self) -> bool:
        """Whether the peers' messages are to wait for `room`."""
        return len(self._waiting) > MAX_UNCHECKED // 2

    async def room(self) -> None:
        """Return when less waits."""
        while self.crowded:
            self._room.clear()
            await self._room.wait()

    def close(self) -> list[asyncio.Task[None]]:
        """The task that is being ended."""
        if self._task is None:
            return []
        self._task.cancel()
        return [self._task]

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), CHECKED_AT_ONCE))]
                self._room.set()
                opened = await asyncio.to_thread(open_all, [each.content for each in batch], self._topic)
                self._checked(list(zip(batch, opened, strict=True)))
        finally:
            self._waiting.clear()
            self._room.set()
            self._task = None


def open_all(contents: Sequence[bytes], topic: bytes) -> list[Envelope | None]:
    """None for one that is forged, and for a plain content."""
    opened: list[Envelope | None] = []
    for content in contents:
        try:
            opened.append(Envelope.open(content, topic))
        except DecodeError as error:
            logger.info("a message of topic %s is dropped: %s", topic[:5].hex(), error)
            opened.append(None)
    return opened
