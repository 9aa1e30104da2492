"""The lookup that every endpoint has: filled by tickets, by the program, and by what protocols learn from peers."""

from __future__ import annotations

from collections import OrderedDict

from ..addr import EndpointAddr, TransportAddr
from ..keys import EndpointId

__all__ = ["MemoryLookup"]

MAX_PEERS = 16_384  # the one unused for longest is forgotten first
MAX_ADDRESSES = 32  # kept for a peer, the newest first; iroh keeps 30


class MemoryLookup:
    """Addresses by id, bounded in both directions."""

    def __init__(self) -> None:
        self._known: OrderedDict[EndpointId, dict[TransportAddr, None]] = OrderedDict()

    def add(self, addr: EndpointAddr) -> None:
        """Remember the addresses of ``addr`` beside those already known; the new ones come first."""
        if not addr.addrs:
            return
        known = self._known.pop(addr.id, {})
        fresh = dict.fromkeys(addr.sorted())
        merged = [*fresh, *(old for old in known if old not in fresh)]
        self._known[addr.id] = dict.fromkeys(merged[:MAX_ADDRESSES])
        while len(self._known) > MAX_PEERS:
            self._known.popitem(last=False)

    def get(self, id: EndpointId) -> EndpointAddr | None:
        known = self._known.get(id)
        if known is None:
            return None
        self._known.move_to_end(id)
        return EndpointAddr.of(id, known)

    def remove(self, id: EndpointId) -> None:
        self._known.pop(id, None)
