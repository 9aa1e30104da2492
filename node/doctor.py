"""What a network lets tidings do, in sentences: each says what is, and where that is bad, what to try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..transport.addr import EndpointAddr, IpAddr, RelayUrl, TransportAddr
from ..transport.report import NetReport

__all__ = ["Finding", "of_network", "of_port_mapping", "of_publishing", "of_target"]

Mark = Literal["good", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``about`` is a word for programs."""

    mark: Mark
    about: str
    text: str


def of_network(own: EndpointAddr, report: NetReport | None) -> Iterator[Finding]:
    """``report`` is None for an endpoint without relays."""
    seen = () if report is None else report.seen
    direct = [addr for addr in own.direct if addr not in seen] or own.direct  # without NAT both are the same
    if direct:
        yield Finding(
            "good", "addresses", f"This machine has the addresses {_list([str(addr.ip) for addr in direct])}."
        )
    else:
        yield Finding("bad", "addresses", "This machine has no address: it is in no network. Connect it to one.")
    if report is None:
        yield Finding(
            "note",
            "relays",
            "No relay is named, so only peers that can be reached directly can be reached. Name one with --relay, "
            "or run your own: tidings relay.",
        )
        return
    yield from _of_relays(report)
    yield from _of_udp(report)


def _of_relays(report: NetReport) -> Iterator[Finding]:
    if report.captive_portal:
        yield Finding(
            "bad",
            "portal",
            "Somebody else answers in place of the relays: a captive portal. Open a web page in a browser, log in "
            "there, and ask again.",
        )
    for url, delay in sorted(report.latencies.items(), key=lambda each: each[1]):
        home = ", and is where others find us" if url == report.home else ""
        yield Finding("good", "relay", f"The relay {url} answers in {1000 * delay:.0f} ms{home}.")
    for url, problem in report.problems.items():
        yield Finding("bad", "relay", f"The relay {url} is of no use: {problem}. Check the URL, or ask who runs it.")
    if report.home is None:
        yield Finding(
            "bad",
            "home",
            "No relay lets us in: peers behind routers cannot find us. Where a relay answers and still does not let "
            "us in, it may want a token, or not want this endpoint.",
        )


def _of_udp(report: NetReport) -> Iterator[Finding]:
    if report.udp_v4 is None and report.udp_v6 is None:
        yield Finding(
            "note", "udp", "No relay tells addresses (UDP port 7842), so it is not known how others see this endpoint."
        )
        return
    if not (report.udp_v4 or report.udp_v6):
        yield Finding(
            "bad",
            "udp",
            "No relay answers by UDP: this network seems to block it, or the relays have no address discovery. "
            "Connections go through relays, which works and is slower. Ask who runs the network to let UDP out.",
        )
        return
    yield Finding("good", "udp", f"UDP gets out. Others see this endpoint at {_list([str(a) for a in report.seen])}.")
    if report.varies_v4 or report.varies_v6:
        yield Finding(
            "note",
            "nat",
            "The router gives another port for each peer (a symmetric NAT). Direct connections come about with peers "
            "that are open to all; with others traffic goes through a relay. A port that the router forwards helps.",
        )
    elif report.varies_v4 is False or report.varies_v6 is False:
        yield Finding("good", "nat", "The router gives one port for all peers: direct connections come about.")
    else:
        yield Finding(
            "note",
            "nat",
            "Only one relay told an address, so it is not known whether the router gives another port to each peer. "
            "With a second relay it would be.",
        )


def of_port_mapping(addr: IpAddr | None, problem: str) -> Finding:
    if addr is not None:
        return Finding("good", "port", f"The router lets others in at {addr}.")
    return Finding("note", "port", f"The router gives no port: {problem}. That is common, and mostly does no harm.")


def of_publishing(service: str, problem: str | None) -> Finding:
    if problem is None:
        return Finding("good", "lookup", f"{service} was told where this endpoint is.")
    return Finding("bad", "lookup", f"{service} could not be told where this endpoint is: {problem}.")


def of_target(
    known: Sequence[TransportAddr], tried: dict[TransportAddr, str | float], whole: str | float
) -> Iterator[Finding]:
    """``tried`` has for each address seconds until the peer had proved its key, or why it did not; ``whole`` the same
    of a dial to all of them."""
    if not known:
        yield Finding(
            "bad",
            "known",
            "No address of the peer is known. Ask it for a ticket, or name a lookup service that it is told to "
            "(--lookup).",
        )
    for addr, end in tried.items():
        kind = "through the relay" if isinstance(addr, RelayUrl) else "at"
        if isinstance(end, float):
            yield Finding("good", "place", f"The peer answers {kind} {addr}, after {1000 * end:.0f} ms.")
        else:
            yield Finding("note", "place", f"The peer does not answer {kind} {addr}: {end}.")
    if isinstance(whole, float):
        relayed = all(isinstance(addr, RelayUrl) for addr, end in tried.items() if isinstance(end, float))
        how = "through a relay alone: see above why" if tried and relayed else "and proved its key"
        yield Finding("good", "peer", f"The peer is there, {how}.")
    elif known:
        yield Finding(
            "bad",
            "peer",
            f"The peer cannot be reached: {whole}. Is it running, and in a network? Let it run tidings doctor, too.",
        )


def _list(texts: Sequence[str]) -> str:
    unique = list(dict.fromkeys(texts))
    return unique[0] if len(unique) == 1 else f"{', '.join(unique[:-1])} and {unique[-1]}"
