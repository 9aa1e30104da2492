"""Models that the documents are checked against: a ten-line put rule, a plain store, and a peer with the Rust rule."""

from tidings.docs_sync.model import reconcile
from tidings.docs_sync.model.entry import EMPTY_HASH, EntryId, Record, SignedEntry, fingerprint_of
from tidings.docs_sync.model.keys import Author, NamespaceSecret
from tidings.docs_sync.model.put import put
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import (
    ContentStatus,
    Limits,
    RangeFingerprint,
    RangeItems,
    Summary,
    Tally,
    Value,
)

NAMESPACE = NamespaceSecret(b"\xb2" * 32)
AUTHORS = [Author(bytes([0xA1 + index]) * 32) for index in range(2)]
NAMESPACE_ID = bytes(NAMESPACE.id)


def entry(key: bytes, timestamp: int, content: int | None = 1, author: int = 0, namespace: bytes = NAMESPACE_ID):
    """An unsigned entry; ``content`` None is a tombstone."""
    record = Record(0, EMPTY_HASH, timestamp) if content is None else Record(1, bytes([content]) * 32, timestamp)
    return SignedEntry(EntryId(namespace, bytes(AUTHORS[author].id), key), record, bytes(64), bytes(64))


def merged(entries):
    """The put rule as a definition: what survives is what nothing else supersedes, in whatever order it came."""
    unique = {(e.id, e.record.order): e for e in entries}.values()
    return {
        e
        for e in unique
        if not any(
            o is not e
            and o.id.author == e.id.author
            and e.id.key.startswith(o.id.key)
            and (o.record.order, len(e.id.key)) >= (e.record.order, len(o.id.key))
            for o in unique
        )
    }


class MemoryStore:
    """Both protocols of a store over a dict; ranges by scanning."""

    namespace = NAMESPACE_ID

    def __init__(self, entries=()):
        self.entries = {}
        for e in entries:
            self.put(e)

    def put(self, e):
        return put(self, e).stored

    def superseding(self, e):
        for o in self.entries.values():
            if o.id.author == e.id.author and e.id.key.startswith(o.id.key) and o.record.order >= e.record.order:
                return o.id
        return None

    def remove_superseded(self, e):
        gone = [
            o
            for o in self.entries.values()
            if o.id.author == e.id.author and o.id.key.startswith(e.id.key) and o.record.order <= e.record.order
        ]
        for o in gone:
            del self.entries[bytes(o.id)]
        return sum(not o.record.is_tombstone for o in gone)

    def insert(self, e):
        self.entries[bytes(e.id)] = e

    def first_id(self):
        return min(self.entries, default=None)

    def walk(self, range_):
        for segment in range_.segments(self.namespace):
            low, high = (None if b is None else self.namespace + b[0] + b[1] for b in segment)
            for id in sorted(self.entries):
                if (low is None or id >= low) and (high is None or id < high):
                    yield Value(self.entries[id], ContentStatus.COMPLETE)

    def summary(self, range_):
        values = list(self.walk(range_))
        total = int.from_bytes(EMPTY_HASH)
        for e, _ in values:
            total ^= int.from_bytes(fingerprint_of(e.id, e.record))
        return Summary(len(values), total.to_bytes(32))

    def put_all(self, entries):
        return [put(self, e) for e in entries]

    def ids_at(self, range_, positions):
        ids = [bytes(e.id) for e, _ in self.walk(range_)]
        return [ids[position] for position in positions]

    def listing(self, range_):
        return [(bytes(v.entry.id), fingerprint_of(v.entry.id, v.entry.record)) for v in self.walk(range_)]

    def values_of(self, ids):
        return [Value(self.entries[id], ContentStatus.COMPLETE) for id in ids if id in self.entries]

    def cuts(self, range_, ways, fewest):
        ids = [bytes(e.id) for e, _ in self.walk(range_)]
        return list(dict.fromkeys(ids[max(1, len(ids) * way // ways)] for way in range(1, ways)))


class OurPeer:
    def __init__(self, entries=(), limits=None):
        self.store = MemoryStore(entries)
        self.limits = limits or Limits()
        self.tally = Tally()

    def start(self):
        return reconcile.initial_message(self.store)

    def handle(self, message):
        taken = reconcile.take_values(self.store.put_all, message)
        self.tally.note(taken.stored)
        parts = reconcile.answer(self.store, message, self.limits, taken.owed)
        self.tally.sent += sum(len(part.values) for part in parts if isinstance(part, RangeItems))
        return parts

    @property
    def held(self):
        return set(self.store.entries.values())


class RustPeer(OurPeer):
    """The unmodified peer: binary splits, no cut, difference before the put, and deletes that do not hold."""

    def handle(self, message):
        parts = []
        for part in message:
            if not isinstance(part, RangeItems):
                continue
            theirs = {bytes(v.entry.id): v.entry.record.order for v in part.values}
            diff = [
                v
                for v in self.store.walk(part.range)
                if theirs.get(bytes(v.entry.id), (-1, b"")) < v.entry.record.order
            ]
            for value in part.values:
                self._put(value.entry)
            if diff and not part.have_local:
                parts.append(RangeItems(part.range, diff, True))
        for part in message:
            if isinstance(part, RangeFingerprint):
                parts += self._compare(part.range, part.fingerprint)
        return parts

    def _compare(self, range_, fingerprint):
        values = list(self.store.walk(range_))
        n = len(values)
        if self.store.summary(range_).fingerprint == fingerprint:
            return []
        if n <= 1 or fingerprint == EMPTY_HASH:
            return [RangeItems(range_, values, False)]
        ids = sorted(bytes(v.entry.id) for v in values)  # the Rust enumeration starts at the least id
        inside = [id for id in ids if id < range_.x]
        pivots = [ids[(len(inside) + n * (i + 1) // 2) % n] for i in range(2)]
        if range_.is_whole:
            bounds = [(pivots[0], pivots[1]), (pivots[1], pivots[0])]
        else:
            bounds = [(range_.x, pivots[0]), (pivots[0], range_.y)]
        parts = []
        for x, y in bounds:
            if x == y:
                continue
            run = IdRange(x, y)
            mine = list(self.store.walk(run))
            if len(mine) > 1:
                parts.append(RangeFingerprint(run, self.store.summary(run).fingerprint))
            else:
                parts.append(RangeItems(run, mine, False))
        return parts

    def _put(self, e):
        for o in self.store.entries.values():
            visible = o.id.key != b"" and not o.record.is_tombstone
            parent = o.id.author == e.id.author and e.id.key.startswith(o.id.key)
            if visible and parent and o.record.order >= e.record.order:
                return
        self.store.remove_superseded(e)
        self.store.insert(e)


def run_session(dialler, acceptor, on_message=lambda message: None, limit=2000):
    """Messages until one side has nothing to say; how many there were."""
    message, count = dialler.start(), 0
    sides = (acceptor, dialler)
    while message:
        on_message(message)
        count += 1
        assert count < limit, "the session does not end"
        message = sides[(count - 1) % 2].handle(message)
    return count
