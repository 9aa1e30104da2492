"""Which entries of a document, in which order: queries as values, and reading them in SQL (reference 2.9).

Every query is a walk along an index, from where the last read ended: a million entries cost the memory of one read, and
the last page costs what the first one does. Three walks cover all combinations.

- *plain*: one run of the primary key (namespace, author, key) or of ``entries_by_key`` (namespace, key, author).
- *author by author*: keys below a prefix sorted by author. Each author's run is found by a seek of its own, and what
  an author has elsewhere is not read.
- *newest*: key by key over all authors, keeping the newest entry of each key.

Each read is a snapshot of its own, and reads only go forward. So every entry that is there and stays the same from the
beginning to the end is given once; one that is written, replaced or deleted meanwhile may be given as it was or as it
is, or not at all; no place (key and author) is given twice.

Where the reference leaves ties open, these are decided: of entries at one key and of one time the one with the larger
hash is the newest, then the one of the larger author, whatever the direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import sqlalchemy as sa

from ..storage import tables
from .entry import SignedEntry
from .errors import BadQuery
from .put import prefix_end
from .rows import COLUMNS, PAGE, from_row

__all__ = ["Query", "Walk", "count_entries", "newest_of_key"]

AUTHORS_PER_READ = 256  # looked at in one read: many may have nothing below the prefix
ROWS_PER_READ = 4096  # looked at in one read for the newest of each key: many may be of one key
FEW_ROWS = 16  # the smallest number of rows read at once, for a short limit

_e = tables.entries.c


@dataclass(frozen=True, slots=True)
class Query:
    """Entries of one document. What is given of ``prefix``, ``key`` and ``author`` must all fit.

    Order: "key" is by key and author, "author" by author and key; ``descending`` turns both around. ``newest`` keeps
    one entry of each key, the newest of all authors, or of ``author`` where that is given, in key order; a key whose
    newest entry is a tombstone then has none unless ``tombstones``. Limit and offset count what is left in the end.
    Raises BadQuery.
    """

    prefix: bytes | None = None
    key: bytes | None = None
    author: bytes | None = None
    sort: Literal["key", "author"] = "key"
    descending: bool = False
    newest: bool = False
    limit: int | None = None
    offset: int = 0
    tombstones: bool = False

    def __post_init__(self) -> None:
        if self.sort not in ("key", "author"):
            raise BadQuery(f"entries are sorted by 'key' or by 'author', not by {self.sort!r}")
        if self.offset < 0 or (self.limit is not None and self.limit < 0):
            raise BadQuery("a limit and an offset are not negative")

    @property
    def is_empty(self) -> bool:
        """Whether nothing can fit."""
        outside = self.key is not None and self.prefix is not None and not self.key.startswith(self.prefix)
        return outside or self.limit == 0


class Walk:
    """A query on its way: `read` until `done`. One read at a time, each with any connection."""

    def __init__(self, namespace: bytes, query: Query) -> None:
        if query.newest and query.author is not None:
            query = replace(query, newest=False, sort="key")  # an author has one entry at a key
        if query.key is not None:
            query = replace(query, prefix=None)
        self.done = query.is_empty
        self._namespace = namespace
        self._query = query
        self._skip = query.offset
        self._left = query.limit
        self._last: tuple[bytes, bytes] | None = None  # key and author of the last row
        self._author: bytes | None = None  # whose keys are being read, author by author,
        self._seen: bytes | None = None  # or were read last
        self._best: SignedEntry | None = None  # the newest so far of the key that is being read

    def read(self, connection: sa.Connection) -> list[SignedEntry]:
        """The next entries. Of bounded cost, so it may be empty before the end."""
        if self.done:
            return []
        query = self._query
        if query.newest:
            found = self._read_newest(connection)
        elif query.sort == "author" and query.author is None and query.prefix:
            found = self._read_authors(connection)
        else:
            found = self._read_rows(connection, query.author, self._wanted())
        if self._left is not None:
            self._left -= len(found)
            self.done = self.done or not self._left
        return found

    def _wanted(self) -> int:
        return PAGE if self._left is None else min(PAGE, self._left)

    def _read_rows(self, connection: sa.Connection, author: bytes | None, wanted: int) -> list[SignedEntry]:
        rows = self._rows(author).limit(wanted)
        if self._skip:
            rows = rows.offset(self._skip)
        found = [from_row(row) for row in connection.execute(rows)]
        if found:
            self._skip = 0
            self._last = found[-1].id.key, found[-1].id.author
        self.done = len(found) < wanted
        return found

    def _read_authors(self, connection: sa.Connection) -> list[SignedEntry]:
        found: list[SignedEntry] = []
        wanted = self._wanted()
        for _ in range(AUTHORS_PER_READ):
            if self._author is None and not self._next_author(connection):
                self.done = True
                return found
            found += self._read_rows(connection, self._author, wanted - len(found))
            if len(found) == wanted:
                break
            if self._skip:  # nothing was left of this author
                self._skip -= connection.execute(_counting(self._rows(self._author))).scalar_one()
            self._author = None
        self.done = False
        return found

    def _next_author(self, connection: sa.Connection) -> bool:
        query = sa.select(_e.author).where(_e.namespace == self._namespace).limit(1)
        query = query.order_by(_e.author.desc() if self._query.descending else _e.author)
        if self._seen is not None:
            query = query.where(_e.author < self._seen if self._query.descending else _e.author > self._seen)
        self._seen = self._author = connection.execute(query).scalar()
        self._last = None
        return self._author is not None

    def _read_newest(self, connection: sa.Connection) -> list[SignedEntry]:
        found: list[SignedEntry] = []
        wanted = self._wanted()
        rows = min(PAGE, max(FEW_ROWS, wanted + self._skip + 1))
        for _ in range(0, ROWS_PER_READ, rows):
            page = [from_row(row) for row in connection.execute(self._rows(None).limit(rows))]
            for entry in page:
                best = self._best
                if best is None or best.id.key == entry.id.key:
                    if best is None or (best.record.order, best.id.author) < (entry.record.order, entry.id.author):
                        self._best = entry
                else:
                    self._give(best, found)
                    self._best = entry
            if len(page) < rows:
                if self._best is not None:
                    self._give(self._best, found)
                self.done = True
                break
            self._last = page[-1].id.key, page[-1].id.author
            if len(found) >= wanted:
                break
        return found if self._left is None else found[: self._left]

    def _give(self, entry: SignedEntry, found: list[SignedEntry]) -> None:
        if entry.record.is_tombstone and not self._query.tombstones:
            return
        if self._skip:
            self._skip -= 1
        else:
            found.append(entry)

    def _rows(self, author: bytes | None) -> sa.Select[tuple[object, ...]]:
        """The rows behind the last one, all of ``author`` where that is given."""
        query = self._query
        order = [_e.key, _e.author] if query.sort == "key" or query.newest else [_e.author, _e.key]
        fixed = {_e.key: query.key, _e.author: author}
        free = [column for column in order if fixed[column] is None]
        select = _matching(self._namespace, query, author, after=self._last is not None)
        if self._last is not None and free:
            at = dict(zip((_e.key, _e.author), self._last, strict=True))
            here, last = sa.tuple_(*free), sa.tuple_(*(sa.literal(at[column]) for column in free))
            if len(free) == 1:
                here, last = free[0], sa.literal(at[free[0]])  # type: ignore[assignment]
            select = select.where(here < last if query.descending else here > last)
        return select.order_by(*(column.desc() if query.descending else column for column in free))


def count_entries(connection: sa.Connection, namespace: bytes, query: Query) -> int:
    """How many a plain query gives: one without ``newest``, or with an author."""
    if query.is_empty:
        return 0
    total: int = connection.execute(_counting(_matching(namespace, query, query.author))).scalar_one()
    return max(0, total - query.offset if query.limit is None else min(total - query.offset, query.limit))


def newest_of_key(connection: sa.Connection, namespace: bytes, key: bytes, author: bytes | None) -> SignedEntry | None:
    """The newest entry at exactly ``key``, be it a tombstone."""
    conditions = [_e.namespace == namespace, _e.key == key]
    if author is not None:
        conditions.append(_e.author == author)
    newest_first = (_e.timestamp.desc(), _e.hash.desc(), _e.author.desc())
    row = connection.execute(sa.select(*COLUMNS).where(*conditions).order_by(*newest_first).limit(1)).first()
    return None if row is None else from_row(row)


def _matching(
    namespace: bytes, query: Query, author: bytes | None, *, after: bool = False
) -> sa.Select[tuple[object, ...]]:
    """``after``: a row behind which to read takes the place of one end of the prefix. With both, SQLite may choose
    the wrong one and walk from the prefix's beginning each time."""
    select = sa.select(*COLUMNS).where(_e.namespace == namespace)
    if author is not None:
        select = select.where(_e.author == author)
    if query.key is not None:
        select = select.where(_e.key == query.key)
    elif query.prefix:
        end = prefix_end(query.prefix)
        if not after or query.descending:
            select = select.where(_e.key >= query.prefix)
        if end is not None and not (after and query.descending):
            select = select.where(_e.key < end)
    if not query.tombstones and not query.newest:
        select = select.where(_e.size > 0)
    return select


def _counting(select: sa.Select[tuple[object, ...]]) -> sa.Select[tuple[int]]:
    return select.with_only_columns(sa.func.count()).order_by(None)
