"""The ways by which a connection's packets may go, and which one is in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .addr import TransportAddr

__all__ = ["PathInfo"]


@dataclass(frozen=True, slots=True)
class PathInfo:
    """One way to the peer. ``rtt`` is the smoothed round-trip time in seconds, None before it was measured."""

    kind: Literal["direct", "relay", "custom"]
    addr: TransportAddr
    selected: bool
    rtt: float | None
