"""Fetching many blobs: those of a sequence of hashes, or of a list.

By one request all that are not here yet, small ones kept by the hundred in a
transaction. Where there are several providers each is given some hundreds at a time. A blob that was begun and broke
off is then fetched like any other, from all of them at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from ..errors import NetworkError, PeerError, TidingsError, UsageError
from .answers import Answers, ask
from .arrival import Arrival
from .bao import Leaf
from .collection import MAX_ENTRIES, split_sequence
from .errors import Busy, NotProvided, ProvidersExhausted, Truncated
from .geometry import GROUP
from .growing import GrowingBlobs
from .hash import HASH_SIZE, Hash
from .messages import MAX_REQUEST, GetManyRequest, GetRequest
from .pool import ConnectionPool, Provider, provider_id
from .ranges import ChunkRanges, ChunkRangesSeq
from .store import BlobStore

__all__ = ["SequenceProgress", "fetch_blobs", "prove_sizes", "read_sequence"]

logger = logging.getLogger(__name__)

AT_ONCE = 512  # small blobs kept in one transaction ...
AT_ONCE_BYTES = 1 << 20  # ... or so many bytes
SHARE = 256  # blobs asked of a provider at a time, where there are several
MAX_MANY = MAX_REQUEST // HASH_SIZE - 1  # of one request that names them
MAX_LACKING = 1_000  # blobs that a provider does not have; each costs a request
RETRIES = 3
RETRY_AFTER = 0.5


@dataclass(frozen=True, slots=True)
class SequenceProgress:
    """How far a sequence has come. What was here before counts as done."""

    blobs_done: int
    blobs: int
    bytes_done: int
    """Of blobs fetched by this call."""


class _Children:
    """What is missing, and who works at it."""

    def __init__(self, missing: dict[int, Hash], total: int) -> None:
        self.missing = missing
        self.total = total
        self.todo = deque(sorted(missing))
        self.bytes = 0

    def take(self, most: int, lacking: set[int]) -> list[int]:
        """Indexes to ask for, in rising order, but for ``lacking``."""
        taken = [index for index in self.todo if index not in lacking][:most]
        chosen = set(taken)
        self.todo = deque(index for index in self.todo if index not in chosen)
        return sorted(taken)

    def give_back(self, indexes: Sequence[int]) -> None:
        self.todo.extendleft(reversed([index for index in indexes if index in self.missing]))


async def read_sequence(store: BlobStore, root: Hash) -> list[Hash]:
    """The hashes in a sequence that is here. `DecodeError` where the blob is none."""
    async with await store.reader(root) as reader:
        if reader.info.size > (MAX_ENTRIES + 1) * HASH_SIZE:
            raise UsageError(f"blob {root.short()} would be a sequence of more than {MAX_ENTRIES} hashes")
        return split_sequence(await reader.read())


async def fetch_blobs(
    store: BlobStore,
    growing: GrowingBlobs,
    pool: ConnectionPool,
    hashes: Sequence[Hash],
    providers: Sequence[Provider],
    fetch: Callable[[Hash], Awaitable[object]],
    *,
    root: Hash | None = None,
    progress: Callable[[SequenceProgress], object] | None,
    max_size: int | None,
    stall_timeout: float,
) -> None:
    """Fetch the blobs ``hashes``, those of the sequence ``root`` if there is one. ``fetch`` gets one from all of them.

    `ProvidersExhausted`; what came stays.
    """
    here = await store.which(hashes)
    begun = await store.which(hashes, complete=False)
    first_at: dict[Hash, int] = {}
    for index, hash in enumerate(hashes, 1):
        first_at.setdefault(hash, index)
    missing = {index: hash for hash, index in first_at.items() if hash not in here and hash not in begun}
    children = _Children(missing, len(first_at))
    what = f"sequence {root.short()}" if root is not None else f"{len(hashes)} blobs"
    left = children.missing

    def tell() -> None:
        if progress is not None:
            done = children.total - len(left) - len(begun)
            progress(SequenceProgress(done, children.total, children.bytes))

    reasons: dict[str, TidingsError] = {}
    share = SHARE if len(providers) > 1 else len(left) if root is not None else MAX_MANY

    async def work(provider: Provider) -> None:
        failures = 0
        lacking: set[int] = set()
        while failures <= RETRIES and len(lacking) < MAX_LACKING:
            indexes, before = children.take(share, lacking), len(left)
            if not indexes:
                return
            try:
                async with pool.connection(provider) as (connection, _):
                    request = _request(root, indexes, hashes)
                    first = children.missing[indexes[0]] if root is None else root
                    async with ask(connection, request, first, stall_timeout) as answers:
                        await _take(store, growing, answers, children, indexes, connection.remote_id, max_size, tell)
            except (PeerError, NetworkError, UsageError) as error:
                logger.info("%s of %s: %s", what, provider, error)
                reasons[_name(provider)] = error
                if isinstance(error, NotProvided):  # its answer ends with the first that it does not have
                    lacking.add(next(index for index in indexes if index in left))
                elif isinstance(error, PeerError) and not isinstance(error, Busy | Truncated):
                    return
                else:
                    failures = 1 if len(left) < before else failures + 1
            finally:
                children.give_back(indexes)
            if failures and failures <= RETRIES:
                await asyncio.sleep(RETRY_AFTER * 2 ** (failures - 1))

    tell()
    try:
        async with asyncio.TaskGroup() as group:
            for provider in providers:
                group.create_task(work(provider))
    except BaseExceptionGroup as errors:  # each would end all
        raise errors.exceptions[0] from None
    begun |= await store.which(list(left.values()), complete=False)
    for index, hash in list(left.items()):
        if hash in begun:
            del left[index]
    for hash in sorted(begun, key=first_at.__getitem__):
        await fetch(hash)
        begun.discard(hash)
        tell()
    if left:
        raise ProvidersExhausted(f"{len(left)} of {what}", reasons)


async def prove_sizes(
    pool: ConnectionPool, root: Hash, hashes: Sequence[Hash], indexes: Sequence[int], provider: Provider, stall: float
) -> dict[int, int]:
    """The bytes of children that are not here, each proven by its last group."""
    sizes: dict[int, int] = {}
    async with pool.connection(provider) as (connection, _):
        request = GetRequest(root, _ranges(indexes, ChunkRanges.LAST))
        async with ask(connection, request, root, stall) as answers:
            for index in indexes:
                async with aclosing(answers.blob(hashes[index - 1], ChunkRanges.LAST)) as verified:
                    async for size, _ in verified:
                        sizes[index] = size
            await answers.end()
    return sizes


async def _take(
    store: BlobStore,
    growing: GrowingBlobs,
    answers: Answers,
    children: _Children,
    indexes: list[int],
    peer: object,
    max_size: int | None,
    tell: Callable[[], None],
) -> None:
    """Keep the answers for ``indexes``, as far as they come and are right."""
    small: list[tuple[int, bytes]] = []

    async def keep() -> None:
        await store.keep([(children.missing[index], data) for index, data in small])
        for index, _ in small:
            del children.missing[index]
        small.clear()
        tell()

    try:
        for index in indexes:
            hash = children.missing[index]
            async with AsyncExitStack() as stack, aclosing(answers.blob(hash, max_size=max_size)) as verified:
                arrival: Arrival | None = None
                async for size, items in verified:
                    children.bytes += sum(len(item.data) for item in items if isinstance(item, Leaf))
                    if size <= GROUP:
                        small.extend((index, item.data) for item in items if isinstance(item, Leaf))
                        continue
                    if arrival is None:
                        arrival = await stack.enter_async_context(Arrival(store, growing, hash))
                    await arrival.write(size, items, peer)
                    tell()
                if arrival is not None:
                    await arrival.finish()
                    del children.missing[index]
                    tell()
            if len(small) >= AT_ONCE or sum(len(data) for _, data in small) >= AT_ONCE_BYTES:
                await keep()
        await answers.end()
    finally:
        if small:
            await keep()


def _request(root: Hash | None, indexes: Sequence[int], hashes: Sequence[Hash]) -> GetRequest | GetManyRequest:
    if root is None:
        return GetManyRequest(tuple(hashes[index - 1] for index in indexes))
    return GetRequest(root, _ranges(indexes))


def _ranges(indexes: Sequence[int], ranges: ChunkRanges = ChunkRanges.ALL) -> ChunkRangesSeq:
    """``ranges`` of each of these children, of which ``indexes`` rise from 1, and nothing else."""
    items: list[tuple[int, ChunkRanges]] = []
    after = None
    for index in indexes:
        if index != after:
            if after is not None:
                items.append((after, ChunkRanges.NONE))
            items.append((index, ranges))
        after = index + 1
    if after is not None:
        items.append((after, ChunkRanges.NONE))
    return ChunkRangesSeq(tuple(items))


def _name(provider: Provider) -> str:
    try:
        return str(provider_id(provider))
    except UsageError:
        return str(provider)
