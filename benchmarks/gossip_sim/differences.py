"""Why some figures are not the papers': ``python -m benchmarks.gossip_sim.differences``, each guess a run of its own.

- Clustering: how many triangles the overlays of several seeds have, beside what a random graph has.
- Redundancy of the first cycles: all links are eager at first, or four of a node's five are.
- Last delivery hop of many senders: by the ways between nodes, the rule that swaps links, and how long an announced
  payload is awaited.
"""

from __future__ import annotations

import argparse
import gc
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean, stdev

from tidings.gossip.core import plumtree as tree
from tidings.gossip.core.config import BroadcastConfig

from . import hyparview, plumtree
from .forks import in_forks
from .links import Link, constant, uniform
from .network import Network, node_id

WAYS = {
    "20 ms": Link(constant(0.02)),
    "10..50 ms": Link(uniform(0.01, 0.05, 1)),
    "1 ms, by chance up to 100 more": Link(constant(0.001), jitter=0.1),
}
RULES = {
    "ours": (BroadcastConfig(), tree.LATE_ROUND_TRIPS),
    "papers' rule, our patience": (plumtree.PAPER, tree.LATE_ROUND_TRIPS),
    "papers' rule, 1.5 round trips": (plumtree.PAPER, 1.5),
    "plain, our patience": (plumtree.PLAIN, tree.LATE_ROUND_TRIPS),
    "plain, 1.5 round trips": (plumtree.PLAIN, 1.5),
    "plain, never fetched": (replace(plumtree.PLAIN, graft_timeout=5.0), tree.LATE_ROUND_TRIPS),
}
RUNS = [
    ("20 ms", "ours"),
    ("20 ms", "papers' rule, 1.5 round trips"),
    ("10..50 ms", "ours"),
    ("10..50 ms", "papers' rule, our patience"),
    ("10..50 ms", "papers' rule, 1.5 round trips"),
    ("10..50 ms", "plain, 1.5 round trips"),
    ("1 ms, by chance up to 100 more", "plain, never fetched"),
]
TREE_SETTLES = 3.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gossip_sim.differences", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--cycles", type=int, default=40)
    parser.add_argument("--save", type=Path, help="a file")
    arguments = parser.parse_args()
    gc.disable()
    at_once = os.cpu_count() or 1
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    found = in_forks(_triangles, [(seed,) for seed in range(1, 9)], at_once)
    say("Triangles of neighbours, 8 seeds of 1,000 nodes: a random graph of degree 5 has 10.7, deviation 3.3")
    say(f"  mean {fmean(found):.1f}, deviation {stdev(found):.1f}: {', '.join(map(str, sorted(found)))}")
    network = hyparview.grow(1, arguments.nodes, 2)
    say(f"\nOne sender, {arguments.nodes:,} nodes: RMR of the first three cycles, LDH of the fifth")
    kinds = {"all links eager at first": False, "four of five eager at first": True}
    for kind, result in zip(
        kinds, in_forks(partial(_first, network), [(e,) for e in kinds.values()], at_once), strict=True
    ):
        say(f"  {kind:<34}{result}")
    say(f"\nMany senders, {arguments.nodes:,} nodes, {arguments.cycles} cycles: steady (the second half) of the cycles")
    say(f"  {'ways':<34}{'rule, patience':<34}{'RMR':>8}{'LDH':>8}{'largest':>9}{'last after':>12}")
    runs = in_forks(partial(_many, network, arguments.cycles), RUNS, at_once)
    for (ways, rule), (rmr, ldh, largest, last) in zip(RUNS, runs, strict=True):
        say(f"  {ways:<34}{rule:<34}{rmr:>8.3f}{ldh:>8.1f}{largest:>9}{last:>10.2f} s")
    if arguments.save is not None:
        arguments.save.write_text("\n".join(lines) + "\n")


def _triangles(seed: int) -> int:
    nodes = hyparview.grow(seed, 1_000, 2).nodes
    views = {id: set(core.membership.active) & nodes.keys() for id, core in nodes.items()}
    return sum(len(views[one] & views[other]) for one in views for other in views[one]) // 6


def _first(network: Network, four: bool) -> str:
    rng = Random(1)
    if four:
        for core in network.nodes.values():
            core.tree._make_lazy(rng.choice(list(core.tree.eager)), 0.0)
    measured = plumtree.cycles(network, 5, lambda _: node_id(0))
    return ", ".join(f"{each.rmr:.2f}" for each in measured[:3]) + f"; {measured[-1].last_hop}"


def _many(network: Network, cycles: int, ways: str, rule: str) -> tuple[float, float, int, float]:
    config, tree.LATE_ROUND_TRIPS = RULES[rule]
    network.change_link(WAYS[ways])
    for core in network.nodes.values():
        core.tree._config = config
    ids, rng = list(network.nodes), Random(7)
    steady = plumtree.cycles(network, cycles, lambda _: rng.choice(ids), TREE_SETTLES)[cycles // 2 :]
    assert not any(each.missed for each in steady)
    return (
        fmean(each.rmr for each in steady),
        fmean(each.last_hop for each in steady),
        max(each.last_hop for each in steady),
        fmean(each.last_at for each in steady),
    )


if __name__ == "__main__":
    main()
