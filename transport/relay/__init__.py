"""Relays: how two endpoints reach each other where no packet gets from the one to the other directly."""

from __future__ import annotations

from .client import RelayClient, RelayStatus
from .relays import RelayConfig, Relays

__all__ = ["RelayClient", "RelayConfig", "RelayStatus", "Relays"]
