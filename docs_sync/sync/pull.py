"""Getting much from a peer that would send it as one message, without I/O.

An iroh peer answers "send me what you have there" with all of it in one message, however much that is
(``reference/iroh-protocols.md`` 2.5). Where such a message is longer than we take, the session is over; its length was
told, and the next session with the peer is a *pull*: it asks piece by piece.

How the peer's entries lie is not known here, but the peer can be made to say it. A fingerprint that matches nothing has
it split the range, evenly by its own entries, and answer with the fingerprints of the halves. Asked again for these,
and so on, it has named ranges that are small enough; their fingerprints are kept, and each is then compared as usual
once the one before is done. The peer takes part in a session like any other.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque

from ..model.reconcile import Message, Part, RangeFingerprint

__all__ = ["Pull", "Pulls"]

PIECE = 1 << 20  # bytes of entries in one answer, about
MAX_NOTED = 1024  # peers and documents
MOST_PIECES = 1 << 14  # ranges that are kept, about 5 MB: a document of 16 GB


class Pull:
    """For one session, after a message of ``size`` bytes was too long."""

    def __init__(self, size: int) -> None:
        pieces = min(MOST_PIECES, -(-size // PIECE))
        self._rounds = max(1, (pieces - 1).bit_length())  # of halving
        self._most = 2 * pieces
        self._kept: deque[RangeFingerprint] = deque()
        self._no_match = os.urandom(32)

    def take(self, message: Message) -> tuple[Message, list[Part]]:
        """What to process of a message of the peer now, and what to send beside the answer to that."""
        if self._rounds < 0:
            return message, []
        differing = [part for part in message if isinstance(part, RangeFingerprint)][: self._most]
        rest = [part for part in message if not isinstance(part, RangeFingerprint)]
        self._rounds -= 1
        if self._rounds >= 0:
            return rest, [RangeFingerprint(part.range, self._no_match) for part in differing]
        self._kept.extend(differing)
        return rest, []

    def next(self) -> Message:
        """What to process where there was nothing to answer; empty at the end."""
        return [self._kept.popleft()] if self._kept else []


class Pulls:
    """The peers that have a document too large for one message of theirs."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[tuple[bytes, bytes], int] = OrderedDict()

    def begin(self, peer: bytes, namespace: bytes) -> Pull | None:
        """For the next session, where it has to be a pull."""
        size = self._sizes.get((peer, namespace))
        return None if size is None else Pull(size)

    def note(self, peer: bytes, namespace: bytes, size: int) -> None:
        """The peer began a message of ``size`` bytes. In a pull, too: then the next asks for less at a time."""
        key = peer, namespace
        self._sizes[key] = max(size, 2 * self._sizes.pop(key, 0))
        if len(self._sizes) > MAX_NOTED:
            self._sizes.popitem(last=False)

    def forget(self, peer: bytes, namespace: bytes) -> None:
        """A session went well: there is little left to send."""
        self._sizes.pop((peer, namespace), None)
