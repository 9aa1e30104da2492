"""Plumtree's evaluation (Leitao, Pereira, Rodrigues, SRDS 2007), and iroh's own scenarios, with our cores.

One message a cycle, and it has come to rest before the next. RMR = payloads sent / nodes that got it - 1, where 0 is a
perfect tree; LDH = the largest number of hops at a delivery. Control messages are announcements (each id counts), Graft
and Prune.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidings.gossip.core.config import BroadcastConfig
from tidings.gossip.core.messages import Graft, IHave, Payload, Prune

from .network import Network

__all__ = ["PAPER", "PLAIN", "Measured", "burst", "cycles", "first_after_failures"]

SETTLE = 1.0  # seconds of a cycle: a hop takes a thousandth, a Graft eighty
COMES_TO_REST = 20.0  # seconds: among few survivors the way is long, and each announced hop takes a timeout
PLAIN = BroadcastConfig(optimization_threshold=1 << 16)
"""Plumtree without the optimization of the tree (the paper's 3.8)."""
PAPER = BroadcastConfig(optimization_threshold=7, optimization_gain=float("-inf"), optimization_samples=1)
"""A link is swapped when it saves seven hops of one message: the paper's rule, and iroh's."""


@dataclass
class Measured:
    """Of one message, or of several at once."""

    messages: int = 1
    delivered: int = 0
    missed: int = 0
    payloads: int = 0
    control: int = 0
    last_hop: int = 0
    last_at: float = 0.0
    """Seconds from sending to the last delivery."""

    @property
    def rmr(self) -> float:
        return self.payloads / self.delivered - 1 if self.delivered else 0.0


def cycles(network: Network, count: int, sender: Callable[[int], bytes], settle: float = SETTLE) -> list[Measured]:
    """``sender(cycle)`` broadcasts once in each."""
    return [_send(network, [sender(number)], settle) for number in range(count)]


def burst(network: Network, senders: list[bytes], wait: float = SETTLE) -> Measured:
    """All of ``senders`` broadcast at the same moment."""
    return _send(network, senders, wait)


def first_after_failures(network: Network, share: float) -> float:
    """The share of live nodes that the first broadcast after failures reaches, before anybody notices (Figure 6a)."""
    network.detection = None
    for id in network.rng.sample(list(network.nodes), round(share * len(network.nodes))):
        network.kill(id)
    measured = _send(network, [network.rng.choice(list(network.nodes))], COMES_TO_REST)
    return measured.delivered / (len(network.nodes) - 1)


def _send(network: Network, senders: list[bytes], wait: float) -> Measured:
    measured, sent_at = Measured(messages=len(senders)), network.now

    def delivered(_id: bytes, _content: bytes, round: int | None) -> None:
        assert round is not None
        measured.delivered += 1
        measured.last_hop = max(measured.last_hop, round + 1)
        measured.last_at = network.now - sent_at

    network.on_deliver = delivered
    network.sent.clear()
    for sender in senders:
        network.broadcast(sender, network.rng.randbytes(16))
    network.run(wait)
    network.on_deliver = None
    measured.payloads = network.sent[Payload]
    measured.control = network.sent[IHave] + network.sent[Graft] + network.sent[Prune]
    measured.missed = measured.messages * (len(network.nodes) - 1) - measured.delivered
    return measured
