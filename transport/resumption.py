"""Session tickets: a second handshake needs no proof of keys, and may carry data at once (RFC 8446 2.2, 2.3).

A resumed handshake has no certificates, so the peer's key is kept beside each ticket, on both sides, with the protocol
it was made for. Tickets live in memory and are good once: a copy of early data finds its ticket gone, as long as the
accepting process lives. Other copies of early data are the application's business, which is why it has to ask for it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from aioquic.tls import SessionTicket

from .keys import EndpointId

__all__ = ["Issued", "Tickets"]

MAX_GIVEN = 256  # kept of those that peers gave us (iroh's figure)
MAX_GIVEN_BY_ONE = 8
MAX_ISSUED = 4096  # that peers may come back with


@dataclass(frozen=True, slots=True)
class Issued:
    """A ticket that we gave to ``id`` on a connection for ``alpn``."""

    ticket: SessionTicket
    id: EndpointId
    alpn: str


class Tickets:
    """Both kinds of one endpoint. ``early`` are the protocols that take data before the handshake is over."""

    def __init__(self, early: frozenset[bytes] = frozenset()) -> None:
        self.early = frozenset(alpn.decode("ascii") for alpn in early)
        self._given: OrderedDict[tuple[EndpointId, str], list[SessionTicket]] = OrderedDict()
        self._issued: OrderedDict[bytes, Issued] = OrderedDict()

    def keep(self, id: EndpointId, alpn: str, ticket: SessionTicket) -> None:
        """``id`` gave us a ticket."""
        known = self._given.setdefault((id, alpn), [])
        self._given.move_to_end((id, alpn))
        known.append(ticket)
        del known[:-MAX_GIVEN_BY_ONE]
        while len(self._given) > MAX_GIVEN:
            self._given.popitem(last=False)

    def take(self, id: EndpointId, alpn: str, *, early: bool = False) -> SessionTicket | None:
        """One for another handshake with ``id``, to be used once. ``early``: only one that lets us send at once."""
        known = self._given.get((id, alpn), [])
        while known:
            ticket = known.pop()
            if not known:
                del self._given[id, alpn]
            if ticket.is_valid and (ticket.max_early_data_size is not None or not early):
                return ticket if early else replace(ticket, max_early_data_size=None)
        return None

    def issue(self, issued: Issued) -> None:
        self._issued[issued.ticket.ticket] = issued
        while len(self._issued) > MAX_ISSUED:
            self._issued.popitem(last=False)

    def redeem(self, ticket: bytes) -> Issued | None:
        """What we gave as ``ticket``, once."""
        return self._issued.pop(ticket, None)
