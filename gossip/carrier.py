"""How contents travel that are too large for a message: a carrier keeps them, and the message says where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..transport import EndpointId

__all__ = ["MAX_NAME", "Carrier"]

MAX_NAME = 1024  # bytes


class Carrier(Protocol):
    """Given to `Gossip`. What it gives back has to be what was put: authors sign names, and nothing else is checked.

    A node's carrier are its blobs.
    """

    @property
    def limit(self) -> int:
        """The largest content, in bytes, that is sent and fetched."""

    async def put(self, content: bytes) -> bytes:
        """Keep ``content`` for others. Returns the name, `MAX_NAME` bytes at most, by which they ask for it."""

    async def get(self, name: bytes, sources: Sequence[EndpointId]) -> bytes:
        """The content that was put under ``name``, from here or from one of ``sources``, asked in that order.

        Raises DecodeError for a name that is none, or of a content above the limit: it is given up. Any other
        TidingsError: none of them has it now, and it is asked for again later.
        """
