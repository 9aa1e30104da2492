"""The syncs of one document with its peers: who dials, what runs, what is tried again.

`sync_state.PeerSync` decides for each peer, `dialer.Dialer` whose turn it is, the sessions of `native.Links` do the
work. Whatever ends a session, a bug included, reports to the machine, so that no peer stays locked out. A document with
nothing to do has no task and no timer here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Protocol

from ...errors import NetworkError, TidingsError
from ...transport import Endpoint, EndpointId
from ..access.control import AccessControl
from ..errors import DocumentClosed, SyncRefused, SyncTimeout
from ..events import SyncFinished, SyncReason
from ..model.keys import NamespaceId
from ..model.messages import AbortReason
from ..model.reconcile import Tally, Value
from ..status import PeerState, PeerStatus, Synced
from ..store.documents import DocsStore
from ..tasks import Tasks
from .admittance import Admittance
from .dialer import Dialer
from .digests import Asks, Digests
from .followers import Followers
from .native import DialledSync, IncomingSync, OnStored
from .sync_state import Action, PeerSync, State

__all__ = ["Host", "OpensSyncs", "SessionContext", "Sessions"]

logger = logging.getLogger(__name__)

OPEN_TIMEOUT = 20.0  # seconds to reach a peer, by whatever way; the dial itself has 10
SUPERSEDE_GRACE = 1.0  # seconds that an accepted session gets to end when its peer calls again
MAX_RECORDS = 64  # peers of a document of which it is remembered how the last sync went


class OpensSyncs(Asks, Protocol):
    """`native.Links`."""

    async def open_sync(
        self, peer: EndpointId, namespace: NamespaceId, on_stored: OnStored, prefix: bytes | None = None
    ) -> DialledSync: ...


@dataclass(slots=True)
class SessionContext:
    """What the documents of a node share. ``tasks`` are let go of by sessions that are over."""

    endpoint: Endpoint
    store: DocsStore
    links: OpensSyncs
    rng: Random
    dialer: Dialer
    digests: Digests
    access: AccessControl
    followers: Followers | None = None
    """Of partial replicas; None: nobody is told."""
    admittance: Admittance[EndpointId] = field(default_factory=Admittance)
    tasks: Tasks = field(default_factory=Tasks)


class Host(Protocol):
    """The live document."""

    async def stored(self, peer: EndpointId, values: Sequence[Value], missing: Set[bytes]) -> None:
        """Entries of others are durable; ``missing`` are their contents that are not here."""

    async def synced(self, event: SyncFinished, tally: Tally) -> None:
        """A session ended."""

    def is_known(self, peer: EndpointId) -> bool:
        """Whether a sync that failed is tried again."""

    def nearest(self) -> Iterable[EndpointId]:
        """Peers to sync with where any will do, the best first."""


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None] | None
    tally: Tally = field(default_factory=Tally)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    begun: bool = False
    """Something of the document was sent; what is wanted later takes another one."""


@dataclass(slots=True)
class _Record:
    received: int = 0
    sent: int = 0
    synced_at: float | None = None
    error: str = ""
    failed_at: float | None = None


@dataclass(eq=False, slots=True)
class _Waiter:
    """For a sync with ``peer``, or any, that begins as number ``after`` or later."""

    peer: EndpointId | None
    after: int
    done: asyncio.Future[Synced]
    moved: dict[EndpointId, tuple[int, int]] = field(default_factory=dict)

    def awaits(self, peer: EndpointId) -> bool:
        return self.peer is None or self.peer == peer


class Sessions:
    __slots__ = (
        "_accepting",
        "_begun",
        "_closed",
        "_context",
        "_dialling",
        "_host",
        "_namespace",
        "_peers",
        "_prefix",
        "_queued",
        "_records",
        "_timer",
        "_waiters",
    )

    def __init__(
        self, context: SessionContext, namespace: NamespaceId, host: Host, prefix: bytes | None = None
    ) -> None:
        """``prefix``: of the part that is synced with those that we dial; None: the whole document."""
        self._context = context
        self._namespace = namespace
        self._host = host
        self._prefix = prefix
        self._peers: dict[EndpointId, PeerSync] = {}
        self._queued: dict[EndpointId, SyncReason] = {}
        self._dialling: dict[EndpointId, _Running] = {}
        self._accepting: dict[EndpointId, _Running] = {}
        self._records: dict[EndpointId, _Record] = {}  # the latest last
        self._waiters: list[_Waiter] = []
        self._begun = 0  # dialled sessions so far
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # What is wanted.

    def want(self, peer: EndpointId, reason: SyncReason) -> None:
        """Sync with the peer as soon as it is its turn, or once more after the sync that runs."""
        if self._closed or peer == self._context.endpoint.id:
            return
        state = self._state(peer)
        if state.state is State.IDLE:
            self._queued.setdefault(peer, reason)
            self._context.dialer.want(self, peer, urgent=self._is_awaited(peer))
        elif state.state is not State.DIALING or self._dialling[peer].begun:
            state.want()  # else the dial that is about to begin will do

    async def synced(self, peer: EndpointId | None, timeout: float) -> Synced:
        """Sync with the peer, or with whoever answers first, now. Raises SyncTimeout, DocumentClosed."""
        if self._closed:
            raise DocumentClosed("the document was closed: open it again")
        waiter = _Waiter(peer, self._begun, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                for each in self._host.nearest() if peer is None else (peer,):
                    self.want(each, "asked")
                return await waiter.done
        except TimeoutError:
            raise SyncTimeout(
                f"document {self._namespace.short()} was not synced with {peer.short() if peer else 'any peer'} within "
                f"{timeout:g} s ({self._why_not(peer)}). This node goes on trying"
            ) from None
        finally:
            self._waiters.remove(waiter)

    def status(self, peers: Iterable[EndpointId], neighbors: Set[EndpointId]) -> tuple[PeerStatus, ...]:
        """Of ``peers``, and of those that a sync ran with lately."""
        known = dict.fromkeys([*peers, *neighbors, *self._peers, *self._records])
        found = [self._peer_status(peer, peer in neighbors) for peer in known]
        found.sort(key=lambda each: (not each.is_neighbor, -(each.synced_at or 0.0)))
        return tuple(found)

    # The dialler's side.

    def granted(self, peer: EndpointId) -> asyncio.Task[None] | None:
        reason = self._queued.pop(peer, None)
        if reason is None or self._closed or self._context.tasks.closed or not self._state(peer).want():
            return None
        running = self._dialling[peer] = _Running(None)
        name = f"sync {self._namespace.short()} with {peer.short()}"
        running.task = self._context.tasks.start(self._dial(peer, reason, running), name)
        # Not in a `finally`: one that is cancelled before it begins has to be reported, too.
        running.task.add_done_callback(lambda _: self._ended(peer, running))
        return running.task

    async def _dial(self, peer: EndpointId, reason: SyncReason, running: _Running) -> None:
        state, number = self._peers[peer], 0
        started, error, crossed = time.time(), "cancelled", False
        session: DialledSync | None = None
        try:
            try:
                async with asyncio.timeout(OPEN_TIMEOUT):
                    session = await self._context.links.open_sync(
                        peer, self._namespace, partial(self._host.stored, peer), self._prefix
                    )
                self._context.dialer.reachable(peer)
                running.tally, running.begun = session.tally, True
                self._begun = number = self._begun + 1
                error = await _outcome(session.dial())
            except SyncRefused as refused:
                error = str(refused)
                crossed = refused.reason is AbortReason.ALREADY_SYNCING
            except (TidingsError, TimeoutError) as failure:
                error = _text(failure)
                if isinstance(failure, NetworkError | TimeoutError):
                    self._context.dialer.unreachable(peer)
            except Exception as failure:
                logger.exception("a sync could not be dialled")
                error = repr(failure)
        finally:
            self._dialling.pop(peer, None)
            state.dial_ended(ok=not error, now=_now())
            running.ended.set()
            self._arm()
            if session is not None and not self._context.tasks.closed:
                self._context.tasks.start(session.aclose(), f"end of sync {self._namespace.short()}")
        if crossed:  # the peer's own dial is on its way, or here: that one counts
            self._follow_up(peer, running.tally, error, self._prefix)
        else:
            await self._finish(peer, reason, started, running.tally, error, self._prefix, number)

    def _ended(self, peer: EndpointId, running: _Running) -> None:
        if self._dialling.get(peer) is running:
            del self._dialling[peer]
            self._peers[peer].dial_ended(ok=False, now=_now())
            running.ended.set()
            self._arm()

    # The peers' side.

    async def accept(self, call: IncomingSync) -> None:
        """Serve a session that the peer dialled, or refuse it. A peer that may not read learns nothing from this."""
        peer = call.peer
        self._context.dialer.reachable(peer)
        if not self._context.admittance.enter(peer):
            if await call.admit():
                await call.refuse(AbortReason.INTERNAL_ERROR)
            return
        try:
            if await call.admit():
                await self._admitted(call, peer)
        finally:
            self._context.admittance.leave(peer)

    async def _admitted(self, call: IncomingSync, peer: EndpointId) -> None:
        state = self._state(peer)
        while (action := state.called()) is Action.SUPERSEDE:
            await self._end_accepted(peer)
            state = self._state(peer)
        if action is Action.REFUSE:
            await call.refuse(AbortReason.ALREADY_SYNCING)
            return
        if self._closed:
            state.accept_ended(ok=True, now=_now())
            self._forget(peer)
            await call.refuse(AbortReason.NOT_FOUND)
            return
        self._context.dialer.drop(self, peer)  # what it was wanted for is done by this one
        self._queued.pop(peer, None)
        await self._serve(call, peer)

    async def _serve(self, call: IncomingSync, peer: EndpointId) -> None:
        """Within the caller's task: it cannot be cancelled between the machine's ACCEPT and the ``try`` here."""
        running = self._accepting[peer] = _Running(asyncio.current_task(), call.tally)
        started, error = time.time(), "cancelled"
        state = self._peers[peer]
        try:
            error = await _outcome(call.accept(partial(self._host.stored, peer)))
        except SyncRefused as refused:
            error = str(refused)
        finally:
            del self._accepting[peer]
            state.accept_ended(ok=not error, now=_now())
            running.ended.set()
            self._arm()
        await self._finish(peer, "accept", started, running.tally, error, call.prefix, 0)

    async def _end_accepted(self, peer: EndpointId) -> None:
        """Return once the session that the peer has abandoned is over; it may be about to end by itself."""
        old = self._accepting[peer]
        try:
            async with asyncio.timeout(SUPERSEDE_GRACE):
                await old.ended.wait()
        except TimeoutError:
            if old.task is not None:
                old.task.cancel()
            await old.ended.wait()

    # What follows.

    async def aclose(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for peer in self._queued:
            self._context.dialer.drop(self, peer)
        self._queued.clear()
        for waiter in self._waiters:
            if not waiter.done.done():
                waiter.done.set_exception(DocumentClosed("the document was closed: open it again"))
        running = [*self._dialling.values(), *self._accepting.values()]
        for each in running:
            if each.task is not None and each.task is not asyncio.current_task():
                each.task.cancel()
        for each in running:
            if each.task is not asyncio.current_task():
                await each.ended.wait()

    async def _finish(
        self,
        peer: EndpointId,
        reason: SyncReason,
        started: float,
        tally: Tally,
        error: str,
        prefix: bytes | None,
        number: int,
    ) -> None:
        """``number`` is 0 of a session that the peer dialled: it began before it came here."""
        finished = time.time()
        record = self._records.pop(peer, None) or _Record()
        record.received, record.sent, record.error = record.received + tally.received, record.sent + tally.sent, error
        if error:
            record.failed_at = finished
            logger.info("sync of %s with %s failed: %s", self._namespace.short(), peer.short(), error)
        else:
            record.synced_at = finished
        self._records[peer] = record
        if len(self._records) > MAX_RECORDS:
            del self._records[next(iter(self._records))]
        event = SyncFinished(peer, reason, started, finished, *_moved(tally), error or None, prefix)
        try:
            await self._host.synced(event, tally)  # remembers the peer: who has waited may close the node at once
        finally:
            for waiter in [waiter for waiter in self._waiters if waiter.awaits(peer)]:
                received, sent = waiter.moved.get(peer, (0, 0))
                waiter.moved[peer] = received, sent = received + tally.received, sent + tally.sent
                if not error and number > waiter.after and not waiter.done.done():
                    waiter.done.set_result(Synced(peer, received, sent))
            self._follow_up(peer, tally, error, prefix)

    def _follow_up(self, peer: EndpointId, tally: Tally, error: str, prefix: bytes | None) -> None:
        """Sync once more where that was asked for meanwhile, or where the peer may need it. One that wants another part
        than we have comes itself."""
        state = self._peers.get(peer)
        again = state is not None and state.state is State.IDLE and state.again
        worked = not error and prefix == self._prefix
        if again or (worked and (tally.needs_another or self._is_awaited(peer))):
            self.want(peer, "again")
        self._forget(peer)

    def _retry(self) -> None:
        """The delay of some failure is over."""
        self._timer = None
        for peer, state in list(self._peers.items()):
            if peer not in self._queued and state.due(_now()):
                if state.again or self._is_awaited(peer) or self._host.is_known(peer):
                    self.want(peer, "again")
                else:
                    del self._peers[peer]
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = (state.retry_at for peer, state in self._peers.items() if peer not in self._queued)
        due = min((at for at in waiting if at is not None), default=None)
        if due is not None and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(due, self._retry)

    def _is_awaited(self, peer: EndpointId) -> bool:
        return any(waiter.awaits(peer) and not waiter.done.done() for waiter in self._waiters)

    def _state(self, peer: EndpointId) -> PeerSync:
        if peer not in self._peers:
            self._peers[peer] = PeerSync(bytes(self._context.endpoint.id), bytes(peer), self._context.rng)
        return self._peers[peer]

    def _forget(self, peer: EndpointId) -> None:
        if peer in self._peers and peer not in self._queued and self._peers[peer].settled:
            del self._peers[peer]

    # What is told.

    def _peer_status(self, peer: EndpointId, is_neighbor: bool) -> PeerStatus:
        record = self._records.get(peer) or _Record()
        machine = self._peers.get(peer)
        running = [table[peer] for table in (self._accepting, self._dialling) if peer in table]
        state: PeerState = "idle"
        next_try = self._context.dialer.next_try(peer) if peer in self._queued else None
        if machine is not None:
            state = _STATES[machine.state]
            if state == "idle" and peer in self._queued:
                state = "queued"
            elif machine.retry_at is not None:
                next_try = max(machine.retry_at, next_try or 0.0)
        return PeerStatus(
            peer,
            state,
            is_neighbor,
            record.received + sum(each.tally.received for each in running),
            record.sent + sum(each.tally.sent for each in running),
            record.synced_at,
            record.error or None,
            record.failed_at,
            None if next_try is None else time.time() + max(0.0, next_try - _now()),
        )

    def _why_not(self, peer: EndpointId | None) -> str:
        peers = list(self._host.nearest()) if peer is None else [peer]
        records = [(each, self._records[each]) for each in peers if each in self._records]
        if errors := [f"{each.short()}: {record.error}" for each, record in records if record.error]:
            return "; ".join(errors)
        if not peers:
            return "no peer of the document is known: join with a ticket of a node that has it"
        return "a sync was still running" if any(each in self._peers for each in peers) else "nobody answered"


_STATES: dict[State, PeerState] = {
    State.IDLE: "idle",
    State.DIALING: "dialing",
    State.ACCEPTING: "accepting",
    State.BOTH: "both",
}


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


def _moved(tally: Tally) -> tuple[int, int]:
    return tally.received, tally.sent


def _now() -> float:
    return asyncio.get_running_loop().time()
