"""Range-based set reconciliation, without I/O (``reference/iroh-protocols.md`` 2.5, 6.3, 6.4).

Two sides compare fingerprints (XOR of the entries' own) of ranges of ids; where they differ the range is split, and
where little is left the entries themselves are sent. A message is a list of parts, of two kinds:

- `RangeFingerprint`: "this is what I have there";
- `RangeItems`: "these are my entries there"; unless ``have_local`` the receiver answers with what the sender lacks.

Handling one message is two steps, so that a store can write in one transaction and read beside it: `take_values`
puts what was received, `answer` says what to send back. The difference is computed *after* the put: what just came is
then there and equal, and what it deleted is not sent back. Nothing to say is the end of the session on our side.

How finely to split and when to send entries are free choices, and a peer with other ones converges with us. Ours
depend on how far the peer is (`limits_for`), and no message has more in it than `Limits` says. What
does not fit is cut at an id; the rest of the range goes as a fingerprint, which any peer just answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple, Protocol

from ..errors import InvalidEntry, OutsideRange
from .entry import EMPTY_HASH, SignedEntry
from .put import Put
from .ranges import IdRange

__all__ = [
    "ENTRY_OVERHEAD",
    "ContentStatus",
    "Limits",
    "Message",
    "Part",
    "RangeFingerprint",
    "RangeItems",
    "RangeList",
    "RangeStore",
    "RangeWant",
    "Screened",
    "Summary",
    "Taken",
    "Tally",
    "Value",
    "answer",
    "entries_of",
    "initial_message",
    "limits_for",
    "pieces",
    "screen",
    "take_values",
]

ENTRY_OVERHEAD = 248  # bytes of an entry on the wire beside its key, rounded up
MAX_ANSWERED = 8192  # parts of a message, of each kind: a second's work where every one differs
PART_OVERHEAD = 44  # bytes of a part beside its bounds, rounded up
MAX_LISTED = 1 << 18  # entries that are looked at for the lists of a message: 0.3 s
SHORT = 8  # bytes of a fingerprint in a list
EMPTY_ID = bytes(64)


class ContentStatus(IntEnum):
    """Whether the sender of an entry has its content."""

    COMPLETE = 0
    INCOMPLETE = 1
    MISSING = 2


class Value(NamedTuple):
    entry: SignedEntry
    status: ContentStatus


@dataclass(frozen=True, slots=True)
class RangeFingerprint:
    range: IdRange
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class RangeItems:
    range: IdRange
    values: Sequence[Value]
    have_local: bool


@dataclass(frozen=True, slots=True)
class RangeList:
    """What the sender has in a range: the first `SHORT` bytes of each entry's fingerprint. Between tidings peers."""

    range: IdRange
    shorts: bytes


@dataclass(frozen=True, slots=True)
class RangeWant:
    """The answer to a `RangeList`: those of the range that are to be sent."""

    range: IdRange
    shorts: bytes


Part = RangeFingerprint | RangeItems | RangeList | RangeWant
Message = Sequence[Part]


class Summary(NamedTuple):
    """How many entries a range holds, and BLAKE3 of nothing XOR their fingerprints."""

    size: int
    fingerprint: bytes


class RangeStore(Protocol):
    """What reconciliation reads of one document, all of it from one snapshot."""

    @property
    def namespace(self) -> bytes: ...

    def first_id(self) -> bytes | None: ...

    def summary(self, range: IdRange) -> Summary: ...

    def ids_at(self, range: IdRange, positions: Sequence[int]) -> list[bytes]:
        """The ids at ascending ``positions`` of the walk through the range."""

    def cuts(self, range: IdRange, ways: int, fewest: int) -> list[bytes]:
        """From one to ``ways - 1`` ids of a range of at least two entries, in the order of the walk and behind its
        first one: about equally far from each other, the more so the larger ``fewest`` is, up to which any will do
        that are cheap."""

    def walk(self, range: IdRange) -> Iterator[Value]:
        """The entries from x upward, wrapping, read as they are asked for; with our own content's state."""

    def listing(self, range: IdRange) -> list[tuple[bytes, bytes]]:
        """Id and fingerprint of each, in the order of the walk."""

    def values_of(self, ids: Sequence[bytes]) -> list[Value]:
        """Those of the entries that are here, in this order."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What we put in one message, and how we split. Every value converges with every peer's."""

    split: int = 32
    """Sub-ranges of a range whose fingerprints differ, at most; at least 2."""
    fewest: int = 8
    """See `RangeStore.cuts`."""
    base: int = 16
    """A differing range of up to so many entries is sent as entries."""
    listed: int = 0
    """A differing range of up to so many is sent as a `RangeList`; 0 for peers that know no such part."""
    max_values: int = 1000
    """Entries in a message: about 250 kB, so that a first sync is held in memory piece by piece on both sides."""
    max_bytes: int = 1 << 20
    """Bytes of entries in a message, where keys are long."""
    max_parts: int = 4096
    """Parts in a message. Past it the differing ranges that are left go back as one, to be split next time."""
    max_bounds: int = 1 << 20
    """Bytes of the parts' bounds, where keys are long, and of lists; one more split may go beyond it."""


