"""Reading a blob that is not here, or not all of it: what is read is fetched, and kept."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from ..errors import UsageError
from .geometry import CHUNK
from .growing import Growing, GrowingBlobs
from .hash import Hash
from .ranges import ChunkRanges
from .reader import BlobReader
from .store import BlobStore

__all__ = ["OpenBlob"]

READ_AHEAD = 1 << 20  # bytes fetched beyond what is read, at most; it doubles while reading goes on from where it was

Fetch = Callable[[ChunkRanges], Awaitable[object]]


class OpenBlob:
    """An asynchronous file over a blob: ``read``, ``seek``, ``tell``, ``size``. An asynchronous context manager."""

    def __init__(self, store: BlobStore, growing: GrowingBlobs, hash: Hash, fetch: Fetch) -> None:
        self.hash = hash
        self._store = store
        self._blobs = growing
        self._fetch = fetch
        self._at = 0
        self._ahead = 0
        self._expected = -1
        self._reader: BlobReader | None = None
        self._growing: Growing | None = None
        self._stack = AsyncExitStack()

    @property
    def size(self) -> int:
        """Bytes of the whole blob, proven."""
        if self._reader is not None:
            return self._reader.info.size
        assert self._growing is not None
        return self._growing.size

    async def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes from where the last read or `seek` ended, fewer only at the end; all the rest by -1.

        Raises `ProvidersExhausted` where they are not here and cannot be fetched.
        """
        stop = self.size if size < 0 else min(self._at + size, self.size)
        if stop <= self._at:
            return b""
        start, self._at = self._at, stop
        if self._reader is not None:
            return await self._reader.read(start, stop - start)
        assert self._growing is not None
        first, last = start // CHUNK, -(-stop // CHUNK)
        if not self._growing.have.contains(first, last):
            self._ahead = min(max(2 * self._ahead, stop - start), READ_AHEAD) if start == self._expected else 0
            wanted = ChunkRanges.of(first, last + self._ahead // CHUNK)
            await self._fetch(wanted.touched_groups(self._growing.files.chunks))
        self._expected = stop
        return await self._store.run(self._growing.data_at, start, stop - start)

    async def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read on from there, which is returned; as `io.IOBase.seek`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise UsageError("seek to an offset that is not negative, from SEEK_SET, SEEK_CUR or SEEK_END")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    async def __aenter__(self) -> Self:
        if await self._store.size(self.hash) is None:
            if await self._blobs.size(self.hash) is None:
                await self._fetch(ChunkRanges.NONE)
            if await self._store.size(self.hash) is None:
                self._growing = await self._stack.enter_async_context(self._blobs.open(self.hash))
                if not self._growing.proven:
                    await self._fetch(ChunkRanges.NONE)
                return self
        self._reader = await self._stack.enter_async_context(await self._store.reader(self.hash))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stack.aclose()
