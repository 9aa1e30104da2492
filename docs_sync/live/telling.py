"""Telling: what a partial replica writes goes to each provider at once, without a sync.

One request at a time to each, with all that was written since the last one. Where that is more than one request holds,
or one fails, a sync takes its place: it finds all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from ...errors import TidingsError
from ...transport import EndpointId
from ..model.entry import SignedEntry
from ..model.keys import NamespaceId
from ..model.native_messages import MAX_NEWS, MAX_TOLD
from ..model.reconcile import ENTRY_OVERHEAD, ContentStatus, Value
from ..tasks import Tasks

__all__ = ["Teller", "Tells"]

logger = logging.getLogger(__name__)


class Tells(Protocol):
    """`native.Links`."""

    async def tell(self, peer: EndpointId, namespace: NamespaceId, values: Sequence[Value]) -> None: ...


class Teller:
    """For one provider. ``sync`` is called where a sync has to do instead; `close` it when the provider is gone."""

    def __init__(
        self, links: Tells, namespace: NamespaceId, peer: EndpointId, tasks: Tasks, sync: Callable[[EndpointId], None]
    ) -> None:
        self._links = links
        self._namespace = namespace
        self._peer = peer
        self._tasks = tasks
        self._sync = sync
        self._waiting: list[SignedEntry] = []
        self._size = 0
        self._too_many = False
        self._task: asyncio.Task[None] | None = None

    def add(self, entry: SignedEntry) -> None:
        """An entry was written here, and is durable."""
        self._size += ENTRY_OVERHEAD + len(bytes(entry.id))
        if self._size > MAX_TOLD or len(self._waiting) >= MAX_NEWS:
            self._too_many = True
        if not self._too_many:
            self._waiting.append(entry)
        if self._task is None:
            self._start()

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _tell(self) -> None:
        while self._waiting or self._too_many:
            waiting, many = self._waiting, self._too_many
            self._waiting, self._size, self._too_many = [], 0, False
            if many:
                self._sync(self._peer)
                continue
            try:
                values = [Value(entry, ContentStatus.COMPLETE) for entry in waiting]
                await self._links.tell(self._peer, self._namespace, values)
            except (TidingsError, TimeoutError) as error:
                logger.info("%s was not told of %s: %s", self._peer.short(), self._namespace.short(), error)
                self._sync(self._peer)

    def _start(self) -> None:
        self._task = self._tasks.start(self._tell(), f"telling {self._peer.short()}")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and not self._tasks.closed and (self._waiting or self._too_many):
            self._start()  # something came between the last look and the end
