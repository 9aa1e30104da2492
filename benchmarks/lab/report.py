"""Rows of a table: what was tried, what was expected, what was seen."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .cable import ROOT

__all__ = ["FAILED", "NOT_AVAILABLE", "OK", "Report", "Row"]

OK, FAILED, NOT_AVAILABLE = "ok", "FAILED", "not available"
STYLE = {OK: "green", FAILED: "bold red", NOT_AVAILABLE: "yellow"}


@dataclass(frozen=True)
class Row:
    scenario: str
    case: str
    expected: str
    seen: str
    verdict: str


class Report:
    """Prints each row as it comes; the table at the end, also into a file."""

    def __init__(self, console: Console, facts: Sequence[str], command: str) -> None:
        self._console = console
        self.rows: list[Row] = []
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()
        versions = ", ".join(f"{name} {version(name)}" for name in ("aioquic", "cryptography", "websockets"))
        self.facts = [command, *facts, f"python {platform.python_version()}, {versions}; commit {commit or 'unknown'}"]

    def add(self, row: Row) -> None:
        self.rows.append(row)
        line = Text(f"{row.scenario}, {row.case}: {row.seen}  ")
        line.append(row.verdict, STYLE[row.verdict])
        self._console.print(line)

    def note(self, text: str) -> None:
        self._console.print(text, style="dim", highlight=False)

    def summary(self) -> str:
        counts = Counter(row.verdict for row in self.rows)
        return f"{counts[OK]} as expected, {counts[FAILED]} failed, {counts[NOT_AVAILABLE]} not available"

    def show(self, console: Console) -> None:
        table = Table(title="what two devices did", title_justify="left")
        for column in ("scenario", "case", "expected", "seen", "verdict"):
            table.add_column(column, no_wrap=column in ("scenario", "verdict"))
        for row in self.rows:
            verdict = Text(row.verdict, STYLE[row.verdict])
            table.add_row(row.scenario, row.case, row.expected, row.seen, verdict)
        if self.rows:
            console.print(table)
        console.print(self.summary())

    def save(self, file: TextIO) -> None:
        """Plain text: the command, facts and versions, the table."""
        file.write("\n".join(self.facts) + "\n\n")
        self.show(Console(file=file, width=150, no_color=True))
