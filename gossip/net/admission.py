"""Who is let into one topic, without I/O: what is known, and what waits for an answer.

A program may say which peers it wants in a topic (`Gossip`'s ``admit``). It is asked before anything that a peer sends
for the topic reaches the core, and before anything is sent to one: so a refused peer never becomes a neighbour, is told
of no others, and cannot tell the topic from one that nobody here is in. An admitted one is not asked about again until
`Gossip.reconsider`.

What is to be sent to a peer waits here while the program is asked; a refusal is remembered for `REFUSED_FOR` seconds
only, since who is refused now may be let in a moment later, and whoever joins asks again and again.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.messages import Message

__all__ = ["MAX_HELD", "REFUSED_FOR", "Admission"]

REFUSED_FOR = 0.4  # seconds; shorter than `MembershipConfig.join_retry`, so that each Join is judged anew
MAX_HELD = 32  # messages for a peer that the program is asked about; more are dropped
MAX_REFUSED = 1024  # remembered


class Admission:
    __slots__ = ("_admitted", "_held", "_refused")

    def __init__(self) -> None:
        self._admitted: set[bytes] = set()
        self._refused: dict[bytes, float] = {}  # -> until when
        self._held: dict[bytes, list[Message]] = {}

    @property
    def admitted(self) -> frozenset[bytes]:
        return frozenset(self._admitted)

    def verdict(self, peer: bytes, now: float) -> bool | None:
        """None: the program has to be asked."""
        if peer in self._admitted:
            return True
        until = self._refused.get(peer)
        if until is None:
            return None
        if until > now:
            return False
        del self._refused[peer]
        return None

    def hold(self, peer: bytes, message: Message) -> None:
        """Keep what is to be sent to ``peer`` once it is admitted."""
        held = self._held.setdefault(peer, [])
        if len(held) < MAX_HELD:
            held.append(message)

    def settle(self, peer: bytes, admitted: bool, now: float) -> list[Message]:
        """The program's answer; gives what was held if it is yes."""
        held = self._held.pop(peer, [])
        if admitted:
            self._refused.pop(peer, None)
            self._admitted.add(peer)
            return held
        self._admitted.discard(peer)
        if len(self._refused) >= MAX_REFUSED:
            self._refused = {other: until for other, until in self._refused.items() if until > now}
        if len(self._refused) < MAX_REFUSED:
            self._refused[peer] = now + REFUSED_FOR
        return []

    def forget_but(self, wanted: Callable[[bytes], bool]) -> None:
        """Ask afresh about every admitted peer that is not ``wanted``, should it come again."""
        self._admitted = {peer for peer in self._admitted if wanted(peer)}
