"""What outlives a restart: a topic's last messages and the peers it was shared with, in a store that is handed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Keeper", "KeptMessage", "KeptTopic"]


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """``position`` only grows within a topic; ``at`` is when the message was new, in Unix time."""

    position: int
    at: float
    content: bytes


@dataclass(frozen=True, slots=True)
class KeptTopic:
    """``messages`` by position; ``peers``: the id of each and what it says of its own addresses (`PeerData`)."""

    messages: Sequence[KeptMessage] = ()
    peers: Sequence[tuple[bytes, bytes]] = ()


class Keeper(Protocol):
    """Given to `Gossip`; a node's is its database. Each call is done whole or not at all, and raises `StoreError`."""

    async def load(self, topic: bytes, *, messages: bool) -> KeptTopic:
        """What is kept of a topic; its messages only where they are asked for."""

    async def keep(self, topic: bytes, messages: Sequence[KeptMessage], first: int) -> None:
        """Add ``messages``, and drop those before position ``first``."""

    async def remember(self, topic: bytes, peers: Sequence[tuple[bytes, bytes]]) -> None:
        """These peers, in place of those that were remembered."""
