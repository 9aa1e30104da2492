"""`BlobTicket`: one line of text with a blob's hash and who provides it (reference 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ..transport.addr import EndpointAddr, TransportAddr, read_ip_addr, read_relay_url, write_ip_addr
from ..transport.errors import DecodeError, InvalidAddress, InvalidTicket
from ..transport.keys import EndpointId
from ..transport.postcard import Writer
from ..transport.tickets import damaged, decode_ticket, encode_ticket
from .hash import HASH_SIZE, Hash

__all__ = ["BlobFormat", "BlobTicket"]

MAX_ADDRESSES = 128


class BlobFormat(IntEnum):
    """Whether the hash names bytes, or a sequence of hashes whose blobs belong to it."""

    RAW = 0
    HASH_SEQ = 1


@dataclass(frozen=True, slots=True)
class BlobTicket:
    """``str(ticket)`` is iroh's ``blob...`` text. It carries at most one relay: the first of ``addr``."""

    addr: EndpointAddr
    hash: Hash
    format: BlobFormat = BlobFormat.RAW

    def __str__(self) -> str:
        out = Writer().raw(bytes(self.addr.id))
        relays, direct = self.addr.relays, self.addr.direct
        out.flag(bool(relays))
        if relays:
            out.string(relays[0].url)
        out.varint(len(direct))
        for place in direct:
            write_ip_addr(out, place)
        return encode_ticket("blob", out.varint(self.format).raw(bytes(self.hash)))

    @classmethod
    def parse(cls, text: str) -> BlobTicket:
        """`InvalidTicket` for anything that is not one, whole and undamaged."""
        data = decode_ticket("blob", text)
        try:
            id = EndpointId(data.raw(32))
            addrs: list[TransportAddr] = [read_relay_url(data)] if data.flag() else []
            addrs += [read_ip_addr(data) for _ in range(data.count(MAX_ADDRESSES, each=6))]
            format = BlobFormat(data.variant(len(BlobFormat)))
            hash = Hash(data.raw(HASH_SIZE))
            data.end()
        except (DecodeError, InvalidAddress) as error:
            raise InvalidTicket(damaged("blob")) from error
        if not id.is_point():
            raise InvalidTicket(damaged("blob"))
        return cls(EndpointAddr.of(id, addrs), hash, format)
