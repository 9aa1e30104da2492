"""The put rule over rows, many entries at a time, inside one transaction.

`put.put` decides entry by entry, over an `_Overlay` that holds the rows which the entries can meet: those at prefixes
of their keys, and those at or below their keys. What it decided is then written at once, with everything that belongs
to it in the same transaction: the aggregate, heads, arrival numbers, and the history where it is kept.

The overlay is read in one query where the entries lie close together, as those of a first sync do. A string below the
smallest key that is a prefix of a larger one is a prefix of the smallest one, too: so one look at the prefixes of the
smallest key and one at the run of keys find all.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import sqlalchemy as sa

from ...storage import tables
from ...storage.prepared import Prepared
from ..model.entry import EMPTY_HASH, EntryId, SignedEntry, fingerprint_of
from ..model.put import Put, prefix_end, put
from ..model.ranges import Bound
from ..model.validity import MAX_KEY_SIZE
from . import aggregate
from .summary_tree import Sum

__all__ = ["AFTER_ALL_KEYS", "put_entries"]

AFTER_ALL_KEYS = b"\xff" * (MAX_KEY_SIZE + 1)
MANY_BELOW = 1000  # entries below one key that are looked at one by one; more are deleted as a range
SPARSE = 4  # rows read for each entry, so that one query does for all of them

_e, _h, _t = tables.entries.c, tables.heads.c, tables.history.c
_author = (_e.namespace == sa.bindparam("namespace"), _e.author == sa.bindparam("author"))
_run = (*_author, _e.key >= sa.bindparam("low"), _e.key < sa.bindparam("high"))
_own = (*_author, _e.key == sa.bindparam("key"))
_row = (_e.key, _e.timestamp, _e.hash, _e.fingerprint)
_order = sa.tuple_(_e.timestamp, _e.hash)
_newer = _order > sa.tuple_(sa.bindparam("timestamp"), sa.bindparam("hash"))

_BELOW = Prepared(sa.select(*_row).where(*_run).order_by(_e.key).limit(sa.bindparam("most")))
_SURVIVOR = Prepared(sa.select(_e.key).where(*_run, _newer).limit(1))
_CONTENTS = Prepared(sa.select(sa.func.count()).where(*_run, _e.hash != EMPTY_HASH))
_DELETE = Prepared(sa.delete(tables.entries).where(*_own))
_DELETE_RUN = Prepared(sa.delete(tables.entries).where(*_run))
_INSERT = Prepared(sa.insert(tables.entries))
_LAST = Prepared(
    sa.select(
        sa.select(sa.func.max(_e.seq)).where(_e.namespace == sa.bindparam("namespace")).scalar_subquery(),
        sa.select(_h.timestamp)
        .where(_h.namespace == sa.bindparam("namespace"), _h.author == sa.bindparam("author"))
        .scalar_subquery(),
    )
)
_FIRST_HEAD = Prepared(sa.insert(tables.heads))
_NEXT_HEAD = Prepared(
    sa.update(tables.heads)
    .where(_h.namespace == sa.bindparam("in_namespace"), _h.author == sa.bindparam("of"))
    .values(timestamp=sa.bindparam("timestamp"))
)


def _to_history(*where: sa.ColumnElement[bool]) -> Prepared:
    columns = [column for column in tables.history.c if column.name != "superseded_us"]
    rows = sa.select(*(tables.entries.c[column.name] for column in columns), sa.bindparam("now", type_=sa.BigInteger))
    return Prepared(sa.insert(tables.history).from_select([*columns, _t.superseded_us], rows.where(*where)))


_KEEP = _to_history(*_own)
_KEEP_RUN = _to_history(*_run)

# One index lookup for each length of a prefix. An empty slice of bytes is null in SQLite.
_AT_PREFIXES = Prepared(
    sa.text(
        """
        WITH RECURSIVE prefixes(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM prefixes WHERE n < length(:key) - 1)
        SELECT e.key, e.timestamp, e.hash, e.fingerprint FROM prefixes CROSS JOIN entries AS e
        WHERE e.namespace = :namespace AND e.author = :author AND e.key = coalesce(substr(:key, 1, n), :nothing)
        """
    ).bindparams(
        sa.bindparam("key", type_=sa.LargeBinary),
        sa.bindparam("namespace", type_=sa.LargeBinary),
        sa.bindparam("author", type_=sa.LargeBinary),
        sa.bindparam("nothing", type_=sa.LargeBinary),
    )
)


def put_entries(
    connection: sa.Connection,
    namespace: bytes,
    entries: Sequence[SignedEntry],
    *,
    now_us: int,
    history: bool,
    newest: bool = False,
    last: tuple[int, int | None] | None = None,
) -> list[Put]:
    """Put each of ``entries``, which are acceptable and of this document; what became of each, in their order.

    ``newest``: no entry of their authors is newer than the first of them, and each is newer than the one before; they
    all are stored, and nobody has to look for what could refuse them. ``history``: keep what is superseded. ``last``,
    where it is known: the latest arrival number, and the time of the newest entry of the one author of all.
    """
    outcomes: dict[int, Put] = {}
    numbered = sorted(enumerate(entries), key=lambda each: (each[1].id.author, each[0]))
    for author, group in groupby(numbered, key=lambda each: each[1].id.author):
        writer = _AuthorRows(connection, namespace, author, now_us, history=history)
        mine = list(group)
        results = writer.put_all([entry for _, entry in mine], newest=newest, last=last)
        outcomes |= {index: result for (index, _), result in zip(mine, results, strict=True)}
    return [outcomes[index] for index in range(len(entries))]


@dataclass(slots=True)
class _Known:
    """A row, or an entry that is to become one (``entry``)."""

    order: tuple[int, bytes]
    fingerprint: bytes
    entry: SignedEntry | None = None


@dataclass(slots=True)
class _Overlay:
    """What of one author's entries the put rule has to see; an `put.EntryStore`."""

    keys: list[bytes] = field(default_factory=list)  # in order
    known: dict[bytes, _Known] = field(default_factory=dict)
    lengths: set[int] = field(default_factory=set)  # of the known keys
    removed: dict[bytes, _Known] = field(default_factory=dict)  # rows

    def load(self, rows: Iterable[tuple[bytes, int, bytes, bytes]]) -> None:
        for key, timestamp, hash, fingerprint in rows:
            if key not in self.known:
                self._add(key, _Known((timestamp, hash), fingerprint))

    def superseding(self, entry: SignedEntry) -> EntryId | None:
        id, order = entry.id, entry.record.order
        for length in sorted(self.lengths):
            if length > len(id.key):
                break
            known = self.known.get(id.key[:length])
            if known is not None and known.order >= order:
                return EntryId(id.namespace, id.author, id.key[:length])
        return None

    def remove_superseded(self, entry: SignedEntry) -> int:
        order, prefix = entry.record.order, entry.id.key
        first = last = bisect_left(self.keys, prefix)
        contents = 0
        kept = []
        while last < len(self.keys) and self.keys[last].startswith(prefix):
            key = self.keys[last]
            last += 1
            known = self.known[key]
            if known.order > order:
                kept.append(key)
                continue
            contents += known.order[1] != EMPTY_HASH
            del self.known[key]
            if known.entry is None:
                self.removed[key] = known
        self.keys[first:last] = kept
        return contents

    def insert(self, entry: SignedEntry) -> None:
        self._add(entry.id.key, _Known(entry.record.order, fingerprint_of(entry.id, entry.record), entry))

    def _add(self, key: bytes, known: _Known) -> None:
        self.known[key] = known
        insort(self.keys, key)
        self.lengths.add(len(key))


