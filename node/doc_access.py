"""``tidings doc shares``, ``revoke`` and ``restrict``: who may read a document. And the tickets of ``doc share``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ..docs_sync import Doc, DocTicket
from ..errors import UsageError
from ..transport import EndpointId
from .command import run

__all__ = ["list_shares", "restrict", "revoke", "through", "ticket_of"]

DocId = Annotated[str, typer.Argument(metavar="DOC", help="Id of the document.")]

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


async def ticket_of(document: Doc, *, write: bool, carry: bool, reader: str | None, expires: str | None) -> DocTicket:
    """What ``doc share`` prints. A share is made where it is asked for, and where reading takes one."""
    if (write or carry) and (reader is not None or expires is not None):
        raise UsageError("--reader and --expires are for reading: who may write, or carries, cannot be limited")
    if write and carry:
        raise UsageError("a peer that carries the document needs no right to write: leave out --write or --carry")
    if carry:
        return document.ticket().iroh()
    needs_share = reader is not None or expires is not None or (document.can_write and await document.is_restricted())
    if write or not needs_share:
        return document.ticket(write=write)
    who = None if reader is None else EndpointId.parse(reader)
    return await document.share(who, expires=None if expires is None else parse_expiry(expires))


def through(ticket: DocTicket, other: DocTicket) -> DocTicket:
    """What ``ticket`` lets do, at the nodes of ``other``, which may be a Rust peer's. Raises UsageError."""
    if ticket.id != other.id:
        raise UsageError("the two tickets are of different documents: give two of the same")
    return ticket.at(*other.nodes)


def parse_expiry(text: str) -> timedelta | datetime:
    """``90m``, ``12h``, ``7d``, or a date with its time. Raises UsageError."""
    if match := re.fullmatch(r"(\d{1,6})([smhdw])", text):
        return timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: give 90m, 12h, 7d, or a date such as 2027-01-31T12:00Z") from None
    return when if when.tzinfo is not None else when.astimezone()


def list_shares(context: typer.Context, doc: DocId) -> None:
    """Print the shares that this node has issued, until they expire."""

    async def command() -> None:
        async with context.obj.open_node() as node:
            document = await node.docs.open(doc)
            for share in await document.shares():
                reader = "whoever has the ticket" if share.reader is None else str(share.reader)
                until = "for ever" if share.expires is None else f"until {_shown(share.expires)}"
                state = "revoked" if share.revoked else until
                context.obj.output.result(
                    f"{share.id.hex()}  {state}  {reader}",
                    id=share.id.hex(),
                    reader=None if share.reader is None else str(share.reader),
                    issued=_shown(share.issued),
                    expires=None if share.expires is None else _shown(share.expires),
                    revoked=share.revoked,
                )

    run(command)


def revoke(
    context: typer.Context,
    doc: DocId,
    share: Annotated[str, typer.Argument(help="Id of the share, from 'tidings doc shares'.")],
) -> None:
    """End a share. Other nodes hear of it when they sync; what its holder has read it keeps."""

    async def command() -> None:
        async with context.obj.open_node() as node:
            await (await node.docs.open(doc)).revoke(share)
            context.obj.output.result("revoked", revoked=share)

    run(command)


def restrict(
    context: typer.Context,
    doc: DocId,
    off: Annotated[bool, typer.Option("--off", help="Answer everybody who knows the id again.")] = False,
) -> None:
    """Answer only to who holds the document's secret or a share, on all nodes that hear of it."""

    async def command() -> None:
        async with context.obj.open_node() as node:
            await (await node.docs.open(doc)).restrict(not off)
            context.obj.output.result("open to all" if off else "restricted", restricted=not off)

    run(command)


def _shown(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
