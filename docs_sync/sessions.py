"""The syncs of one document with its peers: who dials, what runs, what is tried again.

`sync_state.PeerSync` decides for each peer, `sync.SyncSession` runs on the stream. Whatever ends a session, a bug
included, reports to the machine, so that no peer stays locked out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from ..errors import TidingsError
from ..transport import BiStream, Connection, Endpoint, EndpointId
from .access import AccessControl
from .errors import NotAllowed, SyncRefused
from .events import SyncFinished, SyncReason
from .keys import NamespaceId
from .messages import AbortReason, Init
from .reconcile import Tally, Value
from .store import DocsStore
from .sync import ALPN, FrameReader, SyncSession, refuse
from .sync_state import Action, PeerSync
from .tasks import Tasks
from .views import View

__all__ = ["SessionContext", "Sessions"]

logger = logging.getLogger(__name__)

MAX_DIALS = 16  # syncs that a node has dialled at once, over all documents
MAX_ACCEPTED = 64  # syncs that a node serves at once; more are refused and come again
DIAL_TIMEOUT = 10.0
SUPERSEDE_GRACE = 1.0  # seconds that an accepted session gets to end when its peer calls again
LINGER = 0.5  # seconds that the dialler lets the acceptor close first

OnStored = Callable[[EndpointId, Sequence[Value], Set[bytes]], Awaitable[None]]
OnFinished = Callable[[SyncFinished, Tally], Awaitable[None]]


@dataclass(slots=True)
class _Accepted:
    task: asyncio.Task[object]
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class SessionContext:
    """What the documents of a node share."""

    endpoint: Endpoint
    store: DocsStore
    frames: FrameReader
    rng: Random
    dials: asyncio.Semaphore
    access: AccessControl
    accepted: int = 0


class Sessions:
    def __init__(
        self,
        context: SessionContext,
        namespace: NamespaceId,
        on_stored: OnStored,
        on_finished: OnFinished,
        is_known: Callable[[EndpointId], bool],
    ) -> None:
        self._context = context
        self._namespace = namespace
        self._on_stored = on_stored
        self._on_finished = on_finished
        self._is_known = is_known
        self._peers: dict[EndpointId, PeerSync] = {}
        self._accepting: dict[EndpointId, _Accepted] = {}
        self._tasks = Tasks()

    def want(self, peer: EndpointId, reason: SyncReason) -> None:
        """Sync with the peer now, or once more after the sync that runs."""
        if not self._tasks.closed and peer != self._context.endpoint.id and self._state(peer).want():
            self._tasks.start(self._dial(peer, reason), f"sync {self._namespace.short()} with {peer.short()}")

    def tick(self) -> None:
        """Dial whom a failure's delay is over for; call it every second or so."""
        for peer, state in list(self._peers.items()):
            if state.due(_now()):
                if state.again or self._is_known(peer):
                    self.want(peer, "again")
                else:
                    del self._peers[peer]

    async def accept(self, peer: EndpointId, stream: BiStream, init: Init) -> None:
        """Serve a session that the peer dialled, or refuse it. A peer that may not read learns nothing from this."""
        if not await self._context.access.allows(peer, self._namespace, "read"):
            await refuse(self._context.store, stream, AbortReason.NOT_FOUND)
            return
        view = await self._view(peer)
        state = self._state(peer)
        while (action := state.called()) is Action.SUPERSEDE:
            await self._end_accepted(peer)
            state = self._state(peer)
        if action is Action.REFUSE:
            await refuse(self._context.store, stream, AbortReason.ALREADY_SYNCING)
            return
        if self._context.accepted >= MAX_ACCEPTED or self._tasks.closed:
            state.accept_ended(ok=True, now=_now())
            self._forget(peer)
            await refuse(self._context.store, stream, AbortReason.INTERNAL_ERROR)
            return
        await self._serve(peer, stream, init, view)

    async def aclose(self) -> None:
        serving = list(self._accepting.values())
        for accepted in serving:
            accepted.task.cancel()
        await self._tasks.aclose()
        for accepted in serving:
            await accepted.ended.wait()

    async def _dial(self, peer: EndpointId, reason: SyncReason) -> None:
        connection: Connection | None = None
        state = self._peers[peer]
        started, tally, error, crossed = time.time(), Tally(), "cancelled", False
        try:
            async with self._context.dials:
                try:
                    if not await self._context.access.allows(peer, self._namespace, "read"):
                        raise NotAllowed("the peer may not read this document: nothing of it is sent", peer=peer)
                    view = await self._view(peer)
                    connection = await self._context.endpoint.connect(peer, ALPN, timeout=DIAL_TIMEOUT)
                    async with asyncio.timeout(DIAL_TIMEOUT):
                        stream = await connection.open_bi()
                except (TidingsError, TimeoutError) as failure:
                    error = _text(failure)
                else:
                    session = self._session(peer, stream, view)
                    tally = session.tally
                    try:
                        error = await _outcome(session.dial())
                    except SyncRefused as refused:
                        error = str(refused)
                        crossed = refused.reason is AbortReason.ALREADY_SYNCING
        finally:
            state.dial_ended(ok=not error, now=_now())
            if connection is not None and error:
                connection.close(0, "sync failed")
        if crossed:  # the peer's own dial is on its way, or here: that one counts
            self._follow_up(peer, tally, error)
        else:
            await self._finish(peer, reason, started, tally, error)
        if connection is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    await connection.wait_closed()
            connection.close(0, "synced")

    async def _serve(self, peer: EndpointId, stream: BiStream, init: Init, view: View) -> None:
        """Within the caller's task: it cannot be cancelled between the machine's ACCEPT and the ``try`` here."""
        task = asyncio.current_task()
        assert task is not None
        accepted = self._accepting[peer] = _Accepted(task)
        started, error = time.time(), "cancelled"
        session = self._session(peer, stream, view)
        self._context.accepted += 1
        state = self._peers[peer]
        try:
            error = await _outcome(session.accept(init))
        finally:
            self._context.accepted -= 1
            del self._accepting[peer]
            state.accept_ended(ok=not error, now=_now())
            accepted.ended.set()
            if error:
                stream.send.reset(1)
                stream.recv.stop(1)
        await self._finish(peer, "accept", started, session.tally, error)

    async def _finish(self, peer: EndpointId, reason: SyncReason, started: float, tally: Tally, error: str) -> None:
        self._follow_up(peer, tally, error)
        if error:
            logger.info("sync of %s with %s failed: %s", self._namespace.short(), peer.short(), error)
        event = SyncFinished(peer, reason, started, time.time(), tally.received, tally.sent, error or None)
        await self._on_finished(event, tally)

    def _follow_up(self, peer: EndpointId, tally: Tally, error: str) -> None:
        """Sync once more where that was asked for meanwhile, or where the peer may need it."""
        if not error and tally.needs_another:
            self.want(peer, "again")
        state = self._peers.get(peer)
        if state is not None and state.again and state.due(_now()):
            self.want(peer, "again")
        self._forget(peer)

    async def _end_accepted(self, peer: EndpointId) -> None:
        """Return once the session that the peer has abandoned is over; it may be about to end by itself."""
        old = self._accepting[peer]
        try:
            async with asyncio.timeout(SUPERSEDE_GRACE):
                await old.ended.wait()
        except TimeoutError:
            old.task.cancel()
            await old.ended.wait()

    async def _view(self, peer: EndpointId) -> View:
        return View(takes=await self._context.access.allows(peer, self._namespace, "write"))

    def _session(self, peer: EndpointId, stream: BiStream, view: View) -> SyncSession:
        async def on_stored(values: Sequence[Value], missing: Set[bytes]) -> None:
            await self._on_stored(peer, values, missing)

        return SyncSession(self._context.store, self._context.frames, self._namespace, stream, on_stored, view)

    def _state(self, peer: EndpointId) -> PeerSync:
        if peer not in self._peers:
            self._peers[peer] = PeerSync(bytes(self._context.endpoint.id), bytes(peer), self._context.rng)
        return self._peers[peer]

    def _forget(self, peer: EndpointId) -> None:
        if peer in self._peers and self._peers[peer].settled:
            del self._peers[peer]


async def _outcome(session: Awaitable[None]) -> str:
    """Run it; "" where it went well, else why not. Only a cancellation and SyncRefused go through."""
    try:
        await session
    except SyncRefused:
        raise
    except (TidingsError, TimeoutError) as failure:
        return _text(failure)
    except Exception as failure:
        logger.exception("a sync session failed")
        return repr(failure)
    return ""


def _text(failure: BaseException) -> str:
    return str(failure) or ("the peer took too long" if isinstance(failure, TimeoutError) else repr(failure))


def _now() -> float:
    return asyncio.get_running_loop().time()