class _AuthorRows:
    """One author's rows of a document in one transaction."""

    def __init__(
        self, connection: sa.Connection, namespace: bytes, author: bytes, now_us: int, *, history: bool
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._author = author
        self._now_us = now_us
        self._history = history
        self._last_seq = 0
        self._head: int | None = None  # the time of the author's newest entry

    def put_all(
        self, entries: Sequence[SignedEntry], *, newest: bool, last: tuple[int, int | None] | None
    ) -> list[Put]:
        outcomes: list[Put] = []
        # Before anything is deleted: the number of an entry that goes is not given again.
        last_seq, self._head = last or _LAST.first(self._connection, self._where())
        # By the clock: also after a document was dropped, or a power cut, no number is given again.
        self._last_seq = max(last_seq or 0, self._now_us)
        while len(outcomes) < len(entries):
            rest = entries[len(outcomes) :]
            overlay, looked_at = self._overlay(rest, newest=newest)
            if looked_at == 0:
                outcomes.append(self._put_over_many(rest[0]))
                continue
            outcomes += [put(overlay, entry) for entry in rest[:looked_at]]
            self._write(overlay)
        return outcomes

    def _overlay(self, entries: Sequence[SignedEntry], *, newest: bool) -> tuple[_Overlay, int]:
        """What the first so many of ``entries`` can meet; up to one that has very much below it."""
        overlay = _Overlay()
        keys = [entry.id.key for entry in entries]
        smallest = min(keys)
        most = SPARSE * len(keys) + 64
        rows = self._below(smallest, max(map(_after, keys)), most + 1)
        if len(rows) <= most:
            overlay.load(rows)
            if not newest:
                overlay.load(self._at_prefixes(smallest))
            return overlay, len(entries)
        for index, key in enumerate(keys):
            rows = self._below(key, _after(key), MANY_BELOW + 1)
            if len(rows) > MANY_BELOW:
                return overlay, index
            overlay.load(rows)
            if not newest:
                overlay.load(self._at_prefixes(key))
        return overlay, len(entries)

    def _put_over_many(self, entry: SignedEntry) -> Put:
        """Put an entry with more than `MANY_BELOW` entries at or below its key: they go as a range if they all go."""
        low, high = entry.id.key, _after(entry.id.key)
        overlay = _Overlay()
        overlay.load(self._at_prefixes(low))
        overlay.load(self._below(low, low + b"\0", 1))
        if (superseding := overlay.superseding(entry)) is not None:
            return Put(superseding, removed=0)
        where = self._where() | {"low": low, "high": high}
        timestamp, hash = entry.record.order
        if _SURVIVOR.first(self._connection, where | {"timestamp": timestamp, "hash": hash}) is not None:
            contents, at = 0, low
            while rows := self._below(at, high, MANY_BELOW):
                page = _Overlay()
                page.load(rows)
                contents += page.remove_superseded(entry)
                self._write(page)
                at = rows[-1][0] + b"\0"
            overlay = _Overlay()
            overlay.insert(entry)
            outcome = Put(None, contents)
        else:
            tree = aggregate.read_tree(self._connection, self._namespace)
            first, last = tree.before((self._author, low)), tree.before((self._author, high))
            (contents,) = _CONTENTS.first(self._connection, where)
            if self._history:
                _KEEP_RUN.run(self._connection, where | {"now": self._now_us})
            _DELETE_RUN.run(self._connection, where)
            gone = Sum(last.size - first.size, last.total ^ first.total)
            aggregate.remove_range(self._connection, self._namespace, (self._author, low), (self._author, high), gone)
            overlay = _Overlay()
            overlay.insert(entry)
            outcome = Put(None, contents)
        self._write(overlay)
        return outcome

    def _write(self, overlay: _Overlay) -> None:
        new = {key: known for key, known in overlay.known.items() if known.entry is not None}
        removed = [self._where() | {"key": key} for key in overlay.removed]
        if self._history and removed:
            _KEEP.run_many(self._connection, [each | {"now": self._now_us} for each in removed])
        _DELETE.run_many(self._connection, removed)
        if new:
            arrivals = enumerate(new.values(), start=self._last_seq + 1)
            _INSERT.run_many(self._connection, [_values(known, seq) for seq, known in arrivals])
            self._last_seq += len(new)
            self._advance_head(max(known.order[0] for known in new.values()))
        gone_fingerprints = {self._bound(key): known.fingerprint for key, known in overlay.removed.items()}
        new_fingerprints = {self._bound(key): known.fingerprint for key, known in new.items()}
        if gone_fingerprints or new_fingerprints:
            aggregate.update(self._connection, self._namespace, gone_fingerprints, new_fingerprints)

    def _advance_head(self, timestamp: int) -> None:
        if self._head is None:
            _FIRST_HEAD.run(self._connection, self._where() | {"timestamp": timestamp})
        elif self._head < timestamp:
            place = {"in_namespace": self._namespace, "of": self._author}
            _NEXT_HEAD.run(self._connection, place | {"timestamp": timestamp})
        self._head = max(self._head or 0, timestamp)

    def _below(self, low: bytes, high: bytes, most: int) -> list[tuple[bytes, int, bytes, bytes]]:
        where = self._where() | {"low": low, "high": high, "most": most}
        return _BELOW.all(self._connection, where)

    def _at_prefixes(self, key: bytes) -> list[tuple[bytes, int, bytes, bytes]]:
        """At prefixes of the key that are shorter than it."""
        return _AT_PREFIXES.all(self._connection, self._where() | {"key": key, "nothing": b""}) if key else []

    def _where(self) -> dict[str, object]:
        return {"namespace": self._namespace, "author": self._author}

    def _bound(self, key: bytes) -> Bound:
        return self._author, key


def _values(known: _Known, seq: int) -> dict[str, object]:
    assert known.entry is not None
    (namespace, author, key), (size, hash, timestamp), author_sig, namespace_sig = known.entry
    values: dict[str, object] = {"namespace": namespace, "author": author, "key": key, "timestamp": timestamp}
    values |= {"hash": hash, "size": size, "author_sig": author_sig, "namespace_sig": namespace_sig}
    return values | {"fingerprint": known.fingerprint, "seq": seq}


def _after(prefix: bytes) -> bytes:
    end = prefix_end(prefix)
    return AFTER_ALL_KEYS if end is None else end
