"""Which entries of a document, in which order: queries as values, and their pages in SQL.

A result is read in pages that follow each other by their last row, so that a million entries cost the memory of one
page. Each page is a snapshot of its own: an entry that changes meanwhile may be seen old, new, or as both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from ..storage import tables
from .entry import SignedEntry
from .rows import COLUMNS, PAGE, from_row, is_below

__all__ = ["Query", "newest_of_key", "read_page"]

_e = tables.entries.c


@dataclass(frozen=True, slots=True)
class Query:
    """Entries of one document.

    Order: "key" is by key and author, "author" by author and key. ``newest`` keeps one entry of each key, the newest of
    all authors (or of ``author``), in key order; a key whose newest entry is a tombstone then has none. Limit and
    offset count what is left in the end.
    """

    prefix: bytes | None = None
    key: bytes | None = None
    author: bytes | None = None
    sort: Literal["key", "author"] = "key"
    newest: bool = False
    limit: int | None = None
    offset: int = 0
    tombstones: bool = False


def read_page(
    connection: sa.Connection, namespace: bytes, query: Query, after: SignedEntry | None
) -> list[SignedEntry]:
    """The next rows behind ``after`` by author, key and prefix; tombstones too where ``newest`` has to see them."""
    conditions = [_e.namespace == namespace]
    if query.key is not None:
        conditions.append(_e.key == query.key)
    if query.prefix is not None:
        conditions.append(is_below(query.prefix))
    if query.author is not None:
        conditions.append(_e.author == query.author)
    if not query.tombstones and not query.newest:
        conditions.append(_e.size > 0)
    by_key = query.sort == "key" or query.newest
    order = (_e.key, _e.author) if by_key else (_e.author, _e.key)
    if after is not None:
        last = (after.id.key, after.id.author) if by_key else (after.id.author, after.id.key)
        conditions.append(sa.tuple_(*order) > sa.tuple_(*map(sa.literal, last)))
    rows = connection.execute(sa.select(*COLUMNS).where(*conditions).order_by(*order).limit(PAGE)).all()
    return [from_row(row) for row in rows]


def newest_of_key(connection: sa.Connection, namespace: bytes, key: bytes, author: bytes | None) -> SignedEntry | None:
    """The newest entry at exactly ``key``, be it a tombstone."""
    conditions = [_e.namespace == namespace, _e.key == key]
    if author is not None:
        conditions.append(_e.author == author)
    newest_first = (_e.timestamp.desc(), _e.hash.desc(), _e.author.desc())
    row = connection.execute(sa.select(*COLUMNS).where(*conditions).order_by(*newest_first).limit(1)).first()
    return None if row is None else from_row(row)
