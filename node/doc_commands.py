"""``tidings doc``: documents from the shell. Keys and values are the bytes of the command line, UTF-8 or not."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..docs_sync import ContentReady, Doc, DocTicket, Entry, InsertLocal, InsertRemote, SyncFinished
from .command import Context, run
from .node import Node
from .output import printable

__all__ = ["app"]

app = typer.Typer(help="Documents: replicated maps from keys to contents.", no_args_is_help=True)

CONTENT_TIMEOUT = 30.0  # seconds until a peer answers
SLOWEST = 250_000  # bytes a second: a large content is given the time that it takes at this rate

DocId = Annotated[str, typer.Argument(metavar="DOC", help="Id of the document.")]
Key = Annotated[str, typer.Argument(help="Key, as text.")]
Prefix = Annotated[str, typer.Argument(help="Only keys that start with this text.")]


@asynccontextmanager
async def opened(context: Context, id: str) -> AsyncIterator[Doc]:
    async with Node.open(context.directory, bind=context.bind) as node:
        yield await node.docs.open(id)


@app.command()
def new(context: typer.Context) -> None:
    """Make a document and print its id."""

    async def command() -> None:
        async with Node.open(context.obj.directory, bind=context.obj.bind) as node:
            doc = await node.docs.create()
            context.obj.output.result(str(doc.id), id=str(doc.id))

    run(command)


@app.command("list")
def list_documents(context: typer.Context) -> None:
    """Print the documents of this node."""

    async def command() -> None:
        async with Node.open(context.obj.directory, bind=context.obj.bind) as node:
            async for doc in node.docs.list():
                rights = "write" if doc.can_write else "read"
                context.obj.output.result(f"{doc.id}  {rights}", id=str(doc.id), rights=rights)

    run(command)


@app.command("set")
def set_key(
    context: typer.Context,
    doc: DocId,
    key: Key,
    value: Annotated[str, typer.Argument(help="Text; '-' reads standard input, '@FILE' a file (streamed).")],
) -> None:
    """Store a value at a key."""

    async def command() -> None:
        async with Node.open(context.obj.directory, bind=context.obj.bind) as node:
            document = await node.docs.open(doc)
            if value.startswith("@"):
                blob = await node.blobs.add_path(Path(value[1:]))
                entry = await document.set_hash(os.fsencode(key), blob.hash, blob.size)
            else:
                data = await asyncio.to_thread(sys.stdin.buffer.read) if value == "-" else os.fsencode(value)
                entry = await document.set(os.fsencode(key), data)
            context.obj.output.result(f"{entry.hash}  {entry.size} bytes", **described(entry))

    run(command)


@app.command()
def get(context: typer.Context, doc: DocId, key: Key) -> None:
    """Write the newest value at a key to standard output; with --json, what the entry says instead."""

    async def command() -> None:
        async with Node.open(context.obj.directory, bind=context.obj.bind) as node:
            entry = await (await node.docs.open(doc)).get(os.fsencode(key))
            if entry is None:
                sys.stderr.write(f"tidings: there is nothing at {key!r}\n")
                raise typer.Exit(1)
            if context.obj.output.as_json:
                context.obj.output.line(described(entry))
            else:
                await entry.arrival(CONTENT_TIMEOUT + entry.size / SLOWEST)
                async with await node.blobs.reader(entry.hash) as reader:
                    async for piece in reader:
                        sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()

    run(command)


@app.command()
def ls(context: typer.Context, doc: DocId, prefix: Prefix = "") -> None:
    """Print the keys, with size, author and time of the newest entry of each."""

    async def command() -> None:
        async with opened(context.obj, doc) as document:
            async for entry in document.entries(prefix=os.fsencode(prefix), newest=True):
                context.obj.output.result(_row(entry), **described(entry))

    run(command)


@app.command()
def rm(context: typer.Context, doc: DocId, prefix: Annotated[str, typer.Argument(help="Prefix, as text.")]) -> None:
    """Delete this author's entries whose keys start with a prefix, here and everywhere."""

    async def command() -> None:
        async with opened(context.obj, doc) as document:
            count = await document.delete(os.fsencode(prefix))
            context.obj.output.result(f"{count} deleted", deleted=count)

    run(command)


@app.command()
def watch(context: typer.Context, doc: DocId, prefix: Prefix = "") -> None:
    """Take part in the document and print changes as they come, until Ctrl-C."""

    async def command() -> None:
        async with opened(context.obj, doc) as document:
            await _follow(context.obj, document, os.fsencode(prefix))

    run(command)


@app.command()
def share(
    context: typer.Context,
    doc: DocId,
    write: Annotated[bool, typer.Option("--write", help="Let others change the document.")] = False,
) -> None:
    """Print a ticket and serve the document until Ctrl-C: others join while this runs."""

    async def command() -> None:
        async with opened(context.obj, doc) as document:
            ticket = str(document.ticket(write=write))
            context.obj.output.event("ticket", ticket, ticket=ticket)
            await _follow(context.obj, document, b"")

    run(command)


@app.command()
def join(
    context: typer.Context,
    ticket: Annotated[str, typer.Argument(help="From 'tidings doc share'.")],
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the first sync.")] = 30.0,
) -> None:
    """Get a document with its contents from the peers of a ticket, print its id, and end."""

    async def command() -> None:
        parsed = DocTicket.parse(ticket)
        async with Node.open(context.obj.directory, bind=context.obj.bind) as node:
            document = await node.docs.join(parsed, timeout=timeout)
            entries = [entry async for entry in document.entries(newest=True)]
            for entry in entries:
                await entry.arrival(timeout + entry.size / SLOWEST)
            context.obj.output.result(f"{document.id}  {len(entries)} keys", id=str(document.id), keys=len(entries))

    run(command)


async def _follow(context: Context, document: Doc, prefix: bytes) -> None:
    async for event in document.events():
        match event:
            case InsertLocal(entry) | InsertRemote(entry):
                if entry.key.startswith(prefix):
                    what = "delete" if entry.is_tombstone else "set"
                    context.output.event(what, f"{what}  {_row(entry)}", **described(entry))
            case ContentReady(hash):
                context.output.event("content", f"content of {hash} is here", hash=str(hash))
            case SyncFinished():
                text = f"sync with {event.peer.short()}: " + (
                    event.error or f"{event.received} received, {event.sent} sent"
                )
                fields = {"received": event.received, "sent": event.sent, "error": event.error}
                context.output.event("sync", text, peer=str(event.peer), **fields)


def described(entry: Entry) -> dict[str, object]:
    """An entry for a program: keys that are no UTF-8 carry escapes, ``key_hex`` is exact."""
    return {
        "key": entry.key.decode(errors="backslashreplace"),
        "key_hex": entry.key.hex(),
        "author": str(entry.author),
        "hash": str(entry.hash),
        "size": entry.size,
        "timestamp": entry.timestamp,
    }


def _row(entry: Entry) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.timestamp / 1e6))
    key = printable(entry.key.decode(errors="replace"))
    return f"{entry.size:>12}  {when}  {entry.author.short()}  {key}"
