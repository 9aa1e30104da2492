"""Many writes as one: all of them become durable in one transaction, and are told in one burst, or none is.

A batch writes its *net effect*. A write or a deletion replaces what the batch itself wrote before at and below its key;
only what is left is signed and stored, in the order in which it was given. So "set a, delete a prefix of it, set it
again" leaves the deletion and the last value.

In memory a batch holds its keys, and small contents up to `MAX_STAGED`; more of those go to the blobs as they come, as
large ones do. What was stored there for a batch that is then given up stays a blob that no entry names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from os import PathLike
from types import TracebackType
from typing import Protocol, Self

from ...blobs import Hash
from ...blobs.store import Write
from ..doc_entry import Entry, pack_value
from ..errors import BatchEnded, BatchFull, EmptyValue
from ..model.entry import EMPTY_HASH
from ..store.documents import NewEntry

__all__ = ["MAX_BATCH", "Batch", "BatchTarget", "checked_hash", "net_effect"]

MAX_BATCH = 100_000  # writes in one batch: about 30 MB of memory, and some seconds in which no one else writes
MAX_STAGED = 16 << 20  # bytes of contents that wait in memory for the transaction
THREAD_ABOVE = 2_000  # writes whose net effect is worked out in a thread


class BatchTarget(Protocol):
    """The document that is written."""

    def raw_key(self, key: str | bytes) -> bytes: ...

    async def stage(self, key: bytes, value: bytes) -> NewEntry:
        """Raises EmptyValue."""
        ...

    async def stage_path(self, key: bytes, path: str | PathLike[str]) -> NewEntry:
        """Raises EmptyValue, UnreadableFile."""
        ...

    def pointer(self, key: str | bytes, hash: Hash | bytes, size: int) -> NewEntry:
        """Raises BadKey, EmptyValue, EncryptedDocument."""
        ...

    async def tombstones(self, prefix: str | bytes, batched: Sequence[bytes]) -> list[NewEntry]:
        """What deletes everything below ``prefix``; ``batched`` are raw keys that are to be written before."""
        ...

    async def keep(self, contents: Sequence[Write]) -> None:
        """Run them in a transaction of their own."""
        ...

    async def write_all(self, entries: Sequence[NewEntry]) -> tuple[list[Entry], int]:
        """What was written, and how many entries with content that replaced."""
        ...


class Batch:
    """Made by `Doc.batch`; use it with ``async with``, from one task or several.

    Leaving the block writes everything, leaving it by an exception nothing.
    """

    def __init__(self, target: BatchTarget) -> None:
        self.entries: Sequence[Entry] = ()
        """What was written, once the block was left."""
        self.removed = 0
        """How many entries with content that were there before gave way."""
        self._target = target
        self._writes: list[NewEntry] = []
        self._staged = 0
        self._kept = 0  # of the writes, whose contents wait no more
        self._ended = False

    def __len__(self) -> int:
        """Writes so far."""
        return len(self._writes)

    async def set(self, key: str | bytes, value: bytes) -> None:
        """As `Doc.set`. Raises EmptyValue, BadKey, BatchFull, BatchEnded."""
        raw = self._target.raw_key(key)
        self._check()
        entry = await self._target.stage(raw, value)
        self._add(entry)
        if entry.content is not None:
            self._staged += entry.size
            if self._staged > MAX_STAGED:
                await self._keep()

    async def set_value(self, key: str | bytes, value: object) -> None:
        """As `Doc.set_value`. Raises NotAValue, and what `set` raises."""
        await self.set(key, pack_value(value))

    async def set_hash(self, key: str | bytes, hash: Hash | bytes, size: int) -> None:
        """As `Doc.set_hash`. Raises as `set`."""
        self._add(self._target.pointer(key, hash, size))

    async def set_path(self, key: str | bytes, path: str | PathLike[str]) -> None:
        """As `Doc.set_path`; the content goes to the blobs at once."""
        raw = self._target.raw_key(key)
        self._check()
        self._add(await self._target.stage_path(raw, path))

    async def delete(self, prefix: str | bytes) -> None:
        """As `Doc.delete`. Raises BadKey, BatchFull, BatchEnded."""
        self._check()
        for tombstone in await self._target.tombstones(prefix, [write.key for write in self._writes if write.size]):
            self._add(tombstone)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._ended = True
        writes, self._writes = self._writes, []
        if kind is not None or not writes:
            return
        many = len(writes) > THREAD_ABOVE
        net = await asyncio.to_thread(net_effect, writes) if many else net_effect(writes)
        self.entries, self.removed = await self._target.write_all(net)

    def _check(self) -> None:
        if self._ended:
            raise BatchEnded("this batch is over: begin another one with doc.batch()")
        if len(self._writes) >= MAX_BATCH:
            raise BatchFull(f"a batch holds {MAX_BATCH} writes at most: leave its block and begin another one")

    def _add(self, entry: NewEntry) -> None:
        self._check()
        self._writes.append(entry)

    async def _keep(self) -> None:
        waiting = range(self._kept, len(self._writes))
        contents = [content for index in waiting if (content := self._writes[index].content) is not None]
        self._staged, self._kept = 0, len(self._writes)
        await self._target.keep(contents)
        if not self._ended:
            for index in waiting:
                self._writes[index] = self._writes[index]._replace(content=None)


def net_effect(writes: Sequence[NewEntry]) -> list[NewEntry]:
    """Those that no later one replaces, in their order."""
    later: set[bytes] = set()
    lengths: list[int] = []
    left: list[NewEntry] = []
    for write in reversed(writes):
        key = write.key
        if any(key[:length] in later for length in lengths if length <= len(key)):
            continue
        left.append(write)
        later.add(key)
        if len(key) not in lengths:
            lengths.append(len(key))
    left.reverse()
    return left


def checked_hash(hash: Hash | bytes, size: int) -> bytes:
    """Of a content to point at. Raises EmptyValue."""
    raw = bytes(Hash(bytes(hash)))
    if size <= 0 or raw == EMPTY_HASH:
        raise EmptyValue("an empty value is how a deletion is written: use delete")
    return raw
