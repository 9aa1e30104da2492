"""What every command of the command line shares: the options before its name, and how it is run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from .output import Output

__all__ = ["Context", "run"]


@dataclass(frozen=True, slots=True)
class Context:
    """The options that stand before the command."""

    directory: Path
    bind: tuple[str, ...]
    output: Output


def run(command: Callable[[], Awaitable[Any]]) -> None:
    """Run a command's coroutine to its end; Ctrl-C ends it quietly."""

    async def whole() -> None:
        await command()

    try:
        asyncio.run(whole())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
