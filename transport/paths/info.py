"""The ways by which a connection's packets may go, and which one is in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..addr import RelayUrl, TransportAddr
from .place import Place, transport_addr

__all__ = ["PathInfo"]


@dataclass(frozen=True, slots=True)
class PathInfo:
    """One way to the peer that works.

    ``rtt`` is the smoothed round-trip time in seconds, None before it was measured. Of one that is ``selected``,
    ``why`` says the reason in words.
    """

    kind: Literal["direct", "relay", "custom"]
    addr: TransportAddr
    selected: bool
    rtt: float | None
    why: str = ""

    @classmethod
    def of(cls, place: Place, *, selected: bool, rtt: float | None, why: str = "") -> PathInfo:
        addr = transport_addr(place)
        return cls("relay" if isinstance(addr, RelayUrl) else "direct", addr, selected, rtt, why)

    def __str__(self) -> str:
        rtt = "" if self.rtt is None else f", {1000 * self.rtt:.1f} ms"
        return f"{self.kind} {self.addr}{rtt}{' (in use)' if self.selected else ''}"
