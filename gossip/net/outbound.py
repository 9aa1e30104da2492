"""What waits to be sent to one peer: a queue that is bounded and says what it drops.

When it is full, what can be made up for goes first: the oldest announcement or shuffle (the next one says it again),
then the oldest payload (another neighbour announces it). The handshakes of the membership go last: a new one is
refused only where nothing but handshakes waits. So a peer that does not read costs this much memory and nobody's time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from ..core.messages import Disconnect, IHave, Join, Message, Payload, Shuffle, ShuffleReply

__all__ = ["Outbound", "OutboundQueue"]

MAX_MESSAGES = 4096  # a burst of two seconds at the speed of a fast swarm
MAX_BYTES = 4 << 20
CROWDED = 0.5  # the part of either bound above which senders are asked to wait


@dataclass(frozen=True, slots=True)
class Outbound:
    """One message for a peer: its topic, what it is, and its frame as sent."""

    topic: bytes
    message: Message
    frame: bytes


class OutboundQueue:
    def __init__(self, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._items: OrderedDict[int, Outbound] = OrderedDict()
        self._next = 0
        self._announcements: deque[int] = deque()  # numbers in _items, some of them gone
        self._payloads: deque[int] = deque()
        self._joins: set[bytes] = set()  # topics with a Join in here: two would only be answered twice
        self.bytes = 0
        self.dropped = 0
        """Messages dropped for want of room, since the beginning."""
        self.full_since: float | None = None
        """When it first had to drop one, since it was last no longer crowded."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def crowded(self) -> bool:
        return len(self._items) > self._max_messages * CROWDED or self.bytes > self._max_bytes * CROWDED

    def push(self, item: Outbound, now: float) -> None:
        """Add ``item`` at the end; something is dropped where there is no room."""
        match item.message:
            case Join():
                if item.topic in self._joins:
                    return
                self._joins.add(item.topic)
            case IHave() | Shuffle() | ShuffleReply():
                self._announcements.append(self._next)
            case Payload():
                self._payloads.append(self._next)
        self._items[self._next] = item
        self._next += 1
        self.bytes += len(item.frame)
        while len(self._items) > self._max_messages or self.bytes > self._max_bytes:
            if self.full_since is None:
                self.full_since = now
            self.dropped += 1
            self._remove(self._victim())

    def take(self, most_bytes: int) -> list[Outbound]:
        """The first messages, as many as fit ``most_bytes`` and one at least where there is one."""
        taken: list[Outbound] = []
        size = 0
        while self._items:
            number, item = next(iter(self._items.items()))
            size += len(item.frame)
            if taken and size > most_bytes:
                break
            self._remove(number)
            taken.append(item)
        if not self.crowded:
            self.full_since = None
        if not self._items:
            self._announcements.clear()
            self._payloads.clear()
        return taken

    def clear(self) -> None:
        self._items.clear()
        self._announcements.clear()
        self._payloads.clear()
        self._joins.clear()
        self.bytes = 0
        self.full_since = None

    def _victim(self) -> int:
        for numbers in (self._announcements, self._payloads):
            while numbers:
                number = numbers.popleft()
                if number in self._items:
                    return number
        return next(reversed(self._items))

    def _remove(self, number: int) -> None:
        item = self._items.pop(number)
        self.bytes -= len(item.frame)
        if isinstance(item.message, Join):
            self._joins.discard(item.topic)


def ends_stream(message: Message) -> bool:
    """iroh finishes the topic's stream behind a Disconnect; a later message opens another."""
    return isinstance(message, Disconnect)
