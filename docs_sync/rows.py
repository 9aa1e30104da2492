"""One document's entries as rows: what the put rule and reconciliation need of SQL, inside one transaction.

`EntryRows` is both `put.EntryStore` and `reconcile.RangeStore` over the table ``entries``, whose primary key
(namespace, author, key) compares as bytes, so that the order of rows is the order on the wire. The entries'
fingerprints are in their rows: nothing is hashed again for a sync. Ranges are scanned; an aggregate that makes them
cheap belongs behind `summary` and `ids_at`, which is all that reconciliation asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import sqlalchemy as sa

from ..storage import tables
from .entry import EMPTY_HASH, EntryId, Record, SignedEntry, fingerprint_of
from .put import prefix_end
from .ranges import IdRange, Segment
from .reconcile import ContentStatus, Summary, Value
from .validity import MAX_KEY_SIZE

__all__ = ["COLUMNS", "PAGE", "EntryRows", "from_row", "is_below"]

PAGE = 256  # rows read at once: a page of the largest keys is 1 MB

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

# One index lookup for each length of a prefix of the key. SQLite's substr of an empty blob is null.
_SUPERSEDING = sa.text(
    """
    WITH RECURSIVE prefixes(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM prefixes WHERE n < length(:key))
    SELECT e.key FROM prefixes CROSS JOIN entries AS e
    WHERE e.namespace = :namespace AND e.author = :author AND e.key = coalesce(substr(:key, 1, n), x'')
      AND (e.timestamp, e.hash) >= (:timestamp, :hash)
    LIMIT 1
    """
)
_REMOVE = (
    sa.delete(tables.entries)
    .where(
        _e.namespace == sa.bindparam("in_namespace"),
        _e.author == sa.bindparam("of"),
        _e.key >= sa.bindparam("low"),
        _e.key < sa.bindparam("high"),
        sa.tuple_(_e.timestamp, _e.hash) <= sa.tuple_(sa.bindparam("time"), sa.bindparam("content")),
    )
    .returning(_e.hash)
)
_HERE = sa.select(_b.hash).where(_b.hash == sa.bindparam("wanted"), _b.state == 1)
_INSERT = sa.insert(tables.entries)


def from_row(row: Sequence[object]) -> SignedEntry:
    """From the first eight columns, which are `COLUMNS`."""
    namespace, author, key, size, hash, timestamp, author_sig, namespace_sig = row[:8]
    id = EntryId(namespace, author, key)  # type: ignore[arg-type]
    return SignedEntry(id, Record(size, hash, timestamp), author_sig, namespace_sig)  # type: ignore[arg-type]


def is_below(prefix: bytes) -> sa.ColumnElement[bool]:
    """Keys that start with ``prefix``."""
    return sa.and_(_e.key >= prefix, _e.key < _after(prefix))


def _after(prefix: bytes) -> bytes:
    end = prefix_end(prefix)
    return b"\xff" * (MAX_KEY_SIZE + 1) if end is None else end


class EntryRows:
    """Good for the transaction of ``connection`` only."""

    def __init__(self, connection: sa.Connection, namespace: bytes) -> None:
        self._connection = connection
        self._namespace = namespace

    @property
    def namespace(self) -> bytes:
        return self._namespace

    # The put rule.

    def superseding(self, entry: SignedEntry) -> EntryId | None:
        id, record = entry.id, entry.record
        parameters: dict[str, object] = {"namespace": id.namespace, "author": id.author, "key": id.key}
        parameters |= {"timestamp": record.timestamp, "hash": record.hash}
        key = self._connection.execute(_SUPERSEDING, parameters).scalar()
        return None if key is None else EntryId(id.namespace, id.author, key)

    def remove_superseded(self, entry: SignedEntry) -> int:
        id, record = entry.id, entry.record
        parameters: dict[str, object] = {"in_namespace": id.namespace, "of": id.author}
        parameters |= {"low": id.key, "high": _after(id.key), "time": record.timestamp, "content": record.hash}
        contents = self._connection.execute(_REMOVE, parameters).scalars().all()
        return sum(hash != EMPTY_HASH for hash in contents)

    def insert(self, entry: SignedEntry) -> None:
        id, record = entry.id, entry.record
        self._connection.execute(
            _INSERT,
            {
                "namespace": id.namespace,
                "author": id.author,
                "key": id.key,
                "timestamp": record.timestamp,
                "hash": record.hash,
                "size": record.size,
                "author_sig": entry.author_signature,
                "namespace_sig": entry.namespace_signature,
                "fingerprint": fingerprint_of(id, record),
            },
        )

    def missing(self, hashes: Set[bytes]) -> set[bytes]:
        """Those of ``hashes`` whose content is not here."""
        wanted = hashes - {EMPTY_HASH}
        return {hash for hash in wanted if self._connection.execute(_HERE, {"wanted": hash}).first() is None}

    # Reconciliation.

    def first_id(self) -> bytes | None:
        query = sa.select(_e.author, _e.key).where(_e.namespace == self._namespace)
        row = self._connection.execute(query.order_by(_e.author, _e.key).limit(1)).first()
        return None if row is None else self._namespace + row[0] + row[1]

    def summary(self, range: IdRange) -> Summary:
        count, total = 0, int.from_bytes(EMPTY_HASH, "big")
        for segment in range.segments(self._namespace):
            rows = self._connection.execute(sa.select(_e.fingerprint).where(self._within(segment))).scalars()
            for batch in rows.partitions(4096):
                count += len(batch)
                total ^= _xor(batch)
        return Summary(count, total.to_bytes(32, "big"))

    def ids_at(self, range: IdRange, positions: Sequence[int]) -> list[bytes]:
        wanted = list(reversed(positions))
        ids: list[bytes] = []
        walked = 0
        for segment in range.segments(self._namespace):
            query = sa.select(_e.author, _e.key).where(self._within(segment)).order_by(_e.author, _e.key)
            for batch in self._connection.execute(query).partitions(4096):
                while wanted and wanted[-1] < walked + len(batch):
                    author, key = batch[wanted.pop() - walked]
                    ids.append(self._namespace + author + key)
                walked += len(batch)
                if not wanted:
                    break
        return ids

    def walk(self, range: IdRange) -> Iterator[Value]:
        joined = tables.entries.outerjoin(tables.blobs, _b.hash == _e.hash)
        for segment in range.segments(self._namespace):
            query = sa.select(*COLUMNS, _b.state).select_from(joined)
            query = query.where(self._within(segment)).order_by(_e.author, _e.key)
            for batch in self._connection.execute(query).partitions(PAGE):
                for row in batch:
                    yield Value(from_row(row), _status(row[8], row[4]))

    def _within(self, segment: Segment) -> sa.ColumnElement[bool]:
        place = sa.tuple_(_e.author, _e.key)
        conditions = [_e.namespace == self._namespace]
        if segment.low is not None:
            conditions.append(place >= sa.tuple_(*map(sa.literal, segment.low)))
        if segment.high is not None:
            conditions.append(place < sa.tuple_(*map(sa.literal, segment.high)))
        return sa.and_(*conditions)


def _status(state: int | None, hash: bytes) -> ContentStatus:
    """From ``blobs.state`` of the entry's content. Nothing is always there."""
    if state == 1 or hash == EMPTY_HASH:
        return ContentStatus.COMPLETE
    return ContentStatus.MISSING if state is None else ContentStatus.INCOMPLETE


def _xor(fingerprints: Sequence[bytes]) -> int:
    total = 0
    for fingerprint in fingerprints:
        total ^= int.from_bytes(fingerprint, "big")
    return total
