"""HyParView's evaluation (Leitao, Pereira, Rodrigues, DSN 2007) with our membership.

As in the paper: nodes join one by one through one contact; 50 cycles pass, a cycle being a shuffle of every node; then
a share of the nodes fails at once, and 1,000 messages go from random live nodes before the next cycle. A message is
flooded over active views. How a failed node is noticed is measured both ways: its connections break, as when a process
dies; or whoever sends to it notices, and only then. In the second way a node whose neighbours are all dead hears
nothing, so it sends nothing, so it notices nothing until its next shuffle.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from statistics import fmean

from tidings.gossip.core.config import TopicConfig

from .links import Link, constant
from .network import Network
from .overlay import Overlay

__all__ = ["CYCLE", "FAILURES", "Shape", "cycles_to_heal", "fail", "grow", "reliability", "shape"]

HOP = 0.001  # seconds: every message takes as long, so that hops and time agree
JOIN_EVERY = 0.02
CYCLE = TopicConfig().membership.shuffle_interval
MESSAGE_EVERY = 0.05  # 1,000 of them pass within one cycle
FAILURES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
HEALED = 0.999  # of the live nodes, on average: as before the failures


def grow(seed: int, count: int, cycles: int = 50, config: TopicConfig | None = None) -> Network:
    """``count`` nodes that joined one by one through the first, ``cycles`` later."""
    network = Network(seed, config, Link(constant(HOP)))
    first, *others = network.add(*range(count))
    for other in others:
        network.join(other, first)
        network.run(JOIN_EVERY)
    network.run(cycles * CYCLE)
    return network


@dataclass(frozen=True)
class Shape:
    """Table 1 and Figure 5."""

    clustering: float
    shortest_path: float
    max_hops: int
    """Of 1,000 floods from random sources, the longest."""
    mean_hops: float
    """The mean of their longest ways."""
    in_degrees: dict[int, int]


def shape(network: Network, floods: int = 1_000) -> Shape:
    overlay, rng = Overlay(network.nodes), Random(network.rng.random())
    hops = [overlay.flood(rng.randrange(len(overlay)))[1] for _ in range(floods)]
    path, degrees = overlay.average_shortest_path(), dict(overlay.in_degrees())
    return Shape(overlay.clustering(), path, max(hops), fmean(hops), degrees)


def fail(network: Network, share: float, *, noticed: bool) -> None:
    """That share of the nodes is dead. ``noticed``: their connections break; else who sends to one notices it."""
    network.detection = HOP if noticed else None
    dead = network.rng.sample(list(network.nodes), round(share * len(network.nodes)))
    for id in dead:
        network.kill(id)
    network.detection = HOP


def reliability(network: Network, messages: int = 1_000) -> list[float]:
    """The share of live nodes that each of ``messages`` reaches, one after the other (Figure 2)."""
    shares = []
    seen = -1
    for _ in range(messages):
        if network.changed != seen:
            overlay, seen = Overlay(network.nodes), network.changed
        source = network.rng.choice(list(network.nodes))
        reached, _ = overlay.flood(overlay.index[source])
        count = _flood(network, source) if (reached & overlay.misled).any() else int(reached.sum())
        shares.append((count - 1) / (len(network.nodes) - 1))
        network.run(MESSAGE_EVERY)
    return shares


def cycles_to_heal(network: Network, most: int = 20) -> int:
    """Cycles until ten messages of a cycle reach as many as before (Figure 4); ``most`` + 1: more."""
    for cycle in range(1, most + 1):
        if fmean(reliability(network, 10)) >= HEALED:
            return cycle
        network.run(CYCLE - 10 * MESSAGE_EVERY)
    return most + 1


def _flood(network: Network, source: bytes) -> int:
    """Hop by hop, while those who met a dead neighbour look for another. Returns how many have the message."""
    heard, frontier = {source}, [source]
    while frontier:
        passed: list[bytes] = []
        for node in frontier:
            for peer in network.nodes[node].neighbors:
                if peer not in network.nodes:
                    network.at(network.now + HOP, network.tell_lost, node, peer)
                elif peer not in heard:
                    heard.add(peer)
                    passed.append(peer)
        network.run(HOP)
        frontier = passed
    return len(heard)
