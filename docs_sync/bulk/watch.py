"""A document as it is, then as it changes, with no gap between.

A watch reads the store and never a queue: the entries there are, then again and again "what arrived after number n",
each time when a signal says that there may be something. So it cannot lag or overflow however slow its reader is; what
was superseded before it was read is left out, and every entry that stays is told at least once, in order of arrival.

Who keeps the state by the events does what the put rule does: each entry, tombstones included, replaces what its author
has at and below its key (`Entry.covers`). That is why entries *above* the watched prefix are told as well: a write or a
deletion at "a" removes the same author's "a/b".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from ...storage import DatabaseClosed
from ..doc_entry import Entry
from ..entries import Fits
from ..model.entry import SignedEntry
from ..model.keys import NamespaceId
from ..store.documents import DocsStore
from ..store.query import Query

__all__ = ["CaughtUp", "Changed", "Present", "WatchEvent", "watch"]

PAGE = 256  # changes read at once


@dataclass(frozen=True, slots=True)
class Present:
    """An entry that was there when the watch began."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that was there when the watch began has been told; what follows is new."""

    cursor: int


@dataclass(frozen=True, slots=True)
class Changed:
    """An entry was written, here or elsewhere; a tombstone where its author deleted what is at and below its key.

    With ``since=cursor`` a later watch goes on behind it.
    """

    entry: Entry
    cursor: int


WatchEvent = Present | CaughtUp | Changed


async def watch(
    store: DocsStore,
    namespace: NamespaceId,
    prefix: bytes,
    since: int | None,
    entry: Callable[[SignedEntry], Entry],
    fits: Fits | None = None,
) -> AsyncGenerator[WatchEvent, None]:
    """Below the stored ``prefix``, what ``fits``. Ends when the document is closed.

    With ``since``: `Changed` for what came later, `CaughtUp`, then as ever. A number that this store has not reached is
    of another store, or of a document that was dropped and joined again: then the watch begins anew.
    """
    with store.changed.waiter(bytes(namespace)) as waiter:
        try:
            last = await store.last_seq(namespace)
            if since is None or since > last:
                cursor = last
                async for signed in store.query(namespace, Query(prefix=prefix)):
                    found = entry(signed)
                    if fits is None or fits(found):
                        yield Present(found)
                    if waiter.over:
                        return
            else:
                cursor = since
            caught_up = False
            while not waiter.over:
                if not caught_up and cursor >= last:
                    caught_up = True
                    yield CaughtUp(cursor)
                waiter.look()
                page = await store.changes(namespace, cursor, PAGE)
                for cursor, signed in page:
                    key, found = signed.id.key, entry(signed)
                    above = prefix.startswith(key) and found.is_readable
                    if above or (key.startswith(prefix) and (fits is None or fits(found))):
                        yield Changed(found, cursor)
                if len(page) == PAGE:
                    continue
                if not caught_up:  # what came last has been superseded
                    cursor = max(cursor, last)
                else:
                    await waiter.news()
        except DatabaseClosed:
            if not waiter.over:
                raise
