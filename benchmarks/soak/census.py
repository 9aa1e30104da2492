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
    "connections": Limit(0.25, 120),  # a single node that comes makes a dozen, at both ends, for some seconds
    "peers": Limit(0.25, 60),
    "tasks": Limit(0.25, 250),
}


@dataclass(frozen=True)
class Growth:
    name: str
    second: float
    last: float
    limit: Limit

    @property
    def allowed(self) -> float:
        return self.second + max(self.limit.part * self.second, self.limit.least)

    @property
    def grew(self) -> bool:
        return self.last > self.allowed


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
    quarter = max(1, len(samples) // 4)
    second, last = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    return [
        Growth(name, median(each[name] for each in second), median(each[name] for each in last), limit)
        for name, limit in LIMITS.items()
    ]
