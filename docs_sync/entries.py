"""What a query gives: to be iterated, listed or counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from .doc_entry import Entry
from .model.entry import SignedEntry
from .model.keys import NamespaceId
from .store.documents import DocsStore
from .store.query import Query

__all__ = ["Entries", "Fits"]

Fits = Callable[[Entry], bool]
"""Which of the entries that a query gives are meant, where their keys have to be decrypted to tell."""


class Entries:
    """The entries of a document that fit a query, made by `Doc.entries`. Nothing is read before it is asked for.

        async for entry in doc.entries(prefix="photos/"): ...
        newest = await doc.entries(prefix="log/", descending=True).first()

    Each use reads anew. Iterating costs constant memory; `query` says what becomes of entries that change meanwhile.
    """

    def __init__(
        self,
        store: DocsStore,
        namespace: NamespaceId,
        query: Query,
        entry: Callable[[SignedEntry], Entry],
        fits: Fits | None,
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._query = query
        self._entry = entry
        self._fits = fits

    def __aiter__(self) -> AsyncIterator[Entry]:
        return self._read(self._query)

    async def first(self) -> Entry | None:
        """The first one, None where nothing fits."""
        limit = 1 if self._query.limit is None else min(1, self._query.limit)
        async for entry in self._read(replace(self._query, limit=limit)):
            return entry
        return None

    async def list(self) -> list[Entry]:
        """All of them, in memory."""
        return [entry async for entry in self]

    async def count(self) -> int:
        """How many there are."""
        if self._fits is None:
            return await self._store.count(self._namespace, self._query)
        return sum([1 async for _ in self])

    async def _read(self, query: Query) -> AsyncIterator[Entry]:
        fits = self._fits
        if fits is None:
            async for found in self._store.query(self._namespace, query):
                yield self._entry(found)
            return
        # Limit and offset count what fits, which is known here alone.
        skip, left = query.offset, query.limit
        async for found in self._store.query(self._namespace, replace(query, offset=0, limit=None)):
            if left == 0:
                return
            entry = self._entry(found)
            if not fits(entry):
                continue
            if skip:
                skip -= 1
                continue
            yield entry
            if left is not None:
                left -= 1
