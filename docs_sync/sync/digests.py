"""Finds what gossip lost, with nobody joining: now and then all documents shared with a peer are compared at once.

For each peer that is our neighbour in some document, one request carries fingerprint and count of every document in
which it is; those that differ are synced. That comes when the two meet, and every `EVERY` seconds, so an entry that a
neighbour of ours has and that was lost on its way to us is here after at most 60 seconds and the time of a sync. It
comes sooner where a document changed: when nothing has changed in it for `document.QUIET` seconds, it is compared with
one neighbour.

A swarm that was cut in two for long comes apart: each half has neighbours enough and forgets the other. So documents
are compared, every `SELDOM` seconds, with peers as well that had them and are no neighbours (any more); where they
differ, `live` joins the swarm through that peer after the sync.

A peer that speaks iroh only knows no digests: `live` sends it reports of our heads instead, and where it is no
neighbour (any more) it is synced with in full, at 16 times `SELDOM`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from ...errors import NetworkError, TidingsError
from ...transport import EndpointId
from ..access.control import AccessControl
from ..events import SyncReason
from ..model.keys import NamespaceId
from ..model.native_messages import Digest
from ..store.documents import DocsStore
from ..tasks import Tasks
from .sync_state import backoff

__all__ = ["Asks", "Compared", "Digests"]

logger = logging.getLogger(__name__)

EVERY = (30.0, 60.0)  # seconds from one digest of everything to the next
SELDOM = (90.0, 180.0)  # with a peer that is no neighbour
MAX_APART = 64  # peers that are neighbours in no document and are compared with; the latest
MAX_SILENCES = 4  # after which a peer that gives no answer, for it speaks iroh only, is asked at 16 times that
SOON = (0.02, 0.2)  # seconds in which further documents that a peer is asked about get into the same request
FEW = 16  # documents that are dialled for one by one where a peer could not be asked about them
SYNC_ANYWAY = 0.1  # of the digests of everything: a sync finds entries, too, that were forged to cancel out (`keyed`)
READ_AT_ONCE = 256  # summaries in one read: a few ms


class Compared(Protocol):
    """A live document."""

    @property
    def namespace(self) -> NamespaceId: ...

    def want(self, peer: EndpointId, reason: SyncReason) -> None: ...


class Asks(Protocol):
    async def digest(self, peer: EndpointId, digests: Sequence[Digest]) -> set[bytes] | None: ...


@dataclass(slots=True)
class _Peer:
    shared: dict[NamespaceId, Compared] = field(default_factory=dict)
    apart: dict[NamespaceId, Compared] = field(default_factory=dict)
    """It has them too, and is no neighbour there."""
    soon: dict[NamespaceId, tuple[Compared, SyncReason | None]] = field(default_factory=dict)
    """To be compared once, and why to sync where that cannot be."""
    next_at: float = 0.0  # of everything
    timer: asyncio.TimerHandle | None = None
    asking: bool = False
    silences: int = 0  # digests in a row without an answer
    failures: int = 0  # and those that did not get there
    not_before: float = 0.0
    speaks: bool = False


class Digests:
    """For all documents of a node."""

    def __init__(self, links: Asks, store: DocsStore, access: AccessControl, rng: Random) -> None:
        self._links = links
        self._store = store
        self._access = access
        self._rng = rng
        self._peers: dict[EndpointId, _Peer] = {}
        self._tasks = Tasks()

    def meet(self, document: Compared, peer: EndpointId) -> None:
        """The peer is a neighbour in the document from now on, until `part`: sync with it where they differ."""
        state = self._peers.setdefault(peer, _Peer())
        state.not_before = 0.0
        if not state.shared:
            state.next_at = _now() + self._rng.uniform(*EVERY)
            state.silences = 0
        state.shared[document.namespace] = document
        state.apart.pop(document.namespace, None)
        self.compare(document, peer, otherwise="neighbor")  # not a sync at once: the one who came is about to dial us

    def part(self, document: Compared, peer: EndpointId) -> None:
        if (state := self._peers.get(peer)) is not None:
            state.shared.pop(document.namespace, None)
            self.remember(document, peer)

    def remember(self, document: Compared, peer: EndpointId) -> None:
        """The peer has the document, too; where it is no neighbour, compare with it seldom."""
        state = self._peers.setdefault(peer, _Peer())
        if document.namespace in state.shared:
            return
        if not (state.shared or state.apart):
            state.next_at = _now() + self._rng.uniform(*SELDOM)
        state.apart[document.namespace] = document
        self._arm(peer, state)
        far = [id for id, each in self._peers.items() if not (each.shared or each.soon or each.asking)]
        for id in far[:-MAX_APART]:
            self._peers[id].apart.clear()
            self._forget(id, self._peers[id])

    def compare(self, document: Compared, peer: EndpointId, *, otherwise: SyncReason | None = None) -> None:
        """Once, soon. ``otherwise``: sync without that where the peer cannot compare."""
        state = self._peers.setdefault(peer, _Peer())
        if not state.silences:
            state.soon[document.namespace] = document, otherwise
            self._arm(peer, state)
            return
        if otherwise is not None:
            document.want(peer, otherwise)
        self._forget(peer, state)

    def leave(self, document: Compared) -> None:
        """The document was closed."""
        for peer, state in list(self._peers.items()):
            state.shared.pop(document.namespace, None)
            state.apart.pop(document.namespace, None)
            state.soon.pop(document.namespace, None)
            self._forget(peer, state)

    def speaks(self, peer: EndpointId) -> bool:
        """Whether the peer has answered a digest: what gossip loses on the way to it is found without reports."""
        state = self._peers.get(peer)
        return state is not None and state.speaks

    async def aclose(self) -> None:
        for state in self._peers.values():
            if state.timer is not None:
                state.timer.cancel()
        self._peers.clear()
        await self._tasks.aclose()

    def _forget(self, peer: EndpointId, state: _Peer) -> None:
        if not (state.shared or state.apart or state.soon or state.asking):
            if state.timer is not None:
                state.timer.cancel()
            self._peers.pop(peer, None)

    def _arm(self, peer: EndpointId, state: _Peer) -> None:
        if state.asking or self._tasks.closed:
            return
        when = max(_now() + self._rng.uniform(*SOON), state.not_before) if state.soon else state.next_at
        if state.timer is not None:
            if state.timer.when() <= when:
                return
            state.timer.cancel()
        state.timer = asyncio.get_running_loop().call_at(when, self._due, peer, state)

    def _due(self, peer: EndpointId, state: _Peer) -> None:
        state.timer = None
        state.asking = True
        self._tasks.start(self._ask(peer, state), f"digest for {peer.short()}")

    async def _ask(self, peer: EndpointId, state: _Peer) -> None:
        soon, state.soon = state.soon, {}
        everything = _now() >= state.next_at
        asked = {namespace: document for namespace, (document, _) in soon.items()}
        if everything:
            asked |= state.shared | state.apart
        try:
            for namespace in [id for id, (_, otherwise) in soon.items() if otherwise is not None]:
                if await self._access.is_restricted(namespace):  # only a sync shows what lets us read
                    del asked[namespace]
                    _want_otherwise(peer, soon.pop(namespace))
            differ = await self._links.digest(peer, await self._digests(asked)) if asked else set()
            if differ is None:
                state.silences = min(state.silences + 1, MAX_SILENCES)
                if everything and state.silences == MAX_SILENCES:
                    for document in state.apart.values():  # it may have news, and nobody else that we hear of
                        document.want(peer, "again")
            elif asked:
                state.silences, state.failures, state.speaks = 0, 0, True
                for namespace, document in asked.items():
                    if bytes(namespace) in differ:
                        document.want(peer, "digest")
                soon.clear()
                if everything and state.shared and self._rng.random() < SYNC_ANYWAY:
                    self._rng.choice(list(state.shared.values())).want(peer, "again")
        except (TidingsError, TimeoutError) as error:
            logger.info("documents are not compared with %s: %s", peer.short(), error)
            if isinstance(error, NetworkError | TimeoutError) and len(soon) > FEW:
                # Dials for each would find nobody either. It is asked again, or by its own coming as a neighbour.
                state.not_before = _now() + backoff(state.failures, self._rng)
                state.failures += 1
                state.soon, soon = soon | state.soon, {}
        finally:
            for each in soon.values():
                _want_otherwise(peer, each)
            state.asking = False
            if everything:
                delay = self._rng.uniform(*(EVERY if state.shared else SELDOM))
                state.next_at = _now() + delay * 2.0**state.silences
            self._forget(peer, state)
            if self._peers.get(peer) is state:
                self._arm(peer, state)

    async def _digests(self, documents: dict[NamespaceId, Compared]) -> list[Digest]:
        ids, digests = list(documents), []
        for start in range(0, len(ids), READ_AT_ONCE):
            summaries = await self._store.summaries(ids[start : start + READ_AT_ONCE])
            digests += [Digest(bytes(id), summary.fingerprint, summary.size) for id, summary in summaries.items()]
        return digests


def _want_otherwise(peer: EndpointId, wish: tuple[Compared, SyncReason | None]) -> None:
    document, otherwise = wish
    if otherwise is not None:
        document.want(peer, otherwise)


def _now() -> float:
    return asyncio.get_running_loop().time()
