"""One document's entries as rows, as reconciliation reads them, inside one snapshot.

`EntryRows` is `reconcile.RangeStore` over the table ``entries``, whose primary key (namespace, author, key) compares as
bytes, so that the order of rows is the order on the wire. Counts, fingerprints and ids at a position come from the
aggregate: nothing is scanned and nothing is hashed again for a sync. `put_rows` is the side that writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import sqlalchemy as sa

from ...storage import tables
from ...storage.prepared import Prepared
from ..model.entry import EMPTY_HASH, EntryId, Record, SignedEntry
from ..model.ranges import Bound, IdRange, Segment
from ..model.reconcile import ContentStatus, Message, RangeItems, Summary, Value
from .aggregate import read_tree
from .summary_tree import END, START, Sum, Tree

__all__ = ["COLUMNS", "PAGE", "EntryRows", "arrivals", "from_row", "is_here", "known", "missing"]

FIRST_PAGE = 32  # most ranges that are walked hold a few entries
PAGE = 256  # rows read at once: a page of the largest keys is 1 MB
CACHED = 1024  # sums before ids
FEW_HASHES = 64  # that are quicker looked up one by one, 7 us each, than with a statement made for them

_NOTHING = int.from_bytes(EMPTY_HASH, "big")
_e = tables.entries.c
_b = tables.blobs.c
COLUMNS = (
    _e.namespace,
    _e.author,
    _e.key,
    _e.size,
    _e.hash,
    _e.timestamp,
    _e.author_sig,
    _e.namespace_sig,
)

_place = sa.tuple_(_e.author, _e.key)
_in_segment = (
    _e.namespace == sa.bindparam("namespace"),
    _place >= sa.tuple_(sa.bindparam("low_author"), sa.bindparam("low_key")),
    _place < sa.tuple_(sa.bindparam("high_author"), sa.bindparam("high_key")),
)
_LISTING = Prepared(sa.select(_e.author, _e.key, _e.fingerprint).where(*_in_segment).order_by(_e.author, _e.key))
_VALUE = Prepared(
    sa.select(*COLUMNS, _b.state)
    .select_from(tables.entries.outerjoin(tables.blobs, _b.hash == _e.hash))
    .where(
        _e.namespace == sa.bindparam("namespace"),
        _e.author == sa.bindparam("author"),
        _e.key == sa.bindparam("key"),
    )
)
_FINGERPRINTS = Prepared(sa.select(_e.fingerprint).where(*_in_segment))
_WALK = Prepared(
    sa.select(*COLUMNS, _b.state)
    .select_from(tables.entries.outerjoin(tables.blobs, _b.hash == _e.hash))
    .where(*_in_segment)
    .order_by(_e.author, _e.key)
    .limit(sa.bindparam("most"))
)
_ENTRIES = Prepared(sa.select(*COLUMNS).where(*_in_segment).order_by(_e.author, _e.key).limit(sa.bindparam("most")))
_ARRIVALS = Prepared(
    sa.select(*COLUMNS, _b.state, _e.seq)
    .select_from(tables.entries.outerjoin(tables.blobs, _b.hash == _e.hash))
    .where(_e.namespace == sa.bindparam("namespace"), _e.seq > sa.bindparam("after"))
    .order_by(_e.seq)
    .limit(sa.bindparam("most"))
)

_HERE = Prepared(sa.select(_b.hash).where(_b.hash == sa.bindparam("this"), _b.state == 1))

_IS_HERE = Prepared(
    sa.select(sa.literal(1)).where(
        _e.namespace == sa.bindparam("namespace"),
        _e.author == sa.bindparam("author"),
        _e.key == sa.bindparam("key"),
        _e.timestamp == sa.bindparam("timestamp"),
        _e.hash == sa.bindparam("hash"),
    )
)


def from_row(row: Sequence[object]) -> SignedEntry:
    """From the first eight columns, which are `COLUMNS`."""
    namespace, author, key, size, hash, timestamp, author_sig, namespace_sig = row[:8]
    id = EntryId(namespace, author, key)  # type: ignore[arg-type]
    return SignedEntry(id, Record(size, hash, timestamp), author_sig, namespace_sig)  # type: ignore[arg-type]


def arrivals(connection: sa.Connection, namespace: bytes, after: int, most: int) -> list[tuple[int, Value]]:
    """What arrived after arrival number ``after`` and was not superseded since, in that order."""
    rows = _ARRIVALS.all(connection, {"namespace": namespace, "after": after, "most": most})
    return [(row[9], Value(from_row(row), _status(row[8], row[4]))) for row in rows]


def is_here(connection: sa.Connection, entry: SignedEntry) -> bool:
    """Whether just this entry is stored."""
    (namespace, author, key), (_, hash, timestamp) = entry[:2]
    where = {"namespace": namespace, "author": author, "key": key, "hash": hash, "timestamp": timestamp}
    return _IS_HERE.first(connection, where) is not None


def known(connection: sa.Connection, namespace: bytes, message: Message) -> set[SignedEntry]:
    """Entries that are here, in the ranges that entries were sent for: nearly all of those that were sent and need no
    look at their signatures. Not of an answer to what we have there, which is what we lack."""
    found: set[SignedEntry] = set()
    for part in message:
        if isinstance(part, RangeItems) and part.values and not part.have_local:
            most = 2 * len(part.values) + FIRST_PAGE
            for segment in part.range.segments(namespace):
                rows = _ENTRIES.all(connection, {"namespace": namespace, **_bounds(segment), "most": most})
                found.update(map(from_row, rows))
    return found


def missing(connection: sa.Connection, hashes: Set[bytes]) -> set[bytes]:
    """Those of ``hashes`` whose content is not here."""
    wanted = list(hashes - {EMPTY_HASH})
    if len(wanted) <= FEW_HASHES:
        return {hash for hash in wanted if _HERE.first(connection, {"this": hash}) is None}
    here: set[bytes] = set()
    for start in range(0, len(wanted), 500):
        query = sa.select(_b.hash).where(_b.hash.in_(wanted[start : start + 500]), _b.state == 1)
        here.update(connection.execute(query).scalars())
    return set(wanted) - here


class EntryRows:
    """Good for the transaction of ``connection`` only."""

    def __init__(self, connection: sa.Connection, namespace: bytes) -> None:
        self._connection = connection
        self._namespace = namespace
        self._tree: Tree | None = None
        self._sums: dict[bytes, Sum] = {}

    @property
    def namespace(self) -> bytes:
        return self._namespace

    @property
    def tree(self) -> Tree:
        if self._tree is None:
            self._tree = read_tree(self._connection, self._namespace)
        return self._tree

    def first_id(self) -> bytes | None:
        return self._id(self.tree.at(0)) if self.tree.total.size else None

    def summary(self, range: IdRange) -> Summary:
        count, total = 0, _NOTHING
        for first, last in self._spans(range):
            count += last.size - first.size
            total ^= last.total ^ first.total
        return Summary(count, total.to_bytes(32, "big"))

    def ids_at(self, range: IdRange, positions: Sequence[int]) -> list[bytes]:
        spans = [(first.size, last.size) for first, last in self._spans(range)]
        ids: list[bytes] = []
        for position in positions:
            passed = 0
            for first, last in spans:
                if position < passed + last - first:
                    ids.append(self._id(self.tree.at(first + position - passed)))
                    break
                passed += last - first
        return ids

    def cuts(self, range: IdRange, ways: int, fewest: int) -> list[bytes]:
        segments = range.segments(self._namespace)
        sizes = [last.size - first.size for first, last in self._spans(range)]
        found: list[bytes] = []
        for (low, high), size in zip(segments, sizes, strict=True):
            share = ways * size // sum(sizes)
            if size > 1 and share > 1:
                found += map(self._id, self.tree.cuts(low or START, high or END, share, fewest * size // sum(sizes)))
        return found or self.ids_at(range, [sum(sizes) // 2])

    def walk(self, range: IdRange) -> Iterator[Value]:
        for segment in range.segments(self._namespace):
            where: dict[str, object] = {"namespace": self._namespace, **_bounds(segment)}
            most = FIRST_PAGE
            while rows := _WALK.all(self._connection, where | {"most": most}):
                for row in rows:
                    yield Value(from_row(row), _status(row[8], row[4]))
                if len(rows) < most:
                    break
                where |= {"low_author": rows[-1][1], "low_key": rows[-1][2] + b"\0"}
                most = PAGE

    def listing(self, range: IdRange) -> list[tuple[bytes, bytes]]:
        return [
            (self._namespace + author + key, fingerprint)
            for segment in range.segments(self._namespace)
            for author, key, fingerprint in _LISTING.all(
                self._connection, {"namespace": self._namespace} | _bounds(segment)
            )
        ]

    def values_of(self, ids: Sequence[bytes]) -> list[Value]:
        rows = (
            _VALUE.first(self._connection, {"namespace": self._namespace, "author": id[32:64], "key": id[64:]})
            for id in ids
        )
        return [Value(from_row(row), _status(row[8], row[4])) for row in rows if row is not None]

    def fingerprints(self, range: IdRange) -> Iterator[bytes]:
        """Of each entry in the range, in no order."""
        for segment in range.segments(self._namespace):
            for row in _FINGERPRINTS.all(self._connection, {"namespace": self._namespace} | _bounds(segment)):
                yield row[0]

    def _spans(self, range: IdRange) -> list[tuple[Sum, Sum]]:
        """For each segment the sums before it and before its end."""
        if range.x < range.y and range.x[:32] == self._namespace == range.y[:32]:  # nearly all are like this
            return [(self._before(range.x), self._before(range.y))]
        return [
            (self.tree.before(segment.low or START), self.tree.before(segment.high or END))
            for segment in range.segments(self._namespace)
        ]

    def _before(self, id: bytes) -> Sum:
        known = self._sums.get(id)  # every bound is where one range ends and the next one begins
        if known is None:
            if len(self._sums) >= CACHED:
                self._sums.clear()
            known = self._sums[id] = self.tree.before((id[32:64], id[64:]))
        return known

    def _id(self, bound: Bound) -> bytes:
        return self._namespace + bound[0] + bound[1]


def _bounds(segment: Segment) -> dict[str, object]:
    (low_author, low_key), (high_author, high_key) = segment.low or START, segment.high or END
    return {"low_author": low_author, "low_key": low_key, "high_author": high_author, "high_key": high_key}


def _status(state: int | None, hash: bytes) -> ContentStatus:
    """From ``blobs.state`` of the entry's content. Nothing is always there."""
    if state == 1 or hash == EMPTY_HASH:
        return ContentStatus.COMPLETE
    return ContentStatus.MISSING if state is None else ContentStatus.INCOMPLETE
