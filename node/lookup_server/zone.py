"""Answers of DNS (RFC 1035), without I/O: a question comes in, an answer goes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from ...errors import UsageError
from ...transport.keys import EndpointId
from ...transport.lookup.pkarr import SignedPacket
from .metrics import LookupMetrics

__all__ = ["UDP_SIZE", "Zone", "Zones"]

UDP_SIZE = 1232  # bytes that come through every path (DNS flag day 2020)
UDP_AMPLIFICATION = 3  # an answer by UDP is at most so many times as large as the question; the rest is for TCP
PLAIN_UDP_SIZE = 512  # for those who do not say what they take (RFC 1035 4.2.1)
TTL = 300  # seconds, of what is the zone's own
MISSING_TTL = 5  # seconds for which others remember that somebody has said nothing yet


@dataclass(frozen=True, slots=True)
class Zone:
    """``origin``, and what is at it: names of its servers of DNS, and addresses."""

    origin: dns.name.Name
    servers: tuple[dns.name.Name, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()

    @classmethod
    def of(cls, origin: str, servers: Sequence[str] = (), addresses: Sequence[IPv4Address | IPv6Address] = ()) -> Zone:
        """Raises UsageError."""
        return cls(_name(origin), tuple(map(_name, servers)), tuple(addresses))

    def soa(self) -> dns.rrset.RRset:
        primary = self.servers[0] if self.servers else self.origin
        text = f"{primary} hostmaster.{self.origin} 1 3600 600 604800 {MISSING_TTL}"
        return dns.rrset.from_text(self.origin, TTL, "IN", "SOA", text)

    def own(self) -> list[dns.rrset.RRset]:
        """The records at the origin."""
        sets = [self.soa()]
        if self.servers:
            sets.append(dns.rrset.from_text_list(self.origin, TTL, "IN", "NS", [str(each) for each in self.servers]))
        for type, version in (("A", 4), ("AAAA", 6)):
            if found := [str(ip) for ip in self.addresses if ip.version == version]:
                sets.append(dns.rrset.from_text_list(self.origin, TTL, "IN", type, found))
        return sets


class Zones:
    """``get`` finds the packet of an id."""

    def __init__(
        self,
        zones: Sequence[Zone],
        get: Callable[[EndpointId], Awaitable[SignedPacket | None]],
        metrics: LookupMetrics,
    ) -> None:
        self._zones = sorted(zones, key=lambda zone: -len(zone.origin.labels))
        self._get = get
        self._metrics = metrics

    async def answer(self, question: bytes, *, over_udp: bool) -> bytes | None:
        """None for what deserves no answer: it is no question."""
        self._metrics.dns_requests.inc()
        try:
            query = dns.message.from_wire(question, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            self._metrics.errors.inc()
            return None
        if query.flags & dns.flags.QR:
            return None
        response = dns.message.make_response(query, recursion_available=False)
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            self._metrics.errors.inc()
            response.set_rcode(dns.rcode.NOTIMP)
        else:
            await self._fill(response, query.question[0])
        if not over_udp:
            return response.to_wire(max_size=65_535, want_shuffle=False)
        stated = max(PLAIN_UDP_SIZE, min(query.payload, UDP_SIZE)) if query.edns >= 0 else PLAIN_UDP_SIZE
        limit = min(stated, UDP_AMPLIFICATION * len(question))
        data = response.to_wire(max_size=65_535, want_shuffle=False)
        if len(data) > limit:
            response.answer, response.authority, response.additional = [], [], []
            response.flags |= dns.flags.TC
            data = response.to_wire(max_size=65_535, want_shuffle=False)
        return data

    async def _fill(self, response: dns.message.Message, asked: dns.rrset.RRset) -> None:
        name = asked.name
        zone = next((zone for zone in self._zones if name.is_subdomain(zone.origin)), None)
        if zone is None or asked.rdclass not in (dns.rdataclass.IN, dns.rdataclass.ANY):
            self._metrics.errors.inc()
            response.set_rcode(dns.rcode.REFUSED)
            return
        response.flags |= dns.flags.AA
        sets = zone.own() if name == zone.origin else await self._published(name, zone.origin)
        if sets is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
            sets = []
        response.answer = [each for each in sets if asked.rdtype in (each.rdtype, dns.rdatatype.ANY)]
        if response.answer:
            self._metrics.found.inc()
        else:
            self._metrics.not_found.inc()
            response.authority = [zone.soa()]

    async def _published(self, name: dns.name.Name, origin: dns.name.Name) -> list[dns.rrset.RRset] | None:
        """The records of a packet at ``<what>.<id>.<origin>``; None where there are none of any type."""
        relative = name.relativize(origin)
        try:
            id = EndpointId.from_z32(relative.labels[-1].decode("ascii").lower())
        except (UsageError, UnicodeDecodeError):
            return None
        packet = await self._get(id)
        if packet is None:
            return None
        try:
            said = dns.message.from_wire(packet.dns)
        except (dns.exception.DNSException, ValueError):
            return None
        inside = dns.name.Name([*relative.labels, b""])
        found = [each for each in said.answer if each.name == inside and each.rdclass == dns.rdataclass.IN]
        for each in found:
            each.name = name
        return found or None


def _name(text: str) -> dns.name.Name:
    try:
        return dns.name.from_text(text)
    except dns.exception.DNSException as error:
        raise UsageError(f"{text!r} is not a name of DNS: {error}") from error
