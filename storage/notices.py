"""Notices: what a transaction tells the other processes of its store, once it is committed.

On PostgreSQL they are NOTIFY and LISTEN. A notice is a hint, never the only way to learn of something: a process that
was cut off, or slow, has missed some, and hears None in their place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

import sqlalchemy as sa

from ..errors import UsageError
from .backend import Put

__all__ = ["NOTICE_SIZE", "Notices", "channel_name", "notify"]

NOTICE_SIZE = 3_900  # bytes: PostgreSQL takes less than 8,000 characters, and they travel as hexadecimal
WAITING = 1_000  # notices that wait for their listener; a slower one looks at the store instead


def notify(connection: sa.Connection, channel: str, payload: bytes) -> None:
    """Tell every process that listens on ``channel``, at the commit of this transaction, in the order of commits.

    Equal payloads in one transaction come once. Does nothing where one process alone uses the store.
    """
    if len(payload) > NOTICE_SIZE:
        raise UsageError(f"a notice has at most {NOTICE_SIZE} bytes: send where to look instead")
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify(channel_name(channel), payload.hex())))


def channel_name(channel: str) -> str:
    """As the server knows it: its channels are one namespace for all programs that use the database."""
    return f"tidings_{channel}"


class Notices:
    """An async iterator of bytes and None, for one task. Made by `Database.listen`; close it with `aclose`."""

    def __init__(self, source: Callable[[Put], Awaitable[None]], closed: Callable[[Notices], object]) -> None:
        self._waiting: deque[bytes | None] = deque()
        self._news = asyncio.Event()
        self._over = False
        self._closed = closed
        self._task = asyncio.ensure_future(source(self._put))
        self._task.add_done_callback(lambda task: self._news.set())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes | None:
        while not self._waiting:
            if self._over:
                raise StopAsyncIteration
            if self._task.done() and not self._task.cancelled() and (error := self._task.exception()):
                raise error
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    async def aclose(self) -> None:
        """End the iteration. May be called again."""
        self._over = True
        self._waiting.clear()
        self._closed(self)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await asyncio.wait([self._task])
        self._news.set()

    def _put(self, notice: bytes | None) -> None:
        if len(self._waiting) >= WAITING or notice is None:
            self._waiting.clear()
            notice = None
        self._waiting.append(notice)
        self._news.set()
