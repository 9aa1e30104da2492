"""PostgreSQL behind `Database`: one store that any number of processes use at once.

The tables lie in a schema ``tidings`` of their own, so that the database may hold other programs' tables too. Writes
run at READ COMMITTED: a statement behind `locks.lock` sees what the holder before committed. Reads run at REPEATABLE
READ, on one snapshot. psycopg is told to commit by itself (autocommit), and transactions begin with the BEGIN sent
here. A commit with synchronous_commit=off is not yet on the server's disk: it survives the end of this process, and a
crash of the server may take the last such commits.

A connection that was lost is opened anew by the next call. No message has the password.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.pq import TransactionStatus

from ..errors import StoreError
from . import schema
from .backend import Put
from .engine import READERS
from .errors import Damaged, DatabaseUnreachable, DiskFailed, DiskFull, Locked, NotWritable
from .locks import Contended, begin_transaction
from .notices import channel_name

__all__ = ["PostgreSQL"]

SCHEMA = "tidings"
LONGEST_KEY = 2_560  # bytes of a key: an entry of an index has at most 2,704 with the other columns
RETRIES = 6  # further runs of a job that others stood in the way of
CONNECT_S = 10
LISTEN_AGAIN_S = (0.2, 15.0)  # the first and the longest pause before listening again

# A server or a network that says nothing is given up after about 30 s.
_PARAMETERS: dict[str, Any] = {
    "application_name": "tidings",
    "connect_timeout": CONNECT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
# Locks are held for milliseconds. A process that stops in the middle of a transaction is cut off, for others wait.
_SETTINGS = f"""
    SET search_path TO {SCHEMA};
    SET lock_timeout TO '20s';
    SET statement_timeout TO '120s';
    SET idle_in_transaction_session_timeout TO '60s'
