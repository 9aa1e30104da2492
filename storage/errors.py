"""Errors of the storage layer (see ``tidings.errors``).

StoreError    Locked  TooNew  Damaged  DiskFull  DiskFailed  NotWritable  DatabaseUnreachable
UsageError    DatabaseClosed  BadDatabaseURL

Two translators stand beside them, so that each cause has one sentence: `from_os_error` and `from_sqlite_error`. That
for PostgreSQL is with its backend.
"""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import sqlalchemy as sa

from ..errors import StoreError, UsageError

__all__ = [
    "BadDatabaseURL",
    "Damaged",
    "DatabaseClosed",
    "DatabaseUnreachable",
    "DiskFailed",
    "DiskFull",
    "Locked",
    "NotWritable",
    "TooNew",
    "from_os_error",
    "from_sqlite_error",
]


class DatabaseClosed(UsageError):
    """The database was closed; open it again."""


class BadDatabaseURL(UsageError):
    """Not the URL of a database that can be used here: write postgresql+psycopg://user@host/database."""


class Locked(StoreError):
    """Another process, or another node in this process, has the database open: stop it, or use another directory."""


class TooNew(StoreError):
    """A newer version of tidings wrote this database: upgrade tidings, or use another directory."""


class Damaged(StoreError):
    """A file is not what was written: restore it from a backup, or move it away to begin anew. It was not changed."""


class DiskFull(StoreError):
    """There is no room left on the disk: free some, then try again. What was acknowledged before is safe."""


class DiskFailed(StoreError):
    """The disk or its file system answered with an error: look at the system's log before going on."""


class NotWritable(StoreError):
    """The file or its directory may not be written by this user: change its owner or mode, or use another directory."""


class DatabaseUnreachable(StoreError):
    """The server of the database cannot be reached, or was lost: check that it runs, then try again."""


def from_os_error(error: OSError, path: Path) -> StoreError:
    """What went wrong with the file ``path``."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return DiskFull(f"there is no room to write {path}: free some space, then try again")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return NotWritable(
                f"{path} may not be used by this user: change its owner or mode, or use another directory"
            )
        case _:
            return DiskFailed(f"{path} could not be used: {error.strerror or error}; check the disk, then try again")


def from_sqlite_error(error: BaseException, place: str) -> StoreError | None:
    """The error to raise in place of one that SQLite or SQLAlchemy raised because of the file at ``place``.

    None where the file is not to blame (a constraint, a wrong statement): that one goes to the caller as it is.
    """
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if not isinstance(cause, sqlite3.Error):
        return None
    code = getattr(cause, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # the index of the log finds no room: this is what opening needs first
        code = sqlite3.SQLITE_FULL
    match code & 0xFF:  # the low byte is the primary code, the rest tells details
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Damaged(
                f"{place} is damaged ({cause}): restore it from a backup, or move it away to begin anew; "
                "nothing in it was changed"
            )
        case sqlite3.SQLITE_FULL:
            return DiskFull(f"there is no room to write {place}: free some space, then try again")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return NotWritable(
                f"{place} may not be written ({cause}): change its owner or mode, or use another directory"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Locked(f"another program holds {place}: close it, then try again")
        case sqlite3.SQLITE_IOERR:
            return DiskFailed(f"{place} could not be used ({cause}): check the disk, then try again")
        case _:
            return None
