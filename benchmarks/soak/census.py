"""What a process holds: memory, objects, descriptors; and whether any of it grows."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tidings.gossip.net.peers import Peer
from tidings.transport import Connection

__all__ = ["LIMITS", "Growth", "Limit", "census", "descriptors", "growth", "objects"]

PAGE = os.sysconf("SC_PAGESIZE")


@dataclass(frozen=True)
class Limit:
    """How much the median of the last quarter may be above that of the second: a part of it, or so much."""

    part: float
    least: float


LIMITS = {
    "RSS, MB": Limit(0.10, 16),
    # A node that comes makes a dozen connections, at both ends, for some seconds, and for longer where all is slow:
    # these swing by a quarter. What one change in two left behind would double them.
    "connections": Limit(0.5, 120),
    "peers": Limit(0.5, 60),
    "tasks": Limit(0.5, 250),
}


@dataclass(frozen=True)
class Growth:
    """``quarters``: the median of each."""

    name: str
    quarters: list[float]
    limit: Limit

    @property
    def allowed(self) -> float:
        return self.quarters[1] + max(self.limit.part * self.quarters[1], self.limit.least)

    @property
    def grew(self) -> bool:
        return self.quarters[-1] > self.allowed


def objects() -> Counter[type]:
    """Live objects of ours by class, after a collection."""
    gc.collect()
    found = Counter(map(type, gc.get_objects()))
    return Counter({kind: count for kind, count in found.items() if str(kind.__module__).startswith("tidings.")})


def census() -> tuple[dict[str, float], dict[str, int]]:
    """The figures of `LIMITS` now, and how many objects of ours there are of each class."""
    ours = objects()
    figures = {
        "RSS, MB": int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6,
        "connections": ours[Connection],
        "peers": ours[Peer],
        "tasks": len(asyncio.all_tasks()),
    }
    return figures, {kind.__qualname__: count for kind, count in ours.items()}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def growth(samples: Sequence[dict[str, float]]) -> list[Growth]:
    """Of samples at equal intervals. A median of a quarter does not mind a few that churn has made large."""
    size = len(samples) / 4
    parts = [samples[int(at * size) : int((at + 1) * size)] for at in range(4)]
    return [
        Growth(name, [median(each[name] for each in part) for part in parts], limit) for name, limit in LIMITS.items()
    ]
