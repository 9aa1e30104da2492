"""X-BOT: neighbours that are near, chosen without making the overlay narrower (Leitao, Marques, Pereira, Rodrigues,
"X-BOT: A protocol for resilient optimization of unstructured overlay networks", SRDS 2009). An option.

Now and then a node *i* whose view is full measures a candidate *c* of its passive view. Where that is nearer than its
farthest neighbour *o*, four nodes trade two links, so that everybody keeps as many neighbours as before:

```
   i ── o                 i    o        i  asks c  (Optimize)       c asks d, its farthest (Replace)
          becomes         │    │
   c ── d                 c    d        d  asks o  (Switch)         and the answers come back the same way
```
c agrees where i is nearer to it than d, d where o is nearer than c. Where c has a free slot, i and c agree alone. The
``unbiased`` oldest neighbours of a node are never traded: they are by chance, and keep the swarm in one piece.

Only tidings peers understand this; it runs over the protocol of logs, and links are made and ended by HyParView's own
messages. Costs are round trips in seconds. One trade at a time at each node, and each ends by an answer or by time.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .config import XBotConfig
from .hyparview import HyParView
from .outputs import Measure, Output, SendSwap
from .swap_messages import Optimize, OptimizeReply, Replace, ReplaceReply, SwapMessage, Switch, SwitchReply
from .timers import Timers

__all__ = ["XBot", "refusal"]

MAX_COSTS = 64  # of peers that are no neighbours


@dataclass(slots=True)
class _Trade:
    """``role``: which of i, c and d we are; o answers at once. ``kept``: the peer that a slot is kept for."""

    role: str
    initiator: bytes
    candidate: bytes
    old: bytes
    spare: bytes = b""  # d
    kept: bytes = b""
    measuring: bytes = b""


class XBot:
    __slots__ = ("_config", "_costs", "_me", "_out", "_rng", "_ticking", "_timers", "_trade", "_view")

    def __init__(
        self, me: bytes, view: HyParView, config: XBotConfig, rng: Random, timers: Timers, out: list[Output]
    ) -> None:
        self._me = me
        self._view = view
        self._config = config
        self._rng = rng
        self._timers = timers
        self._out = out
        self._costs: dict[bytes, float] = {}
        self._trade: _Trade | None = None
        self._ticking = False

    # What the topic tells

    def neighbor_up(self, now: float) -> None:
        if not self._ticking:
            self._ticking = True
            self._timers.arm(now + self._config.interval * self._rng.random(), self._tick)

    def note_round_trip(self, peer: bytes, seconds: float) -> None:
        self._costs.pop(peer, None)
        self._costs[peer] = seconds
        if len(self._costs) > MAX_COSTS:
            del self._costs[next(each for each in self._costs if each not in self._view.active)]

    def measured(self, peer: bytes, seconds: float | None, now: float) -> None:
        """The answer to `Measure`. None: it cannot be reached, or does not speak this."""
        trade = self._trade
        if seconds is not None:
            self.note_round_trip(peer, seconds)
        if trade is None or trade.measuring != peer:
            return
        trade.measuring = b""
        if seconds is None:
            self._fail(trade, now)
        elif trade.role == "i":
            self._propose(trade, now)
        elif trade.role == "c":
            self._consider(trade, now)
        else:
            self._agree(trade, now)

    def receive(self, peer: bytes, message: SwapMessage, now: float) -> None:
        trade = self._trade
        match message:
            case Optimize(old):
                self._on_optimize(peer, old, now)
            case Replace(initiator, old):
                self._on_replace(peer, initiator, old, now)
            case Switch(initiator):
                self._on_switch(peer, initiator, now)
            case SwitchReply(agreed):
                if trade is not None and trade.role == "d" and trade.old == peer and trade.kept == peer:
                    self._out.append(SendSwap(trade.candidate, ReplaceReply(agreed)))
                    self._settle(trade, trade.candidate, agreed, now)
            case ReplaceReply(agreed):
                if trade is not None and trade.role == "c" and trade.spare == peer:
                    self._out.append(SendSwap(trade.initiator, OptimizeReply(agreed)))
                    if agreed:
                        self._view.let_go(peer)
                        self._trade = None  # the slot stays kept until the initiator comes, or its time is up
                    else:
                        self._end(trade, now)
            case OptimizeReply(agreed):
                if trade is not None and trade.role == "i" and trade.candidate == peer and trade.kept == peer:
                    self._settle(trade, trade.old, agreed, now)

    # i

    def _tick(self, now: float) -> None:
        if not self._view.active:
            self._ticking = False
            return
        self._timers.arm(now + self._config.interval * self._rng.uniform(0.8, 1.2), self._tick)
        if self._trade is None and self._view.is_full and self._view.passive:
            candidate = self._rng.choice(list(self._view.passive))
            self._begin(_Trade("i", self._me, candidate, b""), candidate, now)

    def _propose(self, trade: _Trade, now: float) -> None:
        old = self._farthest(but=())
        if old is None or not self._is_nearer(trade.candidate, old):
            self._fail(trade, now)
            return
        trade.old = old
        self._keep(trade, trade.candidate, now)
        self._out.append(SendSwap(trade.candidate, Optimize(old)))

    # c

    def _on_optimize(self, peer: bytes, old: bytes, now: float) -> None:
        if self._trade is not None or peer in self._view.active or old == self._me:
            self._out.append(SendSwap(peer, OptimizeReply(False)))
            return
        self._begin(_Trade("c", peer, self._me, old), peer, now)

    def _consider(self, trade: _Trade, now: float) -> None:
        if not self._view.is_full:
            self._keep(trade, trade.initiator, now)
            self._out.append(SendSwap(trade.initiator, OptimizeReply(True)))
            self._trade = None
            return
        spare = self._farthest(but=(trade.initiator, trade.old))
        if spare is None or not self._is_nearer(trade.initiator, spare):
            self._fail(trade, now)
            return
        trade.spare = spare
        self._keep(trade, trade.initiator, now)
        self._out.append(SendSwap(spare, Replace(trade.initiator, trade.old)))

    # d

    def _on_replace(self, peer: bytes, initiator: bytes, old: bytes, now: float) -> None:
        strangers = old not in self._view.active and self._me not in (old, initiator)
        if self._trade is not None or peer not in self._view.active or not strangers:
            self._out.append(SendSwap(peer, ReplaceReply(False)))
            return
        self._begin(_Trade("d", initiator, peer, old), old, now)

    def _agree(self, trade: _Trade, now: float) -> None:
        if not self._is_nearer(trade.old, trade.candidate):
            self._fail(trade, now)
            return
        self._keep(trade, trade.old, now)
        self._out.append(SendSwap(trade.old, Switch(trade.initiator)))

    # o

    def _on_switch(self, peer: bytes, initiator: bytes, now: float) -> None:
        idle = self._trade is None and not self._view.keeps_slots
        agreed = idle and initiator in self._view.active and peer not in self._view.active
        if agreed:
            self._view.keep_slot(peer, now + self._config.answer_timeout)
            self._view.let_go(initiator)
        self._out.append(SendSwap(peer, SwitchReply(agreed)))

    # Trades

    def _begin(self, trade: _Trade, measure: bytes, now: float) -> None:
        """Go on when the cost of ``measure`` is known."""
        self._trade = trade
        trade.measuring = measure
        self._timers.arm(now + self._config.trade_timeout, self._time_is_up, trade)
        self._out.append(Measure(measure))

    def _time_is_up(self, now: float, trade: _Trade) -> None:
        if self._trade is trade:
            self._fail(trade, now)

    def _fail(self, trade: _Trade, now: float) -> None:
        """Say no to who asked us."""
        if trade.role == "c":
            self._out.append(SendSwap(trade.initiator, OptimizeReply(False)))
        elif trade.role == "d":
            self._out.append(SendSwap(trade.candidate, ReplaceReply(False)))
        self._end(trade, now)

    def _end(self, trade: _Trade, now: float) -> None:
        self._trade = None
        if trade.kept:
            self._view.free_slot(trade.kept, now)

    def _settle(self, trade: _Trade, instead: bytes, agreed: bool, now: float) -> None:
        """The last answer: where it is yes, the peer that a slot is kept for comes ``instead`` of another."""
        if agreed:
            self._trade = None
            self._view.let_go(instead)
            self._view.link(trade.kept, now)
        else:
            self._end(trade, now)

    def _keep(self, trade: _Trade, peer: bytes, now: float) -> None:
        trade.kept = peer
        self._view.keep_slot(peer, now + self._config.trade_timeout + self._config.answer_timeout)

    def _farthest(self, but: tuple[bytes, ...]) -> bytes | None:
        biased = list(self._view.active)[self._config.unbiased :]
        known = [peer for peer in biased if peer in self._costs and peer not in but]
        return max(known, key=self._costs.__getitem__, default=None)

    def _is_nearer(self, peer: bytes, than: bytes) -> bool:
        return self._costs[peer] < self._config.gain * self._costs.get(than, 0.0)


def refusal(message: SwapMessage) -> SwapMessage | None:
    """What a node answers that does not trade."""
    match message:
        case Optimize():
            return OptimizeReply(False)
        case Replace():
            return ReplaceReply(False)
        case Switch():
            return SwitchReply(False)
        case _:
            return None
