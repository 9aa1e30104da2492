"""Many `TopicCore`s in one process, in virtual time, from a seed: the very class that runs in production.

What lies between them is what QUIC gives: a message arrives or its sender learns, some time later, that the
connection is lost. So a message to a dead node comes back as a failed connection, and who died without a word is
noticed by its neighbours after ``detection`` seconds; None: never, for papers that measure before anybody notices.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from random import Random

from tidings.gossip.core.catch_up import CatchUp
from tidings.gossip.core.codec import encode
from tidings.gossip.core.config import TopicConfig
from tidings.gossip.core.envelope import Envelope, Kind
from tidings.gossip.core.log import LogConfig
from tidings.gossip.core.log_messages import Give, LogMessage, encode_log
from tidings.gossip.core.messages import IHave, Message
from tidings.gossip.core.outputs import Deliver, Down, Measure, Output, Ready, Send, SendLog, SendSwap, Up
from tidings.gossip.core.swap_messages import SwapMessage
from tidings.gossip.core.topic_core import TopicCore
from tidings.transport import SecretKey

from .links import Link, uniform

__all__ = ["Network", "node_id"]

AnyMessage = Message | LogMessage | SwapMessage
Dialable = Callable[[bytes, bytes], bool]
"""Whether the first can make a connection to the second; over one that is there both can send."""


class _Unsigned(SecretKey):
    """Who needs no signature in virtual time: each costs as much as a thousand messages."""

    def sign(self, message: bytes) -> bytes:
        return bytes(64)


UNSIGNED = _Unsigned.generate()


def node_id(number: int) -> bytes:
    return number.to_bytes(32, "big")


class Network:
    """``on_deliver(node, content, round)`` hears of each delivery; ``record`` keeps them all, for small swarms."""

    def __init__(
        self,
        seed: int,
        config: TopicConfig | None = None,
        link: Link | None = None,
        *,
        detection: float | None = 0.5,
        dialable: Dialable | None = None,
        on_deliver: Callable[[bytes, bytes, int | None], None] | None = None,
        log: LogConfig | None = None,
        on_ready: Callable[[bytes, Ready], None] | None = None,
        record: bool = False,
    ) -> None:
        self.rng = Random(seed)
        self.config = config or TopicConfig()
        self.link = link or Link(uniform(0.01, 0.05, seed))
        self.detection = detection
        self.dialable = dialable
        self.on_deliver = on_deliver
        self.log = log
        self.on_ready = on_ready
        self.now = 0.0
        self.nodes: dict[bytes, TopicCore] = {}
        self.sent: Counter[type] = Counter()
        """Messages by their class; of an announcement each id counts."""
        self.delivered: dict[bytes, list[tuple[bytes, int | None]]] = {}
        self.changes: dict[bytes, list[Up | Down]] = {}
        self.changed = 0
        """Grows whenever a view or the set of nodes changes."""
        self._record = record
        self._told: dict[bytes, tuple[int, float]] = {}
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self._wake: dict[bytes, float] = {}
        self._side: dict[bytes, int] = {}
        self._connected: set[tuple[bytes, bytes]] = set()
        self._free_at: dict[bytes, float] = {}

    # What happens to nodes

    def add(self, *numbers: int) -> list[bytes]:
        ids = [node_id(number) for number in numbers]
        for id in ids:
            self.changed += 1
            self.nodes[id] = TopicCore(id, self.config, Random(self.rng.getrandbits(64)), self.log, self.now)
            self.nodes[id].set_data(b"at " + id[-4:])
            if self._record:
                self.delivered[id], self.changes[id] = [], []
        return ids

    def kill(self, id: bytes) -> None:
        """Gone without a word."""
        self._wake.pop(id, None)
        self.changed += 1
        for peer in self.nodes.pop(id).neighbors:
            self._notice(peer, id)

    def leave(self, id: bytes) -> None:
        self.nodes[id].leave()
        self._drain(id, self.nodes[id])
        self._wake.pop(id, None)
        self.changed += 1
        del self.nodes[id]

    def join(self, id: bytes, *peers: bytes) -> None:
        self.nodes[id].join(peers, self.now)
        self._drain(id, self.nodes[id])

    def broadcast(self, id: bytes, content: bytes) -> bool:
        new = self.nodes[id].broadcast(content, self.now)
        self._drain(id, self.nodes[id])
        return new

    def say(self, id: bytes, body: bytes) -> None:
        """Broadcast as a topic does that keeps a log, but for the signature."""
        number, last = self._told.get(id, (0, self.now))
        self._told[id] = (number + 1, self.now)
        gap, time = int((self.now - last) * 1e6), int(self.now * 1e6)
        self.broadcast(id, Envelope(id, 1, number + 1, time, gap, Kind.CONTENT, body).seal(UNSIGNED, b""))

    def broadcast_neighbors(self, id: bytes, content: bytes) -> None:
        self.nodes[id].broadcast_neighbors(content)
        self._drain(id, self.nodes[id])

    def receive(self, id: bytes, peer: bytes, message: Message) -> list[Output]:
        """Hand one message to one core; what it wants done is returned instead of done."""
        self.nodes[id].receive(peer, message, self.now)
        return self.nodes[id].poll()

    def part(self, *sides: Iterable[bytes]) -> None:
        """Nothing passes between the sides any more; who is in none of them is cut off from all."""
        self._side = {id: number for number, side in enumerate(sides, 1) for id in side}
        for id, core in self.nodes.items():
            for peer in core.neighbors:
                if self._cut(id, peer):
                    self._notice(id, peer)

    def heal(self) -> None:
        """Everybody can reach everybody again."""
        self._side = {}

    def keep_logs(self, config: LogConfig) -> None:
        """From now on all nodes do. Swarms that grow with logs compare them all the while, and nothing is in them."""
        self.log = config
        for id, core in self.nodes.items():
            rng, candidates = Random(self.rng.getrandbits(64)), core.membership.passive.keys
            core.log = CatchUp(id, config, self.now, rng, core._timers, core._out, candidates)
            for peer in core.neighbors:
                core.log.neighbor_up(peer, self.now)
            self._drain(id, core)

    def change_link(self, link: Link) -> None:
        """The ways become these, and neighbours know their round trips."""
        self.link = link
        for id, core in self.nodes.items():
            for peer in core.neighbors:
                self._note_round_trip(id, core, peer)

    def restrict(self, dialable: Dialable) -> None:
        """From now on these can dial those. Neighbours of whom neither can dial the other lose each other."""
        self.dialable = dialable
        for id, core in self.nodes.items():
            for peer in core.neighbors:
                if not (self._way(id, peer) or self._way(peer, id)):
                    self._notice(id, peer)

    # Time

    def at(self, time: float, action: Callable[..., None], *args: object) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (time, self._sequence, action, args))

    def run(self, seconds: float, *, most: int = 1 << 60) -> int:
        """Let time pass; returns how many events ran. More than ``most`` is a livelock."""
        end, count, heap = self.now + seconds, 0, self._heap
        while heap and heap[0][0] <= end:
            self.now, _, action, args = heapq.heappop(heap)
            action(*args)
            count += 1
            if count > most:
                raise RuntimeError("the nodes never come to rest")
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
        """Whether one swarm holds every node."""
        return not self.nodes or len(self.reached(next(iter(self.nodes)))) == len(self.nodes)

    def reached(self, start: bytes) -> Collection[bytes]:
        """The nodes that a message could reach from ``start``, over active views, with the hops it takes."""
        hops = {start: 0}
        queue = deque([start])
        while queue:
            node = queue.popleft()
            for peer in self.nodes[node].membership.active:
                if peer not in hops and peer in self.nodes:
                    hops[peer] = hops[node] + 1
                    queue.append(peer)
        return hops

    def heard(self, content: bytes) -> int:
        """How many have it; for a network that records."""
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

    # Between the nodes

    def _drain(self, id: bytes, core: TopicCore) -> None:
        while outputs := core.poll():
            self._do(id, core, outputs)
        deadline = core.next_deadline()
        if deadline is not None and deadline < self._wake.get(id, float("inf")):
            self._wake[id] = deadline
            self.at(max(deadline, self.now), self._timer, id, core, deadline)

    def _do(self, id: bytes, core: TopicCore, outputs: list[Output]) -> None:
        for output in outputs:
            if type(output) is Send or type(output) is SendLog or type(output) is SendSwap:
                self._send(id, output.peer, output.message)
            elif type(output) is Measure:
                self._measure(id, output.peer)
            elif type(output) is Deliver and core.log is not None and output.round is not None:
                core.arrived(output.peer, output.content, _opened(output.content), output.round, self.now)
            elif type(output) is Ready:
                if self.on_ready is not None:
                    self.on_ready(id, output)
            elif type(output) is Deliver:
                if self.on_deliver is not None:
                    self.on_deliver(id, output.content, output.round)
                if self._record:
                    self.delivered[id].append((output.content, output.round))
            elif type(output) is Up or type(output) is Down:
                self.changed += 1
                if type(output) is Up:
                    self._note_round_trip(id, core, output.peer)
                if self._record:
                    self.changes[id].append(output)

    def _note_round_trip(self, id: bytes, core: TopicCore, peer: bytes) -> None:
        core.note_round_trip(peer, self._round_trip(id, peer))

    def _round_trip(self, id: bytes, peer: bytes) -> float:
        return self.link.latency(id, peer) + self.link.latency(peer, id)

    def _measure(self, id: bytes, peer: bytes) -> None:
        seconds = self._round_trip(id, peer)
        self.at(self.now + seconds, self._measured, id, peer, seconds if peer in self.nodes else None)

    def _measured(self, id: bytes, peer: bytes, seconds: float | None) -> None:
        core = self.nodes.get(id)
        if core is not None:
            core.measured(peer, seconds, self.now)
            self._drain(id, core)

    def _send(self, source: bytes, target: bytes, message: AnyMessage) -> None:
        link = self.link
        self.sent[type(message)] += len(message.announced) if type(message) is IHave else 1
        if (self._side and self._cut(source, target)) or not self._way(source, target):
            self._notice(source, target)
            return
        if link.loss and self.rng.random() < link.loss:
            return
        arrival = self.now + link.latency(source, target)
        if link.rate is not None:
            begin = max(self.now, self._free_at.get(source, 0.0))
            self._free_at[source] = begin + _size(message) / link.rate
            arrival += self._free_at[source] - self.now
        if link.jitter:
            arrival += self.rng.random() * link.jitter
        self._sequence += 1
        heapq.heappush(self._heap, (arrival, self._sequence, self._arrive, (source, target, message)))
        if link.duplicate and self.rng.random() < link.duplicate:
            self.at(arrival + link.jitter, self._arrive, source, target, message)

    def _arrive(self, source: bytes, target: bytes, message: AnyMessage) -> None:
        core = self.nodes.get(target)
        if core is not None:
            if isinstance(message, Message):
                core.receive(source, message, self.now)
            elif isinstance(message, SwapMessage):
                core.receive_swap(source, message, self.now)
            else:
                self._log_arrives(source, core, message)
            self._drain(target, core)
        elif self.detection is not None:
            self.tell_lost(source, target)

    def _log_arrives(self, source: bytes, core: TopicCore, message: LogMessage) -> None:
        if core.log is None:
            return
        if isinstance(message, Give):
            opened = [(content, age, _opened(content)) for content, age in message.contents]
            core.given(source, opened, message.gone, self.now)
        else:
            core.log.receive(source, message, self.now)

    def _cut(self, source: bytes, target: bytes) -> bool:
        return bool(self._side) and self._side.get(source, source) != self._side.get(target, target)

    def _way(self, source: bytes, target: bytes) -> bool:
        """Whether there is a connection, or one can be made."""
        if self.dialable is None:
            return True
        pair = (source, target) if source < target else (target, source)
        if pair not in self._connected:
            if not self.dialable(source, target):
                return False
            self._connected.add(pair)
        return True

    def _notice(self, id: bytes, lost: bytes) -> None:
        if self.detection is not None:
            self.at(self.now + self.detection, self.tell_lost, id, lost)

    def tell_lost(self, id: bytes, lost: bytes) -> None:
        core = self.nodes.get(id)
        if core is None or (lost in self.nodes and not self._cut(id, lost) and self._way(id, lost)):
            return
        core.peer_disconnected(lost, self.now, alive=False)
        if core.log is not None:
            core.log.lost(lost, self.now)
        self._drain(id, core)

    def _timer(self, id: bytes, core: TopicCore, deadline: float) -> None:
        # One that an earlier deadline overtook is not run: it would arm the next again, and so double itself.
        if self.nodes.get(id) is core and self._wake.get(id) == deadline:
            del self._wake[id]
            core.handle_timer(self.now)
            self._drain(id, core)


@lru_cache(1 << 10)
def _opened(content: bytes) -> Envelope | None:
    """Once for all nodes: nobody checks a signature here."""
    return Envelope.open(content, None)


def _size(message: AnyMessage) -> int:
    return 4 + len(encode_log(message) if isinstance(message, LogMessage | SwapMessage) else encode(message))
