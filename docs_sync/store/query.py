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

from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa

from ...storage import Database, tables
from ..errors import BadQuery
from ..model.entry import SignedEntry
from ..model.put import prefix_end
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

    def simplest(self) -> Query:
        """Without what changes nothing, where it `is_empty` not."""
        is_newest = self.newest and self.author is None  # an author has one entry at a key
        by_key = is_newest or self.author is not None or self.key is not None
        prefix = None if self.key is not None else self.prefix
        return replace(self, newest=is_newest, prefix=prefix, sort="key" if by_key else self.sort)

    @property
    def is_plain(self) -> bool:
        """Whether each entry fits or does not by itself."""
        return not self.simplest().newest


class Walk:
    """A query on its way: `next` until `done`, one at a time."""

    def __init__(self, namespace: bytes, query: Query) -> None:
        self.done = query.is_empty
        self._namespace = namespace
        self._query = query = query.simplest()
        self._skip = query.offset
        self._left = query.limit
        self._last: tuple[bytes, bytes] | None = None  # key and author of the last row
        self._authors: list[tuple[bytes, bool]] = []  # to be read next, author by author, the first one last
        self._seen: bytes | None = None  # the author that was read last
        self._best: SignedEntry | None = None  # the newest so far of the key that is being read

    async def next(self, database: Database) -> list[SignedEntry]:
        """The next entries. Of bounded cost, so it may be empty before the end."""

        def read(connection: sa.Connection) -> tuple[list[SignedEntry], dict[str, Any]]:
            ahead = copy(self)  # where the store is shared this may be run again, and has to begin where it began
            ahead._authors = list(self._authors)
            return ahead.read(connection), vars(ahead)

        found, state = await database.read(read)
        vars(self).update(state)
        return found

    def read(self, connection: sa.Connection) -> list[SignedEntry]:
        """`next`, in the database's thread; once only."""
        if self.done:
            return []
        query = self._query
        if query.newest:
            found = self._read_newest(connection)
        elif query.sort == "author" and query.prefix:
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
        if not self._authors:
            self._authors = self._next_authors(connection)
            self.done = not self._authors
        while self._authors:
            author, has_any = self._authors[-1]
            if has_any:
                found += self._read_rows(connection, author, wanted - len(found))
                self.done = False
                if len(found) == wanted:
                    break
                if self._skip:  # nothing was left of this author
                    self._skip -= connection.execute(_counting(self._rows(author))).scalar_one()
            self._seen = author
            self._last = None
            self._authors.pop()
        return found

    def _next_authors(self, connection: sa.Connection) -> list[tuple[bytes, bool]]:
        """The next authors, the first one last, and whether each has anything that fits. A seek or two for each."""
        descending = self._query.descending

        def following(place: sa.ColumnElement[bytes] | bytes | None) -> sa.ScalarSelect[bytes]:
            e = tables.entries.alias().c
            query = sa.select(e.author).where(e.namespace == self._namespace).limit(1)
            if place is not None:
                query = query.where(e.author < place if descending else e.author > place)
            return query.order_by(e.author.desc() if descending else e.author).scalar_subquery()

        walk = sa.select(following(self._seen).label("author")).cte("walk", recursive=True)
        walk = walk.union_all(sa.select(following(walk.c.author)).where(walk.c.author.is_not(None)))
        any_row = _matching(self._namespace, self._query, None).where(_e.author == walk.c.author).exists()
        query = sa.select(walk.c.author, any_row).where(walk.c.author.is_not(None)).limit(AUTHORS_PER_READ)
        rows = [(row[0], bool(row[1])) for row in connection.execute(query)]
        return sorted(rows, reverse=not descending)

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
        order = [_e.author, _e.key] if query.sort == "author" else [_e.key, _e.author]
        free = order if author is None else [_e.key]
        select = _matching(self._namespace, query, author, after=self._last is not None)
        if self._last is not None:
            at = dict(zip((_e.key, _e.author), self._last, strict=True))
            here, last = sa.tuple_(*free), sa.tuple_(*(sa.literal(at[column]) for column in free))
            if len(free) == 1:
                here, last = free[0], sa.literal(at[free[0]])  # type: ignore[assignment]
            select = select.where(here < last if query.descending else here > last)
        return select.order_by(*(column.desc() if query.descending else column for column in free))


def count_entries(connection: sa.Connection, namespace: bytes, query: Query) -> int:
    """How many a plain query gives."""
    if query.is_empty:
        return 0
    total: int = connection.execute(_counting(_matching(namespace, query.simplest(), query.author))).scalar_one()
    return max(0, total - query.offset if query.limit is None else min(total - query.offset, query.limit))


def newest_of_key(connection: sa.Connection, namespace: bytes, key: bytes, author: bytes | None) -> SignedEntry | None:
    """The newest entry at exactly ``key``, be it a tombstone."""
    # A range of one key: for an equality SQLite walks the document, of which it believes that it has ten entries.
    conditions = [_e.namespace == namespace, _e.key >= key, _e.key <= key]
    if author is not None:
        conditions.append(_e.author == author)
    newest_first = (_e.timestamp.desc(), _e.hash.desc(), _e.author.desc())
    row = connection.execute(sa.select(*COLUMNS).where(*conditions).order_by(*newest_first).limit(1)).first()
    return None if row is None else from_row(row)


def _matching(
    namespace: bytes, query: Query, author: bytes | None, *, after: bool = False
) -> sa.Select[tuple[object, ...]]:
    """``after``: a row behind which to read takes the place of one end of the keys. With both, SQLite may choose
    the wrong one and walk from the prefix's beginning each time."""
    select = sa.select(*COLUMNS).where(_e.namespace == namespace)
    if author is not None:
        select = select.where(_e.author == author)
    low, high = (None, None) if query.prefix is None else (query.prefix, prefix_end(query.prefix))
    if query.key is not None:  # a range of one: SQLite would satisfy an equality and the order by walking the document
        low, high = query.key, query.key + b"\0"
    if low and (not after or query.descending):
        select = select.where(_e.key >= low)
    if high is not None and not (after and query.descending):
        select = select.where(_e.key < high)
    if not query.tombstones and not query.newest:
        select = select.where(_e.size > 0)
    return select


def _counting(select: sa.Select[tuple[object, ...]]) -> sa.Select[int]:
    return select.with_only_columns(sa.func.count()).order_by(None)
