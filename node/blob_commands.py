"""``tidings blob``: content by its hash from the shell."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from ..blobs import FileExists, Hash
from ..blobs import Progress as Report
from ..errors import UsageError
from .command import Context, run
from .output import Output, printable

__all__ = ["app"]

app = typer.Typer(help="Blobs: content by its hash, fetched from peers and verified.", no_args_is_help=True)

HashText = Annotated[str, typer.Argument(metavar="HASH", help="Hash of the blob.")]


@contextmanager
def shown(output: Output) -> Iterator[Report | None]:
    """A bar with rate and time left, where somebody looks."""
    if output.as_json or not output.console.is_terminal:
        yield None
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.console, transient=True) as bars:
        bar = bars.add_task("", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


@app.command()
def add(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A file.")],
    tag: Annotated[str | None, typer.Option(help="A name that keeps it; else one is made of the time.")] = None,
    refer: Annotated[bool, typer.Option("--refer", help="Leave the file where it is, and never change it.")] = False,
) -> None:
    """Copy a file into the store, or refer to it, and print its hash."""

    async def command() -> None:
        common: Context = context.obj
        async with common.open_node() as node:
            with shown(common.output) as progress:
                info = await node.blobs.add_path(path, progress=progress, tag=tag or True, refer=refer)
            common.output.result(str(info.hash), hash=str(info.hash), size=info.size)

    run(command)


@app.command()
def get(
    context: typer.Context,
    ticket: Annotated[str, typer.Argument(help="A blob's ticket, or the hash of one that is here.")],
    path: Annotated[Path | None, typer.Argument(help="Where to write it; else it goes to standard output.")] = None,
) -> None:
    """Fetch a blob, and write it to a file or to standard output. The store keeps it for an hour."""

    async def command() -> None:
        common: Context = context.obj
        async with common.open_node() as node:
            with shown(common.output) as progress:
                info = await node.blobs.fetch(ticket, progress=progress, tag=False)
            if path is not None:
                await node.blobs.export(info.hash, path)
                common.output.result(f"{path}: {info.size} bytes", hash=str(info.hash), size=info.size)
            else:
                async with await node.blobs.reader(info.hash) as reader:
                    async for piece in reader:
                        sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()

    run(command)


@app.command("ls")
def list_blobs(context: typer.Context) -> None:
    """List the blobs that are here: hash and size."""

    async def command() -> None:
        common: Context = context.obj
        async with common.open_node() as node:
            for info in await node.blobs.list():
                common.output.result(f"{info.hash}  {info.size:>12}", hash=str(info.hash), size=info.size)

    run(command)


@app.command("tag")
def tag_blob(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A name.")] = None,
    hash: Annotated[str | None, typer.Argument(help="What it is to name.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the name away.")] = False,
) -> None:
    """Name a blob, which keeps it; without a name, list the tags."""

    async def command() -> None:
        common: Context = context.obj
        async with common.open_node() as node:
            tags = node.blobs.tags
            if name is None:
                for tag in await tags.list():
                    text = f"{tag.hash}  {printable(tag.name)}"
                    common.output.result(text, name=tag.name, hash=str(tag.hash), format=tag.format.name)
            elif remove:
                if not await tags.delete(name):
                    raise UsageError(f"there is no tag {name!r}: `tidings blob tag` lists them")
            elif hash is None:
                raise UsageError("say which blob the name is for: tidings blob tag NAME HASH")
            else:
                await tags.set(name, Hash.parse(hash))

    run(command)


@app.command("verify")
def verify_blobs(context: typer.Context) -> None:
    """Look at every byte that is stored, and name the blobs that are damaged: `get` fetches what is bad of them."""

    async def command() -> None:
        common: Context = context.obj
        count = damaged = 0
        async with common.open_node() as node:
            async for checked in node.blobs.verify():
                count += 1
                if checked.bad:
                    damaged += 1
                    text = f"{checked.hash}  {checked.bad} of {checked.size} bytes are bad"
                    common.output.result(text, hash=str(checked.hash), size=checked.size, bad=checked.bad)
        if damaged:
            raise typer.Exit(1)
        if not common.output.as_json:
            common.output.result(f"{count} blobs are what their hashes say")

    run(command)


@app.command()
def export(
    context: typer.Context,
    hash: HashText,
    path: Annotated[Path, typer.Argument(help="Where to write it; of a collection, the folder.")],
    folder: Annotated[bool, typer.Option("--folder", help="It is a collection: write its files below PATH.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a blob that is here to a file, or a collection to a folder."""
    is_there = path.exists()

    async def command() -> None:
        common: Context = context.obj
        async with common.open_node() as node:
            if folder:
                collection = await node.blobs.export_collection(hash, path, overwrite=overwrite)
                common.output.result(f"{path}: {len(collection)} files", hash=hash, files=len(collection))
                return
            if is_there and not overwrite:
                raise FileExists(f"{path} is there: choose another name, or say --overwrite")
            await node.blobs.export(hash, path)
            size = await node.blobs.size(hash)
            common.output.result(f"{path}: {size} bytes", hash=hash, size=size)

    run(command)


@app.command("gc")
def collect(
    context: typer.Context,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for which what came lately is kept.")] = 3600.0,
) -> None:
    """Remove the blobs that no tag and no document keeps."""

    async def command() -> None:
        common: Context = context.obj
        async with common.open_node() as node:
            gone = await node.blobs.collect(grace=grace)
            common.output.result(f"{gone.blobs} blobs, {gone.bytes} bytes", blobs=gone.blobs, bytes=gone.bytes)

    run(command)
