"""What every command of the command line shares: the options before its name, and how it is run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..transport.opening import Opening
from .output import Output

if TYPE_CHECKING:
    from .node import Node

__all__ = ["Context", "run"]


@dataclass(frozen=True, slots=True)
class Context:
    """The options that stand before the command."""

    directory: Path
    bind: tuple[str, ...]
    output: Output
    database: str | None = field(default=None, repr=False)  # its URL may have a password in it
    blobs: Path | None = None

    def open_node(self) -> Opening[Node]:
        from .node import Node  # takes a while to import: what only prints help does not wait for it

        return Node.open(self.directory, bind=self.bind, database=self.database, blobs=self.blobs)


def run(command: Callable[[], Awaitable[Any]]) -> None:
    """Run a command's coroutine to its end; Ctrl-C ends it quietly."""

    async def whole() -> None:
        await command()

    try:
        asyncio.run(whole())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
