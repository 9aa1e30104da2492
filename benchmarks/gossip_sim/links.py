"""What the way between two nodes is like: how long a message takes, whether it arrives, and how often.

A latency belongs to a pair and is computed from the seed, not stored: 10,000 nodes have 50 million pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot
from random import Random
from zlib import crc32

__all__ = ["Latency", "Link", "constant", "plane", "uniform"]

Latency = Callable[[bytes, bytes], float]
"""Seconds from one node to another; the same for the same pair each time."""


@dataclass(slots=True)
class Link:
    """How every way treats its messages. Chances are of one message; ``rate`` is bytes a second out of each node."""

    latency: Latency
    loss: float = 0.0
    duplicate: float = 0.0
    jitter: float = 0.0
    """Up to this many seconds more, each message by itself: more than the gap between two, and they change places."""
    rate: float | None = None


def constant(seconds: float) -> Latency:
    return lambda source, target: seconds


def uniform(low: float, high: float, seed: int = 0) -> Latency:
    """Each ordered pair has its own, between ``low`` and ``high``."""
    width = (high - low) / (1 << 32)
    odd = 2 * seed + 0x9E3779B1 | 1

    def latency(source: bytes, target: bytes) -> float:
        return low + (crc32(source + target, seed) * odd & 0xFFFFFFFF) * width

    return latency


def plane(base: float, across: float, seed: int = 0) -> Latency:
    """Nodes on a square: ``base`` seconds and what the distance takes, ``across`` seconds from corner to corner."""
    places: dict[bytes, tuple[float, float]] = {}

    def place(node: bytes) -> tuple[float, float]:
        found = places.get(node)
        if found is None:
            rng = Random(node + seed.to_bytes(8, "big"))
            found = places[node] = (rng.random(), rng.random())
        return found

    def latency(source: bytes, target: bytes) -> float:
        (x, y), (u, v) = place(source), place(target)
        return base + across * hypot(x - u, y - v) / 2**0.5

    return latency
