"""Which of several ways to a peer is used: a pure rule (``reference/iroh-transport.md`` 1.3).

Direct ways go before relayed ones, whatever their round-trip times. Among ways of one kind the shorter time wins, IPv6
with a little start, but the one in use is left only for one that is clearly better: times are noisy, and each change
costs the connection its knowledge of the path.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..addr import IpAddr, RelayUrl, TransportAddr

__all__ = ["IPV6_BIAS", "MARGIN", "Choice", "Way", "choose"]

IPV6_BIAS = 0.003  # seconds taken off the round-trip time of IPv6
MARGIN = 0.005  # seconds by which another way of the same kind has to be better


@dataclass(frozen=True, slots=True)
class Way:
    """One that works: the peer has answered there. ``rtt`` in seconds."""

    addr: TransportAddr
    rtt: float

    @property
    def is_relayed(self) -> bool:
        return isinstance(self.addr, RelayUrl)

    @property
    def biased_rtt(self) -> float:
        is_ipv6 = isinstance(self.addr, IpAddr) and self.addr.ip.version == 6
        return self.rtt - IPV6_BIAS if is_ipv6 else self.rtt


@dataclass(frozen=True, slots=True)
class Choice:
    """``why``, for people."""

    way: Way
    why: str


def choose(ways: Iterable[Way], current: TransportAddr | None) -> Choice | None:
    """What to use from now on, where ``current`` was used so far. None: nothing works."""
    known = {way.addr: way for way in ways}
    if not known:
        return None
    used = known.get(current) if current is not None else None
    best = min(known.values(), key=lambda way: (way.is_relayed, way.biased_rtt, way.addr.sort_key()))
    if used is None:
        why = "the only way" if len(known) == 1 else "direct" if not best.is_relayed else "no direct way works"
        return Choice(best, why)
    if used.is_relayed and not best.is_relayed:
        return Choice(best, "direct goes before relayed")
    if used.biased_rtt - best.biased_rtt >= MARGIN:
        return Choice(best, f"{1000 * (used.rtt - best.rtt):.0f} ms shorter than the way before")
    return Choice(used, "in use, and none is clearly better")
