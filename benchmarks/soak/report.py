"""What came of it, for people."""

from __future__ import annotations

from statistics import median

from rich.console import Console
from rich.table import Table

from .run import Outcome

__all__ = ["show"]

EVENTS = "started", "left", "vanished", "came back", "came new", "could not join"


def show(outcome: Outcome, console: Console) -> None:
    ledger, did = outcome.ledger, outcome.did
    table = Table("median of each quarter, after the warm-up", "first", "second", "third", "last", "at most")
    for each in outcome.grown():
        *before, last = (f"{value:,.0f}" for value in each.quarters)
        table.add_row(each.name, *before, f"[red]{last}" if each.grew else last, f"{each.allowed:,.0f}")
    console.print(table)
    numbers = sorted(outcome.kinds)
    more = outcome.kinds[numbers[-1]] - outcome.kinds[numbers[len(numbers) // 4]]
    console.print("objects that became more: " + ", ".join(f"{kind} +{count}" for kind, count in more.most_common(6)))
    console.print("nodes: " + ", ".join(f"{did[name]} {name}" for name in EVENTS))
    counts = ledger.counts
    console.print(
        f"messages: {counts['said']:,} said, {counts['heard']:,} times heard, {did['caught up']:,} of these "
        f"from a log, {counts['heard twice']} twice, {did['told as missed']} told as missed"
    )
    console.print(
        f"owed by who stayed to who stayed: {counts['owed']:,}, of these lost {len(ledger.lost)}, "
        f"the slowest after {ledger.slowest:.2f} s"
    )
    for message, member in ledger.lost[:10]:
        console.print(f"    message {message} was not heard by {member}")
    console.print(f"event loops were late by {median(outcome.late):.3f} s as a rule, {max(outcome.late):.2f} s at most")
    console.print("left in the end: " + ", ".join(f"{count} {name}" for name, count in outcome.left.items()))
    console.print("[green]good" if outcome.good else "[red]NOT GOOD")
