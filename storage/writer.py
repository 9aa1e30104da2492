"""The one writer: a thread that commits whatever was queued while the disk was busy with the commit before.

Each job of several runs in a SAVEPOINT of its own inside the group's transaction, so that one that raises is undone
alone; then one COMMIT makes the group durable, and only then its callers hear of it, in the order of the queue. Where
the database gives up the transaction (disk full) or the COMMIT fails, every job of the group fails; so it does, though
they are done, where the disk fails after the COMMIT. A cancelled caller's job is skipped where it has not begun, else
it is done whole before the caller goes. A group in which nobody asked for durability is not synced.

Where other processes write the same store, a job that they stood in the way of is undone and run again, after its
group, in a transaction of its own. A connection that was lost while nobody used it is replaced without anybody hearing
of it; one that is lost in a transaction fails the transaction's jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from ..errors import StoreError
from .backend import Backend
from .errors import DatabaseClosed

__all__ = ["Writer"]

QUEUED = 1024  # jobs in the queue; further callers wait for a place
GROUP = 256  # jobs in one transaction: past this the fsync is already spread thin, and callers would wait longer
PAUSE_S = 0.01  # before a second further run of a job; doubled for each one after it

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job:
    fn: Callable[[sa.Connection], Any]
    future: asyncio.Future[Any]
    durable: bool
    unwanted: bool = False  # its caller was cancelled
    result: Any = None
    error: BaseException | None = None
    again: bool = False
    retries: int = 0  # further runs so far


class Writer:
    """Owns the thread and the connection that writes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._connection: sa.Connection | None = None
        self._synced = True  # what `set_sync` was told last
        self._rng = random.Random()  # noqa: S311 - delays, not secrets
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
        """Returns once the connection is open; raises why it cannot be."""
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
                job = Job(fn, self._loop.create_future(), durable)
                self._queue.put(job)
                result: T = await self._outcome(job)
                return result
        finally:
            self._unfinished -= 1
            if not self._unfinished:
                self._idle.set()

    @staticmethod
    async def _outcome(job: Job) -> Any:
        """Who is cancelled waits until the job is skipped or done: what it cleans up then sees the store as it is."""
        try:
            return await asyncio.shield(job.future)
        except asyncio.CancelledError:
            job.unwanted = True
            await asyncio.wait([job.future])
            if not job.future.cancelled():
                job.future.exception()  # nobody else asks for it
            raise

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
            try:
                self._connected()
            except BaseException as error:
                self._tell(self._opened.set_exception, self._backend.translate(error))
                return
            self._tell(self._opened.set_result, None)
            while group := self._next_group():
                while group:
                    group = self._commit(group)
        finally:
            self._backend.close(self._connection)
            self._tell(self._ended.set_result, None)

    def _connected(self) -> sa.Connection:
        if self._connection is None:
            self._connection = self._backend.connect()
            self._synced = True
        return self._connection

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

    def _commit(self, group: list[Job]) -> list[Job]:
        """Run the jobs in one transaction and tell their callers. Returns those that need another transaction."""
        rest: list[Job] = []
        if group[0].retries:
            group, rest = group[:1], group[1:]
            if group[0].retries > 1:
                time.sleep(self._rng.random() * PAUSE_S * 2 ** group[0].retries)
        begun: list[Job] = []
        left = rest
        kept = self._connection is not None  # from the transaction before, it may have been lost since
        try:
            connection = self._connected()
            self._choose_sync(connection, group)
            with connection.begin():
                self.commits += 1
                for position, job in enumerate(group, start=1):
                    begun.append(job)
                    left = group[position:] + rest
                    if not job.unwanted:
                        self._run_job(connection, job, alone=len(group) == 1)
            left = rest
            if any(job.durable for job in group):
                self._backend.sync(connection)
        except BaseException as error:
            lost = self._give_up()
            if lost and kept and not begun:
                return group + rest  # with another connection
            begun = begun or group  # not even BEGIN worked
            failure = self._failure(error, begun[-1])
            for job in begun:
                job.error = job.error or failure
                job.again = job.retries < self._backend.retries(error)
        self._tell(_resolve, [job for job in begun if not job.again])
        again = [job for job in begun if job.again]
        for job in again:
            job.again, job.error, job.retries = False, None, job.retries + 1
        return again + left

    def _give_up(self) -> bool:
        """Undo what is left of a transaction. Whether the connection was lost with it."""
        connection = self._connection
        if connection is None:
            return False
        self._backend.rollback(connection)
        if not self._backend.is_lost(connection):
            return False
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            connection.invalidate()
            connection.close()
        self._connection = None
        return True

    def _failure(self, error: BaseException, last: Job) -> StoreError:
        """Why the transaction was lost: ``error`` itself, or what the job said that it was lost in."""
        for known in (self._backend.translate(error), last.error):
            if isinstance(known, StoreError):
                return known
        failure = StoreError(f"the database could not commit: {error}")
        failure.__cause__ = error
        return failure

    def _choose_sync(self, connection: sa.Connection, group: list[Job]) -> None:
        synced = any(job.durable for job in group)
        if synced != self._synced:
            self._backend.set_sync(connection, synced)
            self._synced = synced

    def _run_job(self, connection: sa.Connection, job: Job, alone: bool) -> None:
        """Keep the job's result or its error. Raises only where the whole transaction is lost, or was all the job's."""
        if not alone:
            connection.exec_driver_sql("SAVEPOINT job")
        try:
            job.result = job.fn(connection)
        except BaseException as error:
            # A future refuses StopIteration.
            job.error = (
                RuntimeError(repr(error)) if isinstance(error, StopIteration) else self._backend.translate(error)
            )
            job.again = job.retries < self._backend.retries(error)
            if alone:
                raise
            # Out of space or I/O, SQLite rolls back everything by itself: then this raises, for there is no savepoint.
            connection.exec_driver_sql("ROLLBACK TO job")
        if not alone:
            connection.exec_driver_sql("RELEASE job")

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed before the database: nobody is left to hear
            self._loop.call_soon_threadsafe(callback, *args)


def _resolve(group: list[Job]) -> None:
    for job in group:
        if job.future.done():  # its caller was cancelled meanwhile
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
