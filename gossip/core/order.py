"""The messages of each author in the order in which it sent them, and what is missing between them.

A message that is ahead of its turn is held back until those before it have come, or are given up. One that comes after
it was given up is still handed on, out of its order, and says so: nothing that arrives is lost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from .envelope import Envelope
from .log import Entry

__all__ = ["AuthorOrder", "Gap"]

MAX_AUTHORS = 16_384  # sessions remembered; about 5 MB. Who was silent for longest is forgotten first
MAX_HELD = 4_096  # messages of one session that wait for an earlier one: what a log keeps by default
MAX_HELD_IN_ALL = 16_384
MAX_SKIPPED = 256  # runs of numbers of one session that were given up and may still come
MOST = 1 << 64  # above any number


@dataclass(frozen=True, slots=True)
class Gap:
    """``author``'s messages from number ``first`` to ``last`` of this session did not come in time."""

    author: bytes
    session: int
    first: int
    last: int


@dataclass(slots=True)
class _Session:
    turn: int
    """The number that is to come next."""
    held: dict[int, Entry] = field(default_factory=dict)
    skipped: list[tuple[int, int]] = field(default_factory=list)
    """Runs of numbers, first and last, in rising order."""
    moved_at: float = 0.0
    """When one of its messages came last."""

    def was_skipped(self, number: int) -> bool:
        at = bisect_right(self.skipped, (number, MOST)) - 1
        return at >= 0 and number <= self.skipped[at][1]

    def unskip(self, number: int) -> bool:
        """It came after all. Whether it was skipped."""
        if not self.was_skipped(number):
            return False
        at = bisect_right(self.skipped, (number, MOST)) - 1
        first, last = self.skipped[at]
        self.skipped[at : at + 1] = [run for run in ((first, number - 1), (number + 1, last)) if run[0] <= run[1]]
        return True


class AuthorOrder:
    __slots__ = ("_held", "_sessions")

    def __init__(self) -> None:
        self._sessions: OrderedDict[tuple[bytes, int], _Session] = OrderedDict()
        self._held = 0

    def arrived(self, entry: Entry, envelope: Envelope, since: float, now: float) -> list[tuple[Entry, bool]]:
        """What can be handed on now that ``entry`` is here: (entry, whether it comes after its turn).

        ``since``: an author whose message before this one is older than that is followed from here on.
        """
        key, number = (envelope.author, envelope.session), envelope.number
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = _Session(1)
            self._forget_oldest()
        else:
            self._sessions.move_to_end(key)
        session.moved_at = now
        earlier: list[tuple[Entry, bool]] = []
        if session.turn == 1 < number and entry.at - envelope.gap / 1e6 < since:
            # Ours begin here, whatever came first. What is held of before is older than asked for, by another clock.
            for each in sorted(each for each in session.held if each < number):
                earlier.append((session.held.pop(each), False))
                self._held -= 1
            session.turn = number
        if number < session.turn:
            return [(entry, True)] if session.unskip(number) else []
        if number > session.turn:
            if number not in session.held:
                session.held[number] = entry
                self._held += 1
            return []
        session.turn += 1
        return [*earlier, (entry, False), *self._follow(session)]

    def resume(self, envelope: Envelope) -> None:
        """It was handed on in an earlier run, and those before it, or else they come late."""
        session = self._sessions.setdefault((envelope.author, envelope.session), _Session(envelope.number))
        self._skip(session, envelope.number)
        session.unskip(envelope.number)
        session.turn = max(session.turn, envelope.number + 1)
        self._forget_oldest()

    def knows(self, envelope: Envelope) -> bool:
        """Whether that number of that session was here."""
        session = self._sessions.get((envelope.author, envelope.session))
        if session is None:
            return False
        number = envelope.number
        return number in session.held or (number < session.turn and not session.was_skipped(number))

    def waits(self, key: tuple[bytes, int]) -> bool:
        """Whether messages of this session are held back."""
        session = self._sessions.get(key)
        return session is not None and bool(session.held)

    def crowded(self, key: tuple[bytes, int]) -> bool:
        """Whether too much is held back: then what this session waits for is to be given up."""
        return len(self._sessions[key].held) >= MAX_HELD or self._held >= MAX_HELD_IN_ALL

    def moved_at(self, key: tuple[bytes, int]) -> float:
        return self._sessions[key].moved_at

    def give_up(self, key: tuple[bytes, int]) -> tuple[Gap, list[tuple[Entry, bool]]]:
        """Go on without what is missing before the first message that is held back."""
        session = self._sessions[key]
        first = session.turn
        self._skip(session, min(session.held))
        return Gap(*key, first, session.turn - 1), list(self._follow(session))

    def _skip(self, session: _Session, turn: int) -> None:
        """Go on at ``turn``, where that is ahead; what is before it may come late."""
        if turn > session.turn:
            session.skipped.append((session.turn, turn - 1))
            del session.skipped[:-MAX_SKIPPED]
            session.turn = turn

    def _follow(self, session: _Session) -> Iterator[tuple[Entry, bool]]:
        while session.turn in session.held:
            entry = session.held.pop(session.turn)
            self._held -= 1
            session.turn += 1
            yield entry, False

    def _forget_oldest(self) -> None:
        while len(self._sessions) > MAX_AUTHORS:
            _, session = self._sessions.popitem(last=False)
            self._held -= len(session.held)
