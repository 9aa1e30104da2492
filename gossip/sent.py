"""What became of a broadcast."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALONE", "REPEATED", "Sent"]

ALONE = "there is no neighbour, and the topic keeps no log that would tell later ones: wait for `joined`"
REPEATED = "the same content passed here within 90 seconds, and the swarm would swallow it: sign it, or make it differ"


@dataclass(frozen=True, slots=True)
class Sent:
    """True where it is on its way or kept for neighbours that are to come."""

    neighbors: int
    """Neighbours with a connection that keeps up: they are sent the message, or told that we have it, at once."""
    waiting: int
    """Neighbours that are being dialled, or read too slowly: it waits for them, or they catch up."""
    refused: str | None
    """Why nobody gets it; None: it was not refused."""

    def __bool__(self) -> bool:
        return self.refused is None
