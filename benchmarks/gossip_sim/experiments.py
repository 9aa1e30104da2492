"""What one seed yields: every figure of both papers and of iroh's own tests, as plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from statistics import fmean
from typing import Any

from tidings.gossip.core.config import BroadcastConfig

from . import hyparview, plumtree, reliability
from .forks import in_forks
from .hyparview import FAILURES, Shape
from .links import Link, plane, uniform
from .network import Network, node_id
from .plumtree import Measured
from .reliability import SCENARIOS, Outcome

__all__ = ["Figures", "iroh_scenarios", "run_seed"]

FIRST_FAILURES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FIRST_SOURCES = {0.5: 3, 0.6: 5, 0.7: 10, 0.8: 3}  # where chance decides: each broadcast in a fork of its own; else 2
FAR = Link(uniform(0.01, 0.05))
FAR_SETTLES = 3.0  # seconds of a cycle


@dataclass
class Figures:
    """Of one seed."""

    seed: int
    shape: Shape
    reliability: dict[float, float] = field(default_factory=dict)
    on_send: dict[float, float] = field(default_factory=dict)
    """Reliability where failed nodes are noticed by who sends to them, and only then."""
    cycles_to_heal: dict[float, int] = field(default_factory=dict)
    single: list[Measured] = field(default_factory=list)
    many: list[Measured] = field(default_factory=list)
    many_far: list[Measured] = field(default_factory=list)
    """Ways of 10 to 50 ms instead of one."""
    many_paper: list[Measured] = field(default_factory=list)
    """With the paper's rule for swapping links."""
    many_plain: list[Measured] = field(default_factory=list)
    first: dict[float, float] = field(default_factory=dict)
    flood: int = 0
    """Payloads of a message that everybody passes to all neighbours."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """Of topics that keep a log, by the name of the scenario."""


def run_seed(seed: int, seeds: int, nodes: int, cycles: int, at_once: int, say: Callable[[str], None]) -> Figures:
    """``at_once``: how many processes, while forks go on from the grown swarm.

    ``seeds`` share the scenarios of topics that keep a log, which take as long as all the rest: each is run by one.
    """
    network = hyparview.grow(seed, nodes)
    say(f"seed {seed}: {nodes} nodes joined, 50 cycles passed")
    figures = Figures(seed, hyparview.shape(network))
    figures.flood = sum(len(core.membership.active) for core in network.nodes.values()) - (nodes - 1)
    failures = [(what, share) for share in FAILURES for what in (_reliability, _on_send, _heal)]
    works = [(_many, cycles), (_many_far, cycles), (_many_paper, cycles), (_many_plain, cycles), *failures]
    done = in_forks(partial(_go_on, network), works, at_once)
    figures.many, figures.many_far, figures.many_paper, figures.many_plain, *after = done
    for (what, share), result in zip(failures, after, strict=True):
        of = {_reliability: figures.reliability, _on_send: figures.on_send, _heal: figures.cycles_to_heal}
        of[what][share] = result
    say(f"seed {seed}: many senders, and failures of {FAILURES[0]:.0%} to {FAILURES[-1]:.0%}")
    names = [name for number, name in enumerate(SCENARIOS) if number % seeds == (seed - 1) % seeds]
    outcomes = in_forks(partial(reliability.run, network), [(name, seed) for name in names], at_once)
    figures.outcomes = dict(zip(names, outcomes, strict=True))
    say(f"seed {seed}: topics that keep a log")
    first = node_id(0)
    figures.single = plumtree.cycles(network, cycles, lambda _: first)
    say(f"seed {seed}: one sender")
    firsts = [(share, number) for share in FIRST_FAILURES for number in range(FIRST_SOURCES.get(share, 2))]
    shares = in_forks(partial(_first, network), firsts, at_once)
    for share in FIRST_FAILURES:
        found = [each for (failed, _), each in zip(firsts, shares, strict=True) if failed == share]
        figures.first[share] = fmean(found)
    say(f"seed {seed}: first broadcasts after failures")
    return figures


def _go_on(network: Network, work: Callable[[Network, Any], Any], argument: Any) -> Any:
    return work(network, argument)


def _many(network: Network, cycles: int, settle: float = plumtree.SETTLE) -> list[Measured]:
    ids, rng = list(network.nodes), Random(network.rng.random())
    return plumtree.cycles(network, cycles, lambda _: rng.choice(ids), settle)


def _many_far(network: Network, cycles: int) -> list[Measured]:
    network.change_link(FAR)
    return _many(network, cycles, FAR_SETTLES)


def _many_paper(network: Network, cycles: int) -> list[Measured]:
    return _many_by(network, cycles, plumtree.PAPER)


def _many_plain(network: Network, cycles: int) -> list[Measured]:
    return _many_by(network, cycles, plumtree.PLAIN)


def _many_by(network: Network, cycles: int, config: BroadcastConfig) -> list[Measured]:
    for core in network.nodes.values():
        core.tree._config = config
    return _many(network, cycles)


def _reliability(network: Network, share: float) -> float:
    hyparview.fail(network, share, noticed=True)
    return fmean(hyparview.reliability(network))


def _on_send(network: Network, share: float) -> float:
    hyparview.fail(network, share, noticed=False)
    return fmean(hyparview.reliability(network))


def _heal(network: Network, share: float) -> int:
    hyparview.fail(network, share, noticed=True)
    return hyparview.cycles_to_heal(network)


def _first(network: Network, share: float, number: int) -> float:
    network.rng.seed(number)
    return plumtree.first_after_failures(network, share)


def iroh_scenarios(seed: int, nodes: int = 100) -> dict[str, tuple[Measured, float, float]]:
    """iroh-gossip's own: what was measured, and its limits of LDH and RMR."""
    link = Link(plane(0.01, 0.09, seed))
    network = Network(seed, link=link)
    first, *others = network.add(*range(nodes))
    for other in others:
        network.join(other, first)
        network.run(0.5)
    network.run(120)
    rng = Random(seed)
    ids = list(network.nodes)
    single = plumtree.cycles(network, 30, lambda _: first)[-1]
    many = plumtree.cycles(network, 30, lambda _: rng.choice(ids))
    burst = plumtree.burst(network, ids, 5.0)
    worst = max(many[10:], key=lambda each: each.rmr)
    return {"single sender": (single, 15, 0.2), "many senders": (worst, 18, 1.0), "burst": (burst, 30, 3.0)}
