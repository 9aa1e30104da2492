"""How peers stand with us, without I/O: faults add up, are forgotten with time, and who has too many stays outside."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["BANNED_FOR", "LIMIT", "Standing"]

LIMIT = 100.0  # points at which a peer is put out
HALF_LIFE = 60.0  # seconds in which points halve
BANNED_FOR = 60.0  # seconds, the first time; doubles with each further one ...
BANNED_MAX = 3600.0  # ... up to this; a peer that behaved for that long begins anew
MAX_PEERS = 4096  # remembered; who was quiet for longest is forgotten first


@dataclass(slots=True)
class _Record:
    points: float = 0.0
    at: float = 0.0
    banned_until: float = float("-inf")
    bans: int = 0


class Standing:
    """``now`` in seconds of the caller's clock."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: OrderedDict[bytes, _Record] = OrderedDict()

    def __len__(self) -> int:
        """How many peers are remembered: mostly none."""
        return len(self._records)

    def fault(self, peer: bytes, points: float, now: float) -> bool:
        """``peer`` did what no honest peer does. True: it is to be put out now."""
        record = self._records.setdefault(peer, _Record(at=now))
        self._records.move_to_end(peer)
        if len(self._records) > MAX_PEERS:
            self._records.popitem(last=False)
        if now - record.at > BANNED_MAX:
            record.bans = 0
        record.points, record.at = self._points(record, now) + points, now
        if record.points < LIMIT or record.banned_until > now:
            return False
        record.banned_until = now + min(BANNED_FOR * 2**record.bans, BANNED_MAX)
        record.bans = min(record.bans + 1, 16)
        record.points = 0.0
        return True

    def is_out(self, peer: bytes, now: float) -> bool:
        record = self._records.get(peer)
        return record is not None and record.banned_until > now

    def points(self, now: float) -> dict[bytes, float]:
        """Of every peer that has some, or is out: then at least `LIMIT`."""
        found = {}
        for peer, record in self._records.items():
            points = self._points(record, now) + (LIMIT if record.banned_until > now else 0.0)
            if points >= 1:
                found[peer] = points
        return found

    def _points(self, record: _Record, now: float) -> float:
        return record.points * math.exp2(-max(0.0, now - record.at) / HALF_LIFE)
