"""Where datagrams of a peer go and come from: a socket address, or an id behind a relay."""

from __future__ import annotations

from dataclasses import dataclass

from ..addr import IpAddr, RelayUrl, TransportAddr
from ..keys import EndpointId
from ..socket_address import SocketAddress, ip_addr_of, socket_address

__all__ = ["ANYWHERE", "Place", "RelayPlace", "place_of", "transport_addr"]

ANYWHERE: SocketAddress = ("", 0)
"""What the engine of a dial takes for the peer's address, while several places are tried at once."""


@dataclass(frozen=True, slots=True)
class RelayPlace:
    """``id`` as the relay tells it: whoever answers there has yet to prove it."""

    relay: RelayUrl
    id: EndpointId


Place = SocketAddress | RelayPlace


def place_of(addr: TransportAddr, id: EndpointId) -> Place | None:
    """The place of ``id`` at ``addr``; None for an address of a transport that we have not."""
    match addr:
        case IpAddr():
            return socket_address(addr) if addr.port else None
        case RelayUrl():
            return RelayPlace(addr, id)
        case _:
            return None


def transport_addr(place: Place) -> TransportAddr:
    return place.relay if isinstance(place, RelayPlace) else ip_addr_of(place)
