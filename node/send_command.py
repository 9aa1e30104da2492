"""``tidings send`` and ``tidings receive``: files and folders from one machine to another, as a collection."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ..blobs import BlobFormat, Blobs, BlobTicket, SequenceProgress
from ..blobs import Progress as Report
from ..blobs.hash import HASH_SIZE
from ..errors import UsageError
from .command import Context
from .output import Output
from .serving import catch_end

__all__ = ["receive", "send"]

FEW_FILES = 256


async def send(common: Context, path: Path, qr: bool) -> None:
    """Print the ticket of what is at ``path``, and serve it, from where it is, until the command is ended."""
    is_folder = await asyncio.to_thread(path.is_dir)
    async with common.open_node() as node:
        blobs, output = node.blobs, common.output
        told = catch_end()
        if not path.name:
            raise UsageError(f"{path} has no name: send a file or a folder in it")
        if is_folder:
            with _counted(output, "files read") as progress:
                info = await blobs.add_folder(path, progress=progress, tag=False, below=path.name, refer=True)
        else:
            with _measured(output) as report:
                content = await blobs.add_path(path, progress=report, tag=False, refer=True)
            info = await blobs.add_collection([(path.name, content.hash)], tag=False)
        async with blobs.hold(info.hash):
            count = len(await blobs.collection(info.hash))
            ticket = str(blobs.ticket(info.hash, BlobFormat.HASH_SEQ))
            output.result(f"tidings receive {ticket}", ticket=ticket, hash=str(info.hash), files=count)
            if qr and output.console.is_terminal and not output.as_json:
                output.console.print(_qr(ticket), highlight=False, soft_wrap=True)
            output.event("serving", f"{count} files can be received until Ctrl-C", files=count)
            await told.wait()
            output.event("served", f"{blobs.served.bytes_sent} bytes were sent", bytes=blobs.served.bytes_sent)


async def receive(common: Context, ticket: BlobTicket, folder: Path, overwrite: bool) -> None:
    """Fetch what a ticket names, and write it below ``folder``. What came already is not fetched again."""
    async with common.open_node() as node:
        blobs, output = node.blobs, common.output
        begun = time.monotonic()
        if ticket.format is BlobFormat.RAW:
            raise UsageError("this is the ticket of a single blob without a name: tidings blob get TICKET FILE")
        total = await _bytes_to_come(blobs, ticket)
        with _counted(output, "files received", total) as progress:
            collection = await blobs.fetch_collection(ticket, progress=progress, tag=False)
        async with blobs.hold(ticket.hash):
            await blobs.tags.set(f"received/{ticket.hash}", ticket.hash, BlobFormat.HASH_SEQ)
            with _counted(output, "files written") as progress:
                await blobs.export_collection(ticket.hash, folder, overwrite=overwrite, progress=progress)
            await blobs.tags.delete(f"received/{ticket.hash}")
        seconds = time.monotonic() - begun
        output.result(
            f"{len(collection)} files in {folder}, {seconds:.1f} s",
            files=len(collection),
            folder=str(folder),
            names=[name for name, _ in collection],
        )


async def _bytes_to_come(blobs: Blobs, ticket: BlobTicket) -> int | None:
    """Where it costs little: for many small files their sizes are as large as they."""
    await blobs.fetch(replace(ticket, format=BlobFormat.RAW), tag=False)
    if (await blobs.size(ticket.hash) or 0) > FEW_FILES * HASH_SIZE:
        return None
    files = {info.hash: info.size for _, info in await blobs.sizes(ticket)}
    return sum([size for hash, size in files.items() if not await blobs.has(hash)])


@contextmanager
def _measured(output: Output) -> Iterator[Report | None]:
    """A bar of bytes with rate and time left, where somebody looks."""
    if output.as_json or not output.console.is_terminal:
        yield None
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.console, transient=True) as bars:
        bar = bars.add_task("", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


@contextmanager
def _counted(
    output: Output, what: str, total: int | None = None
) -> Iterator[Callable[[SequenceProgress], object] | None]:
    """A bar of files, with the bytes and their rate; or of ``total`` bytes."""
    if output.as_json or not output.console.is_terminal:
        yield None
        return
    if total is not None:
        with _measured(output) as report:
            yield lambda progress: report and report(progress.bytes_done, max(total, progress.bytes_done))
        return
    begun = time.monotonic()
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[bytes]}"))
    with Progress(*columns, TimeRemainingColumn(), console=output.console, transient=True) as bars:
        bar = bars.add_task("", total=None, bytes="")

        def show(progress: SequenceProgress) -> None:
            megabytes = progress.bytes_done / 1e6
            rate = megabytes / max(time.monotonic() - begun, 1e-3)
            text = f"{megabytes:.1f} MB, {rate:.1f} MB/s"
            bars.update(bar, completed=progress.blobs_done, total=progress.blobs, bytes=text)

        yield show


def _qr(text: str) -> str:
    import segno

    out = io.StringIO()
    segno.make(text, micro=False).terminal(out=out, compact=True)
    return out.getvalue()
