"""Two peers of one kind in processes of their own, and the table in which the kinds stand side by side."""

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "interop"))
from rust import Rust

__all__ = ["KINDS", "ON_DISK", "ROOT", "ROUNDS", "Ours", "Report", "Rust", "introduce", "quantile", "two"]

ROUNDS = 3


class Ours(Rust):
    """A tidings process behind the same pipe."""

    script = Path(__file__).with_name("tidings_peer.py")


KINDS = {"tidings": lambda: Ours("tidings"), "rust": lambda: Rust("aster")}
ON_DISK = {"tidings": {}, "rust": {"on_disk": True}}  # how to start either with its stores on the disk


@asynccontextmanager
async def two(kind):
    """Two processes of one kind that know each other's address."""
    async with KINDS[kind]() as a, KINDS[kind]() as b:
        a.started, b.started = await a.do("start", **ON_DISK[kind]), await b.do("start", **ON_DISK[kind])
        await introduce(a, [b])
        await introduce(b, [a])
        yield a, b


async def introduce(one, others):
    """Tell ``others`` the address of ``one``."""
    introduction = await one.do("doc_create")
    ticket = await one.do("doc_share", doc=introduction["doc"], mode="read")
    for other in others:
        await other.do("learn", ticket=ticket)


def measured(values, unit, digits=1):
    low, mid, high = min(values), median(values), max(values)
    return mid, f"{mid:,.{digits}f} {unit}  ({low:,.{digits}f} to {high:,.{digits}f})"


def quantile(values, part):
    """The value below which ``part`` of the others lie."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


class Report:
    def __init__(self):
        self.tables = []
        self.table = Table(title="tidings beside the Rust peer, same run", title_justify="left")
        for column in ("work", "tidings", "Rust", "ratio"):
            self.table.add_column(column, no_wrap=column != "work")

    def row(self, work, unit, ours, theirs=None, digits=1):
        mine, text = measured(ours, unit, digits)
        if theirs:
            other, other_text = measured(theirs, unit, digits)
            self.table.add_row(work, text, other_text, f"{mine / other:.2f}" if other else "-")
        else:
            self.table.add_row(work, text, "-", "-")

    def show(self, console):
        for table in [self.table, *self.tables]:
            if table.row_count:
                console.print(table)
