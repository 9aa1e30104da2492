"""A complete blob, open for reading."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ..errors import UsageError
from .errors import BlobDamaged
from .hash import Hash

__all__ = ["PIECE", "BlobInfo", "BlobReader"]

PIECE = 1 << 20  # bytes read, hashed and written at once

Run = Callable[[Callable[[int, int], bytes], int, int], Awaitable[bytes]]
"""Calls `BlobReader.data_at` in a thread."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob that is in the store: its hash and its size in bytes."""

    hash: Hash
    size: int


class BlobReader:
    """A complete blob, open for reading at any offset. An asynchronous context manager; iterating gives it all."""

    def __init__(
        self, run: Run, info: BlobInfo, data: bytes | int, outboard: bytes | int, *, referred: bool = False
    ) -> None:
        self.info = info
        self.referred = referred
        """Whether its file lies outside the store."""
        self._run = run
        self._data = data  # the bytes, or a file descriptor
        self._outboard = outboard

    @property
    def in_memory(self) -> bool:
        """Whether reading never waits for a disk."""
        return not isinstance(self._data, int)

    @property
    def fd(self) -> int | None:
        """The descriptor of its file, if it has one; as long as this is open."""
        return self._data if isinstance(self._data, int) else None

    def data_at(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes of the blob; blocks. `BlobDamaged` where the file is shorter than it should be."""
        return self._read(self._data, offset, size)

    def outboard_at(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes of its outboard; blocks."""
        return self._read(self._outboard, offset, size)

    async def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes from ``offset`` on, fewer than ``size`` only at the end."""
        if offset < 0 or (size is not None and size < 0):
            raise UsageError("an offset and a size to read are not negative")
        rest = max(0, self.info.size - offset)
        wanted = rest if size is None else min(size, rest)
        if self.in_memory or not wanted:
            return self.data_at(offset, wanted)
        return await self._run(self.data_at, offset, wanted)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for offset in range(0, self.info.size, PIECE):
            yield await self.read(offset, PIECE)

    def close(self) -> None:
        for source in (self._data, self._outboard):
            if isinstance(source, int):
                os.close(source)
        self._data = self._outboard = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, source: bytes | int, offset: int, size: int) -> bytes:
        if not isinstance(source, int):
            out = source[offset : offset + size]
        else:
            try:
                out = os.pread(source, size, offset)
                while len(out) < size and (more := os.pread(source, size - len(out), offset + len(out))):
                    out += more
            except OSError as error:
                raise BlobDamaged(f"blob {self.info.hash} cannot be read: {error.strerror}; fetch it again") from error
        if len(out) != size:
            raise BlobDamaged(f"the file of blob {self.info.hash} is too short: fetch it again")
        return out
