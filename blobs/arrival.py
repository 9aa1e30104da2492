"""A blob that arrives, from one peer or several, and is kept as far as it came."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from .bao import Leaf, Pairs
from .errors import HashMismatch
from .geometry import GROUP
from .growing import Growing, GrowingBlobs
from .hash import Hash
from .reader import BlobInfo
from .store import BlobStore

__all__ = ["Arrival"]


class Arrival:
    """An asynchronous context manager. What was written stays, complete or not."""

    def __init__(self, store: BlobStore, growing: GrowingBlobs, hash: Hash) -> None:
        self.hash = hash
        self.blob: Growing | None = None
        """Of more than one group, once its size is known."""
        self.small: bytes | None = None
        """All of a blob of one group."""
        self._store = store
        self._growing = growing
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        if await self._growing.size(self.hash) is not None:
            self.blob = await self._stack.enter_async_context(self._growing.open(self.hash))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def write(self, size: int, items: list[Leaf | Pairs], peer: object) -> None:
        """Keep what was verified of ``peer``'s answer. `HashMismatch` for a size that was disproved already."""
        if size <= GROUP:
            for item in items:
                if isinstance(item, Leaf):
                    self.small = item.data
            return
        async with self._opening:
            if self.blob is None:
                self.blob = await self._stack.enter_async_context(self._growing.open(self.hash, size))
            if self.blob.size != size:
                if self.blob.proven:
                    raise HashMismatch(
                        f"the peer claims that blob {self.hash.short()} has {size} bytes: it has {self.blob.size}",
                        peer=peer,
                    )
                await self.blob.resize(size)
        await self.blob.write(items)

    @property
    def proven(self) -> bool:
        """Whether the size is known for sure."""
        return self.small is not None or (self.blob is not None and self.blob.proven)

    @property
    def complete(self) -> bool:
        return self.small is not None or (self.blob is not None and self.blob.files.complete)

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes here, and in all by the last claim."""
        if self.small is not None:
            return len(self.small), len(self.small)
        return (0, 0) if self.blob is None else (self.blob.files.bytes_here, self.blob.size)

    async def finish(self) -> BlobInfo:
        """It is `complete`: make it a blob of the store."""
        if self.small is not None:
            await self._store.keep([(self.hash, self.small)])
            return BlobInfo(self.hash, len(self.small))
        assert self.blob is not None
        return await self._growing.finish(self.blob)
