"""`Database`: what the other layers see of storage. Functions over a SQLAlchemy connection, awaited.

    rows = await database.read(lambda connection: connection.execute(select(tags)).all())
    await database.write(lambda connection: connection.execute(insert(tags).values(...)))

Such a function runs in a thread: it must be quick, must not touch objects of the event loop, must return plain values
(never a cursor), and must not commit or roll back. Where the store is shared it may be run more than once, after its
writes were undone, and must not count on having been run once.

SQLite, in a file or in memory, belongs to one process. On PostgreSQL (``postgresql+psycopg://user@host/database``) any
number of processes work on one store: what reads before it writes takes `locks.lock` first, and tells the others by
`notices.notify`, which `listen` hears.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from .backend import Backend
from .engine import READERS
from .errors import BadDatabaseURL, DatabaseClosed
from .notices import Notices
from .sqlite import SQLite, only_read
from .writer import Writer

__all__ = ["Database"]

T = TypeVar("T")


class Database:
    """One store, used by one event loop. Made by `open`."""

    def __init__(self, backend: Backend, fsync: bool = True) -> None:
        self._backend = backend
        self._fsync = fsync
        self._writer = Writer(backend)
        self._closed = False
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="tidings-read")
        self._listening: set[Notices] = set()

    @classmethod
    async def open(cls, place: Path | str | sa.URL | None, *, fsync: bool = True) -> Database:
        """Open the database at ``place``: a file, created with its directory where there is none; the URL of a
        PostgreSQL database, where the tables are made in a schema ``tidings``; None: in memory. Without ``fsync``
        every write is as one with ``durable=False``.

        Raises `Locked` where a file is open elsewhere, `TooNew`, `Damaged`, `NotWritable`, `DiskFull`, `DiskFailed`,
        `DatabaseUnreachable`, `BadDatabaseURL`. Nothing is changed in the first three cases.
        """
        database = cls(_backend(place), fsync)
        try:
            await database._writer.start()
        except BaseException:
            await database.aclose()
            raise
        return database

    async def write(self, fn: Callable[[sa.Connection], T], durable: bool = True) -> T:
        """Run ``fn`` in a transaction and return its result once that is on the disk.

        With ``durable=False`` for what can be had again: it returns without waiting for the disk. A power cut may then
        undo the last such writes, each whole and the newest first; ``kill -9`` undoes none. Every earlier write is on
        the disk once a durable one, or `aclose`, returned.

        What ``fn`` raises undoes its own writes and is raised here; `DiskFull` and the like where the disk is to blame.
        `DatabaseUnreachable`: the connection was lost; where that was at the commit, ``fn`` may have been done.
        Cancelled: ``fn`` is done whole or not at all.
        """
        return await self._writer.run(fn, durable and self._fsync)

    async def read(self, fn: Callable[[sa.Connection], T]) -> T:
        """Run ``fn`` on a snapshot that holds every write that `write` has returned from. It cannot write."""
        if self._closed:
            raise DatabaseClosed("the database is closed: open the node again")
        if self._backend.in_memory:
            return await self._writer.run(lambda connection: only_read(connection, fn))
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._backend.read, fn)

    def listen(self, channel: str) -> Notices:
        """What `notices.notify` sends on ``channel`` from now on, in any process, this one too; an async iterator.

        None comes first once it listens, and again wherever notices may have been missed: look at the store then.
        Ends when it or the database is closed. On SQLite, where nobody else writes, nothing ever comes.
        """
        if self._closed:
            raise DatabaseClosed("the database is closed: open the node again")
        notices = Notices(partial(self._backend.listen, channel), self._listening.discard)
        self._listening.add(notices)
        return notices

    async def aclose(self) -> None:
        """Wait for what was queued, close the files and give up the lock. May be called again."""
        self._closed = True
        for notices in list(self._listening):
            await notices.aclose()
        await asyncio.to_thread(self._threads.shutdown)
        self._backend.close_readers()
        await self._writer.aclose()  # last, for the last connection to close folds the log into the file

    @property
    def is_shared(self) -> bool:
        """Whether other processes write the same store."""
        return self._backend.shared

    @property
    def longest_key(self) -> int | None:
        """Bytes that the key of an entry may have in this kind of database; None: any number."""
        return self._backend.longest_key

    @property
    def commits(self) -> int:
        """Transactions so far; the writes that share one show here."""
        return self._writer.commits

    def __repr__(self) -> str:
        return f"<Database {self._backend.place}>"


def _backend(place: Path | str | sa.URL | None) -> Backend:
    if place is None or isinstance(place, Path):
        return SQLite(place)
    try:
        url = sa.make_url(place)
    except (sa.exc.ArgumentError, ValueError):
        raise BadDatabaseURL("not the URL of a database: write postgresql+psycopg://user@host/database") from None
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise BadDatabaseURL(f"{url.drivername} is not supported: write postgresql+psycopg://user@host/database")
    try:
        from .postgres import PostgreSQL
    except ImportError as error:
        raise BadDatabaseURL(f"PostgreSQL needs psycopg ({error}): pip install 'tidings[postgres]'") from error
    return PostgreSQL(url)
