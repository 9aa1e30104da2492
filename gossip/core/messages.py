"""What peers of a topic say to each other (``reference/iroh-protocols.md`` 1.2).

Ids are raw bytes here, 32 of them, and not key objects: the simulator runs these by the million. A node's ``data``
is what it says of its own addresses (`codec.encode_addresses`); it is unsigned, so it is a hint and never trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "BroadcastMessage",
    "Disconnect",
    "ForwardJoin",
    "Graft",
    "IHave",
    "Join",
    "MembershipMessage",
    "Message",
    "Neighbor",
    "Payload",
    "PeerInfo",
    "Priority",
    "Prune",
    "Shuffle",
    "ShuffleReply",
]


class Priority(IntEnum):
    """High must be accepted (the asker has nobody); Low only into a free slot."""

    HIGH = 0
    LOW = 1


@dataclass(frozen=True, slots=True)
class PeerInfo:
    id: bytes
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Join:
    data: bytes | None


@dataclass(frozen=True, slots=True)
class ForwardJoin:
    peer: PeerInfo
    ttl: int


@dataclass(frozen=True, slots=True)
class Shuffle:
    origin: bytes
    nodes: tuple[PeerInfo, ...]
    ttl: int


@dataclass(frozen=True, slots=True)
class ShuffleReply:
    nodes: tuple[PeerInfo, ...]


@dataclass(frozen=True, slots=True)
class Neighbor:
    """Both the request to be neighbours and its acceptance; refusal is ShuffleReply and Disconnect."""

    priority: Priority
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Disconnect:
    """``alive``: the sender stays in the swarm and may be asked again; else it leaves the topic."""

    alive: bool


@dataclass(frozen=True, slots=True)
class Payload:
    """Plumtree's GOSSIP. ``round`` counts the hops so far; None: for direct neighbours only, never forwarded."""

    id: bytes
    content: bytes
    round: int | None


@dataclass(frozen=True, slots=True)
class Prune:
    """Do not push payloads to me; announce them."""


@dataclass(frozen=True, slots=True)
class Graft:
    """Push payloads to me, beginning with ``id`` where one is named."""

    id: bytes | None
    round: int


@dataclass(frozen=True, slots=True)
class IHave:
    """(id, round) of payloads that the sender holds."""

    announced: tuple[tuple[bytes, int], ...]


MembershipMessage = Join | ForwardJoin | Shuffle | ShuffleReply | Neighbor | Disconnect
BroadcastMessage = Payload | Prune | Graft | IHave
Message = MembershipMessage | BroadcastMessage
