"""`Database`: what the other layers see of storage. Functions over a SQLAlchemy connection, awaited.

    rows = await database.read(lambda connection: connection.execute(select(tags)).all())
    await database.write(lambda connection: connection.execute(insert(tags).values(...)))

Such a function runs in a thread: it must be quick, must not touch objects of the event loop, must return plain values
(never a cursor), and must not commit or roll back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from . import schema
from .engine import READERS, reader_engine, set_sync, writer_engine
from .errors import DatabaseClosed, from_database_error, from_os_error
from .files import FileLock, make_private_dir
from .writer import Writer

__all__ = ["Database"]

T = TypeVar("T")


class Database:
    """One SQLite file, or one database in memory, owned by one event loop. Made by `open`."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock: FileLock | None = None
        self._writer = Writer(self._connect, set_sync, self._translate)
        self._closed = False
        # In memory there is one connection, and reads are jobs of the writer.
        self._reader = None if path is None else reader_engine(path)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="tidings-read")

    @classmethod
    async def open(cls, path: Path | None) -> Database:
        """Open the database at ``path``, created with its directory where there is none; None: in memory.

        Raises `Locked` where it is open elsewhere, `TooNew`, `Damaged`, `NotWritable`, `DiskFull`, `DiskFailed`. No
        file is changed in the first three cases.
        """
        database = cls(path)
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
        Cancelled: ``fn`` is done whole or not at all.
        """
        return await self._writer.run(fn, durable)

    async def read(self, fn: Callable[[sa.Connection], T]) -> T:
        """Run ``fn`` on a snapshot that holds every write that `write` has returned from. It cannot write."""
        if self._closed:
            raise DatabaseClosed("the database is closed: open the node again")
        if self._reader is None:
            return await self._writer.run(lambda connection: _only_read(connection, fn))
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, self._reader, fn)

    async def aclose(self) -> None:
        """Wait for what was queued, close the files and give up the lock. May be called again."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        if self._reader is not None:
            self._reader.dispose()
        await self._writer.aclose()  # last, for the last connection to close folds the log into the file
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def commits(self) -> int:
        """Transactions so far; the writes that share one show here."""
        return self._writer.commits

    def _read(self, engine: sa.Engine, fn: Callable[[sa.Connection], T]) -> T:
        try:
            with engine.begin() as connection:
                return fn(connection)
        except sa.exc.DBAPIError as error:
            raise self._translate(error) from error.orig

    def _connect(self) -> sa.Connection:
        """In the writer's thread: take the lock, look at the file, give it the present schema."""
        if self.path is None:
            connection = writer_engine(None).connect()
            schema.create(connection)
            return connection
        try:
            make_private_dir(self.path.parent)
            self._lock = FileLock(self.path.with_name(self.path.name + ".lock"), self.path)
            if not self.path.exists():
                schema.create_file(self.path, writer_engine(None))
            revision = schema.check_file(self.path)
        except OSError as error:
            raise from_os_error(error, self.path) from error
        connection = writer_engine(self.path).connect()
        if revision != schema.REVISIONS[-1]:
            try:
                with connection.begin():
                    schema.migrate(connection)
            except BaseException:
                connection.close()
                connection.engine.dispose()
                raise
        return connection

    def _translate(self, error: BaseException) -> BaseException:
        failure = from_database_error(error, self.path)
        if failure is None:
            return error
        failure.__cause__ = error
        return failure


def _only_read(connection: sa.Connection, fn: Callable[[sa.Connection], T]) -> T:
    connection.exec_driver_sql("PRAGMA query_only = ON")
    try:
        return fn(connection)
    finally:
        connection.exec_driver_sql("PRAGMA query_only = OFF")
