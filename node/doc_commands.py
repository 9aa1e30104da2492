"""``tidings doc``: documents from the shell. Keys and values are the bytes of the command line, UTF-8 or not."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer

from ..docs_sync import (
    AuthorId,
    CaughtUp,
    Changed,
    Doc,
    DocTicket,
    Entry,
    InsertLocal,
    InsertRemote,
    InsertShared,
    Present,
)
from ..docs_sync.errors import SyncTimeout
from ..errors import UsageError
from .command import Context, run
from .doc_access import list_shares, restrict, revoke, through, ticket_of
from .doc_contents import download_policy, list_contents
from .doc_output import described, row, tell, when
from .doc_transfer import export_document, import_document
from .output import Output

__all__ = ["app"]

app = typer.Typer(help="Documents: replicated maps from keys to contents.", no_args_is_help=True)
app.command("export")(export_document)
app.command("import")(import_document)
app.command("shares")(list_shares)
app.command("policy")(download_policy)
app.command("contents")(list_contents)
app.command()(revoke)
app.command()(restrict)

CONTENT_TIMEOUT = 30.0  # seconds until a peer answers
SLOWEST = 250_000  # bytes a second: a large content is given the time that it takes at this rate

DocId = Annotated[str, typer.Argument(metavar="DOC", help="Id of the document.")]
Key = Annotated[str, typer.Argument(help="Key, as text.")]
Prefix = Annotated[str, typer.Option(help="Only keys that start with this text.")]


class Sort(StrEnum):
    KEY = "key"
    AUTHOR = "author"


@asynccontextmanager
async def opened(context: Context, id: str) -> AsyncIterator[Doc]:
    async with context.open_node() as node:
        yield await node.docs.open(id)


@app.command()
def new(
    context: typer.Context,
    encrypted: Annotated[bool, typer.Option("--encrypted", help="Only who gets a ticket can read it.")] = False,
    restricted: Annotated[bool, typer.Option("--restricted", help="Answer only to who holds a share.")] = False,
) -> None:
    """Make a document and print its id."""

    async def command() -> None:
        async with context.obj.open_node() as node:
            doc = await node.docs.create(encrypted=encrypted, restricted=restricted)
            context.obj.output.result(str(doc.id), id=str(doc.id))

    run(command)


@app.command("list")
def list_documents(context: typer.Context) -> None:
    """Print the documents of this node."""

    async def command() -> None:
        async with context.obj.open_node() as node:
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
        async with context.obj.open_node() as node:
            document = await node.docs.open(doc)
            if value.startswith("@"):
                entry = await document.set_path(os.fsencode(key), value[1:])
            else:
                data = await asyncio.to_thread(sys.stdin.buffer.read) if value == "-" else os.fsencode(value)
                entry = await document.set(os.fsencode(key), data)
            context.obj.output.result(f"{entry.hash}  {entry.size} bytes", **described(entry))

    run(command)


@app.command()
def get(
    context: typer.Context,
    doc: DocId,
    key: Key,
    hash: Annotated[str, typer.Option(help="The version whose hash begins like this, of now or of the history.")] = "",
) -> None:
    """Write the newest value at a key to standard output; with --json, what the entry says instead."""

    async def command() -> None:
        async with opened(context.obj, doc) as document:
            entry = await _version(document, os.fsencode(key), hash)
            if entry is None:
                sys.stderr.write(f"tidings: there is nothing at {key!r}\n")
                raise typer.Exit(1)
            if context.obj.output.as_json:
                context.obj.output.line(described(entry))
            else:
                async for piece in entry.pieces(CONTENT_TIMEOUT + entry.size / SLOWEST):
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()

    run(command)


async def _version(document: Doc, key: bytes, hash: str) -> Entry | None:
    """The newest entry at ``key`` whose hash begins with ``hash``."""
    if not hash:
        return await document.get(key)
    async for entry in document.entries(key=key):
        if str(entry.hash).startswith(hash):
            return entry
    async for old in document.history(key):
        if not old.entry.is_tombstone and str(old.entry.hash).startswith(hash):
            return old.entry
    return None


@app.command()
def ls(
    context: typer.Context,
    doc: DocId,
    prefix: Prefix = "",
    author: Annotated[str | None, typer.Option(metavar="ID", help="Only this author's entries.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="Only the newest entry of each key.")] = False,
    sort: Annotated[Sort, typer.Option(help="By key and author, or by author and key.")] = Sort.KEY,
    descending: Annotated[bool, typer.Option("--descending", help="The last one first.")] = False,
    limit: Annotated[int | None, typer.Option(help="At most so many.", min=0)] = None,
    offset: Annotated[int, typer.Option(help="Without the first so many.", min=0)] = 0,
    tombstones: Annotated[bool, typer.Option("--tombstones", help="Deletions, too.")] = False,
) -> None:
    """Print entries: size, time, author and key."""
    who = None if author is None else AuthorId.parse(author)

    async def command() -> None:
        async with opened(context.obj, doc) as document:
            found = document.entries(
                prefix=os.fsencode(prefix),
                author=who,
                sort=sort.value,
                descending=descending,
                newest=newest,
                limit=limit,
                offset=offset,
                tombstones=tombstones,
            )
            async for entry in found:
                context.obj.output.result(row(entry), **described(entry))

    run(command)


@app.command()
def history(
    context: typer.Context,
    doc: DocId,
    key: Annotated[str | None, typer.Argument(help="Key, as text.")] = None,
    keep: Annotated[float | None, typer.Option(metavar="DAYS", help="Keep what is superseded for this long.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Keep nothing, and delete what is kept.")] = False,
) -> None:
    """Print what was at a key before, the newest first, and until when. Nothing is kept unless --keep was given."""
    if off and keep is not None:
        raise UsageError("history is kept or it is off: give --keep or --off")
    if key is None and keep is None and not off:
        raise UsageError("give a key, --keep or --off")
    try:
        period = None if keep is None else timedelta(days=keep)
    except (OverflowError, ValueError):
        raise UsageError("nobody keeps anything for so many days: give fewer") from None

    async def command() -> None:
        async with opened(context.obj, doc) as document:
            if off or period is not None:
                await document.keep_history(period)
            if key is None:
                return
            async for old in document.history(os.fsencode(key)):
                text = f"{row(old.entry)}  until {when(old.until)}  {old.entry.hash.short()}"
                context.obj.output.result(text, **described(old.entry), until=old.until)

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
def watch(
    context: typer.Context,
    doc: DocId,
    prefix: Prefix = "",
    since: Annotated[int | None, typer.Option(metavar="CURSOR", help="Go on behind this cursor of before.")] = None,
) -> None:
    """Take part in the document; print what is there and then changes as they come, until Ctrl-C."""

    async def command() -> None:
        async with opened(context.obj, doc) as document, asyncio.TaskGroup() as tasks:
            tasks.create_task(_tell_others(context.obj.output, document))
            async for event in document.watch(os.fsencode(prefix), since=since):
                match event:
                    case Present(entry):
                        context.obj.output.event("present", f"is   {row(entry)}", **described(entry))
                    case Changed(entry, cursor):
                        _tell_entry(context.obj.output, entry, cursor=cursor)
                    case CaughtUp(cursor):
                        context.obj.output.event("caught-up", f"up to {cursor}; now what changes", cursor=cursor)

    run(command)


@app.command()
def status(
    context: typer.Context,
    doc: DocId,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a sync with any peer.", min=0)] = 3.0,
) -> None:
    """Sync once, then print how many entries there are and how the document stands with each peer."""

    async def command() -> None:
        async with opened(context.obj, doc) as document:
            why = None
            try:
                await document.synced(timeout=timeout)
            except SyncTimeout as error:
                why = str(error)
            found = await document.status()
            peers = [
                {
                    "peer": str(peer.peer),
                    "state": peer.state,
                    "neighbor": peer.is_neighbor,
                    "received": peer.received,
                    "sent": peer.sent,
                    "synced_at": peer.synced_at,
                    "error": peer.error,
                }
                for peer in found.peers
            ]
            lines = [f"{found.entries} entries, deletions included; fingerprint {found.fingerprint[:16]}"]
            for peer in found.peers:
                how = "never synced" if peer.synced_at is None else f"synced {when(round(peer.synced_at * 1e6))}"
                lines.append(f"{peer.peer.short()}  {how}" + (f"  {peer.error}" if peer.error else ""))
            if why is not None:
                lines.append(f"not synced now: {why}")
            context.obj.output.result(
                "\n".join(lines), entries=found.entries, fingerprint=found.fingerprint, peers=peers, error=why
            )

    run(command)


@app.command()
def share(
    context: typer.Context,
    doc: DocId,
    write: Annotated[bool, typer.Option("--write", help="Let others change the document.")] = False,
    reader: Annotated[str | None, typer.Option(metavar="ID", help="Let this node alone read.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Until then: 12h, 7d, or a date.")] = None,
    carry: Annotated[bool, typer.Option("--carry", help="Without the key: iroh's ticket.")] = False,
) -> None:
    """Print a ticket and serve the document until Ctrl-C: others join while this runs."""

    async def command() -> None:
        async with opened(context.obj, doc) as document:
            made = await ticket_of(document, write=write, carry=carry, reader=reader, expires=expires)
            ticket, grant = str(made), made.grant
            context.obj.output.event(
                "ticket", ticket, ticket=ticket, **({} if grant is None else {"share": grant.share.id.hex()})
            )
            async for event in document.events():
                if isinstance(event, InsertLocal | InsertRemote | InsertShared):
                    _tell_entry(context.obj.output, event.entry)
                else:
                    tell(context.obj.output, event)

    run(command)


@app.command()
def join(
    context: typer.Context,
    ticket: Annotated[str, typer.Argument(help="From 'tidings doc share'.")],
    prefix: Annotated[str | None, typer.Option(help="Hold only the keys that start with this text.")] = None,
    via: Annotated[str | None, typer.Option(metavar="TICKET", help="Another ticket of it: go to those nodes.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the first sync.")] = 30.0,
) -> None:
    """Get a document, or a part of it, with its contents from the peers of a ticket, print its id, and end."""

    async def command() -> None:
        parsed = DocTicket.parse(ticket)
        if via is not None:
            parsed = through(parsed, DocTicket.parse(via))
        async with context.obj.open_node() as node:
            part = None if prefix is None else os.fsencode(prefix)
            document = await node.docs.join(parsed, prefix=part, timeout=timeout)
            entries = [entry async for entry in document.entries(newest=True)]
            for entry in entries:
                await entry.arrival(timeout + entry.size / SLOWEST)
            context.obj.output.result(f"{document.id}  {len(entries)} keys", id=str(document.id), keys=len(entries))

    run(command)


async def _tell_others(output: Output, document: Doc) -> None:
    async for event in document.events():
        tell(output, event)


def _tell_entry(output: Output, entry: Entry, **fields: object) -> None:
    what = "delete" if entry.is_tombstone else "set"
    output.event(what, f"{what}  {row(entry)}", **described(entry), **fields)
