"""What gossip counts: plain numbers, which cost the messages nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

__all__ = ["DELAYS", "Stats"]

DELAYS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds; bounds of the histogram


class Stats:
    """Since the beginning. Messages are counted under the name of their kind."""

    __slots__ = (
        "caught_up",
        "delay_sum",
        "delays",
        "delivered",
        "faults",
        "forged",
        "missed",
        "received",
        "refused",
        "sent",
        "trades",
    )

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()  # what honest peers do not do, by kind
        self.trades = 0  # of neighbours for nearer ones, that we began
        self.delivered = self.caught_up = self.missed = self.forged = self.refused = 0
        self.delays = [0] * (len(DELAYS) + 1)
        self.delay_sum = 0.0

    def note_delay(self, seconds: float) -> None:
        """From an author's clock to ours: where clocks differ, so does this."""
        seconds = max(0.0, seconds)
        self.delays[bisect_left(DELAYS, seconds)] += 1
        self.delay_sum += seconds
