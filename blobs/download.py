"""Fetching a blob, or groups of it, from several providers at once.

Each provider is given a piece of what is missing, as large as it delivers in about a second, and then the next. Who
has nothing left to do takes the later half of the piece that would be ready last: so the end waits for nobody slow.
Everything is verified and kept at once, so nothing is lost when a provider fails: its piece goes back, and it is asked
again after a pause, unless it sent wrong bytes or said that it does not have the blob. What it has it tells by Observe.

The first answer also carries the last group, which proves the size; until it came, providers are asked one by one, the
next after a second of waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from ..errors import NetworkError, PeerError, TidingsError, UsageError
from ..transport.connection import Connection
from ..transport.errors import ConnectionClosed
from .answers import STALL_TIMEOUT, get_ranges
from .arrival import Arrival
from .bao import Leaf
from .errors import Busy, NotProvided, ProvidersExhausted, Truncated
from .geometry import CHUNK, GROUP_CHUNKS, chunk_count
from .growing import Growing, GrowingBlobs
from .hash import Hash
from .news import News
from .observe import observe
from .pool import ConnectionPool, Provider, provider_id
from .ranges import ChunkRanges
from .reader import BlobInfo
from .store import BlobStore, Progress

__all__ = ["Download", "Providers"]

logger = logging.getLogger(__name__)

Providers = Sequence[Provider] | AsyncIterable[Provider]
"""Who has it: known from the start, or found one after another."""

MAX_SOURCES = 16  # providers asked at a time; others follow when some fail
STREAMS = 2  # requests to one provider at a time, so that none waits for a round trip
FIRST_PIECE = 1024  # chunks asked for together with the proof of the size, where there are several providers
LEAST_PIECE = 16 * GROUP_CHUNKS
MOST_PIECE = 32 * 1024  # chunks: 32 MiB
PIECE_SECONDS = 1.0
IMPATIENCE = 1.0  # seconds until the next provider is asked for the size, too
LOOK_AGAIN = 0.25  # seconds after which who is idle looks at what the others are doing
RETRIES = 3  # without progress; after 0.5, 1 and 2 s
RETRY_AFTER = 0.5


@dataclass(eq=False)
class _Piece:
    """What one request is for. ``ranges`` shrinks when somebody takes a part of it over."""

    source: _Source
    ranges: ChunkRanges
    begun: float


@dataclass(eq=False)
class _Source:
    provider: Provider
    number: int
    speed: float = 0.0  # bytes a second over one of its streams; 0: not known yet
    available: ChunkRanges | None = None  # as far as it says; None: all, for all that is known
    can_prove: bool = True  # the size, since it has the last chunk
    lacks: bool = False  # it said once that it has not all
    failures: int = 0  # without progress
    again_at: float = 0.0
    gone: bool = False
    observing: asyncio.Task[None] | None = field(default=None, repr=False)


class Download:
    """One use: `run`. ``wanted`` holds whole groups; with none of them the size is proven, and that is all."""

    def __init__(
        self,
        store: BlobStore,
        growing: GrowingBlobs,
        pool: ConnectionPool,
        hash: Hash,
        *,
        wanted: ChunkRanges = ChunkRanges.ALL,
        progress: Progress | None = None,
        max_size: int | None = None,
        stall_timeout: float = STALL_TIMEOUT,
        retries: int = RETRIES,
    ) -> None:
        self._pool = pool
        self._hash = hash
        self._wanted = wanted
        self._progress = progress
        self._max_size = max_size
        self._stall_timeout = stall_timeout
        self._retries = retries
        self._arrival = Arrival(store, growing, hash)
        self._pieces: list[_Piece] = []
        self._sources: list[_Source] = []
        self._reasons: dict[str, TidingsError] = {}
        self._news = News()
        self._failure: BaseException | None = None
        self._begun = 0.0

    async def run(self, providers: Providers) -> BlobInfo:
        """Return when all that is wanted is here. `ProvidersExhausted`, with each one's reason; `StoreError`.

        What came stays in the store in any case.
        """
        self._begun = asyncio.get_running_loop().time()
        async with self._arrival as arrival:
            tasks: set[asyncio.Task[None]] = set()
            feeding = asyncio.create_task(self._feed(providers, tasks), name="find providers")
            feeding.add_done_callback(lambda _: self._news.tell())
            tasks.add(feeding)
            try:
                await self._watch(tasks, feeding)
            finally:
                for source in self._sources:
                    if source.observing is not None:
                        tasks.add(source.observing)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if self._progress is not None:
                self._progress(*arrival.progress)
            if arrival.complete:
                return await arrival.finish()
            return BlobInfo(self._hash, arrival.progress[1])

    @property
    def _done(self) -> bool:
        return self._arrival.small is not None or (self._arrival.proven and not self._missing(self._blob))

    @property
    def _blob(self) -> Growing:
        assert self._arrival.blob is not None
        return self._arrival.blob

    def _missing(self, blob: Growing) -> ChunkRanges:
        chunks = blob.files.chunks
        return self._wanted.truncated(chunks).touched_groups(chunks) - blob.have

    @staticmethod
    def _left(piece: _Piece, blob: Growing) -> ChunkRanges:
        return piece.ranges.truncated(blob.files.chunks) - blob.have

    # -- tasks ------------------------------------------------------------------------------------------------------

    async def _feed(self, providers: Providers, tasks: set[asyncio.Task[None]]) -> None:
        """Begin with each provider as it is found, and as others fail."""

        async def begin(provider: Provider) -> None:
            while sum(not source.gone for source in self._sources) >= MAX_SOURCES:
                await self._news.wait()
            source = _Source(provider, len(self._sources))
            self._sources.append(source)
            for _ in range(STREAMS):
                tasks.add(asyncio.create_task(self._work(source), name=f"blob {self._hash.short()} of {provider}"))

        if isinstance(providers, AsyncIterable):
            async for provider in providers:
                await begin(provider)
        else:
            for provider in providers:
                await begin(provider)

    async def _watch(self, tasks: set[asyncio.Task[None]], feeding: asyncio.Task[None]) -> None:
        """Return when it is done; raise when nobody is left who could do more."""
        loop = asyncio.get_running_loop()
        moved = loop.time()
        while not self._done:
            if self._failure is not None:
                raise self._failure
            if feeding.done():
                feeding.result()
            if self._pieces or not feeding.done():
                moved = loop.time()
            if feeding.done() and all(source.gone for source in self._sources):
                raise ProvidersExhausted(f"blob {self._hash.short()}", self._reasons)
            if loop.time() - moved > self._stall_timeout + RETRY_AFTER * 2**self._retries:
                for source in self._sources:
                    if not source.gone:
                        error = NotProvided(f"the peer has only a part of blob {self._hash.short()}")
                        self._reasons.setdefault(_name(source.provider), error)
                raise ProvidersExhausted(f"blob {self._hash.short()}", self._reasons)
            await self._news.wait(LOOK_AGAIN)

    async def _work(self, source: _Source) -> None:
        """Take piece after piece."""
        try:
            while not source.gone and not self._done:
                pause = source.again_at - asyncio.get_running_loop().time()
                piece = self._next_piece(source) if pause <= 0 else None
                if piece is None:
                    await self._news.wait(min(LOOK_AGAIN, pause) if pause > 0 else LOOK_AGAIN)
                    continue
                self._pieces.append(piece)
                try:
                    await self._get(source, piece)
                except (PeerError, NetworkError, UsageError) as error:
                    logger.info("blob %s of %s: %s", self._hash.short(), _name(source.provider), error)
                    self._failed(source, error)
                finally:
                    self._pieces.remove(piece)
                    self._news.tell()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = error
        finally:
            self._news.tell()

    def _failed(self, source: _Source, error: TidingsError) -> None:
        self._reasons[_name(source.provider)] = error
        now = asyncio.get_running_loop().time()
        if now >= source.again_at:  # both its streams may fail at a time
            source.again_at = now + RETRY_AFTER * 2**source.failures
            source.failures += 1
        if isinstance(error, NotProvided):
            hopeless, source.lacks = False, True
            if source.observing is None:  # it may have a part
                source.observing = asyncio.create_task(self._observe(source), name=f"observe {self._hash.short()}")
        else:
            hopeless = isinstance(error, PeerError | UsageError) and not isinstance(error, Busy | Truncated)
        if hopeless or source.failures > self._retries:
            source.gone = True

    # -- what is asked of whom --------------------------------------------------------------------------------------

    def _next_piece(self, source: _Source) -> _Piece | None:
        now = asyncio.get_running_loop().time()
        if not self._arrival.proven:
            return self._first_piece(source, now)
        chunks = self._blob.files.chunks
        free = self._missing(self._blob)
        for piece in self._pieces:
            free -= piece.ranges
        if source.available is not None:
            free &= source.available
        if free:
            return _Piece(source, free.first(self._piece_size(source, free.count(chunks)), chunks), now)
        return self._take_over(source, now)

    def _first_piece(self, source: _Source, now: float) -> _Piece | None:
        """Prove the size; from a sole provider, ask for all at once."""
        if any(piece.source is source for piece in self._pieces):
            return None
        before = [
            other
            for other in self._sources[: source.number]
            if not (other.gone or other.failures) and (other.available is None or other.can_prove)
        ]
        asked = [other for other in before if any(piece.source is other for piece in self._pieces)]
        if len(before) > len(asked) or (asked and now - self._begun < IMPATIENCE * len(before)):
            return None
        blob = self._arrival.blob
        ranges = self._wanted if blob is None else self._missing(blob)
        if source.available is not None:
            if not source.can_prove:
                return None
            ranges &= source.available
        if len(self._sources) > 1:
            ranges = ranges.first(FIRST_PIECE, 1 << 63)
        return _Piece(source, ranges, now)

    def _piece_size(self, source: _Source, free: int) -> int:
        alive = sum(not other.gone for other in self._sources)
        if alive == 1:
            return free  # there is nobody to share it with
        size = int(source.speed * PIECE_SECONDS / CHUNK) if source.speed else LEAST_PIECE
        size = min(max(size, LEAST_PIECE), MOST_PIECE, max(LEAST_PIECE, free // (alive * STREAMS)))
        return -(-size // GROUP_CHUNKS) * GROUP_CHUNKS

    def _take_over(self, source: _Source, now: float) -> _Piece | None:
        """The later half of the piece that would be ready last, where that is worth it."""
        chunks = self._blob.files.chunks
        latest, latest_left, rest = None, 0.0, ChunkRanges.NONE
        for piece in self._pieces:
            if piece.source is source or now - piece.begun < 2 * LOOK_AGAIN:
                continue
            left = piece.ranges - self._blob.have
            if source.available is not None:
                left &= source.available
            seconds = left.count(chunks) * CHUNK / max(piece.source.speed, 1.0)
            if left and seconds > latest_left:
                latest, latest_left, rest = piece, seconds, left
        count = rest.count(chunks)
        if latest is None or latest_left < 2 * count * CHUNK / max(source.speed, 64 * CHUNK):
            return None
        groups = rest.touched_groups(chunks)
        keep = groups.count(chunks) // 2 // GROUP_CHUNKS * GROUP_CHUNKS
        taken = groups - groups.first(keep, chunks)
        latest.ranges -= taken
        return _Piece(source, taken, now)

    # -- one request ------------------------------------------------------------------------------------------------

    async def _get(self, source: _Source, piece: _Piece) -> None:
        retry = True
        while retry:
            retry = False
            async with self._pool.connection(source.provider) as (connection, reused):
                try:
                    await self._get_over(connection, source, piece)
                except ConnectionClosed:
                    if not reused:
                        raise
                    retry = True  # the peer had closed an idle connection: dial once more

    async def _get_over(self, connection: Connection, source: _Source, piece: _Piece) -> None:
        loop = asyncio.get_running_loop()
        begun, came = loop.time(), 0
        asked = piece.ranges if self._arrival.proven else piece.ranges | ChunkRanges.LAST
        answer = get_ranges(connection, self._hash, asked, max_size=self._max_size, stall_timeout=self._stall_timeout)
        async with aclosing(answer):
            async for size, items in answer:
                before = self._arrival.progress[0]
                await self._arrival.write(size, items, connection.remote_id)
                if self._arrival.progress[0] > before:
                    source.failures = 0
                self._news.tell()
                came += sum(len(item.data) for item in items if isinstance(item, Leaf))
                if came:
                    speed = came / max(loop.time() - begun, 1e-3)
                    source.speed = speed if not source.speed else 0.7 * source.speed + 0.3 * speed
                if self._progress is not None:
                    self._progress(*self._arrival.progress)
                blob = self._arrival.blob
                if blob is not None and blob.proven:
                    self._begin_observing(source)
                    if self._done or not self._left(piece, blob):
                        return
        blob = self._arrival.blob
        if blob is not None and self._left(piece, blob):
            raise NotProvided(f"the peer does not have all of blob {self._hash.short()}", peer=connection.remote_id)

    def _begin_observing(self, source: _Source) -> None:
        if source.observing is None and len(self._sources) > 1:
            source.observing = asyncio.create_task(self._observe(source), name=f"observe {self._hash.short()}")

    async def _observe(self, source: _Source) -> None:
        """Keep what the provider says that it has. Who does not say has all, or where it had not all, nothing."""
        try:
            async with (
                self._pool.connection(source.provider) as (connection, _),
                aclosing(observe(connection, self._hash)) as items,
            ):
                async for size, ranges in items:
                    source.available = ranges
                    source.can_prove = ranges.contains(chunk_count(size) - 1, chunk_count(size))
                    if not ranges and source.lacks:
                        source.gone = True
                    self._news.tell()
        except (PeerError, UsageError) as error:
            logger.debug("blob %s: %s does not say what it has: %s", self._hash.short(), _name(source.provider), error)
            source.available = None
            source.gone |= source.lacks
        except NetworkError:
            source.available = source.observing = None  # asked again when it answers again
        self._news.tell()


def _name(provider: Provider) -> str:
    try:
        return str(provider_id(provider))
    except UsageError:
        return str(provider)
