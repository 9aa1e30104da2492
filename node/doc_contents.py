"""``tidings doc policy`` and ``contents``: which contents of a document are fetched, and what became of them."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

import typer

from ..docs_sync import Content, DownloadPolicy
from ..errors import UsageError
from .command import run
from .output import printable

__all__ = ["download_policy", "list_contents"]

DocId = Annotated[str, typer.Argument(metavar="DOC", help="Id of the document.")]
FILTER = "A filter, such as prefix:utf8:photos/ or exact:hex:00ff. May be given many times."


class State(StrEnum):
    WANTED = "wanted"
    FAILED = "failed"
    HAD = "had"


def download_policy(
    context: typer.Context,
    doc: DocId,
    nothing_but: Annotated[list[str] | None, typer.Option(help=f"Fetch only what it matches. {FILTER}")] = None,
    everything_but: Annotated[list[str] | None, typer.Option(help=f"Fetch all but what it matches. {FILTER}")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="Fetch all.")] = False,
    nothing: Annotated[bool, typer.Option("--nothing", help="Fetch only what is read.")] = False,
) -> None:
    """Print which contents this node fetches as their entries come, or change it."""

    async def command() -> None:
        if sum([bool(nothing_but), bool(everything_but), everything, nothing]) > 1:
            raise UsageError("give one of --nothing-but, --everything-but, --everything and --nothing")
        async with context.obj.open_node() as node:
            document = await node.docs.open(doc)
            if nothing_but or nothing:
                await document.set_download_policy(DownloadPolicy.nothing_except(nothing_but or ()))
            elif everything_but or everything:
                await document.set_download_policy(DownloadPolicy.everything_except(everything_but or ()))
            policy = await document.download_policy()
            filters = [str(filter) for filter in policy.filters]
            context.obj.output.result(str(policy), everything=policy.everything, filters=filters)

    run(command)


def list_contents(
    context: typer.Context,
    doc: DocId,
    state: Annotated[State | None, typer.Option(help="Only those of this state.")] = None,
    count: Annotated[bool, typer.Option("--count", help="Print how many there are of each state.")] = False,
) -> None:
    """Print the contents that were fetched in the last day, or are wanted: size, hash, key, and what became of them."""

    async def command() -> None:
        async with context.obj.open_node() as node:
            document = await node.docs.open(doc)
            if count:
                counts = await document.content_counts()
                named = {"wanted": counts.wanted, "failed": counts.failed, "had": counts.had}
                shown = {name: number for name, number in named.items() if state is None or name == state}
                context.obj.output.result(", ".join(f"{number} {name}" for name, number in shown.items()), **shown)
                return
            async for content in document.contents(None if state is None else state.value):
                context.obj.output.result(
                    _row(content),
                    hash=str(content.hash),
                    size=content.size,
                    state=content.state,
                    key=None if content.key is None else content.key.decode(errors="backslashreplace"),
                    attempts=content.attempts,
                    peer=None if content.peer is None else str(content.peer),
                    error=content.error,
                    next_try=content.next_try,
                )

    run(command)


def _row(content: Content) -> str:
    key = "(superseded)" if content.key is None else printable(content.key.decode(errors="replace"))
    text = f"{content.size:>12}  {content.state:<6}  {content.hash.short()}  {key}"
    if content.state == "had":
        return text if content.peer is None else f"{text}  from {content.peer.short()}"
    if content.state == "wanted":
        return text
    whom = "" if content.peer is None else f"{content.peer.short()}: "
    again = time.strftime("%H:%M:%S", time.localtime(content.next_try))
    return f"{text}  {whom}{printable(content.error or '')} (tried {content.attempts} times, again at {again})"
