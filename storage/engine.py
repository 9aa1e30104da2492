"""SQLAlchemy engines over SQLite, with the settings that the promises of this package rest on.

Write-ahead log with synchronous=NORMAL: a commit is in the log, which the system holds, and survives ``kill -9``; it
survives a power cut once the log was synced, which `SQLite.sync` does. The log is synced as a whole, in its order, also
before a checkpoint and at close, so a power cut takes off its end only. Readers go on beside the writer on the snapshot
that they began with.

Python's own transaction handling is switched off (``isolation_level = None``): it would commit and begin behind
SQLAlchemy's back, and SAVEPOINT needs a BEGIN that was really sent.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa

__all__ = ["READERS", "reader_engine", "writer_engine"]

READERS = 3  # connections and threads; reads are short, and the machine has other work
BUSY_MS = 5_000  # how long another program (the sqlite3 shell, a backup) may hold a lock before an error

_OPTIONS: dict[str, Any] = {"hide_parameters": True}  # secrets of authors and documents are among them


def writer_engine(path: Path | None) -> sa.Engine:
    """For one connection at a time, whose transactions take the write lock at their start. None: in memory."""
    engine = sa.create_engine("sqlite://", creator=lambda: _connect(path), poolclass=sa.pool.StaticPool, **_OPTIONS)
    sa.event.listen(engine, "begin", lambda connection: connection.connection.cursor().execute("BEGIN IMMEDIATE"))
    return engine


def reader_engine(path: Path) -> sa.Engine:
    """For up to `READERS` connections that cannot write."""

    def connect() -> sqlite3.Connection:
        connection = _connect(path)
        connection.execute("PRAGMA query_only = ON")
        return connection

    engine = sa.create_engine(
        "sqlite://", creator=connect, poolclass=sa.pool.QueuePool, pool_size=READERS, max_overflow=0, **_OPTIONS
    )
    sa.event.listen(engine, "begin", lambda connection: connection.connection.cursor().execute("BEGIN"))
    return engine


def _connect(path: Path | None) -> sqlite3.Connection:
    place: Any = ":memory:" if path is None else path
    # Pooled connections are closed by the thread that disposes of the pool, hence check_same_thread.
    connection = sqlite3.connect(place, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection
