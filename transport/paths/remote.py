"""The ways to one peer, and which of them is used: a state machine without clock or sockets.

Every place where the peer may be is asked by *pings*, which only the peer can answer (`probes`). A place that answered
works; it is asked again from time to time, and at once when what is sent stays without any answer. Of those that work
one is selected (`choice`). To open a NAT both sides ask each other's places at about the same time: each repeats
itself for about four seconds, and a ping that arrives makes the receiver ask back where it came from.

The driver calls `poll` when `deadline` has come and sends what it returns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from .choice import Way, choose
from .info import PathInfo
from .place import Place, RelayPlace, transport_addr

__all__ = ["Remote"]

HEARTBEAT = 5.0  # seconds between pings of a direct way in use, or kept as the next best (iroh's)
RELAY_HEARTBEAT = 15.0  # of a relayed way
FIRST_RETRY = 1 / 30  # seconds until a place is asked again; doubled each time (iroh's figures)
LONGEST_RETRY = 2.0
TRIES = 9  # in a row in vain, then a place gets a rest
SEEN_TRIES = 2  # of a place that only a datagram has named: what it makes us send stays below three times its size
REST = 30.0  # seconds; a peer's change of address ends it
BLACKOUT_RETRY = 0.5  # seconds between tries where no way works at all
SILENCE = 0.2  # seconds without any answer to what was sent, after which the way in use is asked
PATIENCE = 0.1  # seconds at least until a ping of a way that works counts as lost
LOST = 4  # pings in a row: the way does not work any more
SMOOTHING = 0.25  # weight of a new round-trip time
MAX_PLACES = 40  # of one peer, the useless ones go first
MAX_OPEN = 64  # pings on the way


@dataclass(slots=True)
class _Track:
    """``tries``: pings since the last answer."""

    place: Place
    next_at: float
    told: bool
    works: bool = False
    rtt: float = 0.0
    tries: int = 0

    @property
    def is_relay(self) -> bool:
        return isinstance(self.place, RelayPlace)

    @property
    def patience(self) -> float:
        return max(PATIENCE, 2 * self.rtt)


@dataclass(slots=True)
class Remote:
    """``selected`` is where the peer was found first; ``why`` says why it is what it is now."""

    selected: Place
    why: str = "the first that answered"
    _tracks: dict[Place, _Track] = field(default_factory=dict)
    _open: dict[int, tuple[Place, float]] = field(default_factory=dict)
    _next: int = 0
    _silent_since: float | None = None

    def __post_init__(self) -> None:
        self._tracks[self.selected] = _Track(self.selected, 0.0, told=True, works=True)

    # -- what is learnt --------------------------------------------------------------------------------------------

    def tell(self, places: Iterable[Place], now: float, *, again: bool = True) -> None:
        """These are all places the peer names now. New ones are asked; ``again``: those that do not work, too."""
        told = dict.fromkeys(places)
        for track in list(self._tracks.values()):
            track.told = track.place in told
            if not track.told and not track.works and track.place != self.selected:
                del self._tracks[track.place]
            elif again and not track.works:
                track.tries, track.next_at = 0, now
        for place in told:
            if place not in self._tracks:
                self._add(place, now, told=True)

    def ping_came(self, place: Place, now: float) -> None:
        """The peer asked from ``place``: ask it there as well, unless it is known to work."""
        track = self._tracks.get(place)
        if track is None:
            self._add(place, now, told=False)
        elif not track.works:
            track.next_at = min(track.next_at, now)
            if track.told:
                track.tries = min(track.tries, TRIES - 1)

    def pong_came(self, number: int, place: Place, now: float) -> bool:
        """The answer to ping ``number``; False where there was none such."""
        asked, sent_at = self._open.pop(number, (None, 0.0))
        track = self._tracks.get(place)
        if asked != place or track is None:
            return False
        rtt = now - sent_at
        track.rtt = rtt if not track.works or not track.rtt else track.rtt + SMOOTHING * (rtt - track.rtt)
        track.works, track.tries = True, 0
        track.next_at = now + self._heartbeat(track)
        self._silent_since = None
        self._choose()
        return True

    def heard(self, place: Place, now: float) -> bool:
        """A packet of the peer came from ``place``; True where that is to be looked into soon."""
        self._silent_since = None
        track = self._tracks.get(place)
        if track is not None and track.works:
            return False
        if track is None:
            track = self._add(place, now, told=False)
        elif track.told:
            track.next_at = min(track.next_at, now)
        return track is not None

    def sent(self, now: float) -> bool:
        """Something went by the way in use; True where nothing was waiting for an answer before."""
        if self._silent_since is None:
            self._silent_since = now
            return True
        return False

    def network_changed(self, now: float) -> None:
        """Ours has: nothing is certain any more."""
        for track in self._tracks.values():
            track.tries, track.next_at = 0, now

    def relay_changed(self, place: RelayPlace, is_up: bool, now: float) -> None:
        track = self._tracks.get(place)
        if track is not None:
            if is_up and not track.works:
                track.tries, track.next_at = 0, now
            elif not is_up and track.works:
                self._fail(track, now)

    # -- what is to be done ----------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When `poll` wants to be called; infinity where it never does."""
        silence = math.inf
        if self._silent_since is not None and not self._tracks[self.selected].tries:
            silence = self._silent_since + self._silence
        return min([silence, *(track.next_at for track in self._tracks.values())])

    def poll(self, now: float) -> list[tuple[int, Place]]:
        """The pings to send: their numbers, and where."""
        if self._silent_since is not None and now >= self._silent_since + self._silence:
            for track in self._tracks.values():
                if track.works and not track.tries:
                    track.next_at = now
        return [
            (self._ping(track, now), track.place) for track in list(self._tracks.values()) if self._is_due(track, now)
        ]

    def paths(self) -> list[PathInfo]:
        """Those that work, the one in use first."""
        tracks = [track for track in self._tracks.values() if track.works or track.place == self.selected]
        tracks.sort(key=lambda track: (track.place != self.selected, track.is_relay, track.rtt))
        return [
            PathInfo.of(
                track.place,
                selected=(used := track.place == self.selected),
                rtt=track.rtt or None,
                why=self.why if used else "",
            )
            for track in tracks
        ]

    def is_working(self, place: Place) -> bool:
        track = self._tracks.get(place)
        return track is not None and track.works

    def relays(self) -> list[RelayPlace]:
        return [place for place in self._tracks if isinstance(place, RelayPlace)]

    @property
    def works(self) -> bool:
        """Whether the way in use does; where it does not, none does."""
        return self._tracks[self.selected].works

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _silence(self) -> float:
        return max(SILENCE, 2 * self._tracks[self.selected].rtt)

    def _add(self, place: Place, now: float, *, told: bool) -> _Track | None:
        if len(self._tracks) >= MAX_PLACES:
            useless = [each for each in self._tracks.values() if not each.works and each.place != self.selected]
            if not useless:
                return None
            del self._tracks[min(useless, key=lambda each: (each.told, -each.tries)).place]
        self._tracks[place] = track = _Track(place, now, told)
        return track

    def _is_due(self, track: _Track, now: float) -> bool:
        """Also where a ping in vain was the last: then the way fails, or has a rest."""
        if track.next_at > now:
            return False
        if track.works and track.tries >= LOST:
            self._fail(track, now)
        elif not track.works and track.tries >= (TRIES if track.told else SEEN_TRIES):
            if not track.told and track.place != self.selected:
                del self._tracks[track.place]
                return False
            if any(each.works for each in self._tracks.values()):
                track.tries, track.next_at = TRIES - 2, now + REST
                return False
        return True

    def _ping(self, track: _Track, now: float) -> int:
        number = self._next = self._next + 1
        self._open[number] = track.place, now
        while len(self._open) > MAX_OPEN:
            del self._open[next(iter(self._open))]
        if track.works:
            track.next_at = now + track.patience
        elif any(each.works for each in self._tracks.values()):
            track.next_at = now + min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(track.tries, TRIES))
        else:
            track.next_at = now + min(BLACKOUT_RETRY, FIRST_RETRY * 2 ** min(track.tries, TRIES))
        track.tries += 1
        return number

    def _fail(self, track: _Track, now: float) -> None:
        track.works, track.tries, track.next_at = False, 0, now
        self._choose()

    def _heartbeat(self, track: _Track) -> float:
        if track.is_relay:
            return RELAY_HEARTBEAT
        spare = [
            each for each in self._tracks.values() if each.works and not each.is_relay and each.place != self.selected
        ]
        spare.sort(key=lambda each: each.rtt)
        return HEARTBEAT if track.place == self.selected or track in spare[:1] else REST

    def _choose(self) -> None:
        works = {transport_addr(track.place): track for track in self._tracks.values() if track.works}
        used = self._tracks[self.selected]
        current = transport_addr(self.selected) if used.works else None
        choice = choose([Way(addr, track.rtt) for addr, track in works.items()], current)
        if choice is not None:
            self._select(works[choice.way.addr].place, choice.why)

    def _select(self, place: Place, why: str) -> None:
        if place != self.selected:
            self.selected, self.why = place, why
