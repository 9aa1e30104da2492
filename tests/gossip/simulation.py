"""Many `TopicCore`s in one process, in virtual time, from a seed.

Links are what QUIC streams give: ordered per pair, each pair with a latency of its own; ``loss`` drops single
messages (as a full queue does). A message to a dead node comes back to its sender as a failed connection, as does
the silence of a neighbour that died.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from random import Random

from tidings.gossip.config import TopicConfig
from tidings.gossip.messages import Message
from tidings.gossip.outputs import Deliver, Down, Output, Send, Up
from tidings.gossip.topic_core import TopicCore


def node_id(number: int) -> bytes:
    return number.to_bytes(32, "big")


class Simulation:
    def __init__(
        self,
        seed: int,
        config: TopicConfig | None = None,
        latency: tuple[float, float] = (0.01, 0.05),
        loss: float = 0.0,
        detection: float = 0.5,
    ) -> None:
        self.rng = Random(seed)
        self.config = config or TopicConfig()
        self.latency = latency
        self.loss = loss
        self.detection = detection
        self.now = 0.0
        self.nodes: dict[bytes, TopicCore] = {}
        self.delivered: dict[bytes, list[tuple[bytes, int | None]]] = {}
        self.changes: dict[bytes, list[Up | Down]] = {}
        self.sent: Counter[str] = Counter()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self._wake: dict[bytes, float] = {}
        self._latency: dict[tuple[bytes, bytes], float] = {}

    def add(self, *numbers: int) -> list[bytes]:
        ids = [node_id(number) for number in numbers]
        for id in ids:
            self.nodes[id] = TopicCore(id, self.config, Random(self.rng.getrandbits(64)))
            self.nodes[id].set_data(b"at " + id[-2:])
            self.delivered[id] = []
            self.changes[id] = []
        return ids

    def kill(self, id: bytes) -> None:
        """Gone without a word; its neighbours notice after ``detection``."""
        dead = self.nodes.pop(id)
        for peer in dead.neighbors:
            self.at(self.now + self.detection, self._disconnected, peer, id)

    def leave(self, id: bytes) -> None:
        self.nodes[id].leave()
        self._drain(id)
        del self.nodes[id]

    def join(self, id: bytes, *peers: bytes) -> None:
        self.nodes[id].join(peers, self.now)
        self._drain(id)

    def broadcast(self, id: bytes, content: bytes) -> bool:
        new = self.nodes[id].broadcast(content, self.now)
        self._drain(id)
        return new

    def broadcast_neighbors(self, id: bytes, content: bytes) -> None:
        self.nodes[id].broadcast_neighbors(content)
        self._drain(id)

    def receive(self, id: bytes, peer: bytes, message: Message) -> list[Output]:
        """Hand one message to one core; what it wants done is returned instead of done."""
        self.nodes[id].receive(peer, message, self.now)
        return self.nodes[id].poll()

    def at(self, time: float, action: Callable[..., None], *args: object) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (time, self._sequence, action, args))

    def run(self, seconds: float, *, most: int = 5_000_000) -> int:
        """Let time pass; returns how many events ran. More than ``most`` is a livelock."""
        end, count = self.now + seconds, 0
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action, args = heapq.heappop(self._heap)
            action(*args)
            count += 1
            assert count < most, "the nodes never come to rest"
        self.now = end
        return count

    # Questions

    def symmetric(self) -> bool:
        return all(
            other in self.nodes and id in self.nodes[other].membership.active
            for id, core in self.nodes.items()
            for other in core.membership.active
        )

    def connected(self) -> bool:
        if not self.nodes:
            return True
        start = next(iter(self.nodes))
        seen, queue = {start}, deque([start])
        while queue:
            for peer in self.nodes[queue.popleft()].membership.active:
                if peer in self.nodes and peer not in seen:
                    seen.add(peer)
                    queue.append(peer)
        return len(seen) == len(self.nodes)

    def heard(self, content: bytes) -> int:
        return sum(any(got == content for got, _ in self.delivered[id]) for id in self.nodes)

    def check(self) -> None:
        """The invariants that hold at every moment at every node."""
        membership = self.config.membership
        for id, core in self.nodes.items():
            view, tree = core.membership, core.tree
            assert id not in view.active and id not in view.passive
            assert not view.active.keys() & view.passive.keys()
            assert len(view.active) <= membership.active_capacity
            assert len(view.passive) <= membership.passive_capacity
            assert not tree.eager.keys() & tree.lazy.keys()
            assert tree.eager.keys() | tree.lazy.keys() == view.active.keys()

    # The network

    def _drain(self, id: bytes) -> None:
        core = self.nodes[id]
        for output in core.poll():
            match output:
                case Send(peer, message):
                    self._send(id, peer, message)
                case Deliver(_, content, round):
                    self.delivered[id].append((content, round))
                case Up() | Down():
                    self.changes[id].append(output)
        deadline = core.next_deadline()
        if deadline is not None and deadline < self._wake.get(id, float("inf")):
            self._wake[id] = deadline
            self.at(max(deadline, self.now), self._timer, id, core)

    def _send(self, source: bytes, target: bytes, message: Message) -> None:
        self.sent[type(message).__name__] += 1
        if self.loss and self.rng.random() < self.loss:
            return
        latency = self._latency.get((source, target))
        if latency is None:
            latency = self._latency[source, target] = self.rng.uniform(*self.latency)
        self.at(self.now + latency, self._arrive, source, target, message)

    def _arrive(self, source: bytes, target: bytes, message: Message) -> None:
        if target in self.nodes:
            self.nodes[target].receive(source, message, self.now)
            self._drain(target)
        else:
            self._disconnected(source, target)

    def _disconnected(self, id: bytes, lost: bytes) -> None:
        if id in self.nodes and lost not in self.nodes:
            self.nodes[id].peer_disconnected(lost, self.now, alive=False)
            self._drain(id)

    def _timer(self, id: bytes, core: TopicCore) -> None:
        self._wake.pop(id, None)
        if self.nodes.get(id) is core:
            core.handle_timer(self.now)
            self._drain(id)
