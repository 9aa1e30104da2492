"""The figures as plots, each with the papers' values where they can be read off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt

from . import papers
from .experiments import FIRST_FAILURES, Figures
from .hyparview import FAILURES

__all__ = ["plot"]


def plot(seeds: Sequence[Figures], folder: Path) -> None:
    """Six figures in one SVG for each paper."""
    plt.rcParams.update({"svg.hashsalt": "tidings", "font.size": 9})
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    _compare(axes[0], {p: fmean(each.reliability[p] for each in seeds) for p in FAILURES}, papers.RELIABILITY)
    axes[0].plot(FAILURES, [fmean(each.on_send[p] for each in seeds) for p in FAILURES], ".-", label="noticed on send")
    axes[0].set(title="HyParView Fig. 2: reliability after failures", xlabel="failed", ylabel="mean of 1,000 messages")
    _compare(axes[1], {p: fmean(each.cycles_to_heal[p] for each in seeds) for p in FAILURES}, papers.HEAL)
    axes[1].set(title="HyParView Fig. 4: healing", xlabel="failed", ylabel="cycles")
    degrees = sorted({degree for each in seeds for degree in each.shape.in_degrees})
    axes[2].bar(degrees, [fmean(each.shape.in_degrees.get(degree, 0) for each in seeds) for degree in degrees])
    axes[2].set(title="HyParView Fig. 5: in-degree", xlabel="views that hold a node", ylabel="nodes", yscale="log")
    _save(figure, folder / "hyparview.svg")

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    runs = {
        "single sender": "single",
        "many senders": "many",
        "many, ways of 10 to 50 ms": "many_far",
        "many, the paper's rule": "many_paper",
        "many, plain": "many_plain",
    }
    for name, of in runs.items():
        cycles = range(1, len(getattr(seeds[0], of)) + 1)
        axes[0].plot(cycles, [fmean(getattr(each, of)[c - 1].rmr for each in seeds) for c in cycles], label=name)
        axes[1].plot(cycles, [fmean(getattr(each, of)[c - 1].last_hop for each in seeds) for c in cycles], label=name)
    axes[0].set(title="Plumtree Fig. 2a, b: redundancy (RMR)", xlabel="cycle")
    axes[1].set(title="Plumtree Fig. 2c: last delivery hop (LDH)", xlabel="cycle")
    axes[1].axhline(9, ls=":", color="C0", label="paper, single sender")
    axes[1].axhline(17, ls=":", color="C1", label="paper, many senders")
    _compare(axes[2], {p: fmean(each.first[p] for each in seeds) for p in FIRST_FAILURES}, papers.FIRST)
    axes[2].set(title="Plumtree Fig. 6a: first broadcast after failures", xlabel="failed", ylabel="reliability")
    axes[0].legend()
    axes[1].legend()
    _save(figure, folder / "plumtree.svg")


def _compare(axis: plt.Axes, ours: dict[float, float], paper: dict[float, tuple[str, float]]) -> None:
    axis.plot(list(ours), list(ours.values()), "o-", label="ours")
    axis.plot(list(paper), [value for _, value in paper.values()], "x:", label="paper")
    axis.set_ylim(bottom=0)
    axis.legend()


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
