"""The root of every error that tidings raises: four kinds, by blame.

Each layer keeps its own errors in its own ``errors`` module; every one of them is one of these four.
Every message is a sentence for the person who reads it and says what to do next where something can be done.
"""

from __future__ import annotations

__all__ = ["NetworkError", "PeerError", "StoreError", "TidingsError", "UsageError"]


class TidingsError(Exception):
    """Anything that tidings raises on purpose."""


class UsageError(TidingsError, ValueError):
    """You: an argument, a ticket or a setting that cannot work. Retrying the same call will not help."""


class PeerError(TidingsError):
    """Them: a peer sent something that the protocol does not allow, or refused.

    ``peer`` is the id of that peer as text where it is known, else None.
    """

    def __init__(self, message: str, *, peer: object | None = None) -> None:
        super().__init__(f"{message} (peer {str(peer)[:10]})" if peer is not None else message)
        self.peer: str | None = None if peer is None else str(peer)


class NetworkError(TidingsError):
    """Between: nobody could be reached, or the connection went away. Retrying later may help."""


class StoreError(TidingsError):
    """The disk or the database under the node: full, damaged, locked, too new."""
