"""Is this file our database, whole, and of a version we know; and how a new or an older one gets the present schema.

A new database is made in memory from ``storage.tables``, marked with the newest revision, and written beside its
final name and renamed: a database file that exists is never empty or half made. An older one is migrated by Alembic in
one transaction. Alembic takes 0.1 s to import, which is why it is imported only then.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa

from .errors import Damaged, TooNew
from .files import make_private, write_durably
from .tables import metadata

__all__ = ["APPLICATION_ID", "REVISIONS", "bring_to_head", "check_file", "create", "create_file"]

# Every revision there ever was, oldest first; a database with another one was written by a newer tidings.
REVISIONS = ("0001",)
APPLICATION_ID = 0x7469646E  # "tidn", in the header of the file: tells our database from another program's

MIGRATIONS = Path(__file__).parent / "migrations"
HEADER = 100
QUICK_CHECK_BYTES = 8 << 20  # about 20 ms; a larger file is checked by SQLite page by page as it is used

version = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))


def create(connection: sa.Connection) -> None:
    """The present schema in an empty database."""
    with connection.begin():
        metadata.create_all(connection, checkfirst=False)
        version.create(connection)
        connection.execute(version.insert().values(version_num=REVISIONS[-1]))
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def create_file(path: Path, empty: sa.Engine) -> None:
    """A new database at ``path``, mode 0600. ``empty`` is an engine in memory, used up by this."""
    with empty.connect() as connection:
        create(connection)
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        write_durably(path, raw.serialize())


def check_file(path: Path) -> None:
    """Raise `Damaged` where the file cannot be our database, before SQLite touches it or the log beside it."""
    make_private(path)
    with path.open("rb") as file:
        header = file.read(HEADER)
    if len(header) < HEADER:
        raise Damaged(
            f"{path} was cut off ({len(header)} bytes are left): restore it from a backup, "
            "or move it away to begin anew"
        )
    if not header.startswith(b"SQLite format 3\0"):
        raise Damaged(f"{path} is not a database: restore it from a backup, or move it away to begin anew")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise Damaged(f"{path} is the database of another program: give tidings a directory of its own")


def bring_to_head(connection: sa.Connection, path: Path) -> None:
    """Check the pages where that is cheap, then the version; migrate an older one. Raises `Damaged`, `TooNew`."""
    if path.stat().st_size <= QUICK_CHECK_BYTES:
        with connection.begin():
            problem = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if problem != "ok":
            raise Damaged(f"{path} is damaged ({problem}): restore it from a backup, or move it away to begin anew")
    connection.connection.driver_connection.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr]
    with connection.begin():
        try:
            found = connection.execute(sa.select(version.c.version_num)).scalar()
        except sa.exc.OperationalError as error:
            if "no such table" not in str(error.orig):
                raise
            found = None
        if found is None:
            raise Damaged(f"{path} has lost its version: restore it from a backup, or move it away to begin anew")
        if found not in REVISIONS:
            raise TooNew(
                f"{path} was written by a newer version of tidings (schema {found}, this one knows up to "
                f"{REVISIONS[-1]}): upgrade tidings, or use another directory"
            )
        if found != REVISIONS[-1]:
            migrate(connection)


def migrate(connection: sa.Connection, revision: str = "head") -> None:
    """Run Alembic's migrations up to ``revision`` inside the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # a % would be interpolated
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
