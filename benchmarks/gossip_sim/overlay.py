"""The graph of all active views at one moment, and what the papers measure of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from tidings.gossip.core.topic_core import TopicCore

__all__ = ["Overlay"]


class Overlay:
    """``peers[i]`` are the neighbours of node i that are alive, each row filled up with i itself.

    ``misled[i]``: it takes a dead node for a neighbour.
    """

    def __init__(self, nodes: Mapping[bytes, TopicCore]) -> None:
        self.index = {id: number for number, id in enumerate(nodes)}
        views = [[self.index[peer] for peer in core.membership.active if peer in self.index] for core in nodes.values()]
        width = max(map(len, views), default=0)
        self.degrees = np.array([len(view) for view in views])
        known = np.array([len(core.membership.active) for core in nodes.values()])
        self.misled = known > self.degrees
        self.peers = np.array([view + [i] * (width - len(view)) for i, view in enumerate(views)], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.degrees)

    def flood(self, source: int) -> tuple[npt.NDArray[np.bool_], int]:
        """Which nodes a message from ``source`` reaches, passed to all neighbours; in how many hops."""
        reached = np.zeros(len(self), dtype=bool)
        reached[source] = True
        frontier, hops = np.array([source]), 0
        while True:
            found = np.zeros(len(self), dtype=bool)
            found[self.peers[frontier]] = True
            frontier = np.flatnonzero(found & ~reached)
            if not len(frontier):
                return reached, hops
            reached[frontier] = True
            hops += 1

    def average_shortest_path(self) -> float:
        """Over all ordered pairs with a path between them. All searches go on at once, a bit for each source."""
        count = len(self)
        reached = np.zeros((count, (count + 7) // 8), dtype=np.uint8)
        reached[np.arange(count), np.arange(count) // 8] = 1 << (np.arange(count) % 8)
        pairs, total, hops = count, 0, 0
        while True:
            grown = reached.copy()
            for column in self.peers.T:
                grown |= reached[column]
            hops += 1
            now = int(np.bitwise_count(grown).sum())
            if now == pairs:
                return total / (pairs - count)
            total += hops * (now - pairs)
            pairs, reached = now, grown

    def clustering(self) -> float:
        """The mean over nodes of how many of the pairs of its neighbours are neighbours themselves."""
        views = [set(row.tolist()) - {i} for i, row in enumerate(self.peers)]
        shares = []
        for view in views:
            pairs = len(view) * (len(view) - 1)
            shares.append(sum(len(view & views[peer]) for peer in view) / pairs if pairs else 0.0)
        return float(np.mean(shares))

    def in_degrees(self) -> Counter[int]:
        """How many nodes are in how many active views."""
        counts = np.bincount(self.peers.ravel(), minlength=len(self)) - (self.peers.shape[1] - self.degrees)
        return Counter(counts.tolist())
