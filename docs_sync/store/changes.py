"""Who waits for a document to change, and how they hear of it.

A signal says only that there may be news; what they are is asked of the store (`DocsStore.changes`). So signals need no
queue, nothing overflows, and one too many does no harm. Where several processes serve one store, each tells the others
by a notice of the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from ...errors import TidingsError
from ...storage import Database, notify
from ..model.entry import SignedEntry
from ..tasks import Tasks

__all__ = ["Changes", "Own", "Waiter", "announce"]

logger = logging.getLogger(__name__)

CHANNEL = "documents"
LOOK_AGAIN = 5.0  # seconds: a write whose caller was cancelled, and a notice that was lost, are found after this
LISTEN_AGAIN = 1.0  # seconds after the database could not be listened to
REMEMBERED = 16_384  # entries of our own, about 2 MB: they are looked for within moments


def announce(connection: sa.Connection, namespace: bytes) -> None:
    """Tell the other processes of the store, at the commit of this transaction, that a document changes."""
    notify(connection, CHANNEL, namespace)


class Own:
    """What this process stored lately, by the authors' signatures. Filled in the writer's thread, before the commit,
    so that nobody sees an entry of ours that is not in here."""

    def __init__(self) -> None:
        self._signatures: dict[bytes, None] = {}

    def add(self, entries: Iterable[SignedEntry]) -> None:
        for entry in entries:
            self._signatures[entry.author_signature] = None
        while len(self._signatures) > REMEMBERED:
            del self._signatures[next(iter(self._signatures))]

    def __contains__(self, entry: SignedEntry) -> bool:
        return entry.author_signature in self._signatures


class Waiter:
    """One who waits. ``over``: the document was closed, nothing more is to be told."""

    def __init__(self) -> None:
        self.over = False
        self._news = asyncio.Event()

    def look(self) -> None:
        """To be called before looking at the store: what comes after this ends the next `news`."""
        self._news.clear()

    async def news(self, look_again: float = LOOK_AGAIN) -> None:
        """Return when there may be something new, after ``look_again`` seconds in any case."""
        with suppress(TimeoutError):
            async with asyncio.timeout(look_again):
                await self._news.wait()

    def wake(self) -> None:
        self._news.set()


class Changes:
    """All who wait, in one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[bytes, set[Waiter]] = {}
        self._tasks = Tasks()
        self._observer: Callable[[bytes], None] | None = None
        self._listening = False
        self._closed = False

    def observe(self, observer: Callable[[bytes], None]) -> None:
        """Have ``observer`` called with each document that changed, or may have, whoever changed it; it must not wait.
        What another process changes is told only as long as its notices come through."""
        self._observer = observer
        self._listen_where_shared()

    @contextmanager
    def waiter(self, namespace: bytes) -> Iterator[Waiter]:
        waiter = Waiter()
        waiter.over = self._closed
        self._listen_where_shared()
        self._waiting.setdefault(namespace, set()).add(waiter)
        try:
            yield waiter
        finally:
            self._waiting[namespace].discard(waiter)
            if not self._waiting[namespace]:
                del self._waiting[namespace]

    def tell(self, namespace: bytes) -> None:
        """The document changed, or may have."""
        for waiter in self._waiting.get(namespace, ()):
            waiter.wake()
        if self._observer is not None and not self._closed:
            self._observer(namespace)

    def end(self, namespace: bytes) -> None:
        """The document was closed."""
        for waiter in self._waiting.get(namespace, ()):
            waiter.over = True
            waiter.wake()

    async def aclose(self) -> None:
        self._closed = True
        for namespace in self._waiting:
            self.end(namespace)
        await self._tasks.aclose()

    def _listen_where_shared(self) -> None:
        if self._database.is_shared and not self._listening and not self._closed:
            self._listening = True
            self._tasks.start(self._listen(), "changes of documents")

    async def _listen(self) -> None:
        while True:
            try:
                notices = self._database.listen(CHANNEL)
                try:
                    async for namespace in notices:
                        for each in list(self._waiting) if namespace is None else [namespace]:
                            self.tell(each)
                finally:
                    await notices.aclose()
            except TidingsError as error:
                logger.info("changes by other processes are looked for every %g s: %s", LOOK_AGAIN, error)
            await asyncio.sleep(LISTEN_AGAIN)
