"""What other processes of a shared database store, as events here.

Their writes come to this process by no session and no gossip that it would store anything from: they are there
already. So they are found like `watch` finds them, by arrival numbers, and what this process stored itself, of which
its own events tell, is left out. On SQLite, where one process is alone, nothing runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ...errors import TidingsError
from ..doc_entry import Entry
from ..events import EventHub, InsertShared
from ..model.entry import SignedEntry
from ..model.keys import NamespaceId
from ..store.documents import DocsStore
from ..tasks import Tasks

__all__ = ["Beside"]

logger = logging.getLogger(__name__)

PAGE = 256
LOOK_AGAIN = 1.0  # seconds after the store could not be read


class Beside:
    """`hear` what others store in a document, for as long as anybody listens to its events."""

    def __init__(self, store: DocsStore) -> None:
        self._store = store
        self._heard: set[NamespaceId] = set()
        self._tasks = Tasks()

    def hear(self, namespace: NamespaceId, events: EventHub, entry: Callable[[SignedEntry], Entry]) -> None:
        if self._store.is_shared and namespace not in self._heard and not self._tasks.closed:
            self._heard.add(namespace)
            self._tasks.start(self._follow(namespace, events, entry), f"other processes' {namespace.short()}")

    async def aclose(self) -> None:
        await self._tasks.aclose()

    async def _follow(self, namespace: NamespaceId, events: EventHub, entry: Callable[[SignedEntry], Entry]) -> None:
        last: int | None = None
        try:
            with self._store.changed.waiter(bytes(namespace)) as waiter:
                while not waiter.over and (events.is_heard or last is None):
                    waiter.look()
                    try:
                        if last is None:
                            last = await self._store.last_seq(namespace)
                        page = await self._store.changes(namespace, last, PAGE)
                    except TidingsError as error:
                        logger.info("other processes' changes of %s: %s", namespace.short(), error)
                        await asyncio.sleep(LOOK_AGAIN)
                        continue
                    for _, signed in page:
                        if signed not in self._store.own:
                            events.publish(InsertShared(entry(signed)))
                    last = page[-1][0] if page else last
                    if len(page) < PAGE:
                        await waiter.news()
        finally:
            self._heard.discard(namespace)
