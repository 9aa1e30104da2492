"""Catch-up: what the tree did not bring is fetched from neighbours' logs (``tidings/gossip-log/1``).

Each node names its log and counts its entries. It tells a neighbour how far it has come (Summary) when they meet, and
now and then where that has changed; who has not heard of all asks for the ids behind what it knows (Ask, Have) and then
for the contents that it lacks (Want, Give). What was caught up makes a node tell its neighbours soon: so a healed
partition is filled by an epidemic. Nobody is sent anything that it did not ask for.

Peers that do not speak this protocol are left alone; where all neighbours are such, other peers are tried.

Invariants: every table is bounded; at most one Want per peer is open, and it ends by answer or time; a content is
handed on once, as long as its id is remembered, which is longer than any log lists it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from .log import Entry, LogConfig, MessageLog
from .log_messages import MAX_GIVEN, MAX_LISTED, MAX_WANTED, Ask, Give, Have, LogMessage, Summary, Want
from .order import AuthorOrder
from .outputs import Missing, Output, Ready, SendLog
from .timers import Timers

__all__ = ["CatchUp"]

MAX_SEEN = 131_072  # ids remembered; about 20 MB
MAX_MISSING = 4_096  # ids listed to us and not fetched yet; then listing pauses
MAX_PARTNERS = 256  # peers whose logs we remember our place in
MAX_SPEAKERS = 64
GAP_AGAIN = 1.0  # seconds from asking for what an author's order lacks to asking again
PLAIN_FOR = 600.0  # seconds that a peer counts as one that does not speak this protocol
SUMMARY_ANYWAY = 6  # intervals after which a Summary is repeated though nothing changed
SEEN_SLACK = 1.5  # ids are remembered this much longer than logs keep them


@dataclass(slots=True)
class _Partner:
    """What we know of a peer's log, and it of ours."""

    log: bytes = b""
    upto: int = 0  # of its log: all behind was not listed to us yet
    listed_upto: int = 0  # of ours, to it
    told_at: float = float("-inf")  # when it got our last Summary
    asked_at: float | None = None  # an Ask is open
    listed: deque[bytes] = field(default_factory=deque)  # what it has and we lack, some of it arrived meanwhile
    wanted: dict[bytes, None] = field(default_factory=dict)  # the open Want
    wants: int = 0  # to tell their timers apart
    more: bool = False  # it has more to list
    again: bool = False  # what it is listing is less than what is wanted by now


@dataclass(slots=True)
class _Absent:
    """An entry that somebody has and we lack."""

    at: float
    sources: list[bytes]
    wanted: bool = False


