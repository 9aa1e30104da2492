"""Tickets: one line of text that carries what a program needs to reach something.

A ticket is its kind in letters, then base32 (lower case, no padding) of a postcard value that starts with the format
version ``00`` (``reference/iroh-transport.md`` 2f). This module knows the text and the ``endpoint`` kind; documents
and blobs bring their own payloads.
"""

from __future__ import annotations

from dataclasses import dataclass

from .addr import EndpointAddr
from .errors import DecodeError, InvalidTicket
from .postcard import Reader, Writer
from .text import decode_base32, encode_base32

__all__ = ["EndpointTicket", "decode_ticket", "encode_ticket"]

KINDS = ("endpoint", "doc", "tdoc", "blob")
MAX_TICKET = 16_384  # characters; a ticket with a dozen addresses has some hundreds


def encode_ticket(kind: str, payload: Writer) -> str:
    return kind + encode_base32(b"\0" + payload.finish())


def decode_ticket(kind: str, text: str) -> Reader:
    """The payload after the version byte; the caller reads it to its end and turns DecodeError into InvalidTicket."""
    text = text.strip()
    if not text:
        raise InvalidTicket(f"the ticket is empty: paste the line that starts with {kind!r}")
    if len(text) > MAX_TICKET:
        raise InvalidTicket(f"a ticket of {len(text)} characters is too long to be one")
    if not text.lower().startswith(kind):
        other = next((k for k in KINDS if text.lower().startswith(k)), None)
        what = f"this is a ticket for a {other!r}" if other else "this is not a ticket"
        raise InvalidTicket(f"{what}: one that starts with {kind!r} is needed here")
    try:
        data = decode_base32(text[len(kind) :])
    except ValueError as error:
        raise InvalidTicket(damaged(kind)) from error
    if data[:1] != b"\0":
        raise InvalidTicket(f"this {kind!r} ticket has a version that tidings does not know, or it is damaged")
    return Reader(data[1:])


def damaged(kind: str) -> str:
    return f"this {kind!r} ticket is damaged: copy the whole line again, without line breaks"


@dataclass(frozen=True, slots=True)
class EndpointTicket:
    """How to reach an endpoint. ``str(ticket)`` is iroh's ``endpoint...`` text."""

    addr: EndpointAddr

    def __str__(self) -> str:
        out = Writer()
        self.addr.write(out)
        return encode_ticket("endpoint", out)

    @classmethod
    def parse(cls, text: str) -> EndpointTicket:
        """InvalidTicket for anything that is not one, whole and undamaged."""
        data = decode_ticket("endpoint", text)
        try:
            addr = EndpointAddr.read(data)
            data.end()
        except DecodeError as error:
            raise InvalidTicket(damaged("endpoint")) from error
        if not addr.id.is_point():
            raise InvalidTicket(damaged("endpoint"))
        return cls(addr)
