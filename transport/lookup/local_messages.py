"""The DNS messages by which endpoints of one link find each other, in iroh's form (``iroh-transport.md`` 2d).

A question asks for PTR at ``_irohv1._udp.local``. An answer, which nobody's PTR leads to, has an SRV record for each
port at ``<id in base32>._irohv1._udp.local`` with the target ``<id>-<port>.local``, addresses of the targets, and TXT
for the relay and the user's text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset

from ...errors import UsageError
from ..addr import EndpointAddr, IpAddr
from ..errors import DecodeError
from ..keys import EndpointId
from .records import MAX_LINES, Record

__all__ = ["Question", "decode", "encode_answer", "encode_question"]

SERVICE = dns.name.from_text("_irohv1._udp.local.")
LOCAL = dns.name.from_text("local.")
IN, SRV, TXT, A, AAAA = (
    dns.rdataclass.IN,
    dns.rdatatype.SRV,
    dns.rdatatype.TXT,
    dns.rdatatype.A,
    dns.rdatatype.AAAA,
)
TTL = 0  # seconds: nobody keeps what is so easy to ask again
MAX_ADDRS = 24  # in one answer, so that it fits a datagram
MAX_RELAY = 249  # bytes


class Question:
    """Somebody asks who is there."""


def encode_question() -> bytes:
    message = dns.message.make_query(SERVICE, dns.rdatatype.PTR, flags=0)
    message.id = 0
    return message.to_wire()


def encode_answer(record: Record) -> bytes:
    label = record.addr.id.base32()
    owner = dns.name.Name([label.encode()]).concatenate(SERVICE)
    message = dns.message.QueryMessage(id=0)
    message.flags = dns.flags.Flag(dns.flags.QR | dns.flags.AA)
    direct = record.addr.direct[:MAX_ADDRS]
    targets = {addr.port: dns.name.Name([f"{label}-{addr.port}".encode()]).concatenate(LOCAL) for addr in direct}
    ports = [f"0 0 {port} {target}" for port, target in targets.items()]
    lines = [f"relay={relay}" for relay in record.addr.relays if len(str(relay)) <= MAX_RELAY][:1]
    lines += [] if record.user_data is None else [f"user-data={record.user_data}"]
    texts = dns.rrset.RRset(owner, IN, TXT)
    for line in lines:
        texts.add(dns.rdtypes.ANY.TXT.TXT(IN, TXT, [line.encode()]), TTL)
    message.answer = [dns.rrset.from_text_list(owner, TTL, "IN", "SRV", ports)] if ports else []
    message.answer += [texts] if texts else []
    for addr in direct:
        kind = "A" if addr.ip.version == 4 else "AAAA"
        message.additional.append(dns.rrset.from_text(targets[addr.port], TTL, "IN", kind, str(addr.ip)))
    return message.to_wire(max_size=9000, want_shuffle=False)


def decode(data: bytes) -> Question | list[Record]:
    """What somebody on the link says. Raises DecodeError where it is no DNS; what is not for us is an empty list."""
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError) as error:
        raise DecodeError(f"no DNS message: {error}") from error
    if not message.flags & dns.flags.QR:
        asked = any(each.name == SERVICE and each.rdtype == dns.rdatatype.PTR for each in message.question)
        return Question() if asked else []
    sets = [each for each in (*message.answer, *message.additional) if each.rdclass == IN]
    return [_record(id, owner, sets) for id, owner in dict(_owners(sets)).items()]


def _record(id: EndpointId, owner: dns.name.Name, sets: list[dns.rrset.RRset]) -> Record:
    ports = {each.target: each.port for found in sets if found.name == owner and found.rdtype == SRV for each in found}
    addrs = [
        IpAddr.of(each.address, ports[found.name])
        for found in sets
        if found.name in ports and found.rdtype in (A, AAAA)
        for each in found
    ]
    texts = [b"".join(each.strings) for found in sets if found.name == owner and found.rdtype == TXT for each in found]
    said = Record.parse(id, [text.decode("utf-8", "replace") for text in texts[:MAX_LINES]])
    return Record(EndpointAddr.of(id, [*said.addr.relays, *addrs[:MAX_ADDRS]]), said.user_data)


def _owners(sets: list[dns.rrset.RRset]) -> Iterator[tuple[EndpointId, dns.name.Name]]:
    for found in sets:
        if len(found.name.labels) == 1 + len(SERVICE.labels) and found.name.is_subdomain(SERVICE):
            with suppress(UsageError):
                yield EndpointId.parse(found.name.labels[0].decode("ascii", "replace")), found.name
