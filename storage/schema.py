"""Is this file our database, whole, and of a version we know; and how a new or an older one gets the present schema.

A new file is made in memory from ``storage.tables``, marked with the newest revision, and written durably under
its name: a database file that exists is never empty or half made. One that is there is looked at through a connection
that cannot write, which folds no log into a damaged file. An older one is migrated by Alembic in
one transaction. Alembic takes 0.1 s to import, which is why it is imported only then.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import sqlalchemy as sa

from .errors import Damaged, TooNew
from .files import make_private, write_durably
from .tables import metadata

__all__ = [
    "APPLICATION_ID",
    "REVISIONS",
    "check_file",
    "check_revision",
    "create",
    "create_file",
    "create_tables",
    "migrate",
    "version",
]

# Every revision there ever was, oldest first; a database with another one was written by a newer tidings.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
APPLICATION_ID = 0x7469646E  # "tidn", in the header of the file: tells our database from another program's

MIGRATIONS = Path(__file__).parent / "migrations"
HEADER = 100
REMEDY = "restore it from a backup, or move it away to begin anew"
QUICK_CHECK_BYTES = 8 << 20  # about 20 ms; a larger file is checked by SQLite page by page as it is used

version = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))


def create_tables(connection: sa.Connection) -> None:
    """The present tables, marked with the newest revision, in the connection's transaction."""
    metadata.create_all(connection, checkfirst=False)
    version.create(connection, checkfirst=False)
    connection.execute(version.insert().values(version_num=REVISIONS[-1]))


def create(connection: sa.Connection) -> None:
    """The present schema in an empty database of SQLite."""
    with connection.begin():
        create_tables(connection)
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def create_file(path: Path, empty: sa.Engine) -> None:
    """A new database at ``path``, mode 0600. ``empty`` is an engine in memory, used up by this."""
    try:
        with empty.connect() as connection:
            create(connection)
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            data = bytearray(raw.serialize())
    finally:
        empty.dispose()
    data[18:20] = b"\2\2"  # write and read version 2: the journal is a write-ahead log from the start
    write_durably(path, data)


def check_file(path: Path) -> str:
    """The revision of the database at ``path``. Raises `Damaged` and `TooNew`, and changes nothing then.

    The pages are read through where that is cheap.
    """
    make_private(path)
    with path.open("rb") as file:
        header = file.read(HEADER)
    if len(header) < HEADER:
        raise Damaged(f"{path} was cut off ({len(header)} bytes are left): {REMEDY}")
    if not header.startswith(b"SQLite format 3\0"):
        raise Damaged(f"{path} is not a database: {REMEDY}")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise Damaged(f"{path} is the database of another program: give tidings a directory of its own")
    # SQLite takes a last page that was cut for whole. A crash may leave one, but then the log beside it mends it.
    page_size = int.from_bytes(header[16:18], "big")
    log = path.with_name(path.name + "-wal")
    if page_size > 1 and path.stat().st_size % page_size and not (log.exists() and log.stat().st_size):
        raise Damaged(f"{path} was cut off within its last page: {REMEDY}")
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            problem, revision = _look_at(connection, path)
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            problem, revision = "its version is lost", ""
    if problem is not None:
        raise Damaged(f"{path} is damaged ({problem}): {REMEDY}")
    check_revision(revision, str(path))
    return revision


def check_revision(revision: str, place: str) -> None:
    """Raises `TooNew` where only a newer version can have written it."""
    if revision not in REVISIONS:
        raise TooNew(
            f"{place} was written by a newer version of tidings (schema {revision}, this one knows up to "
            f"{REVISIONS[-1]}): upgrade tidings, or use another directory"
        )


def _look_at(connection: sqlite3.Connection, path: Path) -> tuple[str | None, str]:
    """What is wrong with the pages, and the revision."""
    if path.stat().st_size <= QUICK_CHECK_BYTES:
        (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            return " ".join(problem.split()), ""
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return (None, row[0]) if row else ("its version is lost", "")


def migrate(connection: sa.Connection, revision: str = "head") -> None:
    """Run Alembic's migrations up to ``revision`` inside the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # a % would be interpolated
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
