"""Whether we sync a document with one peer, as a machine without I/O (``reference/iroh-protocols.md`` 2.7).

Both sides may dial at once. Of the two dials the one of the peer with the *smaller* id survives: a call that comes in
while we dial is accepted where our id is the larger, else refused. Our own dial then ends by itself, refused by the
peer. Every session that begins ends in ``*_ENDED``, whatever happened, so that every path leads back to IDLE.

A call from a peer whose last call still runs here means that the peer has given that one up, for it starts one at a
time: the old one is superseded. The reference refuses here and can lock itself out until a time-out.
"""

from __future__ import annotations

from enum import Enum, auto
from random import Random

__all__ = ["TRANSITIONS", "Action", "Event", "PeerSync", "State", "backoff"]

RETRY_FIRST = 1.0  # seconds; doubled with each failure, up to
RETRY_MOST = 60.0
JITTER = (0.5, 1.5)  # of the delay, so that a swarm that lost a node does not call it at once


def backoff(failures: int, rng: Random) -> float:
    """Seconds to wait after one more failure than ``failures`` in a row."""
    return min(RETRY_MOST, RETRY_FIRST * 2.0 ** min(failures, 16)) * rng.uniform(*JITTER)


class State(Enum):
    IDLE = auto()
    DIALING = auto()
    ACCEPTING = auto()
    BOTH = auto()


class Event(Enum):
    WANT = auto()
    """Something suggests that the peer has news."""
    CALL_WINS = auto()
    """The peer dialled, and its dial goes before ours if there is one: our id is the larger."""
    CALL_YIELDS = auto()
    """The peer dialled, and our dial, if there is one, goes before."""
    DIAL_ENDED = auto()
    ACCEPT_ENDED = auto()


class Action(Enum):
    NOTHING = auto()
    DIAL = auto()
    LATER = auto()
    """A session runs; one more follows it."""
    ACCEPT = auto()
    REFUSE = auto()
    SUPERSEDE = auto()
    """End the accepted session that runs, report ACCEPT_ENDED, and give the event again."""


TRANSITIONS: dict[tuple[State, Event], tuple[State, Action]] = {
    (State.IDLE, Event.WANT): (State.DIALING, Action.DIAL),
    (State.IDLE, Event.CALL_WINS): (State.ACCEPTING, Action.ACCEPT),
    (State.IDLE, Event.CALL_YIELDS): (State.ACCEPTING, Action.ACCEPT),
    (State.DIALING, Event.WANT): (State.DIALING, Action.LATER),
    (State.DIALING, Event.CALL_WINS): (State.BOTH, Action.ACCEPT),
    (State.DIALING, Event.CALL_YIELDS): (State.DIALING, Action.REFUSE),
    (State.DIALING, Event.DIAL_ENDED): (State.IDLE, Action.NOTHING),
    (State.ACCEPTING, Event.WANT): (State.ACCEPTING, Action.LATER),
    (State.ACCEPTING, Event.CALL_WINS): (State.ACCEPTING, Action.SUPERSEDE),
    (State.ACCEPTING, Event.CALL_YIELDS): (State.ACCEPTING, Action.SUPERSEDE),
    (State.ACCEPTING, Event.ACCEPT_ENDED): (State.IDLE, Action.NOTHING),
    (State.BOTH, Event.WANT): (State.BOTH, Action.LATER),
    (State.BOTH, Event.CALL_WINS): (State.BOTH, Action.SUPERSEDE),
    (State.BOTH, Event.CALL_YIELDS): (State.BOTH, Action.SUPERSEDE),
    (State.BOTH, Event.DIAL_ENDED): (State.ACCEPTING, Action.NOTHING),
    (State.BOTH, Event.ACCEPT_ENDED): (State.DIALING, Action.NOTHING),
}


class PeerSync:
    """One peer of one document. ``now`` is in seconds of any clock that does not jump."""

    __slots__ = ("_call", "_rng", "again", "failures", "retry_at", "state")

    def __init__(self, me: bytes, peer: bytes, rng: Random) -> None:
        self.state = State.IDLE
        self.failures = 0
        self.retry_at: float | None = None
        self.again = False
        """A session was asked for while one ran."""
        self._call = Event.CALL_WINS if me > peer else Event.CALL_YIELDS
        self._rng = rng

    def want(self) -> bool:
        """True: dial now."""
        action = self._on(Event.WANT)
        self.again = self.again or action is Action.LATER
        return action is Action.DIAL

    def called(self) -> Action:
        """ACCEPT, REFUSE or SUPERSEDE."""
        return self._on(self._call)

    def dial_ended(self, *, ok: bool, now: float) -> None:
        self._ended(Event.DIAL_ENDED, ok=ok, now=now)

    def accept_ended(self, *, ok: bool, now: float) -> None:
        self._ended(Event.ACCEPT_ENDED, ok=ok, now=now)

    def due(self, now: float) -> bool:
        """Whether to dial again: asked for meanwhile, or a failure's delay is over."""
        return self.state is State.IDLE and (self.again or (self.retry_at is not None and now >= self.retry_at))

    @property
    def settled(self) -> bool:
        """Nothing runs and nothing is owed: this object can be forgotten."""
        return self.state is State.IDLE and not self.again and self.retry_at is None

    def _ended(self, event: Event, *, ok: bool, now: float) -> None:
        self._on(event)
        if ok:
            self.failures, self.retry_at = 0, None
        elif self.state is State.IDLE:  # else the other session decides
            self.retry_at = now + backoff(self.failures, self._rng)
            self.failures += 1

    def _on(self, event: Event) -> Action:
        self.state, action = TRANSITIONS[self.state, event]
        if action in (Action.DIAL, Action.ACCEPT):
            self.again, self.retry_at = False, None
        return action
