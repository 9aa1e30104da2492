"""Syncs with one peer as `Sessions` sees them, whichever protocol the peer speaks and whoever dialled.

What differs is the way in. Over ``tidings/docs/1`` both sides show what lets them read, and the second check follows
the first pass; over ``/iroh-sync/1`` nothing can be shown, and only the access hook speaks for a peer. Either way
access is asked before anything of the document is sent (`access` says in which order), and again while a session goes
on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from ...transport import BiStream, EndpointId, frame
from ...transport.errors import StreamStopped
from ..access.control import AccessControl
from ..errors import MessageTooLarge, NotAllowed, SyncRefused, SyncViolation
from ..model.keyed import derive_key
from ..model.keys import NamespaceId
from ..model.messages import AbortReason, Init
from ..model.native_messages import (
    NONCE_SIZE,
    Accepted,
    Refused,
    RefusedReason,
    SyncRequest,
    encode_request,
)
from ..model.reconcile import Tally, entries_of
from ..store.documents import DocsStore
from ..store.views import View
from .connections import Connections, Use
from .exchange import ask, give_up, write_answer
from .pull import Pulls
from .session import FrameReader, OnStored, Pace, SyncSession, refuse

__all__ = [
    "DialledSync",
    "IncomingSync",
    "IrohDialled",
    "IrohIncoming",
    "NativeDialled",
    "NativeIncoming",
    "Parts",
    "refusal",
]

OPEN_TIMEOUT = 10.0  # seconds for a stream, or for a first message to be taken
LINGER = 0.5  # seconds that the dialler lets an acceptor of iroh's close the connection first

_REASONS = {
    AbortReason.NOT_FOUND: RefusedReason.NOT_FOUND,
    AbortReason.ALREADY_SYNCING: RefusedReason.SYNCING,
    AbortReason.INTERNAL_ERROR: RefusedReason.BUSY,
}
_ABORTS = {native: abort for abort, native in _REASONS.items()} | {
    RefusedReason.DENIED: AbortReason.NOT_FOUND,
    RefusedReason.UNKNOWN: AbortReason.INTERNAL_ERROR,
}


class DialledSync(Protocol):
    """A sync that we dialled: `dial` it once, then `aclose` it whatever happened."""

    @property
    def tally(self) -> Tally: ...

    async def dial(self) -> None:
        """The whole sync. Raises SyncRefused (``reason`` is an `AbortReason`), NotAllowed, SyncViolation, DecodeError,
        TimeoutError, and what dials and streams raise."""

    async def aclose(self) -> None:
        """Let go of the stream; of the connection, after half a second, where the peer speaks iroh only."""


class IncomingSync(Protocol):
    """A sync that a peer dialled. `admit` it first; then `refuse` or `accept` it."""

    @property
    def peer(self) -> EndpointId: ...
    @property
    def namespace(self) -> NamespaceId: ...
    @property
    def prefix(self) -> bytes | None:
        """Of the part that the peer wants; None for the whole document."""

    @property
    def tally(self) -> Tally: ...

    async def admit(self) -> bool:
        """Whether the peer may read. Where not, it has been told so, and learns nothing of the document."""

    async def refuse(self, reason: AbortReason) -> None: ...

    async def accept(self, on_stored: OnStored) -> None:
        """The whole sync. Raises as `DialledSync.dial`; the stream is given up then."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What every sync of a node works with."""

    store: DocsStore
    frames: FrameReader
    access: AccessControl
    pulls: Pulls = field(default_factory=Pulls)


class _Sync:
    def __init__(self, parts: Parts, peer: EndpointId, namespace: NamespaceId, prefix: bytes | None = None) -> None:
        self.peer = peer
        self.namespace = namespace
        self.prefix = prefix
        self.tally = Tally()
        self._parts = parts

    async def _check_readable(self, share: bytes | None = None) -> None:
        if not await self._parts.access.allows(self.peer, self.namespace, "read", share):
            raise NotAllowed("the peer may not read this document: nothing of it is sent", peer=self.peer)

    async def _renewed(self, view: View) -> View:
        await self._check_readable()
        return replace(view, takes=await self._parts.access.allows(self.peer, self.namespace, "write"))

    @contextmanager
    def _noting_size(self) -> Iterator[None]:
        try:
            yield
        except MessageTooLarge as error:
            self._parts.pulls.note(bytes(self.peer), bytes(self.namespace), error.size)
            raise
        self._parts.pulls.forget(bytes(self.peer), bytes(self.namespace))

    async def _session(
        self, stream: BiStream, rtt: float, on_stored: OnStored, pace: Pace, key: bytes | None = None
    ) -> SyncSession:
        """``key`` is that of the second check."""
        parts = self._parts
        view = View(
            limits=await parts.store.limits(self.namespace, rtt, native=key is not None),
            prefix=self.prefix,
            takes=await parts.access.allows(self.peer, self.namespace, "write"),
        )
        session = SyncSession(
            parts.store,
            parts.frames,
            self.namespace,
            stream,
            on_stored,
            view,
            renew=self._renewed,
            check_key=key,
            agreed=self.peer if key and self.prefix is None else None,
            pull=None if key else parts.pulls.begin(bytes(self.peer), bytes(self.namespace)),
            pace=pace,
        )
        session.tally = self.tally
        return session


class IrohDialled(_Sync):
    """On a connection of its own, which it closes."""

    def __init__(self, parts: Parts, peer: EndpointId, namespace: NamespaceId, use: Use, on_stored: OnStored) -> None:
        super().__init__(parts, peer, namespace)
        self._use = use
        self._on_stored = on_stored
        self._went_well = False

    async def dial(self) -> None:
        await self._check_readable()
        connection, pace = self._use.connection, Pace()
        stream = await pace.wait(connection.open_bi(), OPEN_TIMEOUT)
        session = await self._session(stream, connection.rtt, self._on_stored, pace)
        with self._noting_size():
            await session.dial()
        self._went_well = True

    async def aclose(self) -> None:
        try:
            if self._went_well:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        await self._use.connection.wait_closed()
        finally:
            self._use.release()


