"""From an endpoint's id to the places where it may be.

An address that a lookup gives is a hint: whatever answers there must hold the key.
"""

from __future__ import annotations

from .memory import MemoryLookup
from .records import Record
from .service import Lookup

__all__ = ["Lookup", "MemoryLookup", "Record"]
