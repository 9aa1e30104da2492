"""SQLite behind `Database`: one file that one process uses at a time, or a database in memory.

SQLite itself does not sync commits here (``PRAGMA synchronous = NORMAL``: only checkpoints are); `SQLite.sync` syncs
the write-ahead log after those that have to be durable. It is what SQLite would do (``FULL``), but by fdatasync, which
leaves out the file's times: measured here 150 us in place of 340. The log is written before, and synced at checkpoints,
so the order on the disk is the same.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from . import schema
from .backend import Put
from .engine import reader_engine, writer_engine
from .errors import DiskFailed, from_os_error, from_sqlite_error
from .files import FileLock, make_private_dir

__all__ = ["SQLite", "only_read"]

T = TypeVar("T")

_sync_file = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class SQLite:
    """A `Backend`. ``path`` None: in memory."""

    shared = False
    longest_key = None

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock: FileLock | None = None
        self._log: int | None = None  # the write-ahead log, which is there as long as a connection is
        self._behind = False  # a sync failed: what the log has on the disk is not known
        self._readers = None if path is None else reader_engine(path)

    @property
    def place(self) -> str:
        return "the database in memory" if self._path is None else str(self._path)

    @property
    def in_memory(self) -> bool:
        return self._path is None

    def connect(self) -> sa.Connection:
        """Take the lock, look at the file, give it the present schema."""
        path = self._path
        if path is None:
            connection = writer_engine(None).connect()
            schema.create(connection)
            return connection
        try:
            make_private_dir(path.parent)
            self._lock = FileLock(path.with_name(path.name + ".lock"), path)
            if not path.exists():
                schema.create_file(path, writer_engine(None))
            revision = schema.check_file(path)
        except OSError as error:
            raise from_os_error(error, path) from error
        connection = writer_engine(path).connect()
        if revision != schema.REVISIONS[-1]:
            try:
                with connection.begin():
                    schema.migrate(connection)
            except BaseException:
                _close(connection)
                raise
        return connection

    def set_sync(self, connection: sa.Connection, synced: bool) -> None:
        """`sync` does it all."""

    def sync(self, connection: sa.Connection) -> None:
        """Once this failed, syncing the log proves nothing: it is then folded into the file, which is synced."""
        if self._path is None:
            return
        try:
            if self._behind:
                self._fold_log(connection)
            else:
                if self._log is None:
                    self._log = os.open(f"{self._path}-wal", os.O_RDWR | os.O_CLOEXEC)
                _sync_file(self._log)
            self._behind = False
        except BaseException as error:
            self._behind = True
            if isinstance(error, OSError):
                raise from_os_error(error, self._path) from error
            raise

    def _fold_log(self, connection: sa.Connection) -> None:
        raw = connection.connection.driver_connection  # SQLAlchemy would begin a transaction
        assert isinstance(raw, sqlite3.Connection)
        busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise DiskFailed(f"{self.place} could not be synced before, and is being read now: try again")

    def read(self, fn: Callable[[sa.Connection], T]) -> T:
        assert self._readers is not None
        try:
            with self._readers.begin() as connection:
                return fn(connection)
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            raise self.translate(error) from error

    def rollback(self, connection: sa.Connection) -> None:
        """After a failed COMMIT SQLAlchemy takes the transaction for ended and SQLite does not."""
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        with contextlib.suppress(sqlite3.Error):
            raw.rollback()

    def is_lost(self, connection: sa.Connection) -> bool:
        return False

    def retries(self, error: BaseException) -> int:
        return 0  # the one writer is alone

    def translate(self, error: BaseException) -> BaseException:
        failure = from_sqlite_error(error, self.place)
        if failure is None:
            return error
        failure.__cause__ = error
        return failure

    def close_readers(self) -> None:
        if self._readers is not None:
            self._readers.dispose()

    def close(self, connection: sa.Connection | None) -> None:
        if connection is not None:
            with contextlib.suppress(sa.exc.SQLAlchemyError):  # nothing that was acknowledged is at stake
                _close(connection)  # of the last connection: folds the log into the file
        if self._log is not None:
            os.close(self._log)
            self._log = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def listen(self, channel: str, put: Put) -> None:
        """Nobody else writes, so there is nothing to hear."""


def only_read(connection: sa.Connection, fn: Callable[[sa.Connection], T]) -> T:
    """Run ``fn`` on the one connection of a database in memory, so that it cannot write."""
    connection.exec_driver_sql("PRAGMA query_only = ON")
    try:
        return fn(connection)
    finally:
        connection.exec_driver_sql("PRAGMA query_only = OFF")


def _close(connection: sa.Connection) -> None:
    connection.close()
    connection.engine.dispose()