SPLIT_AT_ONCE = 512  # entries of a document
MAX_SPLIT = 1 << 16  # bytes of the ids between the runs of the first split, where keys are long
FAR = 0.02
"""Seconds of a round trip from which fewer messages count for more than fewer bytes."""
FAR_BASE = 64  # about 15 kB of entries where one more split would be 3 kB and a round trip
FAR_SPLIT = 256
NEAR_LISTED, FAR_LISTED = 256, 512
LIST_BASE = 4  # entries are longer than lists


def limits_for(round_trip: float, size: int, *, lists: bool = False) -> Limits:
    """For a peer that is ``round_trip`` seconds away, and a document of ``size`` entries. ``lists``: a tidings peer.

    Nearby the defaults cost the fewest bytes and the least work. Far away a document of a million entries is split so
    finely that two splits lead to entries: five messages in all, of both sides together, where little differs. (Runs
    are not quite equal: the mean one is to have half of what is sent as entries.)
    """
    if lists:
        if round_trip < FAR:
            return Limits(base=LIST_BASE, listed=NEAR_LISTED)
        return Limits(split=FAR_SPLIT, fewest=2 * FAR_SPLIT, base=LIST_BASE, listed=FAR_LISTED)
    if round_trip < FAR:
        return Limits()
    split = min(FAR_SPLIT, max(16, math.isqrt(2 * size // FAR_BASE) + 1))
    return Limits(split=split, fewest=2 * split, base=FAR_BASE)


@dataclass(slots=True)
class Tally:
    """What one session moved. Heads are of entries that were stored, never of what a peer merely claims."""

    received: int = 0
    sent: int = 0
    stored: int = 0
    rejected: int = 0
    deletes: int = 0
    heads: dict[bytes, int] = field(default_factory=dict)

    @property
    def needs_another(self) -> bool:
        """A peer with the reference's rule may have overwritten a delete, which it sent us, with what the delete
        removes, which we sent it. Now that we hold the delete, a second session puts that right."""
        return self.sent > 0 and self.deletes > 0

    def note(self, stored: Sequence[Value]) -> None:
        self.stored += len(stored)
        for entry, _status in stored:
            self.deletes += entry.record.is_tombstone or not entry.id.key
            author = entry.id.author
            self.heads[author] = max(self.heads.get(author, 0), entry.record.timestamp)


class Taken(NamedTuple):
    """``stored`` is new here, with the sender's content state.

    ``owed`` are the ids of our entries at a *prefix* of one that was refused. They go back, wherever they stand: a peer
    with the reference's rule can hold a deleted entry and its tombstone, and only the tombstone put again helps it.
    """

    stored: Sequence[Value]
    owed: Sequence[bytes]


class Screened(NamedTuple):
    """A message without the entries that nobody may accept, and what was wrong with those."""

    message: Message
    rejected: Sequence[InvalidEntry]


def entries_of(message: Message) -> list[SignedEntry]:
    """All that a message carries, in its order."""
    return [value.entry for part in message if isinstance(part, RangeItems) for value in part.values]


def screen(message: Message, verdicts: Sequence[InvalidEntry | None]) -> Screened:
    """Drop what is not acceptable, entry by entry. ``verdicts`` are `validity.judge_all` of `entries_of`."""
    remaining = iter(verdicts)
    parts: list[Part] = []
    rejected: list[InvalidEntry] = []
    for part in message:
        if isinstance(part, RangeItems):
            good = []
            for value in part.values:
                verdict = next(remaining)
                if verdict is None and not part.range.contains(bytes(value.entry.id)):
                    verdict = OutsideRange("an entry lies outside of the range that it was sent for")
                if verdict is None:
                    good.append(value)
                else:
                    rejected.append(verdict)
            part = RangeItems(part.range, good, part.have_local)
        parts.append(part)
    return Screened(parts, rejected)


def pieces(message: Message, size: int, but: Set[SignedEntry] = frozenset()) -> Iterator[Message]:
    """The entries of a message ``but`` some in runs of at most ``size``, each for one `take_values`; their order does
    not matter."""
    piece: list[Part] = []
    room = size
    for part in message:
        if isinstance(part, RangeItems):
            start = 0
            values = [value for value in part.values if value.entry not in but] if but else part.values
            while start < len(values):
                some = values[start : start + room]
                piece.append(RangeItems(part.range, some, part.have_local))
                start, room = start + len(some), room - len(some)
                if not room:
                    yield piece
                    piece, room = [], size
    if piece:
        yield piece


def initial_message(store: RangeStore, limits: Limits | None = None, recent: Sequence[Value] | None = None) -> Message:
    """Of one fingerprint, as the reference begins; with ``limits`` already the first split of a document that is not
    small, which saves a message where it differs, as one that is synced mostly does.

    ``recent`` is what arrived since the peer had the same entries as we: then likely nothing else is new here.
    """
    first = store.first_id()
    whole = IdRange(*(2 * (first or EMPTY_ID,)))
    summary = store.summary(whole)
    if recent is not None:
        return _recent(whole, recent, summary)
    if limits is not None and summary.size >= SPLIT_AT_ONCE:
        split = _Reply(store, limits)
        split.split(whole, summary.size)
        if sum(len(part.range.x) for part in split.parts) < MAX_SPLIT:
            return split.parts
    return [RangeFingerprint(whole, summary.fingerprint)]


def _recent(whole: IdRange, values: Sequence[Value], summary: Summary) -> Message:
    fingerprint = RangeFingerprint(whole, summary.fingerprint)
    return [RangeItems(whole, values, have_local=True), fingerprint] if values else [fingerprint]


def take_values(put_all: Callable[[Sequence[SignedEntry]], Sequence[Put]], message: Message) -> Taken:
    """Put every entry of a screened message."""
    values = [value for part in message if isinstance(part, RangeItems) for value in part.values]
    stored: list[Value] = []
    owed: dict[bytes, None] = {}
    for value, outcome in zip(values, put_all([value.entry for value in values]), strict=True):
        refused_for = outcome.superseded_by
        if refused_for is None:
            stored.append(value)
        elif refused_for != value.entry.id:
            owed[bytes(refused_for)] = None
    return Taken(stored, list(owed))


def answer(
    store: RangeStore, message: Message, limits: Limits, owed: Sequence[bytes] = (), recent: Sequence[Value] = ()
) -> Message:
    """What to send back once `take_values` is done; empty: nothing, this side is finished.

    ``owed`` is from there: entries at prefixes of what was refused. ``recent`` is for the first message of a peer that
    had the same entries once: what arrived since, beside what that message brought.
    """
    if recent and len(compared := [part for part in message if isinstance(part, RangeFingerprint)]) == 1:
        whole = compared[0].range
        summary = store.summary(whole)
        if whole.x == whole.y and summary.fingerprint != compared[0].fingerprint:
            return _recent(whole, recent, summary)
    reply = _Reply(store, limits)
    for id in owed:
        # Not have_local: where the peer has a newer one there, it must send that before ours overwrites it.
        reply.items(IdRange(id, id + b"\0"), lacking={}, have_local=False)
    asked = [part for part in message if isinstance(part, RangeItems) and not part.have_local]
    for part in asked[:MAX_ANSWERED]:
        theirs = {bytes(value.entry.id): value.entry.record.order for value in part.values}
        reply.items(part.range, lacking=theirs, have_local=True)
    reply.hand_back(asked[MAX_ANSWERED:])
    reply.settle_all([part for part in message if isinstance(part, RangeList | RangeWant)])
    reply.compare_all([part for part in message if isinstance(part, RangeFingerprint)])
    return reply.parts


class _Reply:
    def __init__(self, store: RangeStore, limits: Limits) -> None:
        self.parts: list[Part] = []
        self._store = store
        self._limits = limits
        self._values_left = limits.max_values
        self._bytes_left = limits.max_bytes
        self._bounds_left = limits.max_bounds

    def compare_all(self, parts: Sequence[RangeFingerprint]) -> None:
        compared = [(part, self._store.summary(part.range)) for part in parts[:MAX_ANSWERED]]
        differing = [(part, mine) for part, mine in compared if mine.fingerprint != part.fingerprint]
        left = list(parts[MAX_ANSWERED:])
        # Where much differs, entries of small ranges would fill the message and more after it.
        base = max(1, min(self._limits.base, self._limits.max_values // (2 * len(differing) or 1)))
        for index, (part, mine) in enumerate(differing):
            if self._is_full:
                left = [part for part, _ in differing[index:]] + left
                break
            if mine.size <= base or part.fingerprint == EMPTY_HASH:
                self.items(part.range, lacking={}, have_local=False)
            elif mine.size <= self._limits.listed:
                shorts = b"".join(fingerprint[:SHORT] for _, fingerprint in self._store.listing(part.range))
                self._add(RangeList(part.range, shorts))
            else:
                self.split(part.range, mine.size)
        self.hand_back(left)

    def settle_all(self, parts: Sequence[RangeList | RangeWant]) -> None:
        """Send what only we have of a list and ask for what only the peer has; send what it asks for."""
        left = MAX_LISTED
        for index, part in enumerate(parts):
            size = self._store.summary(part.range).size
            left -= size + len(part.shorts) // SHORT
            if self._is_full or left < 0:
                self.hand_back(parts[index:])
                return
            theirs = {part.shorts[start : start + SHORT] for start in range(0, len(part.shorts), SHORT)}
            mine = {fingerprint[:SHORT]: id for id, fingerprint in self._store.listing(part.range)}
            if isinstance(part, RangeWant):
                self._some(part.range, [id for short, id in mine.items() if short in theirs])
                continue
            self._some(part.range, [id for short, id in mine.items() if short not in theirs])
            if lacking := theirs - mine.keys():
                self._add(RangeWant(part.range, b"".join(lacking)))

    def _some(self, range: IdRange, ids: Sequence[bytes]) -> None:
        """Send these entries of a range; where not all fit, its fingerprint, too, to be answered with a list again."""
        fitting = []
        for id in ids:
            if not self._fits(len(id)):
                break
            fitting.append(id)
        if fitting:
            self._add(RangeItems(range, self._store.values_of(fitting), have_local=True))
        if len(fitting) < len(ids):
            self._add(RangeFingerprint(range, self._store.summary(range).fingerprint))

    def hand_back(self, parts: Sequence[Part]) -> None:
        """Left for later: one fingerprint over all of them, to be split again. They come in the order of the walk."""
        if parts:
            rest = IdRange(parts[0].range.x, parts[-1].range.y)
            self._add(RangeFingerprint(rest, self._store.summary(rest).fingerprint))

    def items(self, range: IdRange, *, lacking: dict[bytes, tuple[int, bytes]], have_local: bool) -> None:
        """Send what the range holds and ``lacking`` does not, or as much as still fits, and the rest's fingerprint."""
        if self._values_left <= 0 and self._is_full:
            # Nobody honest asks for so much: no rows are read only to be left out.
            self._add(RangeFingerprint(range, self._store.summary(range).fingerprint))
            return
        values: list[Value] = []
        for value in self._store.walk(range):
            id = bytes(value.entry.id)
            theirs = lacking.get(id)
            if theirs is not None and theirs >= value.entry.record.order:
                continue
            if not self._fits(len(id)):
                cut = id if values else range.x
                if values:
                    self._add(RangeItems(IdRange(range.x, cut), values, have_local))
                rest = IdRange(cut, range.y)
                self._add(RangeFingerprint(rest, self._store.summary(rest).fingerprint))
                return
            values.append(value)
        if values or not have_local:
            self._add(RangeItems(range, values, have_local))

    @property
    def _is_full(self) -> bool:
        return len(self.parts) >= self._limits.max_parts or self._bounds_left <= 0

    def _add(self, part: Part) -> None:
        self.parts.append(part)
        self._bounds_left -= len(part.range.x) + len(part.range.y) + PART_OVERHEAD
        if isinstance(part, RangeList | RangeWant):
            self._bounds_left -= len(part.shorts)

    def _fits(self, id_size: int) -> bool:
        """Take room for one more entry. The first of a message always fits, so that every message makes progress."""
        if self._values_left < self._limits.max_values and (
            self._values_left <= 0 or self._bytes_left < id_size + ENTRY_OVERHEAD
        ):
            return False
        self._values_left -= 1
        self._bytes_left -= id_size + ENTRY_OVERHEAD
        return True

    def split(self, whole: IdRange, count: int) -> None:
        """At least two entries in at most ``split`` runs of nearly equal length, which cover the range together."""
        ways = min(self._limits.split, max(2, 2 * count // max(1, self._limits.listed, self._limits.base)))
        cuts = self._store.cuts(whole, ways, self._limits.fewest)
        bounds = [whole.x, *cuts, whole.y]
        for x, y in pairwise(bounds):
            run = IdRange(x, y)
            mine = self._store.summary(run)
            if mine.size > 1:  # very likely equal, and its entries would be longer than its fingerprint
                self._add(RangeFingerprint(run, mine.fingerprint))
            else:
                self.items(run, lacking={}, have_local=False)
