"""One topic at one node, without a network: HyParView under Plumtree (``reference/iroh-protocols.md`` 1).

The verbs are a sans-IO engine's. Tell it what happened (`join`, `receive`, `peer_disconnected`, `broadcast`,
`handle_timer`), each time with ``now``; then take what it wants done (`poll`) and when it wants to be called next
(`next_deadline`). The asyncio driver and the simulator run this same class.

Invariant: between calls Plumtree's neighbours, eager and lazy, are HyParView's active view.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from .config import TopicConfig
from .hyparview import HyParView
from .messages import Graft, IHave, Message, Payload, Prune
from .outputs import Down, Output, Up
from .plumtree import Plumtree
from .timers import Timers

__all__ = ["TopicCore"]


class TopicCore:
    """``me`` is our id, 32 bytes; ``rng`` decides everything that is left to chance."""

    __slots__ = ("_out", "_timers", "membership", "tree")

    def __init__(self, me: bytes, config: TopicConfig, rng: Random) -> None:
        self._timers = Timers()
        self._out: list[Output] = []
        self.membership = HyParView(me, config.membership, rng, self._timers, self._out)
        self.tree = Plumtree(config.broadcast, self._timers, self._out)

    @property
    def neighbors(self) -> list[bytes]:
        return list(self.membership.active)

    def set_data(self, data: bytes) -> None:
        """Say of our own addresses, from now on, what ``data`` says (`codec.encode_addresses`)."""
        self.membership.data = data

    def wants(self, peer: bytes) -> bool:
        """Whether a connection to ``peer`` is of use to this topic."""
        return self.membership.wants(peer)

    def join(self, peers: Iterable[bytes], now: float) -> None:
        """Enter the swarm through all of ``peers`` at once; each is asked again until it answers."""
        for peer in peers:
            self.membership.join(peer, now)

    def leave(self) -> None:
        """Say good-bye. What is polled after this is the last."""
        start = len(self._out)
        self.membership.leave()
        self._wire(start)
        self._timers.clear()

    def broadcast(self, content: bytes, now: float) -> bool:
        """False: the same content passed here within the id retention and is not sent again."""
        return self.tree.broadcast(content, now)

    def broadcast_neighbors(self, content: bytes) -> None:
        self.tree.broadcast_neighbors(content)

    def receive(self, peer: bytes, message: Message, now: float) -> None:
        if isinstance(message, Payload | IHave | Prune | Graft):
            self.tree.receive(peer, message, now)
            if isinstance(message, Payload | IHave):
                self.membership.heard_from(peer, now)
        else:
            start = len(self._out)
            self.membership.receive(peer, message, now)
            self._wire(start)

    def peer_disconnected(self, peer: bytes, now: float, *, alive: bool) -> None:
        """No connection to ``peer`` is left, or none could be made; ``alive``: it ended in good order."""
        start = len(self._out)
        self.membership.peer_disconnected(peer, alive, now)
        self._wire(start)

    def next_deadline(self) -> float | None:
        return self._timers.next_deadline()

    def handle_timer(self, now: float) -> None:
        start = len(self._out)
        self._timers.run(now)
        self._wire(start)

    def poll(self) -> list[Output]:
        """What is to be done, in order; each is given once."""
        out = self._out[:]
        self._out.clear()
        return out

    def _wire(self, start: int) -> None:
        """Tell the tree of the neighbours that came and went since the output at ``start``."""
        for output in self._out[start:]:
            if isinstance(output, Up):
                self.tree.neighbor_up(output.peer)
            elif isinstance(output, Down):
                self.tree.neighbor_down(output.peer)
