"""``tidings sync``: a folder and a document kept the same, told as it goes."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from rich.status import Status

from ..docs_sync import Doc, DocTicket
from ..docs_sync.errors import EncryptedDocument, ReadOnly, SyncTimeout
from ..errors import UsageError
from .command import Context
from .folders import bind_folder, folder_document
from .mirror import Mirror, MirrorEvent
from .mirror_scan import prepare_folder
from .node import Node
from .output import Output, printable

__all__ = ["sync_folder"]

WORDS = {
    "sent": "sent      {path}",
    "received": "received  {path}",
    "deleted-there": "deleted there  {path}",
    "deleted-here": "deleted here   {path}",
    "conflict": "conflict  {path}: the other version is kept as {note}",
    "skipped": "skipped   {note}",
    "failed": "failed    {note}",
}
JOIN_TIMEOUT = 10.0  # seconds until we go on without the peers of the ticket


async def sync_folder(context: Context, folder: Path, ticket: str | None) -> None:
    """Runs until it is cancelled."""
    parsed = None if ticket is None else DocTicket.parse(ticket)
    async with context.open_node() as node:
        doc = await _document(context, node, folder, parsed)
        text = str(doc.ticket(write=True))
        context.output.event(
            "started",
            f"{folder} and document {doc.id.short()}. Others join with:\n\n  tidings sync DIR {text}\n",
            id=str(node.id),
            document=str(doc.id),
            ticket=text,
        )
        with ExitStack() as stack:
            teller = Teller(context.output, stack)
            mirror = Mirror(
                folder, doc, node.blobs, node.database, author=await node.docs.default_author(), report=teller.tell
            )
            await mirror.run()


async def _document(context: Context, node: Node, folder: Path, ticket: DocTicket | None) -> Doc:
    known = await asyncio.to_thread(folder_document, context.directory, folder)
    if known is None:  # a folder that cannot be used gets no document
        await asyncio.to_thread(prepare_folder, folder, known=False)
    if ticket is None:
        doc = await node.docs.create() if known is None else await node.docs.open(known)
    else:
        if known not in (None, str(ticket.id)):
            raise UsageError(
                f"{folder} is kept the same with another document, {known}: take another folder for this ticket"
            )
        try:
            doc = await node.docs.join(ticket, timeout=JOIN_TIMEOUT)
        except SyncTimeout as error:
            context.output.event("offline", f"going on alone: {error}", reason=str(error))
            doc = await node.docs.open(ticket.id)
        if not doc.can_write:
            raise ReadOnly(f"{folder} cannot be synced both ways with a ticket to read: ask for one with --write")
    if doc.is_encrypted:
        raise EncryptedDocument(f"{folder} cannot be synced with an encrypted document: import and export it instead")
    await asyncio.to_thread(bind_folder, context.directory, folder, str(doc.id))
    return doc


class Teller:
    """Prints what the mirror does: a line for each change, and while much is done at once, a running count."""

    def __init__(self, output: Output, stack: ExitStack) -> None:
        self._output = output
        self._counts: Counter[str] = Counter()
        self._bytes = 0
        self._status: Status | None = None
        if not output.as_json and output.console.is_terminal:
            self._status = stack.enter_context(output.console.status("looking at the folder"))

    def tell(self, event: MirrorEvent) -> None:
        if event.kind == "in-sync":
            self._output.event("in-sync", f"in sync: {event.size} files", files=event.size)
            self._counts.clear()
            self._bytes = 0
        else:
            self._counts[event.kind] += 1
            self._bytes += event.size
            text = printable(WORDS[event.kind].format(path=event.path, note=event.note))
            self._output.event(event.kind, text, path=event.path, size=event.size, note=event.note)
        if self._status is not None:
            done = ", ".join(f"{count} {kind}" for kind, count in self._counts.items())
            self._status.update(f"{done}, {self._bytes / 1e6:,.1f} MB" if done else "in sync; watching for changes")
