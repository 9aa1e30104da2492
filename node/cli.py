"""The command ``tidings``.

Every command opens the node in ``--node`` (or $TIDINGS_NODE, or the user's data directory), which one process may use
at a time. ``--json`` prints one JSON object a line. Errors go to standard error as one sentence; the exit status is 1
for a failure, 2 for a wrong call.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from ..errors import TidingsError
from ..transport.endpoint import ANY
from .command import Context, run
from .output import Output

__all__ = ["app", "main", "whole"]

app = typer.Typer(
    name="tidings",
    help="Gossip, documents and blobs between devices that dial each other by public key.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    context: typer.Context,
    node: Annotated[
        Path | None, typer.Option(help="Directory of the node.", envvar="TIDINGS_NODE", show_default="user data")
    ] = None,
    bind: Annotated[
        list[str] | None, typer.Option(help="Address and port to listen on, such as 127.0.0.1:0; once a family.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            help="URL of a PostgreSQL database, postgresql+psycopg://user@host/database, that nodes share.",
            envvar="TIDINGS_DATABASE",
            show_default="a file in the node's directory",
        ),
    ] = None,
    blobs: Annotated[
        Path | None,
        typer.Option(
            help="Folder of large contents, which nodes of one database share.",
            envvar="TIDINGS_BLOBS",
            show_default="in the node's directory",
        ),
    ] = None,
    relay: Annotated[
        list[str] | None,
        typer.Option(help="URL of a relay, such as https://relay.example; several times.", envvar="TIDINGS_RELAYS"),
    ] = None,
    lookup: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to find peers and be found: https://.../pkarr, dns:ZONE, local; several times.",
            envvar="TIDINGS_LOOKUP",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log to standard error.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(asctime)s %(name)s: %(message)s")
    directory = node or platformdirs.user_data_path("tidings")
    context.obj = Context(
        directory, tuple(bind or ANY), Output(json), database, blobs, tuple(relay or ()), tuple(lookup or ())
    )


@app.command()
def id(context: typer.Context) -> None:
    """Print this node's id: the key that others dial."""

    async def command() -> None:
        async with context.obj.open_node() as node:
            context.obj.output.result(str(node.id), id=str(node.id), addresses=[str(a) for a in node.addr().sorted()])

    run(command)


@app.command()
def sync(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to keep the same; made where missing.")],
    ticket: Annotated[str | None, typer.Argument(help="Of the document to join; without it, the folder's own.")] = None,
) -> None:
    """Keep a folder and a document the same, both ways, live, until Ctrl-C. Prints the ticket for others."""
    from .sync_command import sync_folder

    run(lambda: sync_folder(context.obj, folder, ticket))


@app.command()
def chat(
    context: typer.Context,
    room: Annotated[str, typer.Argument(help="Any text: who uses the same is in the same room.")],
    tickets: Annotated[list[str] | None, typer.Argument(metavar="[TICKET]...", help="Of peers in the room.")] = None,
    name: Annotated[str, typer.Option(help="What others see.", envvar="USER")] = "somebody",
) -> None:
    """Talk with everybody in a room; a line typed is a message. Prints the ticket for others."""
    from .chat import talk

    run(lambda: talk(context.obj, room, tickets or [], name))


@app.command()
def send(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A file or a folder.")],
    qr: Annotated[bool, typer.Option(help="Show the ticket as a QR code, too.")] = True,
) -> None:
    """Send a file or a folder: prints the ticket for `tidings receive`, and serves it until Ctrl-C."""
    from .send_command import send

    run(lambda: send(context.obj, path.resolve(), qr))


@app.command()
def receive(
    context: typer.Context,
    ticket: Annotated[str, typer.Argument(help="What `tidings send` printed.")],
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to; made where missing.")] = Path(),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are other ones.")] = False,
) -> None:
    """Receive what somebody sends. Interrupted, the same command goes on where it was."""
    from ..blobs import BlobTicket
    from .send_command import receive

    run(lambda: receive(context.obj, BlobTicket.parse(ticket), folder, overwrite))


@app.command()
def relay(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="TOML file, with the names of the Rust relay's.")] = None,
    listen: Annotated[str | None, typer.Option(help="Without a file: where, plain and for everyone.")] = None,
) -> None:
    """Pass datagrams between endpoints that cannot reach each other, until Ctrl-C. No node is opened."""
    from .relay_command import serve_relay

    run(lambda: serve_relay(context.obj.output, config, listen))


@app.command()
def lookup(
    context: typer.Context,
    listen: Annotated[str, typer.Option(help="Where HTTP is served.")] = "127.0.0.1:8080",
    dns: Annotated[str | None, typer.Option(help="Where DNS is served, by UDP and TCP, such as 0.0.0.0:53.")] = None,
    origin: Annotated[list[str] | None, typer.Option(help="A zone of DNS to answer for; several times.")] = None,
    server: Annotated[list[str] | None, typer.Option(help="Name of a DNS server of the zones (NS).")] = None,
    address: Annotated[list[str] | None, typer.Option(help="IP address of the zones' own name.")] = None,
    database: Annotated[Path | None, typer.Option(help="SQLite file of the packets; without it, memory.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="For HTTPS, with --key.")] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's.")] = None,
    behind_proxy: Annotated[str | None, typer.Option(help="Address of a proxy that names its clients.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Where metrics are served, such as 127.0.0.1:9117.")] = None,
) -> None:
    """Keep what endpoints sign about where they are, and tell it by HTTP and DNS, until Ctrl-C. No node is opened."""
    from .lookup_command import serve_lookup

    run(
        lambda: serve_lookup(
            context.obj.output,
            http=listen,
            dns=dns,
            origins=origin or [],
            servers=server or [],
            addresses=address or [],
            database=database,
            certificate=certificate,
            key=key,
            behind_proxy=behind_proxy,
            metrics=metrics,
        )
    )


@app.command()
def doctor(
    context: typer.Context,
    target: Annotated[str | None, typer.Argument(metavar="[ID|TICKET]", help="A peer to look for, too.")] = None,
) -> None:
    """Say what this network lets endpoints do, what it does not, and what to try. No node is opened."""
    from .doctor_command import diagnose

    async def command() -> None:
        options = context.obj
        if not await diagnose(
            options.output, bind=options.bind, relays=options.relays, lookup=options.lookup, target=target
        ):
            raise typer.Exit(1)

    run(command)


@app.command()
def demo(
    context: typer.Context,
    files: Annotated[int, typer.Option(help="How many files of the Python standard library to sync.", min=10)] = 300,
) -> None:
    """Two real processes on this machine keep a folder the same: through edits, a kill and a restart."""
    from .demo import demonstrate

    run(lambda: demonstrate(context.obj.output, files))


@cache
def whole() -> typer.Typer:
    """The commands with their groups, which take a while to import."""
    from .blob_commands import app as blob_app
    from .doc_commands import app as doc_app

    app.add_typer(doc_app, name="doc")
    app.add_typer(blob_app, name="blob")
    return app


def main() -> None:
    """The entry point of the installed command."""
    try:
        whole()()
    except TidingsError as error:
        sys.stderr.write(f"tidings: {error}\n")
        sys.exit(1)
    except OSError as error:  # of standard output, or of a file that no layer looks after
        sys.stderr.write(f"tidings: {error.filename or 'the output'} cannot be used: {error.strerror or error}\n")
        sys.exit(1)
