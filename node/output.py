"""What the command line prints: sentences for people, JSON lines for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

__all__ = ["Output", "printable"]


class Output:
    """One command's way of speaking. With ``as_json`` every line on standard output is one JSON object."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False)

    def event(self, event: str, text: str, /, **fields: Any) -> None:
        """Something happened: ``text`` for people, ``{"event": event, ...}`` for programs."""
        if self.as_json:
            self.line({"event": event, **fields})
        else:
            self.console.print(text, markup=False, soft_wrap=True)

    def result(self, text: str, /, **fields: Any) -> None:
        """What the command was asked for."""
        if self.as_json:
            self.line(fields)
        else:
            self.console.print(text, markup=False, soft_wrap=True)

    def line(self, value: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(value, default=str) + "\n")
        sys.stdout.flush()


def printable(text: str, *, instead: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """``text`` without what could move a terminal's cursor: names and messages of others are not to be trusted."""
    return "".join(c if c.isprintable() else instead for c in text)
