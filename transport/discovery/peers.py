"""Both ends of address discovery as what a `Driver` drives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aioquic.quic import events

from ..addr import IpAddr
from ..paths.place import Place, RelayPlace
from ..socket_address import SocketAddress, ip_addr_of
from .discovery_engine import DiscoveryEngine

__all__ = ["Asking", "Telling"]

KEEP_ALIVE = 25.0  # seconds (iroh's figure); it also keeps the NAT's mapping
HANDSHAKE_TIMEOUT = 5.0  # seconds
FINISHED = 1  # application close code of a client that has its answer (iroh's)


class _Driven:
    """What both ends share of `tidings.transport.driver.Driven`."""

    def __init__(self, engine: DiscoveryEngine, now: float) -> None:
        self.engine = engine
        self.established = False
        self.on_established: Callable[[object], None] | None = None
        self.on_connection_id: Callable[[bytes, bool], None] | None = None
        self._heard_at = self._started_at = now

    @property
    def place(self) -> Place | None:
        place: Place | None = self.engine.peer_place
        return place

    @property
    def closed(self) -> object | None:
        return self.engine.ending

    def close(self) -> None:
        self.engine.close(error_code=FINISHED, reason_phrase="finished")

    def receive(self, datagram: bytes, place: Place, now: float) -> None:
        self._heard_at = now
        self.engine.receive_datagram(datagram, place, now)

    def deadline(self) -> float | None:
        at = self.engine.get_timer()
        if at is None or self.engine.ending is not None:
            return at
        if not self.established:
            return min(at, self._started_at + HANDSHAKE_TIMEOUT)
        return min(at, self._heard_at + KEEP_ALIVE) if self.engine.configuration.is_client else at

    def on_timer(self, now: float) -> None:
        at = self.engine.get_timer()
        if at is not None and now >= at:
            self.engine.handle_timer(now)
        if self.engine.ending is not None:
            return
        if not self.established and now >= self._started_at + HANDSHAKE_TIMEOUT:
            self.engine.close(error_code=0, reason_phrase="the handshake took too long")
        elif self.established and self.engine.configuration.is_client and now >= self._heard_at + KEEP_ALIVE:
            self._heard_at = now
            self.engine.keep_alive()

    def pump(self, now: float) -> Sequence[tuple[bytes, Place]]:
        self._take_events()
        if not self.established and self.engine.confirmed and self.engine.ending is None:
            self.established = True
            if self.on_established is not None:
                self.on_established(self)
        self._before_sending()
        datagrams = [] if self.engine.over else self.engine.datagrams_to_send(now)
        self._take_events()
        return datagrams

    def _before_sending(self) -> None: ...

    def _take_events(self) -> None:
        while (event := self.engine.next_event()) is not None:
            tell = self.on_connection_id
            if isinstance(event, events.ConnectionIdIssued | events.ConnectionIdRetired) and tell is not None:
                tell(event.connection_id, isinstance(event, events.ConnectionIdIssued))


class Telling(_Driven):
    """The relay's end: tells the client its address, and again when it comes from another."""

    _told: Place | None = None

    def _before_sending(self) -> None:
        place = self.place
        if self.established and place != self._told and place is not None and not isinstance(place, RelayPlace):
            self._told = place
            self.engine.observe(ip_addr_of(place))


class Asking(_Driven):
    """Our end. ``on_news(self)`` is called when the address is another than before, and at the end."""

    def __init__(
        self, engine: DiscoveryEngine, server: SocketAddress, now: float, on_news: Callable[[Asking], None]
    ) -> None:
        super().__init__(engine, now)
        self.on_news = on_news
        self._known: tuple[IpAddr | None, bool] = (None, False)
        engine.connect(server, now)

    @property
    def observed(self) -> IpAddr | None:
        return None if self.engine.ending else self.engine.observed

    @property
    def problem(self) -> str:
        """Why it is over; empty while it is not."""
        end = self.engine.ending
        return "" if end is None else end.reason_phrase or hex(end.error_code)

    def pump(self, now: float) -> Sequence[tuple[bytes, Place]]:
        datagrams = super().pump(now)
        known = (self.observed, self.engine.ending is not None)
        if known != self._known:
            self._known = known
            self.on_news(self)
        return datagrams
