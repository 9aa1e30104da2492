"""How a document stands with its peers, as a program may ask it: `Doc.status` and `Doc.synced`.

Times are seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..transport import EndpointId

__all__ = ["DocStatus", "PeerState", "PeerStatus", "Synced"]

PeerState = Literal["idle", "queued", "dialing", "accepting", "both"]
"""Nothing runs; a sync waits for its turn; we called the peer; it called us; both at once."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer of a document: a neighbour, one of a ticket or of old, or one that a sync ran with lately."""

    peer: EndpointId
    state: PeerState
    is_neighbor: bool
    """Whether live changes are exchanged with it now."""
    received: int
    sent: int
    """Entries that came and went in syncs with it since the document was opened, the one that runs included."""
    synced_at: float | None
    """When a sync with it last went well."""
    error: str | None
    """Why the last sync failed; None where it went well."""
    failed_at: float | None
    next_try: float | None
    """When the next one is due after a failure."""


@dataclass(frozen=True, slots=True)
class DocStatus:
    """``entries`` are counted with tombstones, from the aggregate: also of a million in a moment."""

    entries: int
    fingerprint: str
    """64 hex digits. Equal at two nodes: they hold the same entries."""
    is_live: bool
    peers: tuple[PeerStatus, ...]
    """Neighbours first, then by the time of the last sync."""

    @property
    def neighbors(self) -> tuple[EndpointId, ...]:
        return tuple(peer.peer for peer in self.peers if peer.is_neighbor)


@dataclass(frozen=True, slots=True)
class Synced:
    """A full sync with ``peer`` that began after the call of `Doc.synced` has ended.

    ``received`` and ``sent`` count the entries of all syncs with it that ended since the call.
    """

    peer: EndpointId
    received: int
    sent: int
