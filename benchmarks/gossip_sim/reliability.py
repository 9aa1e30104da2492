"""Does every message reach every node? Topics that keep a log: failures, loss, churn, a partition, ways that are bad.

Each scenario goes on from a grown swarm, whose nodes begin to keep logs; random live nodes send, a little before the
trouble, mostly during it, a little after. Ways take 10 to 50 ms, and a dead neighbour is noticed after two seconds.

What counts is pairs of a message and a node that *stays connected*: it was there when the message was sent, it lives
until the end, it is not the sender, and at the end active views join it to most of the swarm. So a node counts that
lost all its neighbours for a while, and one that was added before the message and had no neighbour yet. A message
whose sender died counts if anybody has it who lives at the end; else it died with its sender, and is counted as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from tidings.gossip.core.log import LogConfig
from tidings.gossip.core.outputs import Ready

from .links import Link, uniform
from .network import Network

__all__ = ["SCENARIOS", "Outcome", "run"]

LOG = LogConfig()
DETECTION = 2.0  # seconds until a neighbour that died without a word is given up: `LivenessConfig.dead_after`
PATIENCE = 40.0  # seconds after the last message, eight comparisons of logs: what has not come by then is lost
EVERY = 0.5  # seconds between two messages


@dataclass
class _Message:
    sender: bytes
    at: float
    came: dict[bytes, float] = field(default_factory=dict)


@dataclass
class Outcome:
    """Of one scenario."""

    messages: int
    pairs: int
    missed: int
    by_log: int
    """Pairs that came from a log and not along the tree."""
    apart: int
    """Nodes that live at the end and are not joined to most of the swarm: their pairs do not count."""
    died: int
    """Messages that nobody has who lives at the end."""
    last: list[float]
    """Of each message, the seconds from sending to its last delivery."""


class Scenario:
    """A network, who said what when, and who got it when."""

    def __init__(self, network: Network, seed: int) -> None:
        self.network, self.rng = network, Random(seed)
        self.messages: list[_Message] = []
        self.by_log: set[tuple[int, bytes]] = set()
        self.born: dict[bytes, float] = {}
        self._numbers = count(1 << 32)  # of nodes that are added: no number of a first one
        network.detection = DETECTION
        network.on_ready = self._came
        network.change_link(Link(uniform(0.01, 0.05, seed)))
        network.keep_logs(LOG)
        network.run(1.0)

    def send(self, seconds: float, every: float = EVERY, size: int = 0) -> None:
        """Random live nodes send a message now, and every so often until ``seconds`` have passed."""
        for _ in range(round(seconds / every)):
            sender = self.rng.choice(list(self.network.nodes))
            body = len(self.messages).to_bytes(4, "big").ljust(size, b".")
            self.messages.append(_Message(sender, self.network.now))
            self.network.say(sender, body)
            self.network.run(every)

    def die(self, share: float) -> None:
        """Without a word."""
        for id in self.some(share):
            self.network.kill(id)

    def leave(self, share: float) -> None:
        for id in self.some(share):
            self.network.leave(id)

    def come(self, how_many: int) -> None:
        """Each joins through a node that happens to be there."""
        for _ in range(how_many):
            contact = self.rng.choice(list(self.network.nodes))
            (id,) = self.network.add(next(self._numbers))
            self.born[id] = self.network.now
            self.network.join(id, contact)

    def outcome(self) -> Outcome:
        """After all has come, or `PATIENCE` has passed."""
        until = self.network.now + PATIENCE
        while self._missing() and self.network.now < until:
            self.network.run(1.0)
        joined = self._joined()
        held = [each for each in self.messages if each.sender in joined or not joined.isdisjoint(each.came)]
        pairs = [(message, id) for message in held for id in self._due(message, joined)]
        return Outcome(
            messages=len(self.messages),
            pairs=len(pairs),
            missed=sum(id not in message.came for message, id in pairs),
            by_log=sum(
                (number, id) in self.by_log for number, message in enumerate(self.messages) for id in message.came
            ),
            apart=len(self.network.nodes) - len(joined),
            died=len(self.messages) - len(held),
            last=sorted(self._last(message, joined) for message in held),
        )

    def some(self, share: float) -> list[bytes]:
        ids = list(self.network.nodes)
        return self.rng.sample(ids, round(share * len(ids)))

    def _came(self, id: bytes, ready: Ready) -> None:
        assert ready.entry.envelope is not None
        number = int.from_bytes(ready.entry.envelope.body[:4], "big")
        came = self.messages[number].came
        assert id not in came, "delivered twice"
        came[id] = self.network.now
        if ready.round is None:
            self.by_log.add((number, id))

    def _due(self, message: _Message, ids: Iterable[bytes]) -> Iterable[bytes]:
        return (id for id in ids if id != message.sender and self.born.get(id, 0.0) <= message.at)

    def _missing(self) -> bool:
        nodes = self.network.nodes
        return any(id not in message.came for message in self.messages for id in self._due(message, nodes))

    def _joined(self) -> set[bytes]:
        nodes = self.network.nodes
        for start in nodes:
            reached = self.network.reached(start)
            if 2 * len(reached) > len(nodes):
                return set(reached)
        return set()

    def _last(self, message: _Message, ids: Iterable[bytes]) -> float:
        return max((message.came.get(id, self.network.now) for id in self._due(message, ids)), default=message.at) - (
            message.at
        )


def _failures(scenario: Scenario) -> None:
    scenario.send(3)
    scenario.die(0.3)
    scenario.send(7)


def _loss(scenario: Scenario) -> None:
    scenario.network.link.loss = 0.05
    scenario.send(10)


def _churn(scenario: Scenario) -> None:
    size = len(scenario.network.nodes)
    scenario.send(2)
    for _ in range(20):
        scenario.die(0.005)
        scenario.leave(0.005)
        scenario.come(round(0.01 * size))
        scenario.send(1)


def _partition(scenario: Scenario) -> None:
    ids = list(scenario.network.nodes)
    scenario.send(2)
    scenario.network.part(ids[::2], ids[1::2])
    scenario.send(10)
    scenario.network.heal()
    scenario.send(2)


def _behind_nat(scenario: Scenario) -> None:
    hidden = set(scenario.some(0.3))
    scenario.network.restrict(lambda source, target: target not in hidden)
    scenario.send(10)


def _narrow(scenario: Scenario) -> None:
    scenario.network.link.rate = 8_000
    scenario.send(10, size=2_000)


SCENARIOS: dict[str, tuple[Callable[[Scenario], None], str]] = {
    "30 % fail at once": (_failures, "without a word"),
    "5 % loss": (_loss, "of all messages, on every way"),
    "churn of 1 % a second": (_churn, "for 20 s: half die, half leave, as many join"),
    "a partition": (_partition, "two halves for 10 s, then healed"),
    "30 % cannot be dialled": (_behind_nat, "they dial; links between two of them break"),
    "8 kB/s out of each node": (_narrow, "two messages of 2 kB a second"),
}


def run(network: Network, name: str, seed: int) -> Outcome:
    scenario = Scenario(network, seed)
    SCENARIOS[name][0](scenario)
    return scenario.outcome()
