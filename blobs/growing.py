"""Partial blobs of a store, each shared by all who write it, serve it and wait for it.

The row of a partial blob says its size and that it is not complete; what of it is here only its files say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager

import sqlalchemy as sa

from ..storage import Database
from ..storage.prepared import Prepared
from ..storage.tables import blobs
from .bao import Leaf, Pairs
from .errors import NotFound
from .geometry import CHUNK, outboard_size
from .hash import Hash
from .news import News
from .partial import Partial
from .ranges import ChunkRanges
from .reader import BlobInfo
from .store import INLINE_OUTBOARD, BlobStore

__all__ = ["Growing", "GrowingBlobs"]

POLL = 1.0  # seconds between two looks for a blob of which nothing is here
FINISHING = 0.05  # seconds until a blob that is all there is looked for among the complete ones
STEPS = 16  # of a recovery in one call in a thread: up to 16 MiB

_PARTIAL = sa.select(blobs.c.size).where(blobs.c.hash == sa.bindparam("key"), blobs.c.state == 0)
_BEGIN = Prepared(
    sa.text(
        """
        INSERT INTO blobs (hash, size, state, added_us) VALUES (:key, :size, 0, :now)
        ON CONFLICT (hash) DO UPDATE SET
            size = CASE WHEN blobs.state = 1 THEN blobs.size ELSE excluded.size END, added_us = excluded.added_us
        """
    ).bindparams(
        sa.bindparam("key", type_=sa.LargeBinary),
        sa.bindparam("size", type_=sa.BigInteger),
        sa.bindparam("now", type_=sa.BigInteger),
    )
)


class Growing:
    """A blob of which more and more is here."""

    def __init__(self, store: BlobStore, partial: Partial) -> None:
        self.files = partial
        self.news = News()
        """Told whenever there is more, or another size."""
        self._store = store
        self._size_proven = False

    @property
    def size(self) -> int:
        return self.files.size

    @property
    def have(self) -> ChunkRanges:
        return self.files.have

    @property
    def proven(self) -> bool:
        """Whether the size is: its last chunk was seen."""
        return self._size_proven or self.files.proven

    async def write(self, items: list[Leaf | Pairs]) -> None:
        """Keep what a `Decoder` has verified."""
        await self._store.quota.take(sum(len(item.data) for item in items if isinstance(item, Leaf)))
        await self._store.run(self.files.write, items)
        if any(isinstance(item, Leaf) and item.offset + len(item.data) == self.size for item in items):
            self._size_proven = True
        self.news.tell()

    async def resize(self, size: int) -> None:
        """Take another claim for the size, while none is proven."""
        await self._store.run(self.files.resize, size)
        self.news.tell()

    def data_at(self, offset: int, size: int) -> bytes:
        """Exactly these bytes; blocks. `NotFound` where some are not here."""
        start, stop = offset // CHUNK, -(-(offset + size) // CHUNK)
        if not self.have.contains(start, stop):
            raise NotFound(f"this part of blob {self.files.hash.short()} is not here yet")
        return self.files.data_at(offset, size)


class _Shared:
    def __init__(self, loading: asyncio.Task[Growing]) -> None:
        self.loading = loading
        self.users = 0


class GrowingBlobs:
    """The partial blobs of ``store``."""

    def __init__(self, store: BlobStore, database: Database) -> None:
        self._store = store
        self._database = database
        self._shared: dict[Hash, _Shared] = {}

    async def size(self, hash: Hash) -> int | None:
        """Bytes of the whole by the last claim; None where nothing of it was ever here, or all is."""
        key = {"key": bytes(hash)}
        return await self._database.read(lambda connection: connection.execute(_PARTIAL, key).scalar_one_or_none())

    async def watch(self, hash: Hash) -> AsyncGenerator[tuple[int, ChunkRanges], None]:
        """Yield (size by the last claim or 0, chunks that are here) now and after changes; ends when all are here."""
        said: tuple[int, ChunkRanges] | None = None
        while True:
            size = await self._store.size(hash)
            if size is not None:
                yield size, ChunkRanges.ALL
                return
            if await self.size(hash) is None:
                if said is None:
                    said = 0, ChunkRanges.NONE
                    yield said
                await asyncio.sleep(POLL)
                continue
            async with self.open(hash) as growing:
                while not growing.files.complete:
                    if (growing.size, growing.have) != said:
                        said = growing.size, growing.have
                        yield said
                    await growing.news.wait(POLL)
            await asyncio.sleep(FINISHING)

    @asynccontextmanager
    async def open(self, hash: Hash, size: int | None = None) -> AsyncIterator[Growing]:
        """The blob, as far as it is here; begun with ``size`` bytes, or `NotFound` without."""
        shared = self._shared.get(hash)
        if shared is None:
            shared = self._shared[hash] = _Shared(asyncio.create_task(self._load(hash, size), name=f"blob {hash}"))
        shared.users += 1
        try:
            yield await asyncio.shield(shared.loading)
        finally:
            shared.users -= 1
            if not shared.users:
                if self._shared.get(hash) is shared:
                    del self._shared[hash]
                if not shared.loading.done():
                    shared.loading.cancel()
                elif not shared.loading.cancelled() and shared.loading.exception() is None:
                    shared.loading.result().files.close()

    async def finish(self, growing: Growing) -> BlobInfo:
        """All of it is there: make it a blob of the store."""
        files = growing.files
        await self._store.run(files.make_durable)
        outboard = None
        if outboard_size(files.size) <= INLINE_OUTBOARD:
            outboard = await self._store.run(files.outboard)
        info = await self._store.adopt(files.hash, files.size, outboard)
        growing.news.tell()
        return info

    async def _load(self, hash: Hash, size: int | None) -> Growing:
        known = await self.size(hash)
        if known is None and size is None:
            raise NotFound(f"blob {hash} is not here: fetch it first")
        claimed = size if known is None else known
        row = {"key": bytes(hash), "size": claimed, "now": time.time_ns() // 1000}
        await self._database.write(lambda connection: _BEGIN.run(connection, row), durable=False)
        files = await self._store.run(Partial, hash, claimed, self._store.stem(hash))
        try:
            recovery = files.recover()
            while await self._store.run(_some, recovery):
                pass
        except BaseException:
            files.close()
            raise
        return Growing(self._store, files)


def _some(steps: Iterator[int]) -> bool:
    """Whether there are more."""
    return all(next(steps, None) is not None for _ in range(STEPS))
