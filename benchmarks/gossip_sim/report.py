"""The figures of all seeds beside the papers', as text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from . import papers
from .experiments import FIRST_FAILURES, Figures
from .hyparview import FAILURES
from .plumtree import Measured
from .reliability import SCENARIOS

__all__ = ["scenarios", "tables"]

STEADY = 0.5  # the part of the cycles at the end that counts as steady


def tables(seeds: Sequence[Figures], nodes: int) -> str:
    lines: list[str] = []
    say = lines.append
    paper = nodes == 10_000
    say(f"HyParView, {nodes:,} nodes, {len(seeds)} seeds; joins one by one, then 50 cycles (DSN 2007)")
    say(_row("", "ours", "deviation of seeds", "paper"))
    for name, values, published in (
        ("Table 1: average clustering", [each.shape.clustering for each in seeds], 0.00092),
        ("Table 1: average shortest path", [each.shape.shortest_path for each in seeds], 6.38542),
        ("Table 1: maximum hops to delivery", [float(each.shape.max_hops) for each in seeds], 9.0),
    ):
        say(_row(name, f"{fmean(values):.5f}", _deviation(values), _beside(fmean(values), published) if paper else "-"))
    say(_row("the mean of the longest ways", f"{fmean(each.shape.mean_hops for each in seeds):.2f}"))
    exact = [each.shape.in_degrees.get(5, 0) / nodes for each in seeds]
    say(_row("Fig. 5: nodes with in-degree 5", f"{fmean(exact):.2%}", _deviation(exact, "%"), "nearly all"))
    say("")
    say("After failures at once: mean reliability of 1,000 messages (Fig. 2), cycles to heal (Fig. 4)")
    say(_row("failed", "ours", "noticed on send", "paper", "cycles", "paper"))
    for share in FAILURES:
        healed = fmean(each.cycles_to_heal[share] for each in seeds)
        mean = fmean(each.reliability[share] for each in seeds)
        on_send = fmean(each.on_send[share] for each in seeds)
        ours = (f"{mean:.2%}", f"{on_send:.2%}", papers.RELIABILITY[share][0])
        say(_row(f"{share:.0%}", *ours, f"{healed:.1f}", papers.HEAL.get(share, ("-",))[0]))
    say("")
    say(f"Plumtree over it, {len(seeds[0].single)} cycles of one message (SRDS 2007)")
    say(_row("", "ours", "deviation of seeds", "paper"))
    last = [each.single[-1] for each in seeds]
    for name, counts, published in (
        ("Table 1: payloads, single sender", [float(each.payloads) for each in last], 9_999),
        ("Table 1: control messages", [float(each.control) for each in last], 29_987),
        ("Table 1: payloads, eager push", [float(each.flood) for each in seeds], 39_984),
    ):
        say(
            _row(name, f"{fmean(counts):,.0f}", _deviation(counts), _beside(fmean(counts), published) if paper else "-")
        )
    say("")
    say(_row("Fig. 2: cycle", "1", "2", "3", "steady", "paper"))
    for name, runs, published in (
        ("RMR, single sender", [each.single for each in seeds], "2.1, 0.9, 0"),
        ("RMR, many senders", [each.many for each in seeds], "-"),
        ("RMR, many, ways of 10 to 50 ms", [each.many_far for each in seeds], "-"),
        ("RMR, many, the paper's rule", [each.many_paper for each in seeds], "-"),
        ("RMR, many, plain", [each.many_plain for each in seeds], "-"),
    ):
        early = (f"{fmean(run[cycle].rmr for run in runs):.3f}" for cycle in range(3))
        say(_row(name, *early, f"{_steady(runs, 'rmr'):.3f}", published))
    for name, runs, published in (
        ("LDH, single sender", [each.single for each in seeds], "9"),
        ("LDH, many senders", [each.many for each in seeds], "-"),
        ("LDH, many, ways of 10 to 50 ms", [each.many_far for each in seeds], "-"),
        ("LDH, many, the paper's rule", [each.many_paper for each in seeds], "17"),
        ("LDH, many, plain", [each.many_plain for each in seeds], "50..75"),
    ):
        early = (f"{fmean(run[cycle].last_hop for run in runs):.1f}" for cycle in range(3))
        say(_row(name, *early, f"{_steady(runs, 'last_hop'):.1f}", published))
    runs = [run for seed in seeds for run in (seed.single, seed.many, seed.many_far, seed.many_paper, seed.many_plain)]
    missed = sum(each.missed for run in runs for each in run)
    say(f"deliveries missed in all of these: {missed}")
    say("")
    say("Reliability of the first broadcast after failures, before anybody notices them (Fig. 6a)")
    say(_row("failed", "ours", "paper"))
    for share in FIRST_FAILURES:
        say(_row(f"{share:.0%}", f"{fmean(each.first[share] for each in seeds):.1%}", papers.FIRST[share][0]))
    say("")
    say(f"Topics that keep a log: messages to every node that stays connected, {nodes:,} nodes, one seed each")
    say("(there when it was sent, alive at the end, and joined then to most of the swarm by active views)")
    titles = ("pairs", "delivered", "out of logs", "last: p50", "p90", "p99", "max")
    say(_row("", *titles))
    outcomes = {name: outcome for each in seeds for name, outcome in each.outcomes.items()}
    for name in SCENARIOS:
        one = outcomes[name]
        times = [f"{_at(one.last, share):.1f} s" for share in (0.5, 0.9, 0.99, 1)]
        delivered, by_log = _all_or(1 - one.missed / one.pairs), f"{one.by_log / one.pairs:.2%}"
        say(_row(name, f"{one.pairs:,}", delivered, by_log, *times))
    apart = {name: one.apart for name, one in outcomes.items() if one.apart}
    died = sum(each.died for each in outcomes.values())
    say(f"nodes that were alive at the end and not joined: {apart or 0}; messages that died with their senders: {died}")
    say("last: seconds from sending a message to its last delivery")
    for name, (_, words) in SCENARIOS.items():
        say(f"{name:<36}{words}")
    if paper:
        say("")
        say(papers.WHY)
    return "\n".join(lines)


def _at(values: list[float], share: float) -> float:
    return values[min(int(share * len(values)), len(values) - 1)]


def _all_or(share: float) -> str:
    """No rounding up to 100 %."""
    return "100 %" if share == 1 else f"{min(share, 0.999999):.4%}"


def scenarios(found: dict[str, tuple[Measured, float, float]]) -> str:
    lines = [_row("iroh-gossip's own tests, 100 nodes", "LDH", "limit", "RMR", "limit", "missed")]
    for name, (measured, ldh, rmr) in found.items():
        lines.append(_row(name, measured.last_hop, ldh, f"{measured.rmr:.3f}", rmr, measured.missed))
    return "\n".join(lines)


def _steady(runs: list[list[Measured]], what: str) -> float:
    return fmean(getattr(each, what) for run in runs for each in run[int(len(run) * STEADY) :])


def _deviation(values: list[float], kind: str = "") -> str:
    return f"{stdev(values) / (abs(fmean(values)) or 1):.1%}" if len(values) > 1 else "-"


def _beside(ours: float, published: float) -> str:
    return f"{published:,} ({ours / published - 1:+.1%})"


def _row(first: object, *rest: object) -> str:
    return f"{first!s:<36}" + "".join(f"{each!s:>20}" for each in rest)
