"""Plumtree: payloads along a tree, announcements along the rest (Leitao, Pereira, Rodrigues, SRDS 2007;
``reference/iroh-protocols.md`` 1.5).

Each neighbour is *eager*, and is pushed every payload, or *lazy*, and is told only that we have it (IHave). A second
copy makes its sender lazy (Prune); a payload that was announced and does not come is fetched from its announcer, who
becomes eager (Graft). So the eager links settle into a tree, which the lazy ones repair.

Where this differs from iroh's 0.101 and the paper, on the same wire: one tree serves all senders, so a link is swapped
for a shorter one only if that is shorter on average over the last messages that came along it. By one message alone
each sender bends the tree its own way, and it grows longer for all. And an announced payload is awaited for as long as
the longer way along the tree takes, and as payloads lately took: in a burst they queue where announcements, over idle
links, do not, and would else be fetched twice, which makes the queues longer.

Invariants: eager and lazy are disjoint, and together are the neighbours that the membership named; no other peer
gets into them, whatever it sends. Each table is bounded (`BroadcastConfig`). Ids are recomputed, never believed.

A copy is known by its content alone: an identical payload within ``id_retention`` is no new message.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from blake3 import blake3

from .config import BroadcastConfig
from .messages import BroadcastMessage, Graft, IHave, Payload, Prune
from .outputs import Deliver, Fault, Output, Send
from .timers import Timers

__all__ = ["Plumtree"]

MAX_ROUND = 0xFFFF
MAX_ROUND_TRIP = 2.0  # seconds
LATE_ROUND_TRIPS = 6  # the tree's way is up to ten hops longer than an announcement's: 17 and 7 among 10,000 nodes
MAX_PATIENCE = 3.0  # seconds; a peer that answers slowly on purpose delays no repair by more
GRAFT_ROUND_TRIPS = 1.5  # for the answer to a Graft
LATE_FOR = 10.0  # seconds after which nothing follows from how late payloads were
GAIN_OVER = 16  # messages that the average of a gain follows


@dataclass(slots=True)
class _Kept:
    payload: Payload
    until: float
    sender: bytes | None  # None: us


@dataclass(slots=True, eq=False)
class _Missing:
    """A payload that was announced, and did not come yet."""

    since: float
    announcers: list[tuple[bytes, int]] = field(default_factory=list)  # (announcer, round), first come first
    asked: bytes | None = None  # the last


@dataclass(slots=True)
class _Lateness:
    """How long payloads come after their announcements when nobody is asked: mean and deviation (RFC 6298)."""

    at: float = -LATE_FOR
    mean: float = 0.0
    deviation: float = 0.0

    def note(self, seconds: float, now: float) -> None:
        if now - self.at >= LATE_FOR:
            self.mean, self.deviation = seconds, seconds / 2
        else:
            self.deviation += (abs(seconds - self.mean) - self.deviation) / 4
            self.mean += (seconds - self.mean) / 8
        self.at = now

    def most(self, now: float) -> float:
        """Few come later than this."""
        return self.mean + 4 * self.deviation if now - self.at < LATE_FOR else 0.0


@dataclass(slots=True)
class _Gain:
    """How many hops the announcements of one neighbour save over the payloads of another, on average."""

    known: int = 0
    mean: float = 0.0

    def note(self, hops: int) -> None:
        self.known = min(self.known + 1, GAIN_OVER)
        self.mean += (hops - self.mean) / self.known


class Plumtree:
    __slots__ = (
        "_announcing",
        "_config",
        "_evicting",
        "_gains",
        "_kept",
        "_kept_bytes",
        "_lateness",
        "_missing",
        "_missing_by_peer",
        "_out",
        "_received",
        "_round_trips",
        "_timers",
        "_unsent",
        "eager",
        "lazy",
    )

    def __init__(self, config: BroadcastConfig, timers: Timers, out: list[Output]) -> None:
        self._config = config
        self._timers = timers
        self._out = out
        self.eager: dict[bytes, None] = {}
        self.lazy: dict[bytes, float] = {}  # -> when it was last sent a Prune
        # Both in order of arrival, which is the order in which they expire.
        self._received: OrderedDict[bytes, float] = OrderedDict()  # id -> until when it is known
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._missing: dict[bytes, _Missing] = {}
        self._lateness = _Lateness()
        self._missing_by_peer: dict[bytes, int] = {}
        self._unsent: dict[bytes, list[tuple[bytes, int]]] = {}  # lazy peer -> announcements gathered for it
        self._round_trips: dict[bytes, float] = {}
        self._gains: dict[tuple[bytes, bytes], _Gain] = {}  # (who pushed, who announced), neighbours both
        self._announcing = False
        self._evicting = False

    # The membership's side

    def neighbor_up(self, peer: bytes) -> None:
        self.lazy.pop(peer, None)
        self.eager[peer] = None

    def note_round_trip(self, peer: bytes, seconds: float) -> None:
        """What was measured of the way to a neighbour: on long ways a payload is waited for longer."""
        if peer in self.eager or peer in self.lazy:
            self._round_trips[peer] = min(seconds, MAX_ROUND_TRIP)

    def neighbor_down(self, peer: bytes) -> None:
        self.eager.pop(peer, None)
        self.lazy.pop(peer, None)
        self._unsent.pop(peer, None)
        self._round_trips.pop(peer, None)
        self._gains = {pair: gain for pair, gain in self._gains.items() if peer not in pair}
        if self._missing_by_peer.pop(peer, 0):
            # An id whose announcers are all gone stays, empty, until its timer ends it.
            for missing in self._missing.values():
                missing.announcers[:] = [entry for entry in missing.announcers if entry[0] != peer]

    # The application's side

    def broadcast(self, content: bytes, now: float) -> bool:
        """To the whole swarm. False: the same content passed here lately, and the swarm would swallow it."""
        id = blake3(content).digest()
        if id in self._received:
            return False
        payload = Payload(id, content, 0)
        self._store(payload, None, now)
        self._forward(payload, None, now)
        return True

    def broadcast_neighbors(self, content: bytes) -> None:
        """To every neighbour, eager or lazy, and no further."""
        payload = Payload(blake3(content).digest(), content, None)
        for peer in (*self.eager, *self.lazy):
            self._out.append(Send(peer, payload))

    def note(self, id: bytes, now: float) -> None:
        """The payload came by another way: it is neither fetched nor delivered again."""
        if id not in self._received:
            self._know(id, now)
            self._pop_missing(id)

    # The network's side

    def receive(self, peer: bytes, message: BroadcastMessage, now: float) -> None:
        match message:
            case Payload():
                self._on_payload(peer, message, now)
            case IHave(announced):
                self._on_ihave(peer, announced, now)
            case Graft(id, _):
                self._make_eager(peer)
                kept = self._kept.get(id) if id is not None else None
                if kept is not None:
                    self._out.append(Send(peer, kept.payload))
            case Prune():
                self._make_lazy(peer, now)

    def _on_payload(self, peer: bytes, message: Payload, now: float) -> None:
        if blake3(message.content).digest() != message.id:
            self._out.append(Fault(peer, "wrong id"))
            return
        if message.id in self._received:
            self._prune(peer, now)
            return
        if message.round is None:
            self._out.append(Deliver(peer, message.content, None))
            return
        onward = Payload(message.id, message.content, min(message.round + 1, MAX_ROUND))
        self._store(onward, peer, now)
        missing = self._pop_missing(message.id)
        self._forward(onward, peer, now)
        if missing is not None:
            if missing.asked != peer:
                self._lateness.note(now - missing.since, now)
            self._optimize(peer, message.round, missing.announcers, now)
        self._out.append(Deliver(peer, message.content, message.round))

    def _optimize(self, sender: bytes, round: int, announcers: list[tuple[bytes, int]], now: float) -> None:
        """Swap the link to ``sender`` for one that announced this payload in fewer hops, and as a rule does."""
        config = self._config
        best, best_mean, best_round = None, config.optimization_gain, 0
        for peer, announced_round in announcers:
            gain = self._note_gain(sender, peer, round - announced_round)
            if gain is None or gain.known < config.optimization_samples:
                continue
            if round - announced_round >= config.optimization_threshold and gain.mean >= best_mean:
                best, best_mean, best_round = peer, gain.mean, announced_round
        if best is not None:
            self._make_eager(best)
            self._out.append(Send(best, Graft(None, best_round)))
            self._prune(sender, now)

    def _note_gain(self, sender: bytes, announcer: bytes, hops: int) -> _Gain | None:
        """``announcer`` could have given us by ``hops`` less what ``sender`` gave. None: nothing to swap."""
        if announcer not in self.lazy or sender not in self.eager:
            return None
        gain = self._gains.get((sender, announcer))
        if gain is None:
            gain = self._gains[sender, announcer] = _Gain()
        gain.note(hops)
        return gain

    def _on_ihave(self, peer: bytes, announced: tuple[tuple[bytes, int], ...], now: float) -> None:
        config = self._config
        count = self._missing_by_peer.get(peer, 0)
        for id, round in announced:
            if id in self._received:
                kept = self._kept.get(id)
                if kept is not None and kept.sender is not None and kept.payload.round is not None:
                    self._note_gain(kept.sender, peer, kept.payload.round - 1 - round)
                continue
            if count >= config.max_missing_per_peer:
                break
            missing = self._missing.get(id)
            if missing is None:
                if len(self._missing) >= config.max_missing:
                    break
                missing = self._missing[id] = _Missing(now)
                self._timers.arm(now + self._patience(now), self._graft, id, missing)
            elif any(entry[0] == peer for entry in missing.announcers):
                continue
            missing.announcers.append((peer, round))
            count += 1
        if count:
            self._missing_by_peer[peer] = count

    def _patience(self, now: float) -> float:
        """How long an announced payload is awaited before somebody is asked for it."""
        late = max(LATE_ROUND_TRIPS * max(self._round_trips.values(), default=0.0), self._lateness.most(now))
        return max(self._config.graft_timeout, min(late, MAX_PATIENCE))

    def _graft(self, now: float, id: bytes, missing: _Missing) -> None:
        """The payload did not come: fetch it from the next announcer. The timer's action.

        ``missing`` is the very entry in the table: another there belongs to a later announcement and timer.
        """
        if self._missing.get(id) is not missing:
            return
        if not missing.announcers:
            del self._missing[id]
            return
        peer, round = missing.announcers.pop(0)
        missing.asked = peer
        self._count_down(peer)
        self._make_eager(peer)
        self._out.append(Send(peer, Graft(id, round)))
        patience = max(self._config.graft_retry, GRAFT_ROUND_TRIPS * self._round_trips.get(peer, 0.0))
        self._timers.arm(now + patience, self._graft, id, missing)

    # Sending

    def _forward(self, payload: Payload, sender: bytes | None, now: float) -> None:
        for peer in self.eager:
            if peer != sender:
                self._out.append(Send(peer, payload))
        assert payload.round is not None
        entry = (payload.id, payload.round)
        for peer in self.lazy:
            if peer != sender:
                self._unsent.setdefault(peer, []).append(entry)
        if self._unsent and not self._announcing:
            self._announcing = True
            self._timers.arm(now + self._config.dispatch_delay, self._announce)

    def _announce(self, _now: float) -> None:
        self._announcing = False
        size = self._config.max_announced
        for peer, entries in self._unsent.items():
            for start in range(0, len(entries), size):
                self._out.append(Send(peer, IHave(tuple(entries[start : start + size]))))
        self._unsent.clear()

    # The tree

    def _make_eager(self, peer: bytes) -> None:
        if self.lazy.pop(peer, None) is not None:
            self.eager[peer] = None

    def _make_lazy(self, peer: bytes, now: float) -> None:
        if peer in self.eager:
            del self.eager[peer]
            self.lazy[peer] = now

    def _prune(self, peer: bytes, now: float) -> None:
        """Ask ``peer`` for announcements instead, once for all the copies that are on their way."""
        pruned = self.lazy.get(peer)
        if pruned is None or now - pruned >= self._config.prune_interval:
            self._make_lazy(peer, now)
            if pruned is not None:
                self.lazy[peer] = now
            self._out.append(Send(peer, Prune()))

    # The tables

    def _store(self, payload: Payload, sender: bytes | None, now: float) -> None:
        config = self._config
        self._know(payload.id, now)
        again = self._kept.pop(payload.id, None)  # where the id was forgotten early, for want of room
        self._kept_bytes -= len(again.payload.content) if again is not None else 0
        self._kept[payload.id] = _Kept(payload, now + config.payload_retention, sender)
        self._kept_bytes += len(payload.content)
        while self._kept_bytes > config.max_payload_bytes:
            self._drop_oldest_payload()

    def _know(self, id: bytes, now: float) -> None:
        config = self._config
        self._received[id] = now + config.id_retention
        if len(self._received) > config.max_ids:
            self._received.popitem(last=False)
        if not self._evicting:
            self._evicting = True
            self._timers.arm(now + min(config.payload_retention, config.id_retention), self._evict)

    def _drop_oldest_payload(self) -> None:
        _, kept = self._kept.popitem(last=False)
        self._kept_bytes -= len(kept.payload.content)

    def _evict(self, now: float) -> None:
        while self._kept and next(iter(self._kept.values())).until <= now:
            self._drop_oldest_payload()
        while self._received and next(iter(self._received.values())) <= now:
            self._received.popitem(last=False)
        self._evicting = bool(self._received)
        if self._evicting:
            next_id = next(iter(self._received.values()))
            next_payload = next((kept.until for kept in self._kept.values()), next_id)
            self._timers.arm(max(min(next_id, next_payload), now + self._config.evict_interval), self._evict)

    def _pop_missing(self, id: bytes) -> _Missing | None:
        missing = self._missing.pop(id, None)
        if missing is not None:
            for peer, _ in missing.announcers:
                self._count_down(peer)
        return missing

    def _count_down(self, peer: bytes) -> None:
        left = self._missing_by_peer.get(peer, 0) - 1
        if left > 0:
            self._missing_by_peer[peer] = left
        else:
            self._missing_by_peer.pop(peer, None)
