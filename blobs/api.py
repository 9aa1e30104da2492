"""`Blobs`: what users see of this package (``design.md``, names that users see)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import sqlalchemy as sa

from ..errors import NetworkError, PeerError, TidingsError, UsageError
from ..storage import Database
from ..transport.connection import Connection
from ..transport.endpoint import Endpoint
from ..transport.errors import DecodeError
from .answers import STALL_TIMEOUT
from .collect import GRACE, Collected, Collector
from .collection import MAX_ENTRIES, MAX_NAMES, Collection, split_sequence
from .download import RETRIES, Download, Providers
from .errors import FileExists, NotFound, ProvidersExhausted
from .exporting import export
from .folders import check_parents, files_in, safe_paths
from .growing import GrowingBlobs
from .hash import HASH_SIZE, Hash
from .messages import ALPN
from .observe import observe
from .open_blob import OpenBlob
from .pool import ConnectionPool
from .pool import Provider as ProviderAddr
from .provider import Provider, Served
from .push import push_blob
from .ranges import ChunkRanges
from .reader import BlobInfo, BlobReader
from .sequence import SequenceProgress, fetch_blobs, prove_sizes, read_sequence
from .settings import BlobSettings
from .small import Delivery, fetch_small
from .store import BlobStore, Filter, Progress, Write
from .tags import Tags
from .tickets import BlobFormat, BlobTicket
from .turns import Turns
from .verify import Checked, verify

__all__ = ["Blobs"]

FILES_AT_ONCE = 256  # of a folder, read and kept together


class Blobs:
    """Blobs by their hash: kept in ``database`` and ``directory``, served to peers, fetched from them.

    Give `handle` to a Router under `ALPN`. ``directory`` belongs to this object alone; what an interrupted run left
    there half done is removed at once.

    A hash may be given as a `Hash` or as its text.

    What is added or fetched gets a tag, which keeps it: a name of yours, one made of the time (``tag=True``), or none
    (``tag=False``), where something else keeps it, such as an entry of a document.
    """

    ALPN = ALPN

    def __init__(
        self,
        endpoint: Endpoint,
        database: Database,
        directory: str | PathLike[str],
        settings: BlobSettings | None = None,
    ) -> None:
        self._endpoint = endpoint
        settings = settings or BlobSettings()
        self._store = BlobStore(database, Path(directory), settings.quota)
        self._turns = Turns(settings.downloads)
        self._growing = GrowingBlobs(self._store, database)
        self._collector = Collector(database, self._store.children, self._store.remove_files, self._store.moving)
        self.tags = Tags(database, self._store.moving)
        """Names that keep blobs."""
        self._pool = ConnectionPool(endpoint, ALPN)
        self._provider = Provider(self._store, self._growing, settings)
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
        refer: bool = False,
        tag: str | bool = True,
    ) -> BlobInfo:
        """Copy a file into the store; ``progress(done, total)`` in bytes. ``through`` changes the pieces on their way.

        ``refer``: leave a file of more than 16 KiB where it is. The blob is gone when the file is, or when its size or
        its time of change is another, which is looked at whenever it is opened; no peer takes anything wrong.
        `UnreadableFile` for what is not a readable regular file, `FileChanged` where somebody wrote to it meanwhile.
        """
        return await self._tagged(await self._store.add_path(Path(path), progress, through, refer=refer), tag)

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

    async def export(self, hash: Hash | str, path: str | PathLike[str], *, refer: bool = False) -> None:
        """Write the blob to a file, which appears whole or not at all and replaces one of that name.

        ``refer``: for a blob of more than 16 KiB the file is its place from then on, as with `add_path`: it is there
        once, not twice.
        """
        await export(self._store, _hash(hash), Path(path), refer=refer)

    # -- collections ------------------------------------------------------------------------------------------------

    async def add_collection(self, entries: Iterable[tuple[str, Hash]], *, tag: str | bool = True) -> BlobInfo:
        """Name blobs that are here, and get the one that names them all; its size is that of the list."""
        collection = Collection.of(entries)
        names = await self._store.add_bytes(collection.encode_names())
        root = await self._store.add_bytes(collection.encode_sequence(names.hash))
        return await self._tagged(root, tag, BlobFormat.HASH_SEQ)

    async def add_folder(
        self,
        folder: str | PathLike[str],
        *,
        progress: Callable[[SequenceProgress], object] | None = None,
        tag: str | bool = True,
        below: str = "",
        refer: bool = False,
    ) -> BlobInfo:
        """Copy the files below a folder into the store, as a collection. Links are left out, and empty folders.

        ``below``: a folder's name that is set before each name. ``refer``: as `add_path` has it.

        `UnreadableFile`, `FileChanged` for a file of more than 16 KiB that changed meanwhile, `UsageError`.
        """
        files = await asyncio.to_thread(lambda: list(files_in(Path(folder))))
        entries: list[tuple[str, Hash]] = []
        size = 0
        for at in range(0, len(files), FILES_AT_ONCE):
            some = [path for _, path in files[at : at + FILES_AT_ONCE]]
            infos = await self._store.add_files(some, refer=refer)
            entries += (
                (f"{below}/{name}" if below else name, info.hash)
                for (name, _), info in zip(files[at:], infos, strict=False)
            )
            size += sum(info.size for info in infos)
            if progress is not None:
                progress(SequenceProgress(len(entries), len(files), size))
        return await self.add_collection(entries, tag=tag)

    async def collection(self, hash: Hash | str) -> Collection:
        """One that is here, or whose list is. `NotFound`; `DecodeError` for a blob that is none."""
        sequence = await self._read_limited(_hash(hash), (MAX_ENTRIES + 1) * HASH_SIZE)
        names = await self._read_limited(split_sequence(sequence)[0], MAX_NAMES)
        return Collection.decode(names, sequence)

    async def export_collection(
        self,
        hash: Hash | str,
        folder: str | PathLike[str],
        *,
        overwrite: bool = False,
        progress: Callable[[SequenceProgress], object] | None = None,
    ) -> Collection:
        """Write the blobs of a collection below a folder. A file that is there with the same bytes is left alone.

        Another raises `FileExists` unless ``overwrite``. `UnsafeName` for names that lead elsewhere. Both come before
        anything is written.
        """
        collection = await self.collection(hash)
        target = Path(folder)
        paths = safe_paths([name for name, _ in collection])
        await asyncio.to_thread(check_parents, target, paths)
        todo: list[tuple[Hash, Path]] = []
        size = 0
        for below, (_, child) in zip(paths, collection, strict=True):
            if not await self._is_there(target / below, child, overwrite):
                todo.append((child, target / below))
        done = len(collection) - len(todo)
        for child, path in todo:
            await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
            await export(self._store, child, path, durable=False)
            done, size = done + 1, size + (await self._store.size(child) or 0)
            if progress is not None:
                progress(SequenceProgress(done, len(collection), size))
        return collection

    async def _is_there(self, path: Path, hash: Hash, overwrite: bool) -> bool:
        """Whether the file has these bytes. `FileExists` where it has others."""
        size = await self._store.size(hash)
        if size is None:
            raise NotFound(f"blob {hash} of the collection is not here: fetch it first")
        if not await asyncio.to_thread(os.path.lexists, path):
            return False
        if overwrite:
            return False
        if await self._store.same_file(path, hash, size):
            return True
        raise FileExists(f"{path} is there and is another file: move it, or overwrite it (overwrite=True, --overwrite)")

    async def _read_limited(self, hash: Hash, limit: int) -> bytes:
        async with await self._store.reader(hash) as reader:
            if reader.info.size > limit:
                raise DecodeError(f"blob {hash.short()} is too large to be part of a collection's list")
            return await reader.read()

    def verify(self) -> AsyncIterator[Checked]:
        """``async for checked in blobs.verify()``: look at every byte that is stored.

        What is damaged is partial from then on, so that `fetch` gets the bad groups again, and only these.
        """
        return verify(self._store)

    # -- keeping ----------------------------------------------------------------------------------------------------

    async def collect(self, *, grace: float | None = None) -> Collected:
        """Remove blobs that no tag, entry of a document, or `hold` keeps, and that came ``grace`` s (an hour) ago."""
        return await self._collector.collect(GRACE if grace is None else grace)

    def hold(self, hash: Hash | str) -> AbstractAsyncContextManager[None]:
        """``async with blobs.hold(hash)``: keep a blob for so long, be it here yet or not."""
        return self._collector.hold(_hash(hash))

    def batch(self) -> AbstractAsyncContextManager[None]:
        """``async with blobs.batch():`` until it ends, keep all that is added or fetched; then what has a tag."""
        return self._collector.batch()

    def protect(self, *columns: sa.Column[Any]) -> None:
        """For layers above: blobs that these columns of the database name are kept."""
        self._collector.protect(*columns)

    async def _tagged(self, info: BlobInfo, tag: str | bool, format: BlobFormat = BlobFormat.RAW) -> BlobInfo:
        if isinstance(tag, str):
            await self.tags.set(tag, info.hash, format)
        elif tag and info.hash != Hash.EMPTY:
            await self.tags.create(info.hash, format)
        return info

    # -- peers ------------------------------------------------------------------------------------------------------

    async def fetch(
        self,
        what: BlobTicket | Hash | str,
        providers: Providers = (),
        *,
        progress: Progress | None = None,
        max_size: int | None = None,
        stall_timeout: float = STALL_TIMEOUT,
        retries: int = RETRIES,
        priority: int = 0,
        tag: str | bool = True,
    ) -> BlobInfo:
        """Get a blob from all providers at once, the ticket's own first; at once where it is here.

        ``what`` is a ticket, a hash, or the text of either. ``providers`` may be found one after another: an
        asynchronous iterable. What came before a failure, or a crash, is kept, and not fetched again. Two fetches of
        one blob at a time share the work. ``max_size``: bytes above which a provider's blob is refused. A provider
        that fails is asked again ``retries`` times, after 0.5, 1, 2 ... seconds. ``priority``: where more blobs are
        wanted than are fetched at a time (`BlobSettings`), the highest goes first. `Meter` makes speed and time left of
        what ``progress`` is told.

        Raises `ProvidersExhausted` with each reason, a `StoreError` where it cannot be kept,
        `InvalidTicket`, `InvalidHash`.
        """
        what = _what(what)
        if isinstance(what, BlobTicket):
            providers = _and(what.addr, providers)
            if what.format is not BlobFormat.RAW:
                raise UsageError("this ticket is for a collection: use fetch_collection")
            what = what.hash
        async with self._turns.take(priority), self._collector.hold(what):
            info = await self._fetch(what, providers, progress, max_size, stall_timeout, retries)
            return await self._tagged(info, tag)

    async def _fetch(
        self,
        hash: Hash,
        providers: Providers,
        progress: Progress | None = None,
        max_size: int | None = None,
        stall_timeout: float = STALL_TIMEOUT,
        retries: int = RETRIES,
    ) -> BlobInfo:
        """One blob, where it is not here."""
        async with self._collector.hold(hash), self._fetching.setdefault(hash, asyncio.Lock()):
            size = await self._store.size(hash)
            if size is not None:
                await self._store.touch(hash)
                return BlobInfo(hash, size)
            download = Download(
                self._store,
                self._growing,
                self._pool,
                hash,
                progress=progress,
                max_size=max_size,
                stall_timeout=stall_timeout,
                retries=retries,
            )
            return await download.run(providers)

    async def fetch_collection(
        self,
        what: BlobTicket | Hash | str,
        providers: Sequence[ProviderAddr] = (),
        *,
        progress: Callable[[SequenceProgress], object] | None = None,
        max_size: int | None = None,
        stall_timeout: float = STALL_TIMEOUT,
        priority: int = 0,
        tag: str | bool = True,
    ) -> Collection:
        """Get a collection and all its blobs, those that are not here; see `fetch`.

        ``max_size``: bytes of one of its blobs at most. Raises `DecodeError` where the blob is no collection.
        """
        what = _what(what)
        if isinstance(what, BlobTicket):
            providers = [what.addr, *providers]
            what = what.hash
        root = what
        async with self._turns.take(priority), self._collector.hold(root):
            await self._fetch(root, providers, stall_timeout=stall_timeout)
            hashes = await read_sequence(self._store, root)
            await self._tagged(BlobInfo(root, 0), tag, BlobFormat.HASH_SEQ)
            await self._fetch_all(hashes, providers, root, progress, max_size, stall_timeout)
        return await self.collection(root)

    async def sizes(
        self,
        what: BlobTicket | Hash | str,
        providers: Sequence[ProviderAddr] = (),
        *,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> Sequence[tuple[str, BlobInfo]]:
        """The names and sizes of a collection, without its blobs: of those that are not here by one request.

        A size is proven by the end of its blob, so up to 16 KiB of each come, and are not kept. Raises as `fetch`.
        """
        what = _what(what)
        if isinstance(what, BlobTicket):
            providers = [what.addr, *providers]
            what = what.hash
        root = what
        async with self._collector.hold(root):
            await self._fetch(root, providers, stall_timeout=stall_timeout)
            hashes = await read_sequence(self._store, root)
            async with self._collector.hold(hashes[0]):
                await self._fetch(hashes[0], providers, stall_timeout=stall_timeout)
                collection = await self.collection(root)
            known = await self._store.sizes(hashes)
            reasons: dict[str, TidingsError] = {}
            for provider in providers:
                missing = {hash: index for index, hash in enumerate(hashes, 1) if hash not in known}
                if not missing:
                    break
                try:
                    indexes = sorted(missing.values())
                    proven = await prove_sizes(self._pool, root, hashes, indexes, provider, stall_timeout)
                    known |= {hashes[index - 1]: size for index, size in proven.items()}
                except (PeerError, NetworkError, UsageError) as error:
                    reasons[str(provider)] = error
        if any(hash not in known for hash in hashes):
            raise ProvidersExhausted(f"the sizes of sequence {root.short()}", reasons)
        return [(name, BlobInfo(hash, known[hash])) for name, hash in collection]

    async def fetch_many(
        self,
        hashes: Sequence[Hash | str],
        providers: Sequence[ProviderAddr],
        *,
        progress: Callable[[SequenceProgress], object] | None = None,
        max_size: int | None = None,
        stall_timeout: float = STALL_TIMEOUT,
        priority: int = 0,
        tag: bool = True,
    ) -> Sequence[BlobInfo]:
        """Get many blobs by few requests (GetMany), those that are not here; see `fetch`. One entry for each hash."""
        wanted = [_hash(hash) for hash in hashes]
        async with self._turns.take(priority), self._collector.batch():
            await self._fetch_all(wanted, providers, None, progress, max_size, stall_timeout)
            infos: list[BlobInfo] = []
            for hash in wanted:
                infos.append(await self._fetch(hash, providers))
                await self._tagged(infos[-1], tag)
        return infos

    async def _fetch_all(
        self,
        hashes: Sequence[Hash],
        providers: Sequence[ProviderAddr],
        root: Hash | None,
        progress: Callable[[SequenceProgress], object] | None,
        max_size: int | None,
        stall_timeout: float,
    ) -> None:
        async def fetch(hash: Hash) -> None:
            await self._fetch(hash, providers, None, max_size, stall_timeout)

        await fetch_blobs(
            self._store,
            self._growing,
            self._pool,
            hashes,
            providers,
            fetch,
            root=root,
            progress=progress,
            max_size=max_size,
            stall_timeout=stall_timeout,
        )

    def open(
        self, what: BlobTicket | Hash | str, providers: Providers = (), *, stall_timeout: float = STALL_TIMEOUT
    ) -> OpenBlob:
        """``async with blobs.open(hash, providers) as file``: read and seek; what is not here is fetched, and kept."""
        what = _what(what)
        if isinstance(what, BlobTicket):
            providers = _and(what.addr, providers)
            what = what.hash
        hash = what

        async def fetch(ranges: ChunkRanges) -> None:
            if await self._store.size(hash) is None:  # beside a fetch of all of it, too: a reader does not wait
                download = Download(
                    self._store, self._growing, self._pool, hash, wanted=ranges, stall_timeout=stall_timeout
                )
                await download.run(providers)

        return OpenBlob(self._store, self._growing, hash, fetch)

    async def push(self, hash: Hash | str, peer: ProviderAddr) -> None:
        """Give a blob to a peer that allows it. `Refused`, `NotFound`, and what connecting raises."""
        async with self._pool.connection(peer) as (connection, _):
            await push_blob(connection, self._store, _hash(hash))

    async def observe(self, hash: Hash | str, peer: ProviderAddr) -> AsyncGenerator[tuple[int, ChunkRanges], None]:
        """Yield what the peer has of a blob, (size, chunks), now and whenever that changes. Close it to end it."""
        async with self._pool.connection(peer) as (connection, _), aclosing(observe(connection, _hash(hash))) as items:
            async for item in items:
                yield item

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

    def ticket(self, hash: Hash | str, format: BlobFormat = BlobFormat.RAW) -> BlobTicket:
        """How others fetch the blob, or the collection, from here; ``str()`` of it is the line to send them."""
        return BlobTicket(self._endpoint.addr(), _hash(hash), format)

    @property
    def served(self) -> Served:
        """What peers asked of this node, and what it sent."""
        return self._provider.served


def _and(first: ProviderAddr, others: Providers) -> Providers:
    if not isinstance(others, AsyncIterable):
        return [first, *others]

    async def all() -> AsyncIterator[ProviderAddr]:
        yield first
        async for other in others:
            yield other

    return all()


def _what(what: BlobTicket | Hash | str) -> BlobTicket | Hash:
    if not isinstance(what, str):
        return what
    return BlobTicket.parse(what) if what.strip().lower().startswith("blob") else Hash.parse(what)


def _hash(hash: Hash | str) -> Hash:
    return Hash.parse(hash) if isinstance(hash, str) else hash
