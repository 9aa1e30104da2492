"""Tickets of documents: what one may do, and who has it (``reference/iroh-protocols.md`` 2.4).

The text is ``doc`` and base32 of ``00 | capability | addresses``: iroh's. A restricted or encrypted document needs more
than iroh's ticket has room for; then it is ``tdoc`` and base32 of ``00`` and a msgpack map:

    secret or id   32 bytes: the right to write, or to read
    nodes          a list of addresses, postcard
    share          the share that lets read a restricted document, with its bearer's secret (`shares.Grant`)
    key            32 bytes: the document key
    restricted     true

Of the last three those that are there. Secrets are shown by ``str()`` alone, never by ``repr()``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgpack  # type: ignore[import-untyped]

from ...transport.addr import EndpointAddr
from ...transport.errors import DecodeError, InvalidTicket
from ...transport.postcard import Reader, Writer
from ...transport.tickets import damaged, decode_ticket, encode_ticket
from ..model.capability import Capability
from ..model.keys import NamespaceId, NamespaceSecret
from .shares import Grant

__all__ = ["DocTicket"]

MAX_NODES = 64
MAX_NODE = 4096  # bytes of an address
KIND, OWN_KIND = "doc", "tdoc"


@dataclass(frozen=True, slots=True)
class DocTicket:
    """``nodes`` has at least one address. ``str(ticket)`` is iroh's ``doc...`` text where nothing else is set."""

    capability: Capability
    nodes: tuple[EndpointAddr, ...]
    grant: Grant | None = None
    """The share that lets read a restricted document."""
    key: bytes | None = field(default=None, repr=False)
    """The document key, 32 bytes, of an encrypted document."""
    restricted: bool = False
    """Whether who joins by this answers, too, only to who may read."""

    def __post_init__(self) -> None:
        if not self.nodes:
            raise InvalidTicket("a document ticket names at least one node that has the document")
        if self.key is not None and len(self.key) != 32:
            raise InvalidTicket(f"a document key has 32 bytes, not {len(self.key)}")

    @property
    def id(self) -> NamespaceId:
        return self.capability.id

    def at(self, *nodes: EndpointAddr) -> DocTicket:
        """The same rights and key through other nodes: of an encrypted document that iroh peers carry, say."""
        return replace(self, nodes=nodes)

    def iroh(self) -> DocTicket:
        """The ticket that iroh peers take: the capability and the addresses, and nothing else."""
        return replace(self, grant=None, key=None, restricted=False)

    def __str__(self) -> str:
        if self != self.iroh():
            return encode_ticket(OWN_KIND, Writer().raw(self._fields()))
        out = Writer()
        self.capability.write(out)
        out.varint(len(self.nodes))
        for node in self.nodes:
            node.write(out)
        return encode_ticket(KIND, out)

    def __repr__(self) -> str:
        kind = "write" if self.capability.can_write else "read"
        more = [("a share", self.grant), ("the key", self.key), ("restricted", self.restricted)]
        words = "".join(f", {word}" for word, there in more if there)
        return f"DocTicket({kind} {self.id.short()}, {len(self.nodes)} nodes{words})"

    @classmethod
    def parse(cls, text: str) -> DocTicket:
        """InvalidTicket for anything that is not one of either kind, whole and undamaged."""
        own = text.strip().lower().startswith(OWN_KIND)
        kind = OWN_KIND if own else KIND
        data = decode_ticket(kind, text)
        try:
            ticket = _read_fields(data.raw(data.remaining)) if own else _read_iroh(data)
        except DecodeError as error:
            raise InvalidTicket(damaged(kind)) from error
        if not ticket.id.is_point() or not all(node.id.is_point() for node in ticket.nodes):
            raise InvalidTicket(damaged(kind))
        return ticket

    def _fields(self) -> bytes:
        secret = self.capability.secret
        fields: dict[str, object] = {"id": bytes(self.id)} if secret is None else {"secret": secret.to_bytes()}
        fields["nodes"] = [_node_bytes(node) for node in self.nodes]
        if self.grant is not None:
            fields["share"] = self.grant.encode()
        if self.key is not None:
            fields["key"] = self.key
        if self.restricted:
            fields["restricted"] = True
        return bytes(msgpack.packb(fields))


def _read_iroh(data: Reader) -> DocTicket:
    capability = Capability.read(data)
    nodes = tuple(EndpointAddr.read(data) for _ in range(data.count(MAX_NODES, each=33)))
    data.end()
    return DocTicket(capability, nodes)


def _read_fields(payload: bytes) -> DocTicket:
    try:
        fields = msgpack.unpackb(payload, max_array_len=MAX_NODES, max_map_len=8, max_ext_len=0)
    except (ValueError, OverflowError, msgpack.UnpackException) as error:
        raise DecodeError("a ticket is not a msgpack map") from error
    if not isinstance(fields, dict) or not fields.keys() <= {"id", "secret", "nodes", "share", "key", "restricted"}:
        raise DecodeError("a ticket has other fields than one has")
    seed, nodes, restricted = fields.get("secret"), fields.get("nodes"), fields.get("restricted", False)
    if not isinstance(nodes, list) or not isinstance(restricted, bool) or (seed is None) == ("id" not in fields):
        raise DecodeError("a field of a ticket is not what it should be")
    if seed is None:
        capability = Capability(NamespaceId(_octets(fields["id"], 32)))
    else:
        secret = NamespaceSecret(_octets(seed, 32))
        capability = Capability(secret.id, secret)
    grant = Grant.decode(_octets(fields["share"])) if "share" in fields else None
    key = _octets(fields["key"], 32) if "key" in fields else None
    return DocTicket(capability, tuple(_read_node(node) for node in nodes), grant, key, restricted)


def _octets(value: object, size: int | None = None) -> bytes:
    if not isinstance(value, bytes) or len(value) > MAX_NODE or (size is not None and len(value) != size):
        raise DecodeError("a field of a ticket is not what it should be")
    return value


def _node_bytes(node: EndpointAddr) -> bytes:
    out = Writer()
    node.write(out)
    return out.finish()


def _read_node(value: object) -> EndpointAddr:
    data = Reader(_octets(value))
    node = EndpointAddr.read(data)
    data.end()
    return node
