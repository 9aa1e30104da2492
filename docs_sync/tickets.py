"""Tickets of documents: what one may do, and who has it (``reference/iroh-protocols.md`` 2.4).

The text is ``doc`` and base32 of ``00 | capability | addresses``. A write ticket contains the document's secret: it is
shown by ``str()`` alone, never by ``repr()``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..transport.addr import EndpointAddr
from ..transport.errors import DecodeError, InvalidTicket
from ..transport.postcard import Writer
from ..transport.tickets import damaged, decode_ticket, encode_ticket
from .capability import Capability
from .keys import NamespaceId

__all__ = ["DocTicket"]

MAX_NODES = 64


@dataclass(frozen=True, slots=True)
class DocTicket:
    """``str(ticket)`` is iroh's ``doc...`` text; ``nodes`` has at least one address."""

    capability: Capability
    nodes: tuple[EndpointAddr, ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise InvalidTicket("a document ticket names at least one node that has the document")

    @property
    def id(self) -> NamespaceId:
        return self.capability.id

    def __str__(self) -> str:
        out = Writer()
        self.capability.write(out)
        out.varint(len(self.nodes))
        for node in self.nodes:
            node.write(out)
        return encode_ticket("doc", out)

    def __repr__(self) -> str:
        kind = "write" if self.capability.can_write else "read"
        return f"DocTicket({kind} {self.id.short()}, {len(self.nodes)} nodes)"

    @classmethod
    def parse(cls, text: str) -> DocTicket:
        """InvalidTicket for anything that is not one, whole and undamaged."""
        data = decode_ticket("doc", text)
        try:
            capability = Capability.read(data)
            nodes = tuple(EndpointAddr.read(data) for _ in range(data.count(MAX_NODES, each=33)))
            data.end()
        except DecodeError as error:
            raise InvalidTicket(damaged("doc")) from error
        if not capability.id.is_point() or not all(node.id.is_point() for node in nodes):
            raise InvalidTicket(damaged("doc"))
        return cls(capability, nodes)