"""
_SCHEMA_LOCK = int.from_bytes(b"tidings\0", "big")

T = TypeVar("T")

logger = logging.getLogger(__name__)


class PostgreSQL:
    """A `Backend`."""

    shared = True
    in_memory = False
    longest_key = LONGEST_KEY

    def __init__(self, url: sa.URL) -> None:
        self._parameters = {name: value for name, value in _PARAMETERS.items() if name not in url.query}
        self._url = url.set(drivername="postgresql+psycopg")
        # The query is left out too: it may have a password.
        host = url.host or "local socket"
        self.place = (
            f"postgresql://{url.username or ''}@{host}{f':{url.port}' if url.port else ''}/{url.database or ''}"
        )
        self._writer = self._engine("BEGIN ISOLATION LEVEL READ COMMITTED", sa.pool.NullPool)
        self._readers = self._engine(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", sa.pool.QueuePool, pool_size=READERS, max_overflow=0
        )

    def _engine(self, begin: str, pool: type[sa.pool.Pool], **options: Any) -> sa.Engine:
        engine = sa.create_engine(
            self._url,
            connect_args={**self._parameters, "autocommit": True},
            poolclass=pool,
            hide_parameters=True,  # secrets of authors and documents are among them
            **options,
        )
        sa.event.listen(engine, "connect", lambda raw, record: raw.execute(_SETTINGS))

        @sa.event.listens_for(engine, "begin")
        def send_begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql(begin)
            begin_transaction(connection)

        return engine

    def connect(self) -> sa.Connection:
        connection = self._writer.connect()
        try:
            with connection.begin():
                self._prepare(connection)
        except BaseException:
            _discard(connection)
            raise
        return connection

    def _prepare(self, connection: sa.Connection) -> None:
        """Make the schema, or look at its revision, one process at a time."""
        connection.exec_driver_sql("SET LOCAL lock_timeout TO 0; SET LOCAL statement_timeout TO 0")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        if connection.execute(sa.select(sa.func.to_regclass(f"{SCHEMA}.{schema.version.name}"))).scalar() is None:
            if connection.execute(sa.select(sa.func.to_regnamespace(SCHEMA))).scalar() is None:
                connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
            schema.create_tables(connection)
            return
        revision = connection.execute(sa.select(schema.version.c.version_num)).scalar()
        if revision is None:
            raise Damaged(f"{self.place} is damaged (its version is lost): restore it from a backup")
        schema.check_revision(revision, self.place)
        if revision != schema.REVISIONS[-1]:
            schema.migrate(connection)

    def sync(self, connection: sa.Connection) -> None:
        """The commit has waited."""

    def set_sync(self, connection: sa.Connection, synced: bool) -> None:
        _raw(connection).execute("SET synchronous_commit TO DEFAULT" if synced else "SET synchronous_commit TO off")

    def read(self, fn: Callable[[sa.Connection], T]) -> T:
        try:
            return self._read(fn)
        except (sa.exc.DBAPIError, psycopg.Error) as error:
            raise self.translate(error) from error

    def _read(self, fn: Callable[[sa.Connection], T], again: bool = True) -> T:
        """Again, once, where the connection was lost: that may have been long ago, and reading twice does no harm."""
        with self._readers.connect() as connection:
            try:
                with connection.begin():
                    return fn(connection)
            except BaseException:
                lost = self.is_lost(connection)
                if lost and not connection.invalidated:
                    connection.invalidate()
                if not (lost and again):
                    raise
        return self._read(fn, again=False)

    def rollback(self, connection: sa.Connection) -> None:
        if not connection.invalidated:
            with contextlib.suppress(psycopg.Error):
                _raw(connection).rollback()

    def is_lost(self, connection: sa.Connection) -> bool:
        if connection.invalidated:
            return True
        raw = _raw(connection)
        return raw.closed or raw.info.transaction_status is TransactionStatus.UNKNOWN

    def retries(self, error: BaseException) -> int:
        if isinstance(error, Contended):
            return RETRIES
        match getattr(_cause(error), "sqlstate", None):
            case "40001" | "40P01":  # serialization_failure, deadlock_detected
                return RETRIES
            case "23505":  # unique_violation: another process may have inserted the row since we looked
                return 1
            case _:
                return 0

    def translate(self, error: BaseException) -> BaseException:
        cause = _cause(error)
        failure = self._failure(cause) if isinstance(cause, psycopg.Error) else None
        if failure is None:
            return error
        failure.__cause__ = error
        return failure

    def _failure(self, cause: psycopg.Error) -> StoreError | None:
        why = " ".join(str(cause).split())
        if _is_connection_error(cause):
            return DatabaseUnreachable(
                f"the database {self.place} cannot be reached ({why}): check that its server runs and that the URL "
                "is right, then try again"
            )
        match cause.sqlstate or "":
            case "40001" | "40P01":
                return Contended(f"other processes write the same in {self.place} all the time: try again")
            case "55P03" | "57014":  # lock_not_available, query_canceled: by our timeouts
                return Locked(f"another process holds {self.place} for long ({why}): try again, or stop it")
            case "25006" | "42501":  # read_only_sql_transaction, insufficient_privilege
                return NotWritable(
                    f"{self.place} may not be written ({why}): give the user the right to, or use another"
                )
            case "53100":
                return DiskFull(f"the server of {self.place} has no room left: free some space there, then try again")
            case state if state.startswith("XX"):
                return Damaged(f"{self.place} is damaged ({why}): restore it from a backup")
            case state if state.startswith(("53", "58")):  # insufficient_resources, system_error
                return DiskFailed(f"the server of {self.place} failed ({why}): look at its log before going on")
            case _:
                return None

    def close_readers(self) -> None:
        self._readers.dispose()

    def close(self, connection: sa.Connection | None) -> None:
        if connection is not None:
            _discard(connection)

    async def listen(self, channel: str, put: Put) -> None:
        """On a connection of its own. A None after each connect: what came before it was not heard."""
        _, url_parameters = self._writer.dialect.create_connect_args(self._url)
        shortest, longest = LISTEN_AGAIN_S
        pause, rng = shortest, random.Random()  # noqa: S311 - delays, not secrets
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    **{**self._parameters, **url_parameters}, autocommit=True
                )
                async with connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel_name(channel))))
                    put(None)
                    pause = shortest
                    async for notice in connection.notifies():
                        with contextlib.suppress(ValueError):  # somebody else's: ours are hexadecimal
                            put(bytes.fromhex(notice.payload))
            except (psycopg.Error, OSError) as error:
                logger.warning("notices of %s are not heard for now: %s", self.place, " ".join(str(error).split()))
            await asyncio.sleep(pause * rng.uniform(0.5, 1))
            pause = min(2 * pause, longest)


def _raw(connection: sa.Connection) -> psycopg.Connection[Any]:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def _discard(connection: sa.Connection) -> None:
    with contextlib.suppress(sa.exc.SQLAlchemyError, psycopg.Error):
        connection.invalidate()
        connection.close()


def _cause(error: BaseException) -> BaseException:
    """The driver's error: some statements go past SQLAlchemy."""
    return error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error


def _is_connection_error(cause: BaseException | None) -> bool:
    """Not connected, or no more; the server shuts down or takes no more connections."""
    if not isinstance(cause, psycopg.OperationalError):
        return False
    state = cause.sqlstate
    return (
        state is None
        or state.startswith(("08", "28", "3D"))
        or state in ("53300", "57P01", "57P02", "57P03", "57P05", "25P03")
    )
