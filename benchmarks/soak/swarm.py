"""One process's part of the swarm: half of it stays, the other half comes and goes, and somebody always says something.

What happens is told as it happens, each with its time: who enters and leaves, what is said and heard.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import count
from random import Random

from tidings.gossip import Event, Missed, Received
from tidings.gossip.errors import JoinTimeout
from tidings.transport import EndpointAddr, SecretKey

from .member import Member

__all__ = ["Swarm"]

JOIN_TIMEOUT = 60.0
START_PAUSE = 0.25  # so many handshakes at once would keep a process busy for long
AWAY = 0.2  # the part of the nodes that may be away at a time
LARGE = 0.05  # the part of the messages that fill a frame
HEADER = 8


class Swarm:
    """``size`` nodes at most, numbered from ``first`` on, as messages are; ``known`` are nodes of other processes."""

    def __init__(
        self, size: int, first: int, known: Sequence[EndpointAddr], rng: Random, tell: Callable[..., None]
    ) -> None:
        self.members: dict[int, Member] = {}  # that have had a neighbour
        self._size = size
        self._known = known
        self._rng = rng
        self._tell = tell
        self._numbers, self._messages = count(first), count(first)
        self._away: list[SecretKey] = []
        self._coming = 0
        self._steady: set[int] = set()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Swarm:
        await self._group.__aenter__()
        for _ in range(self._size):
            await self._arrive(SecretKey.generate(), "started")
            await asyncio.sleep(START_PAUSE)
        self._steady = set(list(self.members)[: (self._size + 1) // 2])
        return self

    async def __aexit__(self, *error: object) -> None:
        """Everybody leaves, those that are on their way in, too."""
        await self._group.__aexit__(None, None, None)
        everybody = list(self.members.values())
        self.members.clear()
        await asyncio.gather(*(member.leave() for member in everybody))

    def addrs(self) -> list[EndpointAddr]:
        """Of nodes that stay."""
        return [self.members[number].endpoint.addr() for number in self._steady]

    async def talk(self, rate: float, seconds: float) -> None:
        """``rate`` messages a second, from anybody, for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            author = self._rng.choice(list(self.members.values()))
            message = next(self._messages)
            size = 3900 if self._rng.random() < LARGE else self._rng.randrange(HEADER, 200)
            self._tell("said", message, author.number)
            await author.topic.broadcast(message.to_bytes(HEADER, "big").ljust(size, b"."))
            await asyncio.sleep(self._rng.expovariate(rate))

    async def churn(self, every: float, seconds: float) -> None:
        """Somebody comes or goes about ``every`` so many seconds, for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) * every)
            self._group.create_task(self._change())

    async def _change(self) -> None:
        missing = self._size - len(self.members) - self._coming
        leavers = [number for number in self.members if number not in self._steady]
        if not leavers or self._rng.random() < missing / (2 * AWAY * self._size):
            back = self._away and self._rng.random() < 0.7
            key = self._away.pop(self._rng.randrange(len(self._away))) if back else SecretKey.generate()
            await self._arrive(key, "came back" if back else "came new")
        else:
            member = self.members.pop(self._rng.choice(leavers))
            politely = self._rng.random() < 0.5
            self._tell("left" if politely else "vanished", member.number)
            await (member.leave() if politely else member.vanish())
            self._away = [*self._away, member.key][-self._size :]

    async def _arrive(self, key: SecretKey, how: str) -> None:
        self._coming += 1
        try:
            here = [member.endpoint.addr() for member in self.members.values()]
            known = self._rng.sample([*self._known, *here], min(2, len(self._known) + len(here)))
            member = await Member.enter(next(self._numbers), key, known, self._on_event)
            if known:
                try:
                    await member.topic.joined(JOIN_TIMEOUT)
                except JoinTimeout:
                    self._tell("could not join", member.number)
                    return await member.leave()
            self.members[member.number] = member
            self._tell(how, member.number)
        finally:
            self._coming -= 1

    def _on_event(self, member: int, event: Event) -> None:
        if isinstance(event, Received):
            message = int.from_bytes(event.content[:HEADER], "big")
            self._tell("caught up" if event.caught_up else "heard", message, member)
        elif isinstance(event, Missed):
            self._tell("missed", event.last - event.first + 1)
