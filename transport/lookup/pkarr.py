"""Signed packets of pkarr: an endpoint's record, signed by its key, for servers and tables that nobody needs to trust.

    public key 32 | signature 64 | timestamp u64 big-endian, microseconds since 1970 | DNS message, up to 1000 bytes

The DNS message answers for ``_iroh.<key in z-base-32>`` with TXT records; the signature is that of a mutable item of
BitTorrent's table (BEP 44), with the timestamp as sequence number. Of two packets the later one counts, of two with one
timestamp the one with the larger DNS message (``reference/iroh-transport.md`` 2d).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset

from ..errors import DecodeError
from ..keys import KEY_SIZE, SIGNATURE_SIZE, EndpointId, SecretKey
from .records import Record

__all__ = ["MAX_DNS", "SignedPacket", "next_timestamp"]

MAX_DNS = 1000  # bytes
HEAD = SIGNATURE_SIZE + 8
TTL = 30  # seconds
LABEL = "_iroh"


@dataclass(frozen=True, slots=True)
class SignedPacket:
    """Whose it is, when it was made (microseconds since 1970), and the DNS message. One that exists is well signed."""

    id: EndpointId
    timestamp: int
    dns: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def sign(cls, secret: SecretKey, record: Record, timestamp: int, ttl: int = TTL) -> SignedPacket:
        """As many lines of the record as fit, in its order."""
        lines = record.lines()
        message = _message(secret.public, lines, ttl)
        while len(message) > MAX_DNS:
            lines.pop()
            message = _message(secret.public, lines, ttl)
        return cls(secret.public, timestamp, message, secret.sign(_signed(timestamp, message)))

    @classmethod
    def decode(cls, data: bytes) -> SignedPacket:
        """The whole packet. Raises DecodeError where anything of it is wrong."""
        if len(data) < KEY_SIZE:
            raise DecodeError(f"a signed packet has {len(data)} bytes")
        return cls.from_payload(EndpointId(data[:KEY_SIZE]), data[KEY_SIZE:])

    @classmethod
    def from_payload(cls, id: EndpointId, data: bytes) -> SignedPacket:
        """The packet without its key, as it travels over HTTP. Raises DecodeError where anything of it is wrong."""
        if not HEAD < len(data) <= HEAD + MAX_DNS:
            raise DecodeError(
                f"a signed packet without its key has {len(data)} bytes, up to {HEAD + MAX_DNS} are allowed"
            )
        signature, timestamp, message = (
            data[:SIGNATURE_SIZE],
            int.from_bytes(data[SIGNATURE_SIZE:HEAD], "big"),
            data[HEAD:],
        )
        if not id.verify(_signed(timestamp, message), signature):
            raise DecodeError(f"a packet of {id.short()} is not signed by its key")
        packet = cls(id, timestamp, message, signature)
        packet.record()
        return packet

    def encode(self) -> bytes:
        return bytes(self.id) + self.payload()

    def payload(self) -> bytes:
        """Without the key."""
        return self.signature + self.timestamp.to_bytes(8, "big") + self.dns

    def is_newer_than(self, other: SignedPacket) -> bool:
        return (self.timestamp, self.dns) > (other.timestamp, other.dns)

    def record(self) -> Record:
        """What it says under `LABEL`; other names may be in it, and say nothing to us. Raises DecodeError."""
        return Record.parse(self.id, _lines(self.id, self.dns))


def next_timestamp(last: int, now_us: int) -> int:
    """Later than ``last`` whatever the clock does: what is not later is not taken."""
    return max(now_us, last + 1)


def _signed(timestamp: int, message: bytes) -> bytes:
    return b"3:seqi%de1:v%d:" % (timestamp, len(message)) + message


def _name(id: EndpointId) -> dns.name.Name:
    return dns.name.from_text(f"{LABEL}.{id.z32()}.")


def _message(id: EndpointId, lines: list[str], ttl: int) -> bytes:
    message = dns.message.QueryMessage(id=0)
    message.flags = dns.flags.Flag(dns.flags.QR)
    if lines:
        answer = dns.rrset.RRset(_name(id), dns.rdataclass.IN, dns.rdatatype.TXT)
        for line in lines:
            answer.add(dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, [line.encode()]), ttl)
        message.answer.append(answer)
    return message.to_wire(max_size=65_535, want_shuffle=False)  # what comes first counts first


def _lines(id: EndpointId, data: bytes) -> Iterator[str]:
    try:
        message = dns.message.from_wire(data)
        texts = (dns.rdataclass.IN, dns.rdatatype.TXT)
        answers = [each for each in message.answer if (each.rdclass, each.rdtype) == texts and each.name == _name(id)]
    except (dns.exception.DNSException, ValueError) as error:
        raise DecodeError(f"a packet of {id.short()} has no DNS message in it: {error}") from error
    for answer in answers:
        for record in answer:
            yield b"".join(record.strings).decode(errors="replace")