class IrohIncoming(_Sync):
    def __init__(self, parts: Parts, peer: EndpointId, stream: BiStream, rtt: float, init: Init, pace: Pace) -> None:
        super().__init__(parts, peer, NamespaceId(init.namespace))
        self._stream = stream
        self._rtt = rtt
        self._init = init
        self._pace = pace

    async def admit(self) -> bool:
        if await self._parts.access.allows(self.peer, self.namespace, "read"):
            return True
        await self.refuse(AbortReason.NOT_FOUND)
        return False

    async def refuse(self, reason: AbortReason) -> None:
        await refuse(self._parts.store, self._stream, reason)

    async def accept(self, on_stored: OnStored) -> None:
        try:
            session = await self._session(self._stream, self._rtt, on_stored, self._pace)
            with self._noting_size():
                await session.accept(self._init)
        except BaseException:
            give_up(self._stream)
            raise


class NativeDialled(_Sync):
    """On a stream of the kept connection. Where the document is ``restricted`` the peer must first show that it may
    read; else it may, as far as we know, and our first message goes along with the request."""

    def __init__(
        self,
        parts: Parts,
        peer: EndpointId,
        namespace: NamespaceId,
        prefix: bytes | None,
        connections: Connections,
        on_stored: OnStored,
        rtt: float,
        *,
        restricted: bool,
    ) -> None:
        super().__init__(parts, peer, namespace, prefix)
        self._rtt = rtt
        self._restricted = restricted
        self._connections = connections
        self._on_stored = on_stored

    async def dial(self) -> None:
        access, namespace, nonce = self._parts.access, self.namespace, secrets.token_bytes(NONCE_SIZE)
        share, revoked = await access.presentation(namespace), await access.revocations(namespace)
        opening = frame(encode_request(SyncRequest(bytes(namespace), nonce, self.prefix, share, revoked)))
        if not self._restricted:
            opening += frame(await self._init())
        asked = await ask(self._connections, self.peer, opening)
        if asked is None:
            raise SyncRefused("the peer does not speak tidings/docs/1 any more", AbortReason.INTERNAL_ERROR)
        use, stream, answer = asked
        try:
            if isinstance(answer, Refused):
                raise refusal(namespace, answer)
            if not isinstance(answer, Accepted) or answer.nonce is None:
                raise SyncViolation("the answer to a sync is none", peer=self.peer)
            await access.take_revocations(namespace, answer.revoked)
            await self._check_readable(answer.share)
            pace = Pace()
            if self._restricted:
                await pace.wait(stream.send.write(frame(await self._init())), OPEN_TIMEOUT)
            key = derive_key(bytes(namespace), nonce, answer.nonce)
            session = await self._session(stream, use.connection.rtt, self._on_stored, pace, key)
            await session.go_on()
        except BaseException:
            give_up(stream)
            raise
        finally:
            use.release()

    async def aclose(self) -> None:
        pass

    async def _init(self) -> bytes:
        store = self._parts.store
        limits = await store.limits(self.namespace, self._rtt, native=True)
        peer = self.peer if self.prefix is None else None
        message = await store.initial_message(self.namespace, View(prefix=self.prefix), limits, peer)
        self.tally.sent = len(entries_of(message))
        return await store.encode(Init(bytes(self.namespace), message))


class NativeIncoming(_Sync):
    def __init__(self, parts: Parts, peer: EndpointId, request: SyncRequest, stream: BiStream, rtt: float) -> None:
        super().__init__(parts, peer, NamespaceId(request.namespace), request.prefix)
        self._request = request
        self._stream = stream
        self._rtt = rtt

    async def admit(self) -> bool:
        access, share = self._parts.access, self._request.share
        await access.take_revocations(self.namespace, self._request.revoked)
        if await access.allows(self.peer, self.namespace, "read", share):
            return True
        # Who shows nothing does not even learn that the document is here.
        denied = share is not None and await access.is_restricted(self.namespace)
        await self._answer_no(RefusedReason.DENIED if denied else RefusedReason.NOT_FOUND)
        return False

    async def refuse(self, reason: AbortReason) -> None:
        await self._answer_no(_REASONS[reason])

    async def accept(self, on_stored: OnStored) -> None:
        access, nonce, pace = self._parts.access, secrets.token_bytes(NONCE_SIZE), Pace()
        try:
            share = await access.presentation(self.namespace)
            revoked = await access.revocations(self.namespace)
            await write_answer(self._stream, Accepted(nonce, revoked, share))
            init = await self._parts.frames.read_init(self._stream, pace)
            if init.namespace != self._request.namespace:
                raise SyncViolation("the peer began another sync than it asked for", peer=self.peer)
            key = derive_key(bytes(self.namespace), self._request.nonce, nonce)
            session = await self._session(self._stream, self._rtt, on_stored, pace, key)
            await session.accept(init)
        except BaseException:
            give_up(self._stream)
            raise

    async def _answer_no(self, reason: RefusedReason) -> None:
        with suppress(StreamStopped):
            await write_answer(self._stream, Refused(reason, reason.value), last=True)


def refusal(namespace: NamespaceId, refused: Refused) -> SyncRefused:
    what = refused.reason.value if refused.reason is not RefusedReason.UNKNOWN else repr(refused.why)
    return SyncRefused(f"the peer does not sync document {namespace.short()}: {what}", _ABORTS[refused.reason])
