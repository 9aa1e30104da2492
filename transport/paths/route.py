"""Where the datagrams of one connection go: between its engine, which knows one address, and the places of its peer.

- A **dial** sends its first flight to every place that is known, and goes on with whoever answers; the answer says
  nothing of who that is, the handshake does.
- While a handshake from **elsewhere** goes on, its copies may come by several ways. The one that is answered first
  stays, unless the peer is heard to repeat itself by another: then it does not get our answers.
- An established connection whose peer signals its ways to us (`keeper`) goes by the one that is chosen there, and the
  engine never notices; packets may come by any. Without, the engine has the peer's real address, and follows a client
  that moves as RFC 9000 section 9 says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from .info import PathInfo
from .place import ANYWHERE, Place

__all__ = ["Route"]

UNHEARD = 0.5  # seconds after which a peer that repeats its first flight has not had our answer


class RouteEngine(Protocol):
    accepted: int

    @property
    def rtt(self) -> float | None: ...
    @property
    def peer_place(self) -> Place | None: ...
    def receive_datagram(self, data: bytes, addr: Place, now: float) -> None: ...
    def rename_path(self, place: Place) -> None: ...


class Ways(Protocol):
    """What a route asks of the keeper of a peer's ways."""

    @property
    def selected(self) -> Place: ...
    def heard(self, place: Place, now: float) -> None: ...
    def sent(self) -> None: ...
    def paths(self) -> list[PathInfo]: ...


class Route:
    """``dialled`` are the places a dial tries; none for a connection that somebody else has begun."""

    def __init__(self, engine: RouteEngine, now: float, dialled: Iterable[Place] = ()) -> None:
        self.engine = engine
        self.dialled = list(dialled)
        self.answered: Place | None = None
        self.remote: Ways | None = None
        self.settled = False
        self._is_dial = bool(self.dialled)
        self._started_at = now
        self._first_flight: list[bytes] = []

    def receive(self, datagram: bytes, place: Place, now: float) -> None:
        engine, remote = self.engine, self.remote
        accepted = engine.accepted
        if not self.settled:
            held = ANYWHERE if self._is_dial else engine.peer_place or place
            engine.receive_datagram(datagram, held, now)
            if engine.accepted != accepted:
                self._answer_came(place, now)
        elif remote is None:
            engine.receive_datagram(datagram, place, now)
        else:
            engine.receive_datagram(datagram, engine.peer_place or place, now)
            if engine.accepted != accepted:
                remote.heard(place, now)

    def _answer_came(self, place: Place, now: float) -> None:
        if self._is_dial:
            self.answered = place
            self._first_flight.clear()
        elif place != self.engine.peer_place and now >= self._started_at + UNHEARD:
            self.engine.rename_path(place)

    @property
    def place(self) -> Place | None:
        """Where datagrams go now; None while nobody has answered a dial."""
        if not self.settled and self._is_dial:
            return self.answered
        return self.engine.peer_place if self.remote is None else self.remote.selected

    def paths(self) -> list[PathInfo]:
        """The ways that work, the one in use first."""
        if self.remote is not None:
            return self.remote.paths()
        place = self.place
        return [] if place is None else [PathInfo.of(place, selected=True, rtt=self.engine.rtt, why="the only way")]

    def attach(self, ways: Ways) -> None:
        """From now on the connection goes by these."""
        self.remote = ways

    def detach(self) -> None:
        """The engine goes on where the ways have led it."""
        if self.remote is not None:
            self.engine.rename_path(self.remote.selected)
            self.remote = None

    def settle(self) -> None:
        """The handshake is over: the engine learns where the peer is."""
        self.settled = True
        if self._is_dial and self.answered is not None:
            self.engine.rename_path(self.answered)

    def also(self, places: Iterable[Place]) -> list[tuple[bytes, Place]]:
        """Further places for a dial; returns what is to be sent there at once."""
        fresh = [place for place in dict.fromkeys(places) if place not in self.dialled]
        self.dialled += fresh
        return [(datagram, place) for place in fresh for datagram in self._first_flight]

    def address(self, datagrams: Sequence[tuple[bytes, Place]]) -> Sequence[tuple[bytes, Place]]:
        """The engine's datagrams, with the places they go to in earnest."""
        if self.settled:
            if self.remote is None:
                return datagrams
            if datagrams:
                self.remote.sent()
            selected = self.remote.selected
            return [(data, selected) for data, _ in datagrams]
        if not self._is_dial:
            return datagrams
        if self.answered is not None:
            return [(data, self.answered) for data, _ in datagrams]
        self._first_flight = [data for data, _ in datagrams] or self._first_flight
        return [(data, place) for place in self.dialled for data, _ in datagrams]
