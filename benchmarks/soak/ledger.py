"""Who heard what, and who should have.

A message is owed by an author who stays to those who were in the swarm when it was sent and stay, too. It is judged
some time later, so that the order in which processes tell of what happened does not matter, and is forgotten then: what
is known here stays small however long the run is. Times are the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["DUE", "Ledger"]

DUE = 60.0  # seconds after which a message that was not heard is lost: a dozen comparisons of logs
FORGET = 3 * DUE  # ... and after which a member that left plays no part any more


@dataclass(slots=True)
class _Said:
    author: int
    at: float
    heard: dict[int, float] = field(default_factory=dict)


class Ledger:
    """Members and messages are numbers; who comes back has another."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.slowest = 0.0  # seconds, among the deliveries that were owed
        self.lost: list[tuple[int, int]] = []  # message and who did not hear it
        self._said: dict[int, _Said] = {}
        self._early: dict[int, dict[int, float]] = {}  # heard before we were told that it was said
        self._stays: dict[int, tuple[float, float]] = {}  # member -> from when to when

    def enter(self, member: int, at: float) -> None:
        self._stays[member] = (at, math.inf)

    def leave(self, member: int, at: float) -> None:
        self._stays[member] = (self._stays[member][0], at)
        self._stays = {each: stay for each, stay in self._stays.items() if stay[1] > at - FORGET}

    def say(self, message: int, author: int, at: float) -> None:
        self.counts["said"] += 1
        self._said[message] = _Said(author, at, self._early.pop(message, {}))

    def hear(self, message: int, member: int, at: float) -> None:
        self.counts["heard"] += 1
        said = self._said.get(message)
        heard = self._early.setdefault(message, {}) if said is None else said.heard
        if member in heard:
            self.counts["heard twice"] += 1
        heard.setdefault(member, at)

    def judge(self, now: float) -> None:
        """The messages that are due."""
        due = [message for message, said in self._said.items() if said.at < now - DUE]
        for message in due:
            self._close(message, now)
        if due:
            self._early.clear()  # late copies for who came later

    def close(self, now: float) -> None:
        """All of them; nobody says anything any more."""
        for message in list(self._said):
            self._close(message, now)

    def open(self, now: float) -> bool:
        """Whether something was not heard yet."""
        return any(self._owed(said, now) - said.heard.keys() for said in self._said.values())

    def _close(self, message: int, now: float) -> None:
        said = self._said.pop(message)
        owed = self._owed(said, now)
        self.counts["owed"] += len(owed)
        self.lost += [(message, member) for member in owed - said.heard.keys()]
        self.slowest = max([self.slowest, *(said.heard[member] - said.at for member in owed & said.heard.keys())])

    def _owed(self, said: _Said, now: float) -> set[int]:
        if self._stays[said.author][1] < min(now, said.at + DUE):
            return set()
        return {
            member
            for member, (since, until) in self._stays.items()
            if member != said.author and since < said.at and until > min(now, said.at + DUE)
        }
