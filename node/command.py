"""What every command of the command line shares: the options before its name, and how it is run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..transport.errors import Unreachable
from ..transport.opening import Opening
from .output import Output

if TYPE_CHECKING:
    from .node import Node

__all__ = ["Context", "run"]

logger = logging.getLogger(__name__)

ONLINE_WAIT = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class Context:
    """The options that stand before the command."""

    directory: Path
    bind: tuple[str, ...]
    output: Output
    database: str | None = field(default=None, repr=False)  # its URL may have a password in it
    blobs: Path | None = None
    relays: tuple[str, ...] = ()
    lookup: tuple[str, ...] = ()

    def open_node(self) -> Opening[Node]:
        return Opening(self._open_node)

    async def _open_node(self) -> Node:
        """With relays, a moment is given to one of them: tickets that are printed should name it."""
        from .node import Node  # takes a while to import: what only prints help does not wait for it

        node = await Node.open(
            self.directory,
            bind=self.bind,
            database=self.database,
            blobs=self.blobs,
            relays=self.relays or None,
            lookup=self.lookup,
        )
        if self.relays:
            try:
                await node.endpoint.online(ONLINE_WAIT)
            except Unreachable as error:
                logger.warning("%s; going on without", error)
            except BaseException:
                await node.aclose()
                raise
        return node


def run(command: Callable[[], Awaitable[Any]]) -> None:
    """Run a command's coroutine to its end; Ctrl-C ends it quietly."""

    async def whole() -> None:
        await command()

    try:
        asyncio.run(whole())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
