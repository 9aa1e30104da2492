"""The one writer: a thread that commits whatever was queued while the disk was busy with the commit before.

Each job of several runs in a SAVEPOINT of its own inside the group's transaction, so that one that raises is undone
alone; then one COMMIT makes the group durable, and only then its callers hear of it, in the order of the queue. Where
SQLite gives up the transaction (disk full) or the COMMIT fails, every job of the group fails. A cancelled caller's job
is skipped where it has not begun, else it is done whole. A group in which nobody asked for durability is not synced.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from ..errors import StoreError
from .errors import DatabaseClosed

__all__ = ["Writer"]

QUEUED = 1024  # jobs in the queue; further callers wait for a place
GROUP = 256  # jobs in one transaction: past this the fsync is already spread thin, and callers would wait longer

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job:
    fn: Callable[[sa.Connection], Any]
    future: asyncio.Future[Any]
    durable: bool
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Owns the thread. ``connect`` opens the connection there, ``sync`` says outside of transactions whether commits
    wait for the disk (as they do at first), ``translate`` turns errors into the caller's ones.
    """

    def __init__(
        self,
        connect: Callable[[], sa.Connection],
        sync: Callable[[sa.Connection, bool], None],
        translate: Callable[[BaseException], BaseException],
    ) -> None:
        self._connect = connect
        self._sync = sync
        self._synced = True  # what `sync` was told last
        self._translate = translate
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(QUEUED)
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._unfinished = 0  # callers inside `run`, those that wait for a place included
        self._idle = asyncio.Event()
        self._closing = False
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, name="tidings-write", daemon=True)
        self.commits = 0

    async def start(self) -> None:
        """Returns once ``connect`` succeeded in the thread; raises what it raised."""
        self._thread.start()
        try:
            await asyncio.shield(self._opened)
        except BaseException:
            await self.aclose()
            raise

    async def run(self, fn: Callable[[sa.Connection], T], durable: bool = True) -> T:
        """Queue ``fn`` and return its result when it is committed, and on the disk where ``durable``."""
        if self._closing:
            raise DatabaseClosed("the database is closed: open the node again")
        self._unfinished += 1
        try:
            async with self._slots:
                future: asyncio.Future[T] = self._loop.create_future()
                self._queue.put(Job(fn, future, durable))
                return await future
        finally:
            self._unfinished -= 1
            if not self._unfinished:
                self._idle.set()

    async def aclose(self) -> None:
        """Finish what was queued, close the connection, end the thread. May be called again, also after a cancel."""
        self._closing = True
        while self._unfinished:
            self._idle.clear()
            await self._idle.wait()
        self._queue.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    # What follows runs in the thread.

    def _main(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            self._tell(self._opened.set_exception, self._translate(error))
            self._tell(self._ended.set_result, None)
            return
        self._tell(self._opened.set_result, None)
        try:
            while group := self._next_group():
                while group:
                    group = self._commit(connection, group)
        finally:
            with contextlib.suppress(sa.exc.SQLAlchemyError):  # nothing that was acknowledged is at stake
                connection.close()
                connection.engine.dispose()
            self._tell(self._ended.set_result, None)

    def _next_group(self) -> list[Job]:
        """Wait for a job, and take what is queued behind it. Empty at the end: `aclose` queues None after the last."""
        group: list[Job] = []
        job = self._queue.get()
        with contextlib.suppress(queue.Empty):
            while job is not None:
                group.append(job)
                if len(group) == GROUP:
                    return group
                job = self._queue.get_nowait()
            if group:
                self._queue.put(None)  # for the next call
        return group

    def _commit(self, connection: sa.Connection, group: list[Job]) -> list[Job]:
        """Run the jobs in one transaction and tell their callers. Returns those left over where it was given up."""
        begun: list[Job] = []
        left: list[Job] = []
        try:
            self._choose_sync(connection, group)
            with connection.begin():
                self.commits += 1
                for position, job in enumerate(group, start=1):
                    if not job.future.cancelled():
                        begun.append(job)
                        left = group[position:]
                        self._run_job(connection, job, alone=len(group) == 1)
        except BaseException as error:
            _abandon(connection)
            begun = begun or group  # not even BEGIN worked
            failure = self._failure(error, begun[-1])
            for job in begun:
                job.error = job.error or failure
            self._tell(_resolve, begun)
            return left
        self._tell(_resolve, begun)
        return []

    def _failure(self, error: BaseException, last: Job) -> StoreError:
        """Why the transaction was lost: ``error`` itself, or what the job said that it was lost in."""
        for known in (self._translate(error), last.error):
            if isinstance(known, StoreError):
                return known
        failure = StoreError(f"the database could not commit: {error}")
        failure.__cause__ = error
        return failure

    def _choose_sync(self, connection: sa.Connection, group: list[Job]) -> None:
        synced = any(job.durable for job in group)
        if synced != self._synced:
            self._sync(connection, synced)
            self._synced = synced

    def _run_job(self, connection: sa.Connection, job: Job, alone: bool) -> None:
        """Keep the job's result or its error. Raises only where the whole transaction is lost, or was all the job's."""
        if not alone:
            connection.exec_driver_sql("SAVEPOINT job")
        try:
            job.result = job.fn(connection)
        except BaseException as error:
            # A future refuses StopIteration.
            job.error = RuntimeError(repr(error)) if isinstance(error, StopIteration) else self._translate(error)
            if alone:
                raise
            # Out of space or I/O, SQLite rolls back everything by itself: then this raises, for there is no savepoint.
            connection.exec_driver_sql("ROLLBACK TO job")
        if not alone:
            connection.exec_driver_sql("RELEASE job")

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed before the database: nobody is left to hear
            self._loop.call_soon_threadsafe(callback, *args)


def _abandon(connection: sa.Connection) -> None:
    """Undo what is left of a transaction. After a failed COMMIT SQLAlchemy takes it for ended and SQLite does not."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    with contextlib.suppress(sqlite3.Error):
        raw.rollback()


def _resolve(group: list[Job]) -> None:
    for job in group:
        if job.future.done():  # its caller was cancelled meanwhile
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
