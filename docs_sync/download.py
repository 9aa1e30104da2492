"""Fetches the contents that documents want, for all documents of a node.

`wanted.WantedContents` decides what and when; this runs at most `CONCURRENT` fetches and tells the documents.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from random import Random
from typing import Protocol

from ..blobs import Blobs, Hash
from ..errors import TidingsError
from ..transport import EndpointId
from .errors import ContentMissing
from .keys import NamespaceId
from .tasks import Tasks
from .wanted import Wanted, WantedContents

__all__ = ["Downloads", "Listener"]

logger = logging.getLogger(__name__)

CONCURRENT = 8  # fetches at once
FETCH_TIMEOUT = 3600.0  # seconds for one content; a stalled provider is the blobs' business to give up
MAX_CANDIDATES = 8  # peers asked in one attempt
LOOK_AGAIN = 1.0  # seconds between two looks for a content that came by another way


class Listener(Protocol):
    """A live document."""

    def candidates(self) -> Iterable[bytes]:
        """Peers that may have its contents."""

    def content_settled(self, hash: bytes, *, here: bool) -> None:
        """A content that it wanted has come, or a first attempt has failed."""


class Downloads:
    def __init__(self, blobs: Blobs, rng: Random) -> None:
        self._blobs = blobs
        self._wanted = WantedContents(rng)
        self._listeners: dict[bytes, Listener] = {}
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._running = 0
        self._wake = asyncio.Event()
        self._tasks = Tasks()
        self._tasks.start(self._schedule(), "downloads")

    def join(self, document: NamespaceId, listener: Listener) -> None:
        self._listeners[bytes(document)] = listener

    def leave(self, document: NamespaceId) -> None:
        self._listeners.pop(bytes(document), None)
        self._wanted.leave(bytes(document))

    def want(self, document: NamespaceId, hash: bytes, size: int, provider: bytes | None) -> bool:
        """False where too many are wanted already: the document offers it again later."""
        room = self._wanted.add(hash, size, bytes(document), provider, _now())
        self._wake.set()
        return room

    def announced(self, hash: bytes, provider: bytes) -> None:
        self._wanted.announce(hash, provider, _now())
        self._wake.set()

    def peer_appeared(self, document: NamespaceId) -> None:
        self._wanted.hasten(bytes(document), _now())
        self._wake.set()

    def take_overflown(self, document: NamespaceId) -> bool:
        """Whether contents of the document found no room since this was last asked."""
        if bytes(document) in self._wanted.overflown:
            self._wanted.overflown.discard(bytes(document))
            return True
        return False

    async def content(self, namespace: NamespaceId, hash: Hash, size: int, timeout: float) -> bytes:
        """The bytes, as soon as they are here."""
        await self.arrival(namespace, hash, size, timeout)
        return await self._blobs.read(hash)

    async def arrival(self, namespace: NamespaceId, hash: Hash, size: int, timeout: float) -> None:
        """Return as soon as the content is here."""
        key = bytes(hash)
        try:
            async with asyncio.timeout(timeout):
                while not await self._blobs.has(hash):
                    if bytes(namespace) in self._listeners:
                        self._wanted.add(key, size, bytes(namespace), None, _now(), urgent=key not in self._wanted)
                        self._wake.set()
                    arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.setdefault(key, set()).add(arrival)
                    try:
                        with suppress(TimeoutError):
                            async with asyncio.timeout(LOOK_AGAIN):
                                await arrival
                    finally:
                        self._waiting[key].discard(arrival)
                        if not self._waiting[key]:
                            del self._waiting[key]
        except TimeoutError:
            raise ContentMissing(
                f"content {hash.short()} did not come within {timeout:g} s: wait longer, or bring a peer "
                "online that has it"
            ) from None

    async def pieces(self, hash: Hash) -> AsyncIterator[bytes]:
        """A content that is here, in pieces of about 1 MiB."""
        async with await self._blobs.reader(hash) as reader:
            async for piece in reader:
                yield piece

    async def aclose(self) -> None:
        await self._tasks.aclose()

    async def _schedule(self) -> None:
        while True:
            self._wake.clear()
            while self._running < CONCURRENT and (wanted := self._wanted.take(_now())) is not None:
                self._running += 1
                self._tasks.start(self._fetch(wanted), f"fetch {wanted.hash[:5].hex()}")
            due = self._wanted.next_due() if self._running < CONCURRENT else None
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - _now())):
                    await self._wake.wait()

    async def _fetch(self, wanted: Wanted) -> None:
        hash = Hash(wanted.hash)
        try:
            here = await self._blobs.has(hash)
            if not here and (providers := self._providers(wanted)):
                async with asyncio.timeout(FETCH_TIMEOUT):
                    await self._blobs.fetch(hash, providers, max_size=wanted.size)
                here = True
        except (TidingsError, TimeoutError) as error:
            logger.info("content %s did not come: %s", hash.short(), error)
            here = False
        finally:
            # Also where this is cancelled or fails badly: nothing stays "running".
            self._running -= 1
            self._wanted.failed(wanted, _now())
            self._wake.set()
        documents = self._wanted.done(wanted.hash) if here else wanted.documents
        for document in list(documents):
            if (listener := self._listeners.get(document)) is not None:
                listener.content_settled(wanted.hash, here=here)
        for arrival in self._waiting.get(wanted.hash, set()) if here else ():
            if not arrival.done():
                arrival.set_result(None)

    def _providers(self, wanted: Wanted) -> list[EndpointId]:
        """The latest announcers first, then whoever is near."""
        peers = dict.fromkeys(reversed(wanted.providers))
        for document in wanted.documents:
            if (listener := self._listeners.get(document)) is not None:
                peers |= dict.fromkeys(listener.candidates())
        return [EndpointId(peer) for peer in list(peers)[:MAX_CANDIDATES]]


def _now() -> float:
    return asyncio.get_running_loop().time()
