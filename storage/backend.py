"""`Backend`: what `Database` and its `Writer` ask of a kind of database. SQLite and PostgreSQL are the two.

Jobs get a SQLAlchemy connection and speak SQLAlchemy Core; where the two kinds need different SQL it is behind a
function of this package (`locks.lock`, `notices.notify`). All methods but `listen` block and run in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import sqlalchemy as sa

__all__ = ["Backend", "Put"]

T = TypeVar("T")

Put = Callable[[bytes | None], None]
"""Takes a notice; None stands for any number that may have been missed."""


class Backend(Protocol):
    """One store of one kind."""

    @property
    def place(self) -> str:
        """Where it is, for messages: a path, or a URL without its secrets."""

    @property
    def shared(self) -> bool:
        """Whether other processes write the same store."""

    @property
    def in_memory(self) -> bool:
        """There is one connection then, the writer's, and reads are its jobs."""

    @property
    def longest_key(self) -> int | None:
        """Bytes that a key of an entry may have here; None: any number."""

    def connect(self) -> sa.Connection:
        """A connection for the writer, to a store that has the present schema; as after `set_sync` (True).

        Called first, and again where a connection `is_lost`. Raises the errors of `Database.open`.
        """

    def set_sync(self, connection: sa.Connection, synced: bool) -> None:
        """Outside of a transaction: whether commits from now on have to be on the disk once `sync` returned."""

    def sync(self, connection: sa.Connection) -> None:
        """After a commit: wait until it, and every one before, is on the disk. Raises StoreError."""

    def read(self, fn: Callable[[sa.Connection], T]) -> T:
        """``fn`` on a snapshot, through a connection of a pool that cannot write. Raises what `translate` gives."""

    def rollback(self, connection: sa.Connection) -> None:
        """End what is left of a failed transaction. Does not raise."""

    def is_lost(self, connection: sa.Connection) -> bool:
        """Whether the connection is of no more use."""

    def retries(self, error: BaseException) -> int:
        """How often a job that failed with ``error`` is worth another run, in a transaction of its own."""

    def translate(self, error: BaseException) -> BaseException:
        """The `StoreError` for an error whose cause is the store; any other one as it is."""

    def close_readers(self) -> None: ...

    def close(self, connection: sa.Connection | None) -> None:
        """The last call: close the writer's connection and let go of the store. Does not raise."""

    async def listen(self, channel: str, put: Put) -> None:
        """Give ``put`` the notices that transactions of any process send; runs until cancelled where it can."""
