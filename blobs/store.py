"""Where blobs are kept: small ones in a row of the database, large ones in files beside it.

A blob of at most 16 KiB is a row with its bytes. A larger one is ``data/<2 hex>/<64 hex>.data``, or a file elsewhere
that the row refers to, with its outboard in the row up to 16 KiB (blobs up to 4 MiB) and else in ``.obao4``.

Where the database is shared by several processes, so should the directory be. A process that finds a row without its
file then leaves the row alone, for others may have the file.

A blob exists from the moment its row is committed. Before that its bytes are in ``temp/``, are verified, made durable
and moved to their name; so a crash leaves a whole blob or none, and files in ``temp/`` that the next open sweeps. (A
file that was moved and whose row was not committed is replaced when the same blob comes again.) Adding the same blob
twice at a time is safe: both write the same bytes, and one row wins.

Files are read and hashed in the store's own threads, one piece at a time, so that work can be cancelled in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import blake3
import sqlalchemy as sa

from ..errors import UsageError
from ..storage import Database
from ..storage.files import make_private_dir, write_durably
from ..storage.prepared import Prepared
from ..storage.tables import blobs
from .errors import BlobDamaged, NotFound, UnreadableFile
from .geometry import GROUP
from .hash import HASH_SIZE, Hash
from .outboard import build
from .partial import partial_paths
from .quota import Quota
from .reader import PIECE, BlobInfo, BlobReader
from .sources import changed, open_regular, read_from, small_file, stored_path, unchanged
from .spool import Spool

__all__ = ["BlobStore", "Filter", "Progress", "Write"]

INLINE_DATA = GROUP  # bytes of a blob that live in its row
INLINE_OUTBOARD = 16 * 1024
AT_ONCE = 4  # pieces of a file in one call in a thread
THREADS = 4
COMPLETE, PARTIAL = 1, 0  # a row's state
ABANDONED_S = 24 * 3600  # since the last write: then it is nobody's any more, also where processes share the folder
MAX_CHILDREN = 1 << 20  # of a hash sequence that are looked at: 32 MiB of it
MAX_SIZE = (1 << 63) - 1  # SQLite's integers

Write = Callable[[sa.Connection], None]
"""What runs in a job of the database."""

Progress = Callable[[int, int], object]
"""(bytes done, bytes in all), called on the event loop."""

Filter = Callable[[AsyncIterator[bytes]], AsyncIterable[bytes]]
"""Makes other pieces of those of a file: encrypts them, say."""

T = TypeVar("T")

_WHOLE = (blobs.c.hash == sa.bindparam("key"), blobs.c.state == COMPLETE)
_KEPT = sa.select(sa.func.sum(blobs.c.size)).where(blobs.c.state == COMPLETE, blobs.c.path.is_(None))
_PARTIAL = sa.select(blobs.c.hash).where(blobs.c.state == PARTIAL)
_REFER = (
    sa.update(blobs)
    .where(*_WHOLE, blobs.c.data.is_(None))
    .values(path=sa.bindparam("place"), mtime_ns=sa.bindparam("time"))
)
_COPY = sa.select(blobs.c.hash).where(*_WHOLE, blobs.c.path.is_(None))
_SIZE = sa.select(blobs.c.size).where(*_WHOLE)
_TOUCH = sa.update(blobs).where(blobs.c.hash == sa.bindparam("key")).values(added_us=sa.bindparam("now"))
_DEMOTE = sa.update(blobs).where(*_WHOLE).values(state=0, outboard=None)
_FORGET = sa.delete(blobs).where(blobs.c.hash == sa.bindparam("key"))
_INSERT = Prepared(
    sa.text(
        """
        INSERT INTO blobs (hash, size, state, added_us, outboard, data, path, mtime_ns)
        VALUES (:key, :size, 1, :added_us, :outboard, :data, :path, :mtime_ns)
        ON CONFLICT (hash) DO UPDATE SET
            size = excluded.size, state = 1, added_us = excluded.added_us,
            outboard = CASE WHEN blobs.state = 1 THEN blobs.outboard ELSE excluded.outboard END,
            data = CASE WHEN blobs.state = 1 THEN blobs.data ELSE excluded.data END,
            path = CASE WHEN blobs.state = 1 AND blobs.path IS NULL THEN NULL ELSE excluded.path END,
            mtime_ns = CASE WHEN blobs.state = 1 AND blobs.path IS NULL THEN NULL ELSE excluded.mtime_ns END
        """
    ).bindparams(
        sa.bindparam("key", type_=sa.LargeBinary),
        sa.bindparam("size", type_=sa.BigInteger),
        sa.bindparam("added_us", type_=sa.BigInteger),
        sa.bindparam("outboard", type_=sa.LargeBinary),
        sa.bindparam("data", type_=sa.LargeBinary),
        sa.bindparam("path", type_=sa.LargeBinary),
        sa.bindparam("mtime_ns", type_=sa.BigInteger),
    )
)
_NOTHING = {"outboard": None, "data": None, "path": None, "mtime_ns": None}
_ROW = sa.select(blobs.c.size, blobs.c.data, blobs.c.outboard, blobs.c.path, blobs.c.mtime_ns).where(*_WHOLE)
_STATE = Prepared(sa.select(blobs.c.state).where(blobs.c.hash == sa.bindparam("key")))
_SIZES = Prepared(_SIZE)
_SMALL = Prepared(sa.select(blobs.c.data).where(*_WHOLE))


class BlobStore:
    """Blobs in ``database`` and under ``directory``, which belongs to this store alone, or to the database's."""

    def __init__(self, database: Database, directory: Path, quota: int | None = None) -> None:
        self._database = database
        self.quota = Quota(quota, self._bytes_kept)
        self._temp = directory / "temp"
        self._data = directory / "data"
        for place in (directory, self._temp, self._data):
            make_private_dir(place)
        for leftover in self._temp.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process sweeps too, or has moved it
                if not database.is_shared or time.time() - leftover.stat().st_mtime > ABANDONED_S:
                    leftover.unlink()
        self.moving = asyncio.Lock()
        """Held while files and rows of blobs come or go together."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tidings-blobs")

    async def aclose(self) -> None:
        """Wait for the threads. The database is its owner's to close."""
        await asyncio.to_thread(self._threads.shutdown)

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """``work`` in a thread of the store. Cancelled, it still ends before this returns: files stay in one hand."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    # -- what is there ----------------------------------------------------------------------------------------------

    async def size(self, hash: Hash) -> int | None:
        """Bytes of the blob, None where it is not here."""
        if hash == Hash.EMPTY:
            return 0
        key = {"key": bytes(hash)}
        return await self._database.read(lambda connection: connection.execute(_SIZE, key).scalar_one_or_none())

    async def list(self) -> list[BlobInfo]:
        """Every blob, by hash. The empty one is always here and not in the list."""
        query = sa.select(blobs.c.hash, blobs.c.size).where(blobs.c.state == COMPLETE).order_by(blobs.c.hash)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [BlobInfo(Hash(row.hash), row.size) for row in rows]

    async def which(self, hashes: Sequence[Hash], *, complete: bool = True) -> set[Hash]:
        """Of these, the blobs that are here; or those of which a part may be."""
        state = COMPLETE if complete else PARTIAL

        def job(connection: sa.Connection) -> set[Hash]:
            return {hash for hash in hashes if _STATE.first(connection, {"key": bytes(hash)}) == (state,)}

        found = await self._database.read(job)
        return found | {Hash.EMPTY} if complete and Hash.EMPTY in hashes else found

    async def sizes(self, hashes: Sequence[Hash]) -> dict[Hash, int]:
        """Of these, the blobs that are here, with their bytes."""

        def job(connection: sa.Connection) -> dict[Hash, int]:
            found = ((hash, _SIZES.first(connection, {"key": bytes(hash)})) for hash in hashes)
            return {hash: row[0] for hash, row in found if row is not None}

        found = await self._database.read(job)
        return found | {Hash.EMPTY: 0} if Hash.EMPTY in hashes else found

    async def small(self, hashes: Sequence[Hash]) -> dict[Hash, bytes]:
        """Of these, the blobs of at most `INLINE_DATA` bytes that are here."""

        def job(connection: sa.Connection) -> dict[Hash, bytes]:
            rows = ((hash, _SMALL.first(connection, {"key": bytes(hash)})) for hash in hashes)
            return {hash: row[0] for hash, row in rows if row is not None and row[0] is not None}

        found = await self._database.read(job)
        return found | {Hash.EMPTY: b""} if Hash.EMPTY in hashes else found

    async def reader(self, hash: Hash) -> BlobReader:
        """Open a blob. `NotFound`; `BlobDamaged` where its file is gone or of another size: then it is forgotten, so
        that it can be fetched or added again.
        """
        if hash == Hash.EMPTY:
            return BlobReader(self.run, BlobInfo(hash, 0), b"", b"")
        key = {"key": bytes(hash)}
        row = await self._database.read(lambda connection: connection.execute(_ROW, key).one_or_none())
        if row is None:
            raise NotFound(f"blob {hash} is not here: fetch it first")
        info = BlobInfo(hash, row.size)
        if row.data is not None:
            return BlobReader(self.run, info, row.data, b"")
        try:
            return BlobReader(self.run, info, *await self.run(self._open, info, row), referred=row.path is not None)
        except BlobDamaged:
            if not self._database.is_shared:
                await self._database.write(lambda connection: connection.execute(_FORGET, key))
            raise

    async def touch(self, hash: Hash) -> None:
        """Make it as new as if it had just come: what is to be named now is not collected before."""
        key = {"key": bytes(hash), "now": time.time_ns() // 1000}
        await self._database.write(lambda connection: connection.execute(_TOUCH, key), durable=False)

    async def children(self, hash: Hash) -> Sequence[Hash]:
        """The hashes in a hash sequence that is here."""
        async with await self.reader(hash) as reader:
            content = await reader.read(0, MAX_CHILDREN * HASH_SIZE)
        return [Hash(content[at : at + HASH_SIZE]) for at in range(0, len(content) // HASH_SIZE * HASH_SIZE, HASH_SIZE)]

    async def refer_to(self, hash: Hash, path: Path, mtime_ns: int) -> None:
        """The file at ``path`` is the blob from now on, and the store's own goes. A blob in a row stays there."""
        key = {"key": bytes(hash), "place": stored_path(path), "time": mtime_ns}
        own, _, _ = partial_paths(self.stem(hash))
        async with self.moving:
            referred = await self._database.write(lambda connection: connection.execute(_REFER, key).rowcount)
            if referred:
                await self.run(lambda: own.unlink(missing_ok=True))

    async def _bytes_kept(self) -> int:
        """Of all blobs, so far as they are here, and of what is on its way; files that are referred to are not ours."""

        def job(connection: sa.Connection) -> tuple[int, list[Hash]]:
            size = connection.execute(_KEPT).scalar_one_or_none() or 0
            return int(size), [Hash(hash) for (hash,) in connection.execute(_PARTIAL)]

        size, begun = await self._database.read(job)

        def look() -> int:
            taken = 0
            for path in [*(partial_paths(self.stem(hash))[0] for hash in begun), *self._temp.iterdir()]:
                with contextlib.suppress(FileNotFoundError):
                    taken += path.stat().st_blocks * 512
            return taken

        return size + await self.run(look)

    async def remove_files(self, hashes: Sequence[Hash]) -> None:
        """Of blobs whose rows are gone."""

        def remove() -> None:
            paths = [path for hash in hashes for path in partial_paths(self.stem(hash))]
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    if not self._database.is_shared or time.time() - path.stat().st_mtime > ABANDONED_S:
                        path.unlink()  # a new one of another process stays

        await self.run(remove)

    # -- adding -----------------------------------------------------------------------------------------------------

    async def add_bytes(self, data: bytes) -> BlobInfo:
        if len(data) > INLINE_DATA:
            return await self._add_large(data)
        info, write = await self.stage_bytes(data)
        await self._database.write(write)
        return info

    async def keep(self, verified: Iterable[tuple[Hash, bytes]]) -> None:
        """Add blobs of at most `INLINE_DATA` bytes that were fetched, in one transaction.

        It does not wait for the disk: what a power cut takes back is fetched again.
        """
        verified = list(verified)
        await self.quota.take(sum(len(data) for _, data in verified))
        now = time.time_ns() // 1000
        rows = [
            {"key": bytes(hash), "size": len(data), "added_us": now, **_NOTHING, "data": data}
            for hash, data in verified
            if hash != Hash.EMPTY
        ]
        await self._database.write(lambda connection: _INSERT.run_many(connection, rows), durable=False)

    async def stage_bytes(self, data: bytes) -> tuple[BlobInfo, Write]:
        """As `add_bytes`, but the row of a small blob is left to ``write``, to be called in a job of the database.

        So that what points at the blob can share its transaction. A large blob is there on return.
        """
        if len(data) > INLINE_DATA:
            return await self._add_large(data), lambda connection: None
        await self.quota.take(len(data))
        hash = Hash.of(data)
        return BlobInfo(hash, len(data)), _insertion(hash, {"size": len(data), "data": bytes(data)})

    async def _add_large(self, data: bytes) -> BlobInfo:
        async def pieces() -> AsyncIterator[memoryview]:
            for offset in range(0, len(data), PIECE):
                yield memoryview(data)[offset : offset + PIECE]

        return await self.add_stream(pieces())

    async def add_path(
        self, path: Path, progress: Progress | None = None, through: Filter | None = None, *, refer: bool = False
    ) -> BlobInfo:
        """Copy what ``through`` makes of a file into the store, or ``refer`` to the file.

        `UnreadableFile`; `FileChanged` where somebody wrote to it meanwhile.
        """
        try:
            file = await self.run(open_regular, path)
        except OSError as error:
            raise UnreadableFile(f"cannot read {path}: {error.strerror or error}") from error
        with file:
            before = os.fstat(file.fileno())
            if through is None and before.st_size > INLINE_DATA:
                return await self._add_file(file, path, before, progress, copy=not refer)
            copied = 0

            async def pieces() -> AsyncIterator[bytes]:
                nonlocal copied
                while piece := await self.run(read_from, file, path, PIECE):
                    copied += len(piece)
                    if copied > before.st_size:
                        break
                    yield piece
                if copied != before.st_size or not unchanged(file, before):
                    raise changed(path)

            return await self.add_stream(pieces() if through is None else through(pieces()), progress)

    async def add_files(self, paths: Sequence[Path], *, refer: bool = False) -> Sequence[BlobInfo]:
        """Copy some hundred files, the small ones in one transaction, or refer to larger ones. As `add_path`."""

        def read() -> list[bytes | None]:
            return [small_file(path) for path in paths]

        contents = await self.run(read)
        small = [(Hash.of(content), content) for content in contents if content is not None]
        if small:
            await self.keep(small)
        infos = iter(small)
        return [
            BlobInfo(next(infos)[0], len(content)) if content is not None else await self.add_path(path, refer=refer)
            for path, content in zip(paths, contents, strict=True)
        ]

    async def same_file(self, path: Path, hash: Hash, size: int) -> bool:
        """Whether the file at ``path`` has the bytes of the blob; one that cannot be read has not."""

        def look() -> bool:
            try:
                with open_regular(path) as file:
                    if os.fstat(file.fileno()).st_size != size:
                        return False
                    hasher = blake3.blake3()
                    while piece := file.read(PIECE):
                        hasher.update(piece)
                    return Hash(hasher.digest()) == hash
            except (OSError, UnreadableFile):
                return False

        return await self.run(look)

    async def _add_file(
        self, file: FileIO, path: Path, before: os.stat_result, progress: Progress | None, *, copy: bool
    ) -> BlobInfo:
        """Copied and hashed in one pass, for the size says where each pair of the tree belongs.

        Where the file system shares blocks between files, the copy is made at once, and then hashed.
        """
        data, outboard = self.spool(INLINE_DATA), self.spool(INLINE_OUTBOARD)
        tree = build(before.st_size, outboard.write)
        wanted: tuple[int, int] | Hash = next(tree)
        if copy:
            await self.quota.take(before.st_size)

        def step() -> tuple[int, int] | Hash:
            nonlocal wanted
            for _ in range(AT_ONCE):
                if isinstance(wanted, Hash):
                    break
                offset, size = wanted
                piece = data.read(offset, size) if cloned else read_from(file, path, size)
                if len(piece) != size:
                    raise changed(path)
                if copy and not cloned:
                    data.write(offset, piece)
                try:
                    wanted = tree.send(piece)
                except StopIteration as end:
                    wanted = end.value
            return wanted

        try:
            cloned = copy and await self.run(data.clone, file.fileno(), before.st_size)
            while not isinstance(at := await self.run(step), Hash):
                if progress is not None:
                    progress(at[0], before.st_size)
            assert isinstance(wanted, Hash)
            if not cloned and (await self.run(read_from, file, path, 1) != b"" or not unchanged(file, before)):
                raise changed(path)
            if await (self._has_copy(wanted) if copy else self.size(wanted)):
                await self.touch(wanted)
            elif copy:
                await self.commit(wanted, data, outboard)
            else:
                await self._commit_reference(wanted, outboard, path, before)
            if progress is not None:
                progress(before.st_size, before.st_size)
            return BlobInfo(wanted, before.st_size)
        finally:
            await self.discard(data, outboard)

    async def add_stream(self, pieces: AsyncIterable[bytes | memoryview], progress: Progress | None = None) -> BlobInfo:
        """Add what ``pieces`` yields, of any length each. ``progress`` counts what was hashed.

        The bytes are spooled and hashed as they come; the tree is then built from the spooled copy, and must come to
        the same hash.
        """
        data, outboard = self.spool(INLINE_DATA), self.spool(INLINE_OUTBOARD)
        hasher = blake3.blake3()

        def keep(piece: bytes | memoryview) -> None:
            data.write(data.size, piece)
            hasher.update(piece)

        try:
            async for piece in pieces:
                await self.quota.take(len(piece))
                await self.run(keep, piece)
            hash = Hash(hasher.digest())
            if await self._has_copy(hash):
                await self.touch(hash)
            else:
                if not data.in_memory:
                    root = await self._build(data, outboard, progress)
                    if root != hash:
                        raise BlobDamaged("a temporary file did not give back what was written: check memory and disk")
                await self.commit(hash, data, outboard)
            if progress is not None:
                progress(data.size, data.size)
            return BlobInfo(hash, data.size)
        finally:
            await self.discard(data, outboard)

    # -- inside -----------------------------------------------------------------------------------------------------

    def spool(self, limit: int) -> Spool:
        return Spool(self._temp, limit)

    async def discard(self, *spools: Spool) -> None:
        for spool in spools:
            if not spool.in_memory:
                await self.run(spool.discard)

    async def commit(self, hash: Hash, data: Spool, outboard: Spool) -> BlobInfo:
        """The verified bytes in the spools become a blob."""
        if data.size > MAX_SIZE:
            raise UsageError(f"a blob has at most {MAX_SIZE} bytes")
        info = BlobInfo(hash, data.size)
        if data.in_memory:
            await self._insert(hash, {"size": data.size, "data": data.contents()})
            return info
        row: dict[str, object] = {"size": data.size, "data": None}
        row["outboard"] = outboard.contents() if outboard.in_memory else None

        def sync() -> None:
            for spool in (data, outboard):
                if not spool.in_memory:
                    spool.sync()

        def move() -> None:
            data_path, outboard_path, bitmap_path = partial_paths(self.stem(hash))
            if not outboard.in_memory:
                outboard.move(outboard_path)
            data.move(data_path)
            bitmap_path.unlink(missing_ok=True)

        await self.run(sync)
        async with self.moving:
            await self.run(move)
            await self._insert(hash, row)
        return info

    async def _has_copy(self, hash: Hash) -> bool:
        """Whether the blob is here, and is no file elsewhere."""
        key = {"key": bytes(hash)}
        return await self._database.read(lambda connection: connection.execute(_COPY, key).first() is not None)

    async def _commit_reference(self, hash: Hash, outboard: Spool, path: Path, seen: os.stat_result) -> None:
        row: dict[str, object] = {
            "size": seen.st_size,
            "outboard": outboard.contents() if outboard.in_memory else None,
            "path": stored_path(path),
            "mtime_ns": seen.st_mtime_ns,
        }

        def move() -> None:
            _, outboard_path, bitmap_path = partial_paths(self.stem(hash))
            if not outboard.in_memory:
                outboard.sync()
                outboard.move(outboard_path)
            bitmap_path.unlink(missing_ok=True)

        async with self.moving:
            await self.run(move)
            await self._insert(hash, row)

    async def adopt(self, hash: Hash, size: int, outboard: bytes | None) -> BlobInfo:
        """The files that have the blob's name are whole and durable: make a blob of them.

        ``outboard``: its bytes, where they are to live in the row.
        """
        _, outboard_path, bitmap_path = partial_paths(self.stem(hash))

        def tidy() -> None:
            bitmap_path.unlink(missing_ok=True)
            if outboard is not None:
                outboard_path.unlink(missing_ok=True)

        async with self.moving:
            await self._insert(hash, {"size": size, "data": None, "outboard": outboard})
            await self.run(tidy)
        return BlobInfo(hash, size)

    async def demote(self, hash: Hash) -> None:
        """A complete blob is damaged: it is partial now, or where it was a row without files, gone."""
        key = {"key": bytes(hash)}
        _, outboard_path, bitmap_path = partial_paths(self.stem(hash))

        def write(outboard: bytes | None) -> None:
            if outboard is not None:
                write_durably(outboard_path, outboard)
            bitmap_path.unlink(missing_ok=True)

        async with self.moving:
            row = await self._database.read(lambda connection: connection.execute(_ROW, key).one_or_none())
            if row is None:
                return
            if row.data is not None or row.path is not None:
                await self._database.write(lambda connection: connection.execute(_FORGET, key))
                return
            await self.run(write, row.outboard)
            await self._database.write(lambda connection: connection.execute(_DEMOTE, key))

    async def _insert(self, hash: Hash, row: dict[str, object]) -> None:
        await self._database.write(_insertion(hash, row))

    async def _build(self, data: Spool, outboard: Spool, progress: Progress | None) -> Hash:
        """Build the tree from the spooled bytes, 1 MiB in a thread at a time."""
        tree = build(data.size, outboard.write)

        def step(offset: int, size: int) -> tuple[int, int] | Hash:
            try:
                return tree.send(data.read(offset, size))
            except StopIteration as end:
                root: Hash = end.value
                return root

        wanted: tuple[int, int] | Hash = next(tree)
        while not isinstance(wanted, Hash):
            if progress is not None:
                progress(wanted[0], data.size)
            wanted = await self.run(step, *wanted)
        return wanted

    def stem(self, hash: Hash) -> Path:
        """The path of its files, without the suffix that says which."""
        name = str(hash)
        return self._data / name[:2] / name

    def _open(self, info: BlobInfo, row: sa.Row[Any]) -> tuple[int, bytes | int]:
        """The file of the data and, where the row has none, that of the outboard; blocks."""
        outboard = row.outboard
        opened: list[int] = []
        try:
            data_path, outboard_path, _ = partial_paths(self.stem(info.hash))
            if row.path is not None:
                data_path = Path(os.fsdecode(row.path))
            opened.append(os.open(data_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))  # a pipe would wait
            if outboard is None:
                opened.append(os.open(outboard_path, os.O_RDONLY | os.O_CLOEXEC))
            found = os.fstat(opened[0])
            size = found.st_size
            if row.path is not None and (size, found.st_mtime_ns) != (info.size, row.mtime_ns):
                raise BlobDamaged(f"{data_path} is no longer blob {info.hash}: add it again, or fetch the blob")
            if size != info.size:
                raise BlobDamaged(f"the file of blob {info.hash} has {size} bytes of {info.size}: fetch it again")
        except BaseException as error:
            for file in opened:
                os.close(file)
            if isinstance(error, OSError):
                why = f"a file of blob {info.hash} cannot be opened ({error.strerror}): fetch it again"
                raise BlobDamaged(why) from error
            raise
        return opened[0], outboard if outboard is not None else opened[1]


def _insertion(hash: Hash, row: dict[str, object]) -> Write:
    """The write that makes a complete blob of ``row`` (size, data, outboard), where it is not one already."""
    values = {"key": bytes(hash), "added_us": time.time_ns() // 1000, **_NOTHING, **row}

    def insert(connection: sa.Connection) -> None:
        if hash != Hash.EMPTY:
            _INSERT.run(connection, values)

    return insert
