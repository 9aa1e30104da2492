"""Fetches the contents that documents want, for all documents of a node.

The store says what is wanted and since when it failed (`content_store`), `due` brings what is due into a window,
`wanted` decides what is asked of whom; this runs the requests, keeps what became of them in groups, and tells the
documents. Whatever ends, a bug included, is started again later, and nothing wanted is forgotten by a crash.

While a large sync runs, its entries come first: then one request every two seconds is for what nobody waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from random import Random
from typing import Protocol

from ...blobs import Blobs, Delivery, Hash, ProvidersExhausted, Stalled
from ...errors import NetworkError, StoreError, TidingsError, UsageError
from ...transport import EndpointId
from ..errors import ContentMissing
from ..model.keys import NamespaceId
from ..store.content_store import ContentStore, Outcome
from ..tasks import Tasks
from .due import DueContents
from .wanted import SMALL, Ended, Rank, Request, WantedContents, retry_delay

__all__ = ["Downloads", "Listener"]

logger = logging.getLogger(__name__)

FETCH_TIMEOUT = 3600.0  # seconds for one content; a stalled provider is the blobs' business to give up
LOOK_AGAIN = 1.0  # seconds between two looks for a content that came by another way
ASK_AGAIN = 10.0  # seconds, at most, between two attempts for what somebody waits for
SETTLED_AT_ONCE = 1000  # outcomes in one transaction
FIRST_THE_SYNC = 0.03  # seconds: where a document is opened or a peer comes, entries are what somebody waits for
PAUSE = 5.0  # seconds after the store failed: the disk is full
TEND_EVERY = 30.0  # seconds between two looks for what nobody names any more
MANY = 64  # contents that are offered together and left to be found when they are due
RUSH = 500  # entries that come within RUSH_WITHIN seconds are a large sync
RUSH_WITHIN = 1.0
RUSH_LINGERS = 3.0  # seconds until it counts as over: a message of it may take as long
RUSH_PACE = 2.0  # seconds between two requests meanwhile


class Listener(Protocol):
    """A live document."""

    def candidates(self) -> Iterable[bytes]:
        """Peers that may have its contents, the likeliest first."""

    def content_here(self, hash: bytes, peer: bytes | None) -> None:
        """A content that it wanted has come, from ``peer`` or by another way."""

    def contents_idle(self) -> None:
        """Every content that was wanted has come or has failed once."""


class Downloads:
    """``clock`` gives microseconds since 1970."""

    def __init__(self, blobs: Blobs, store: ContentStore, rng: Random, clock: Callable[[], int]) -> None:
        self._blobs = blobs
        self._store = store
        self._rng = rng
        self._clock = clock
        self._listeners: dict[bytes, Listener] = {}
        self._wanted = WantedContents(rng, self._candidates)
        self._due = DueContents(store, self._wanted, clock)
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._ended: list[Ended] = []
        self._paused_until = 0.0
        self._rush_until = 0.0
        self._rush_next = 0.0
        self._counted = 0
        self._counted_from = 0.0
        self._work = asyncio.Event()
        self._settle = asyncio.Event()
        self._chores = asyncio.Event()
        self._tasks = Tasks()
        for loop, name in ((self._feed, "feed"), (self._keep, "outcomes"), (self._tend, "chores")):
            self._tasks.start(self._forever(loop), f"downloads: {name}")

    # What documents say.

    def join(self, document: NamespaceId, listener: Listener) -> None:
        self._listeners[bytes(document)] = listener
        self._due.join(bytes(document))
        asyncio.get_running_loop().call_later(FIRST_THE_SYNC, self._work.set)

    def leave(self, document: NamespaceId) -> None:
        self._listeners.pop(bytes(document), None)
        self._due.leave(bytes(document))
        self._wanted.leave(bytes(document))

    def stored(self, document: NamespaceId, missing: int, offered: Sequence[bytes], peer: bytes) -> None:
        """Entries were stored of which ``missing`` have contents that are not here; ``peer`` has those ``offered``."""
        now = _now()
        if now - self._counted_from > RUSH_WITHIN:
            self._counted_from, self._counted = now, 0
        self._counted += missing
        if self._counted >= RUSH:
            self._rush_until = now + RUSH_LINGERS
        if missing:
            self._due.news(bytes(document), now)
            if len(offered) <= MANY:
                self._due.wish(bytes(document), offered, peer)
            self._work.set()

    def announced(self, document: NamespaceId, hash: bytes, provider: bytes) -> None:
        """The provider has a content that the document may want."""
        self._due.wish(bytes(document), [hash], provider)
        self._work.set()

    def peer_appeared(self, document: NamespaceId, peer: bytes) -> None:
        """A peer of the document can be reached."""
        now = _now()
        self._rush_until = min(self._rush_until, now)
        self._wanted.appeared(peer)
        self._due.hasten(bytes(document), now + FIRST_THE_SYNC)
        self._work.set()

    def synced(self, document: NamespaceId, peer: bytes) -> None:
        """As `peer_appeared`, and `Listener.contents_idle` follows."""
        self._due.tell(bytes(document))
        self.peer_appeared(document, peer)

    def policy_changed(self, document: NamespaceId) -> None:
        self._wanted.leave(bytes(document), urgent_too=False)
        self._due.changed(bytes(document))
        self._chores.set()

    # What programs wait for.

    async def content(self, namespace: NamespaceId, hash: Hash, size: int, timeout: float) -> bytes:
        """The bytes, as soon as they are here; one more than ``size`` of a longer content."""
        await self.arrival(namespace, hash, size, timeout)
        return await self._blobs.read(hash, 0, size + 1)

    async def arrival(self, namespace: NamespaceId, hash: Hash, size: int, timeout: float) -> None:
        """Return as soon as the content is here; whatever the policy says, it is fetched before all others."""
        key, ask_at, delay = bytes(hash), 0.0, LOOK_AGAIN
        try:
            async with asyncio.timeout(timeout):
                while not await self._blobs.has(hash):
                    if bytes(namespace) in self._listeners and _now() >= ask_at:
                        self._wanted.add(bytes(namespace), key, size, 0, Rank.URGENT)
                        self._launch()
                        ask_at, delay = _now() + delay, min(ASK_AGAIN, delay * 2)
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

    # Requests.

    def _launch(self) -> None:
        """Start the requests that can be started now, and tell of the attempts that ended."""
        now = _now()
        while not self._tasks.closed and now >= self._paused_until:
            held = now < self._rush_until and now < self._rush_next
            request = self._wanted.take(now, urgent_only=held)
            if request is None:
                break
            if not request.urgent:
                self._rush_next = now + RUSH_PACE
            self._tasks.start(self._fetch(request), f"fetch {len(request.contents)} from {request.peer[:5].hex()}")
        for document in self._wanted.dropped():
            self._due.again(document, now)
        self._collect()

    async def _fetch(self, request: Request) -> None:
        delivery: Delivery | None = None
        try:
            delivery = await self._get(request)
        except StoreError as failure:
            logger.warning("contents cannot be kept: %s", failure)
        finally:
            # Also where this is cancelled or fails badly: nothing stays "running", and nothing runs in a circle.
            if delivery is None:
                self._wanted.give_up(request, _now())
                self._paused_until = _now() + PAUSE
            else:
                error = delivery.error
                self._wanted.delivered(
                    request,
                    map(bytes, delivery.came),
                    None if error is None else str(error),
                    _now(),
                    at_fault=None if delivery.at_fault is None else bytes(delivery.at_fault),
                    unwell=isinstance(error, NetworkError | UsageError),
                )
            self._launch()
            self._work.set()

    async def _get(self, request: Request) -> Delivery:
        peer = EndpointId(request.peer)
        if request.contents[0].size <= SMALL:
            return await self._blobs.fetch_small([(Hash(each.hash), each.size) for each in request.contents], peer)
        [content] = request.contents
        hash = Hash(content.hash)
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                await self._blobs.fetch(hash, [peer], max_size=content.size, tag=False)
        except ProvidersExhausted as failure:
            error = next(iter(failure.reasons.values()))
            if isinstance(error, StoreError):
                raise error from None
            return Delivery([], error, hash)  # type: ignore[arg-type]
        except TimeoutError:
            return Delivery([], Stalled("the content did not come within an hour"), hash)
        return Delivery([hash])

    def _collect(self) -> None:
        """Tell of the attempts that ended, and have them kept."""
        for ended in self._wanted.ended():
            self._ended.append(ended)
            hash = ended.content.hash
            if ended.error is not None:
                logger.info("content %s did not come: %s", hash[:5].hex(), ended.error)
                continue
            for document in list(ended.content.documents):
                if (listener := self._listeners.get(document)) is not None:
                    listener.content_here(hash, ended.peer)
            for arrival in self._waiting.get(hash, ()):
                if not arrival.done():
                    arrival.set_result(None)
        if self._ended:
            self._settle.set()

    def _candidates(self, document: bytes) -> Iterable[bytes]:
        listener = self._listeners.get(document)
        return () if listener is None else listener.candidates()

    # Loops.

    async def _forever(self, loop: Callable[[], object]) -> None:
        while True:
            try:
                await loop()  # type: ignore[misc]
            except TidingsError as error:
                logger.warning("downloads: %s", error)
                await asyncio.sleep(PAUSE)
            except Exception:
                logger.exception("downloads failed, and go on")
                await asyncio.sleep(PAUSE)

    async def _feed(self) -> None:
        self._work.clear()
        await self._due.fill()
        found, self._due.found = self._due.found, []
        for document, hash in found:
            self._wanted.add(document, hash, 0, 0, Rank.DUE)
            self._wanted.here(hash)
        self._launch()
        for document in self._due.idle():
            if (listener := self._listeners.get(document)) is not None:
                listener.contents_idle()
        if self._due.is_behind:
            self._chores.set()
        await _sleep(self._work, self._due.next_look(), *self._holds())

    def _holds(self) -> list[float]:
        """When requests that are held back may go on."""
        now = _now()
        times = [self._paused_until]
        if self._rush_until > now and len(self._wanted):
            times.append(self._rush_next)
        return [at for at in times if at > now]

    async def _keep(self) -> None:
        await self._settle.wait()
        self._settle.clear()
        while self._ended:
            ended, self._ended = self._ended[:SETTLED_AT_ONCE], self._ended[SETTLED_AT_ONCE:]
            now, now_us = _now(), self._clock()
            outcomes = []
            for content, peer, error in ended:
                for document, attempts in content.documents.items():
                    delay = 0.0 if error is None else retry_delay(attempts + 1, self._rng)
                    due_us = now_us + round(delay * 1e6)
                    outcomes.append(Outcome(document, content.hash, attempts + 1, error, peer, due_us))
                    if error is not None:
                        self._due.later(document, now + delay)
            try:
                for document in await self._store.settle(outcomes, now_us):
                    self._due.suspect(document, now)
            except BaseException:
                for outcome in outcomes:  # the store still has them as due
                    self._due.again(outcome.namespace, now + PAUSE)
                raise
            finally:
                self._wanted.settled(ended)
                self._work.set()

    async def _tend(self) -> None:
        self._chores.clear()
        if await self._due.chores():
            self._work.set()
        await _sleep(self._chores, _now() + TEND_EVERY)


async def _sleep(event: asyncio.Event, *until: float | None) -> None:
    """Wait for the event, or until the first of the times."""
    until_at = min((at for at in until if at is not None), default=None)
    if until_at is None:
        await event.wait()
        return
    with suppress(TimeoutError):
        async with asyncio.timeout_at(until_at):
            await event.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
