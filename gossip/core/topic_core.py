"""One topic at one node, without a network: HyParView under Plumtree (``reference/iroh-protocols.md`` 1).

The verbs are a sans-IO engine's. Tell it what happened (`join`, `receive`, `peer_disconnected`, `broadcast`,
`handle_timer`), each time with ``now``; then take what it wants done (`poll`) and when it wants to be called next
(`next_deadline`). The asyncio driver and the simulator run this same class.

Invariant: between calls Plumtree's neighbours, eager and lazy, are HyParView's active view.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from blake3 import blake3

from .catch_up import CatchUp
from .config import TopicConfig
from .envelope import Envelope
from .hyparview import HyParView
from .log import Entry, LogConfig
from .log_messages import ID
from .messages import BroadcastMessage, ForwardJoin, IHave, Message, Payload, Shuffle
from .outputs import Down, Output, SendSwap, Up
from .plumtree import Plumtree
from .swap_messages import SwapMessage
from .timers import Timers
from .xbot import XBot, refusal

__all__ = ["TopicCore"]


class TopicCore:
    """``me`` is our id, 32 bytes; ``rng`` decides everything that is left to chance.

    With a ``log`` what the tree delivers (`Deliver`) is first to be checked, and is then handed back (`arrived`), what
    another log gave likewise (`given`); `Ready` is what the application gets.
    """

    __slots__ = ("_out", "_timers", "log", "membership", "tree", "xbot")

    def __init__(
        self, me: bytes, config: TopicConfig, rng: Random, log: LogConfig | None = None, since: float = 0.0
    ) -> None:
        self._timers = Timers()
        self._out: list[Output] = []
        self.membership = HyParView(me, config.membership, rng, self._timers, self._out)
        self.tree = Plumtree(config.broadcast, self._timers, self._out)
        self.xbot = None
        if config.xbot is not None:
            self.xbot = XBot(me, self.membership, config.xbot, rng, self._timers, self._out)
        self.log = None
        if log is not None:
            candidates = self.membership.passive.keys
            self.log = CatchUp(me, log, since, rng, self._timers, self._out, candidates)

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
        self._wire(start, 0.0)
        self._timers.clear()

    def restore(self, contents: Iterable[tuple[bytes, float, Envelope | None]], now: float) -> None:
        """What the log had in an earlier run: content, when it was new, envelope."""
        assert self.log is not None
        self.log.restore(
            [Entry(_short(blake3(content).digest()), content, at, envelope) for content, at, envelope in contents], now
        )

    def broadcast(self, content: bytes, now: float) -> bool:
        """False: the same content passed here within the id retention and is not sent again."""
        if not self.tree.broadcast(content, now):
            return False
        if self.log is not None:
            self.log.own(Entry(_short(blake3(content).digest()), content, now), now)
        return True

    def broadcast_neighbors(self, content: bytes) -> None:
        self.tree.broadcast_neighbors(content)

    def arrived(self, peer: bytes, content: bytes, envelope: Envelope | None, round: int, now: float) -> None:
        """What the tree delivered is sound."""
        assert self.log is not None
        entry = Entry(_short(blake3(content).digest()), content, now, envelope)
        self.log.arrived(entry, peer, round, now, by_tree=True)

    def given(
        self, peer: bytes, contents: Iterable[tuple[bytes, int, Envelope | None]], gone: Iterable[bytes], now: float
    ) -> None:
        """What the log of ``peer`` gave, as far as it is sound: content, age in milliseconds, envelope."""
        assert self.log is not None
        entries = []
        for content, age, envelope in contents:
            id = blake3(content).digest()
            self.tree.note(id, now)
            entries.append(Entry(_short(id), content, now - age / 1000, envelope))
        self.log.given(peer, entries, gone, now)

    def receive(self, peer: bytes, message: Message, now: float) -> None:
        if isinstance(message, BroadcastMessage):
            self.tree.receive(peer, message, now)
            if isinstance(message, (Payload, IHave)):
                self.membership.heard_from(peer, now)
        else:
            start = len(self._out)
            self.membership.receive(peer, message, now)
            self._wire(start, now)
            if isinstance(message, (ForwardJoin, Shuffle)):
                self.membership.heard_from(peer, now)

    def receive_swap(self, peer: bytes, message: SwapMessage, now: float) -> None:
        """From the protocol of logs, though not about them."""
        start = len(self._out)
        if self.xbot is not None:
            self.xbot.receive(peer, message, now)
        elif (answer := refusal(message)) is not None:
            self._out.append(SendSwap(peer, answer))
        self._wire(start, now)

    def note_round_trip(self, peer: bytes, seconds: float) -> None:
        """What was measured of the way to a neighbour."""
        self.membership.note_round_trip(peer, seconds)
        self.tree.note_round_trip(peer, seconds)
        if self.xbot is not None:
            self.xbot.note_round_trip(peer, seconds)

    def measured(self, peer: bytes, seconds: float | None, now: float) -> None:
        """The answer to `Measure`."""
        start = len(self._out)
        if self.xbot is not None:
            self.xbot.measured(peer, seconds, now)
        self._wire(start, now)

    def peer_disconnected(self, peer: bytes, now: float, *, alive: bool) -> None:
        """No connection to ``peer`` is left, or none could be made; ``alive``: it ended in good order."""
        start = len(self._out)
        self.membership.peer_disconnected(peer, alive, now)
        self._wire(start, now)

    def next_deadline(self) -> float | None:
        return self._timers.next_deadline()

    def handle_timer(self, now: float) -> None:
        start = len(self._out)
        self._timers.run(now)
        self._wire(start, now)

    def poll(self) -> list[Output]:
        """What is to be done, in order; each is given once."""
        out = self._out[:]
        self._out.clear()
        return out

    def _wire(self, start: int, now: float) -> None:
        """Tell the tree and the log of the neighbours that came and went since the output at ``start``."""
        for output in self._out[start:]:
            if isinstance(output, Up):
                self.tree.neighbor_up(output.peer)
                if self.xbot is not None:
                    self.xbot.neighbor_up(now)
                if self.log is not None:
                    self.log.neighbor_up(output.peer, now)
            elif isinstance(output, Down):
                self.tree.neighbor_down(output.peer)
                if self.log is not None:
                    self.log.neighbor_down(output.peer)


def _short(id: bytes) -> bytes:
    return id[:ID]