class CatchUp:
    """``since``: what was new before that time is not asked for. ``candidates``: peers besides neighbours."""

    def __init__(
        self,
        me: bytes,
        config: LogConfig,
        since: float,
        rng: Random,
        timers: Timers,
        out: list[Output],
        candidates: Callable[[], Iterable[bytes]],
    ) -> None:
        self.log = MessageLog(config)
        self.since = since
        self._config = config
        self._me = me
        self._name = rng.randbytes(8)
        self._rng = rng
        self._timers = timers
        self._out = out
        self._candidates = candidates
        self._order = AuthorOrder()
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._floor = float("-inf")  # what is older may have been here and be forgotten
        self._neighbors: dict[bytes, None] = {}
        self._plain: dict[bytes, float] = {}
        self._speakers: OrderedDict[bytes, None] = OrderedDict()
        self._partners: OrderedDict[bytes, _Partner] = OrderedDict()
        self._missing: dict[bytes, _Absent] = {}
        self._gaps: set[tuple[bytes, int]] = set()
        self._ticking = self._soon = False

    def restore(self, entries: Iterable[Entry], now: float) -> None:
        """What was kept in an earlier run, oldest first: neither asked for nor handed on again."""
        for entry in entries:
            if entry.envelope is not None:
                self._order.resume(entry.envelope)
            self._keep(entry, now)

    # What the topic tells

    def neighbor_up(self, peer: bytes, now: float) -> None:
        self._neighbors[peer] = None
        if not self._is_plain(peer, now):
            self._tell(peer, now)
        if not self._ticking:
            self._ticking = True
            self._timers.arm(now + self._interval(), self._tick)

    def neighbor_down(self, peer: bytes) -> None:
        self._neighbors.pop(peer, None)

    def not_spoken(self, peer: bytes, now: float) -> None:
        """``peer`` does not speak this protocol."""
        if len(self._plain) >= MAX_PARTNERS:
            self._plain = {other: until for other, until in self._plain.items() if until > now}
        self._plain[peer] = now + PLAIN_FOR
        self._speakers.pop(peer, None)
        self._end(peer, now)

    def lost(self, peer: bytes, now: float) -> None:
        """The connection to ``peer`` ended: what is open there is asked of others."""
        partner = self._partners.get(peer)
        if partner is not None:
            partner.listed_upto, partner.asked_at = 0, None
            self._give_back(peer, partner, now)

    def look_back(self, since: float, now: float) -> None:
        """From now on, ask for what was new after ``since``, too."""
        if since < self.since:
            self.since = since
            for peer in self._neighbors:
                partner = self._partner(peer, now)
                partner.upto, partner.again = 0, partner.asked_at is not None
                if not self._is_plain(peer, now):
                    self._ask(peer, partner, now)

    def own(self, entry: Entry, now: float) -> None:
        """A message of ours: kept for others."""
        if self._neighbors:
            entry.fresh_until = now + self._config.grace
        self._keep(entry, now)

    def arrived(self, entry: Entry, peer: bytes, round: int | None, now: float, *, by_tree: bool) -> None:
        """``entry``, checked, came from ``peer``, along the tree or from its log."""
        absent = self._missing.pop(entry.id, None)
        if absent is not None:
            entry.at = min(entry.at, absent.at)
        envelope = entry.envelope
        if self._order.knows(envelope) if envelope is not None else not by_tree and entry.id in self._seen:
            self._remember(entry)
            return
        if by_tree:
            entry.fresh_until = now + self._config.grace
        self._keep(entry, now)
        if not by_tree and not self._soon:
            self._soon = True
            self._timers.arm(now + self._config.soon, self._tell_soon)
        if envelope is None:
            self._out.append(Ready(entry, peer, round, late=False))
            return
        self._note_speaker(envelope.author)
        for ready, late in self._order.arrived(entry, envelope, self.since, now):
            self._out.append(Ready(ready, peer, round, late))
        key = (envelope.author, envelope.session)
        if self._order.crowded(key):
            self._give_up(key, peer)
        elif key not in self._gaps and self._order.waits(key):
            self._gaps.add(key)
            self._timers.arm(now + self._config.gap_ask, self._look_at_gap, key, peer)

    def receive(self, peer: bytes, message: LogMessage, now: float) -> None:
        """Anything but a Give, whose contents are checked first: see `given`."""
        self._note_speaker(peer)
        self._plain.pop(peer, None)
        partner = self._partner(peer, now)
        match message:
            case Summary(log, high):
                self._on_summary(peer, partner, log, high, now)
            case Ask(after, age):
                self._on_ask(peer, after, age, now)
            case Have():
                self._on_have(peer, partner, message, now)
            case Want(ids):
                self._on_want(peer, ids, now)

    def given(self, peer: bytes, entries: Iterable[Entry], gone: Iterable[bytes], now: float) -> None:
        """A Give of ``peer``: the entries whose content was sound, and the ids of the rest."""
        partner = self._partner(peer, now)
        for entry in entries:
            if entry.id in partner.wanted:
                del partner.wanted[entry.id]
                self.arrived(entry, peer, None, now, by_tree=False)
        lacked = [id for id in dict.fromkeys(gone) if id in partner.wanted]
        for id in lacked:
            del partner.wanted[id]
        self._pass_on(peer, lacked, (), now)
        if not partner.wanted:
            self._go_on(peer, partner, now)

    # Summaries

    def _tick(self, now: float) -> None:
        self.log.expire(now)
        while self._seen and next(iter(self._seen.values())) < now - SEEN_SLACK * self._config.age:
            self._seen.popitem(last=False)
        if not self._neighbors:
            self._ticking = False
            return
        self._tell_neighbors(now, anyway=True)
        self._timers.arm(now + self._interval(), self._tick)

    def _interval(self) -> float:
        return self._config.interval * self._rng.uniform(0.8, 1.2)

    def _tell_soon(self, now: float) -> None:
        self._soon = False
        self._tell_neighbors(now, anyway=False)

    def _tell_neighbors(self, now: float, *, anyway: bool) -> None:
        partners = [peer for peer in self._neighbors if not self._is_plain(peer, now)]
        if not partners:
            others = [*self._speakers, *self._candidates()]
            others = [peer for peer in others if not self._is_plain(peer, now) and peer not in self._neighbors]
            partners = self._rng.sample(others, min(1, len(others)))
        for peer in partners:
            partner = self._partner(peer, now)
            repeat = anyway and now - partner.told_at >= SUMMARY_ANYWAY * self._config.interval
            if partner.listed_upto != self.log.high or repeat:
                self._tell(peer, now)

    def _tell(self, peer: bytes, now: float) -> None:
        self._partner(peer, now).told_at = now
        self._out.append(SendLog(peer, Summary(self._name, self.log.high)))

    def _on_summary(self, peer: bytes, partner: _Partner, log: bytes, high: int, now: float) -> None:
        if partner.log != log:
            partner.log, partner.upto = log, 0
        if high > partner.upto:
            self._ask(peer, partner, now)
        behind = partner.listed_upto != self.log.high and now - partner.told_at >= self._config.interval
        if behind and peer not in self._neighbors:
            self._tell(peer, now)

    # Lists

    def _ask(self, peer: bytes, partner: _Partner, now: float) -> None:
        if partner.asked_at is not None and now - partner.asked_at < self._config.answer_timeout:
            return
        if len(self._missing) > MAX_MISSING // 2:
            partner.more = True
            return
        partner.asked_at, partner.more = now, False
        self._timers.arm(now + self._config.answer_timeout, self._unlisted, peer, partner, now)
        age = min(self._config.age, now - max(self.since, self._floor))
        self._out.append(SendLog(peer, Ask(partner.upto, max(0, int(age * 1000)))))

    def _unlisted(self, now: float, peer: bytes, partner: _Partner, asked_at: float) -> None:
        if partner.asked_at == asked_at and self._partners.get(peer) is partner:
            partner.asked_at = None
            if peer in self._neighbors and not self._is_plain(peer, now):
                self._ask(peer, partner, now)

    def _on_ask(self, peer: bytes, after: int, age: int, now: float) -> None:
        listed: list[tuple[bytes, int]] = []
        after = upto = min(after, self.log.high)
        oldest, more = now - age / 1000, False
        for entry in self.log.after(upto, MAX_LISTED):
            if entry.fresh_until > now:
                break
            upto = entry.index
            if entry.at >= oldest:
                listed.append((entry.id, _age(entry, now)))
        else:
            more = upto < self.log.high
        self._partner(peer, now).listed_upto = upto
        self._out.append(SendLog(peer, Have(self._name, after, tuple(listed), upto, more)))

    def _on_have(self, peer: bytes, partner: _Partner, message: Have, now: float) -> None:
        partner.asked_at = None
        floor = max(self.since, self._floor, now - self._config.age)
        for id, age in message.listed:
            at = now - age / 1000
            if at < floor or id in self._seen:
                continue
            absent = self._missing.get(id)
            if absent is None:
                if len(self._missing) >= MAX_MISSING:
                    return  # where we stand is not moved: it is listed again
                absent = self._missing[id] = _Absent(at, [])
            if peer not in absent.sources:
                absent.sources.append(peer)
                partner.listed.append(id)
        if message.log != partner.log:
            partner.log, partner.upto = message.log, 0
        if message.after <= partner.upto and not partner.again:
            partner.upto, partner.more = max(partner.upto, message.upto), message.more
        else:  # we went back behind this list since it was asked for
            partner.more, partner.again = True, False
        self._go_on(peer, partner, now)

    # Contents

    def _go_on(self, peer: bytes, partner: _Partner, now: float) -> None:
        """Want the next of what ``peer`` has listed, or have it list more."""
        if partner.wanted:
            return
        ids: list[bytes] = []
        while partner.listed and len(ids) < MAX_WANTED:
            id = partner.listed.popleft()
            absent = self._missing.get(id)
            if absent is not None and not absent.wanted:
                absent.wanted = True
                ids.append(id)
        if ids:
            partner.wanted = dict.fromkeys(ids)
            partner.wants += 1
            self._out.append(SendLog(peer, Want(tuple(ids))))
            self._timers.arm(now + self._config.answer_timeout, self._unanswered, peer, partner, partner.wants)
        elif partner.more:
            self._ask(peer, partner, now)

    def _on_want(self, peer: bytes, ids: tuple[bytes, ...], now: float) -> None:
        found: list[tuple[bytes, int]] = []
        gone: list[bytes] = []
        size = 0
        for id in ids:
            entry = self.log.find(id)
            if entry is None:
                gone.append(id)
                continue
            if found and size + len(entry.content) > MAX_GIVEN:
                self._out.append(SendLog(peer, Give(tuple(found), ())))
                found, size = [], 0
            found.append((entry.content, _age(entry, now)))
            size += len(entry.content)
        self._out.append(SendLog(peer, Give(tuple(found), tuple(gone))))

    def _unanswered(self, now: float, peer: bytes, partner: _Partner, wants: int) -> None:
        if partner.wanted and partner.wants == wants and self._partners.get(peer) is partner:
            self._give_back(peer, partner, now)

    def _give_back(self, peer: bytes, partner: _Partner, now: float) -> None:
        """``peer`` does not answer: others that have it are asked, or else it lists again from the beginning."""
        wanted, listed = partner.wanted, partner.listed
        partner.wanted, partner.listed = {}, deque()
        if wanted or listed:
            partner.upto = 0
        self._pass_on(peer, wanted, listed, now)

    def _pass_on(self, peer: bytes, wanted: Iterable[bytes], listed: Iterable[bytes], now: float) -> None:
        """``peer`` does not give us these: those that nobody is asked for now are asked of others that have them."""
        others: dict[bytes, None] = {}
        for id in wanted:
            if id in self._missing:
                self._missing[id].wanted = False
        for id in (*wanted, *listed):
            absent = self._missing.get(id)
            if absent is None or absent.wanted:
                continue
            absent.sources = [other for other in absent.sources if other != peer and other in self._partners]
            if not absent.sources:
                del self._missing[id]
            for other in absent.sources:
                self._partners[other].listed.append(id)
                others[other] = None
        for other in others:
            self._go_on(other, self._partners[other], now)

    # Gaps

    def _look_at_gap(self, now: float, key: tuple[bytes, int], peer: bytes) -> None:
        config = self._config
        if not self._order.waits(key):
            self._gaps.discard(key)
            return
        idle = now - self._order.moved_at(key)
        if idle >= config.gap_timeout * (3 if self._missing else 1):
            self._give_up(key, peer)
            if not self._order.waits(key):
                return
        for other in dict.fromkeys((peer, *self._neighbors)):
            if not self._is_plain(other, now):
                self._ask(other, self._partner(other, now), now)
        self._gaps.add(key)
        self._timers.arm(now + max(config.gap_ask, GAP_AGAIN), self._look_at_gap, key, peer)

    def _give_up(self, key: tuple[bytes, int], peer: bytes) -> None:
        gap, entries = self._order.give_up(key)
        self._gaps.discard(key)
        self._out.append(Missing(gap))
        for entry, late in entries:
            self._out.append(Ready(entry, peer, None, late))

    # Tables

    def _keep(self, entry: Entry, now: float) -> None:
        self._remember(entry)
        self.log.expire(now)
        self.log.append(entry)

    def _remember(self, entry: Entry) -> None:
        self._seen.pop(entry.id, None)
        self._seen[entry.id] = entry.at
        if len(self._seen) > MAX_SEEN:
            _, at = self._seen.popitem(last=False)
            self._floor = max(self._floor, at)

    def _partner(self, peer: bytes, now: float) -> _Partner:
        partner = self._partners.get(peer)
        if partner is None:
            partner = self._partners[peer] = _Partner()
            if len(self._partners) > MAX_PARTNERS:
                self._end(next(iter(self._partners)), now)
        else:
            self._partners.move_to_end(peer)
        return partner

    def _end(self, peer: bytes, now: float) -> None:
        partner = self._partners.pop(peer, None)
        if partner is not None:
            self._pass_on(peer, partner.wanted, partner.listed, now)

    def _note_speaker(self, peer: bytes) -> None:
        if peer == self._me:
            return
        self._speakers.pop(peer, None)
        self._speakers[peer] = None
        if len(self._speakers) > MAX_SPEAKERS:
            self._speakers.popitem(last=False)

    def _is_plain(self, peer: bytes, now: float) -> bool:
        return self._plain.get(peer, 0.0) > now


def _age(entry: Entry, now: float) -> int:
    return max(0, int((now - entry.at) * 1000))
