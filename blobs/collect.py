"""Collecting garbage: blobs that nothing keeps any more are removed, rows and files.

What keeps a blob: a tag; the hash sequence that a tag names; a column of another layer's table (documents name the
contents of their entries); being held by this process; having come, or come again, less than a grace period ago, or
since a batch of this process began that has not ended.

The search for candidates disturbs nobody. Whether nothing keeps them is then asked once more in the transaction that
removes them, and no other write comes between: so naming a blob and collecting it never cross.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..storage import Database
from ..storage.tables import blobs, tags
from .errors import NotFound
from .hash import Hash
from .tickets import BlobFormat

__all__ = ["GRACE", "Collected", "Collector"]

GRACE = 3600.0  # seconds since a blob came: above what any transfer or program takes to name what it has
BATCH = 5_000  # blobs removed in one transaction: some tenths of a second

_candidates = sa.Table(
    "collected", sa.MetaData(), sa.Column("hash", sa.LargeBinary(32), primary_key=True), prefixes=["TEMPORARY"]
)


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed."""

    blobs: int
    bytes: int


class Collector:
    """``children`` reads a hash sequence that is here, ``remove`` the files of blobs whose rows are gone."""

    def __init__(
        self,
        database: Database,
        children: Callable[[Hash], Awaitable[Sequence[Hash]]],
        remove: Callable[[Sequence[Hash]], Awaitable[None]],
        moving: asyncio.Lock,
    ) -> None:
        self._database = database
        self._children = children
        self._remove = remove
        self._moving = moving
        self._columns: list[sa.Column[Any]] = [tags.c.hash]
        self._held: Counter[bytes] = Counter()
        self._batches: dict[object, int] = {}
        self._collecting = asyncio.Lock()

    def protect(self, *columns: sa.Column[Any]) -> None:
        """Blobs whose hash is in one of these are kept."""
        self._columns.extend(columns)

    @asynccontextmanager
    async def hold(self, hash: Hash) -> AsyncIterator[None]:
        """Keep a blob while this lasts, be it here yet or not."""
        async with self._moving:  # a collection that has looked already ends first
            self._held[bytes(hash)] += 1
        try:
            yield
        finally:
            self._held[bytes(hash)] -= 1
            if not self._held[bytes(hash)]:
                del self._held[bytes(hash)]

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Keep what comes, or comes again, while this lasts."""
        mark = object()
        async with self._moving:
            self._batches[mark] = time.time_ns() // 1000
        try:
            yield
        finally:
            del self._batches[mark]

    async def collect(self, grace: float) -> Collected:
        before = int((time.time() - grace) * 1e6)
        count = size = 0
        async with self._collecting:
            after = b""
            while True:
                found = await self._database.read(lambda connection: self._find(connection, before, after))  # noqa: B023
                if not found:
                    return Collected(count, size)
                after = found[-1]
                async with self._moving:
                    kept = {*self._held, *[bytes(child) for child in await self._in_sequences()]}
                    wanted = [hash for hash in found if hash not in kept]
                    oldest = min(before, *self._batches.values()) if self._batches else before
                    gone = await self._database.write(lambda connection: self._sweep(connection, wanted, oldest))  # noqa: B023
                    await self._remove([Hash(hash) for hash, _ in gone])
                count += len(gone)
                size += sum(bytes for _, bytes in gone)

    def _find(self, connection: sa.Connection, before: int, after: bytes) -> list[bytes]:
        query = sa.select(blobs.c.hash).where(blobs.c.added_us < before, blobs.c.hash > after)
        for column in self._columns:
            query = query.where(blobs.c.hash.not_in(sa.select(column)))
        return [bytes(hash) for (hash,) in connection.execute(query.order_by(blobs.c.hash).limit(BATCH))]

    def _sweep(self, connection: sa.Connection, hashes: list[bytes], before: int) -> list[tuple[bytes, int]]:
        if not hashes:
            return []
        connection.execute(sa.schema.DropTable(_candidates, if_exists=True))
        _candidates.create(connection, checkfirst=False)
        connection.execute(sa.insert(_candidates), [{"hash": hash} for hash in hashes])
        for column in self._columns:
            named = sa.select(column).where(column.in_(sa.select(_candidates.c.hash)))
            connection.execute(sa.delete(_candidates).where(_candidates.c.hash.in_(named)))
        garbage = (blobs.c.hash.in_(sa.select(_candidates.c.hash)), blobs.c.added_us < before)
        rows = connection.execute(sa.select(blobs.c.hash, blobs.c.size).where(*garbage)).all()
        connection.execute(sa.delete(blobs).where(*garbage))
        connection.execute(sa.schema.DropTable(_candidates))
        return [(bytes(hash), size) for hash, size in rows]

    async def _in_sequences(self) -> list[Hash]:
        """What tagged hash sequences name, as far as these are here."""
        query = sa.select(tags.c.hash).where(tags.c.format == int(BlobFormat.HASH_SEQ))
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        found: list[Hash] = []
        for (hash,) in rows:
            with contextlib.suppress(NotFound):
                found += await self._children(Hash(hash))
        return found
