"""``tidings doc export`` and ``tidings doc import``: documents out of and into JSON Lines and folders."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..docs_sync import AuthorId, Copied, FileCopied
from ..errors import UsageError
from .command import Context, run
from .output import printable

__all__ = ["export_document", "import_document"]

Prefix = Annotated[str, typer.Option(help="Only keys that start with this text; files are named without it.")]


def export_document(
    context: typer.Context,
    doc: Annotated[str, typer.Argument(metavar="DOC", help="Id of the document.")],
    place: Annotated[str, typer.Argument(help="File to write, JSON Lines ('-': standard output); with --folder, DIR.")],
    folder: Annotated[bool, typer.Option("--folder", help="Write a folder, a file for each key.")] = False,
    prefix: Prefix = "",
    author: Annotated[str | None, typer.Option(metavar="ID", help="Only this author's entries.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="Only the newest entry of each key.")] = False,
    tombstones: Annotated[bool, typer.Option("--tombstones", help="Deletions, too.")] = False,
    signatures: Annotated[
        bool, typer.Option("--signatures", help="So that the same document takes the entries back as they are.")
    ] = False,
    no_contents: Annotated[bool, typer.Option("--no-contents", help="Only hash and size of each content.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace files that are in the folder already.")] = False,
) -> None:
    """Write entries to a file as JSON Lines, or to a folder."""
    who = None if author is None else AuthorId.parse(author)
    if folder and (tombstones or signatures or no_contents):
        raise UsageError("a folder has no room for deletions and signatures: leave out --folder, or those options")
    if replace and not folder:
        raise UsageError("--replace is for --folder: a file of JSON Lines is always replaced")
    below = os.fsencode(prefix)

    async def command() -> None:
        output = context.obj.output
        async with context.obj.open_node() as node:
            document = await node.docs.open(doc)
            with counting("entries exported") as count:
                if folder:
                    teller = Teller(context.obj, count)
                    copied = await document.export_folder(
                        Path(place), prefix=below, author=who, replace=replace, on_file=teller.tell
                    )
                else:
                    done = await document.export_jsonl(
                        sys.stdout.buffer if place == "-" else Path(place),
                        prefix=below,
                        author=who,
                        newest=newest,
                        tombstones=tombstones,
                        contents=not no_contents,
                        signatures=signatures,
                        progress=count,
                    )
            if folder:
                _tell_copied(context.obj, copied)
            elif place != "-":
                text = f"{done.entries} entries"
                if done.named:
                    text += f", {done.named} of them without their content"
                output.result(text, entries=done.entries, named=done.named)

    run(command)


def import_document(
    context: typer.Context,
    doc: Annotated[str, typer.Argument(metavar="DOC", help="Id of the document.")],
    place: Annotated[str, typer.Argument(help="File of JSON Lines ('-': standard input), or a folder.")],
    prefix: Annotated[str, typer.Option(help="For a folder: what comes before the names of the files.")] = "",
    author: Annotated[str | None, typer.Option(metavar="ID", help="In whose name; an author of this node.")] = None,
    tombstones: Annotated[
        bool, typer.Option("--tombstones", help="Delete what unsigned lines say is deleted, too.")
    ] = False,
) -> None:
    """Store the lines of a file or the files of a folder, many in each transaction."""
    who = None if author is None else AuthorId.parse(author)

    async def command() -> None:
        is_folder = place != "-" and await asyncio.to_thread(Path(place).is_dir)
        if prefix and not is_folder:
            raise UsageError("--prefix is for a folder: lines have whole keys")
        async with context.obj.open_node() as node:
            document = await node.docs.open(doc)
            with counting("imported") as count:
                if is_folder:
                    teller = Teller(context.obj, count)
                    copied = await document.import_folder(
                        Path(place), prefix=os.fsencode(prefix), author=who, on_file=teller.tell
                    )
                else:
                    source = sys.stdin.buffer if place == "-" else Path(place)
                    done = await document.import_jsonl(source, author=who, tombstones=tombstones, progress=count)
            if is_folder:
                _tell_copied(context.obj, copied)
                return
            counts = {"written": done.written, "kept": done.kept, "known": done.known, "skipped": done.skipped}
            text = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "written")
            context.obj.output.result(text, lines=done.lines, **counts)

    run(command)


class Teller:
    """Says which files are left out, and counts."""

    def __init__(self, context: Context, count: Callable[[int], object]) -> None:
        self._output = context.output
        self._count = count
        self._files = 0

    def tell(self, file: FileCopied) -> None:
        self._files += 1
        self._count(self._files)
        if file.skipped is not None:
            text = printable(f"skipped   {file.skipped}")
            self._output.event("skipped", text, path=file.path, size=0, note=file.skipped)


def _tell_copied(context: Context, copied: Copied) -> None:
    text = f"{copied.files} files, {copied.bytes} bytes"
    if copied.skipped:
        text += f", {copied.skipped} left out"
    context.output.result(text, files=copied.files, bytes=copied.bytes, skipped=copied.skipped)


@contextmanager
def counting(words: str) -> Iterator[Callable[[int], object]]:
    """A running count on standard error, where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda count: None
        return
    with console.status(words) as status:
        yield lambda count: status.update(f"{count:,} {words}")
