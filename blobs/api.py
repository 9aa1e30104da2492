"""`Blobs`: what users see of this package (``design.md``, names that users see)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence
from contextlib import AbstractAsyncContextManager
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import sqlalchemy as sa

from ..errors import UsageError
from ..storage import Database
from ..transport.connection import Connection
from ..transport.endpoint import Endpoint
from .collect import GRACE, Collected, Collector
from .fetch import STALL_TIMEOUT, fetch_blob
from .hash import Hash
from .messages import ALPN
from .pool import ConnectionPool
from .pool import Provider as ProviderAddr
from .provider import Allow, Provider
from .small import Delivery, fetch_small
from .store import BlobInfo, BlobReader, BlobStore, Filter, Progress, Write
from .tags import Tags
from .tickets import BlobFormat, BlobTicket

__all__ = ["Blobs"]


class Blobs:
    """Blobs by their hash: kept in ``database`` and ``directory``, served to peers, fetched from them.

    Give `handle` to a Router under `ALPN`. ``directory`` belongs to this object alone; what an interrupted run left
    there half done is removed at once. ``allow(peer, hash)`` may refuse to serve a blob.

    A hash may be given as a `Hash` or as its text.

    What is added or fetched gets a tag, which keeps it: a name of yours, one made of the time (``tag=True``), or none
    (``tag=False``), where something else keeps it, such as an entry of a document.
    """

    ALPN = ALPN

    def __init__(
        self, endpoint: Endpoint, database: Database, directory: str | PathLike[str], *, allow: Allow | None = None
    ) -> None:
        self._endpoint = endpoint
        self._store = BlobStore(database, Path(directory))
        self._collector = Collector(database, self._store.children, self._store.remove_files, self._store.moving)
        self.tags = Tags(database, self._store.moving)
        """Names that keep blobs."""
        self._pool = ConnectionPool(endpoint, ALPN)
        self._provider = Provider(self._store, allow)
        self._fetching: WeakValueDictionary[Hash, asyncio.Lock] = WeakValueDictionary()

    async def aclose(self) -> None:
        """Close idle connections and threads; first end what still adds, reads or fetches."""
        await self._pool.aclose()
        await self._store.aclose()

    async def handle(self, connection: Connection) -> None:
        """Serve one connection of `ALPN` until it ends."""
        await self._provider.handle(connection)

    # -- adding -----------------------------------------------------------------------------------------------------

    async def add_bytes(self, data: bytes, *, tag: str | bool = True) -> BlobInfo:
        return await self._tagged(await self._store.add_bytes(data), tag)

    async def stage_bytes(self, data: bytes) -> tuple[BlobInfo, Write]:
        """As `add_bytes`, but a blob of up to 16 KiB is added by ``write(connection)``, in the caller's transaction."""
        return await self._store.stage_bytes(data)

    async def add_path(
        self,
        path: str | PathLike[str],
        *,
        progress: Progress | None = None,
        through: Filter | None = None,
        tag: str | bool = True,
    ) -> BlobInfo:
        """Copy a file into the store; ``progress(done, total)`` in bytes. ``through`` changes the pieces on their way.

        `UnreadableFile` for what is not a readable regular file, `FileChanged` where somebody wrote to it meanwhile.
        """
        return await self._tagged(await self._store.add_path(Path(path), progress, through), tag)

    async def add_stream(self, pieces: AsyncIterable[bytes], *, tag: str | bool = True) -> BlobInfo:
        """Add the bytes that ``pieces`` yields, joined. Nothing is added where it raises."""
        return await self._tagged(await self._store.add_stream(pieces), tag)

    # -- reading ----------------------------------------------------------------------------------------------------

    async def has(self, hash: Hash | str) -> bool:
        """Whether the whole blob is here."""
        return await self.size(hash) is not None

    async def size(self, hash: Hash | str) -> int | None:
        """Bytes of the blob, None where it is not here."""
        return await self._store.size(_hash(hash))

    async def list(self) -> list[BlobInfo]:
        """Every blob that is here, by hash."""
        return await self._store.list()

    async def read(self, hash: Hash | str, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes from ``offset`` on, fewer than ``size`` only at the blob's end. `NotFound`, `BlobDamaged`."""
        async with await self.reader(hash) as reader:
            return await reader.read(offset, size)

    async def small(self, hashes: Sequence[Hash]) -> dict[Hash, bytes]:
        """Of these, the blobs of at most 16 KiB that are here, in one read."""
        return await self._store.small(hashes)

    async def reader(self, hash: Hash | str) -> BlobReader:
        """Open a blob: ``read(offset, size)`` of the reader, or iterate it for pieces of 1 MiB; then ``close`` it."""
        return await self._store.reader(_hash(hash))

    async def export(self, hash: Hash | str, path: str | PathLike[str]) -> None:
        """Write the blob to a file, which appears whole or not at all and replaces one of that name."""
        await self._store.export(_hash(hash), Path(path))

    # -- keeping ----------------------------------------------------------------------------------------------------

    async def collect(self, *, grace: float | None = None) -> Collected:
        """Remove blobs that no tag, entry of a document, or `hold` keeps, and that came ``grace`` s (an hour) ago."""
        return await self._collector.collect(GRACE if grace is None else grace)

    def hold(self, hash: Hash | str) -> AbstractAsyncContextManager[None]:
        """``async with blobs.hold(hash)``: keep a blob for so long, be it here yet or not."""
        return self._collector.hold(_hash(hash))

    def protect(self, *columns: sa.Column[Any]) -> None:
        """For layers above: blobs that these columns of the database name are kept."""
        self._collector.protect(*columns)

    async def _tagged(self, info: BlobInfo, tag: str | bool) -> BlobInfo:
        if isinstance(tag, str):
            await self.tags.set(tag, info.hash)
        elif tag and info.hash != Hash.EMPTY:
            await self.tags.create(info.hash)
        return info

    # -- peers ------------------------------------------------------------------------------------------------------

    async def fetch(
        self,
        what: BlobTicket | Hash | str,
        providers: Sequence[ProviderAddr] = (),
        *,
        progress: Progress | None = None,
        max_size: int | None = None,
        stall_timeout: float = STALL_TIMEOUT,
        tag: str | bool = True,
    ) -> BlobInfo:
        """Get a blob from the first provider that delivers it, the ticket's own first; at once where it is here.

        ``what`` is a ticket, a hash, or the text of either. Two fetches of one blob at a time share the work.
        ``max_size``: bytes above which a provider's blob is refused. Raises `ProvidersExhausted` with each reason, a
        `StoreError` where it cannot be kept, `InvalidTicket`, `InvalidHash`.
        """
        if isinstance(what, str):
            what = BlobTicket.parse(what) if what.strip().lower().startswith("blob") else Hash.parse(what)
        if isinstance(what, BlobTicket):
            if what.format is not BlobFormat.RAW:
                raise UsageError("this ticket is for a collection: tidings fetches single blobs so far")
            providers = [what.addr, *providers]
            what = what.hash
        async with self._fetching.setdefault(what, asyncio.Lock()):
            size = await self._store.size(what)
            if size is not None:
                await self._store.touch(what)
                return await self._tagged(BlobInfo(what, size), tag)
            fetched = await fetch_blob(
                self._store,
                self._pool,
                what,
                providers,
                progress=progress,
                max_size=max_size,
                stall_timeout=stall_timeout,
            )
            return await self._tagged(fetched, tag)

    async def fetch_small(
        self,
        wanted: Sequence[tuple[Hash, int]],
        provider: ProviderAddr,
        *,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> Delivery:
        """Get small blobs, each with the bytes that it may have at most, by one request to one provider.

        What came and why the rest did not; see `small`. Raises StoreError alone.
        """
        return await fetch_small(self._store, self._pool, wanted, provider, stall_timeout=stall_timeout)

    def ticket(self, hash: Hash | str) -> BlobTicket:
        """How others fetch the blob from here; ``str()`` of it is the line to send them."""
        return BlobTicket(self._endpoint.addr(), _hash(hash))


def _hash(hash: Hash | str) -> Hash:
    return Hash.parse(hash) if isinstance(hash, str) else hash
