"""A live partial replica: the part of a document below a prefix, kept like its providers'.

It is not in the document's gossip topic: there it would hear everything, and peers that know nothing of parts would
sync everything with it. Instead it syncs its part with the peers of its ticket and those of old, and follows some of
them (`following`). Each link begins with a sync, so what happened while there was none is found. What this node writes
it tells them (`telling`), or syncs where that is too much or nobody is followed.

It serves other partial replicas whose part lies within its own, and nobody else: a peer that takes it for a whole
replica would take what it lacks for deleted or unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from ... import gossip as swarm
from ...transport import EndpointAddr, EndpointId
from ..access.control import RECHECK
from ..access.encryption import DocumentCipher
from ..contents.download import Downloads
from ..errors import EncryptedDocument, NotHeld, OtherPart
from ..events import EventHub, NeighborDown, NeighborUp, SyncFinished
from ..model.entry import SignedEntry
from ..model.keys import NamespaceId
from ..model.messages import AbortReason
from ..model.native_messages import News
from ..model.part import holds
from ..model.reconcile import Tally
from ..sync.native import IncomingSync
from ..sync.sessions import SessionContext
from ..tasks import Tasks
from .document import LiveDocument
from .following import Following, Follows
from .telling import Teller, Tells

__all__ = ["PartialDocument", "check_held", "check_same_part", "stored_prefix"]

SYNC_EVERY = 600.0  # seconds between two syncs with one provider, give or take half: links lose nothing, but who knows


def stored_prefix(prefix: bytes, cipher: DocumentCipher | None) -> bytes | None:
    """What the stored keys of a part start with; None for the empty prefix, which is no part but the whole document.

    Raises EncryptedDocument.
    """
    if cipher is None:
        return prefix or None
    stored, has_others = cipher.prefix_of(prefix)
    if has_others:
        raise EncryptedDocument(
            f"in an encrypted document a part ends at a '/': {prefix!r} cannot be told from other keys"
        )
    return stored or None


def check_same_part(held: bytes | None, wanted: bytes | None) -> None:
    """Before a document that is here is joined with a prefix. Raises OtherPart."""
    if wanted is not None and held != wanted:
        what = "all of it" if held is None else "another part of it"
        raise OtherPart(f"this node holds {what} already: open it, or drop it before you join with this prefix")


def check_held(prefix: bytes | None, keys: Iterable[bytes]) -> None:
    """Before this node writes at ``keys``. Raises NotHeld: also above the prefix, for such a write replaces and deletes
    what is not here."""
    if prefix is not None and not all(key.startswith(prefix) for key in keys):
        raise NotHeld("this node holds a part of the document: write below doc.prefix, or call doc.widen() first")


class Talks(Follows, Tells, Protocol):
    """`native.Links`."""


class PartialDocument(LiveDocument):
    """Its neighbours are the providers that it follows."""

    __slots__ = ("_following", "_links", "_part", "_refused", "_sync_timer", "_tellers", "_telling", "_write_handle")

    def __init__(
        self,
        context: SessionContext,
        links: Talks,
        gossip: swarm.Gossip,
        downloads: Downloads,
        namespace: NamespaceId,
        events: EventHub,
        cipher: DocumentCipher | None,
        prefix: bytes,
    ) -> None:
        super().__init__(context, gossip, downloads, namespace, events, cipher, prefix)
        self._part = prefix
        self._links = links
        self._telling = Tasks()
        self._tellers: dict[EndpointId, Teller] = {}
        self._following = Following(links, namespace, prefix, context.rng, self)
        self._refused: dict[EndpointId, asyncio.TimerHandle] = {}  # whose news was not taken: synced with later
        self._write_handle: asyncio.Handle | None = None
        self._sync_timer: asyncio.TimerHandle | None = None

    async def start(
        self, peers: Sequence[EndpointId], remembered: Sequence[EndpointAddr], *, patiently: bool = False
    ) -> None:
        """Sync the part with ``peers``, and follow them and those remembered. A link's own first sync is enough where
        nobody waits (``patiently``)."""
        for addr in remembered:
            self._context.endpoint.lookup.add(addr)
        self._downloads.join(self.namespace, self)
        self._following.start()
        self._schedule_sync()
        fresh = dict.fromkeys(peers)
        self._add([*fresh, *(addr.id for addr in remembered if addr.id not in fresh)])
        if not patiently:
            for peer in self._anchors:
                self._sessions.want(peer, "join")

    async def join(self, peers: Sequence[EndpointId]) -> None:
        """More peers, from another ticket."""
        self._add(peers)
        for peer in peers:
            self._sessions.want(peer, "join")

    async def accept(self, call: IncomingSync) -> None:
        """Serve a sync of a part of ours that a peer dialled."""
        if holds(self._part, call.prefix):
            await self._sessions.accept(call)
        else:
            await call.refuse(AbortReason.NOT_FOUND)

    def pass_on(self, entry: SignedEntry) -> None:
        """Tell the providers of an entry of this node, or of a smaller part."""
        for teller in self._tellers.values():
            teller.add(entry)
        if not self._tellers and self._write_handle is None:  # once for all that one batch wrote
            self._write_handle = asyncio.get_running_loop().call_soon(self._bring)

    def changed(self) -> None:
        """Nothing to compare: what providers say of the whole document is not about the part."""

    async def leave(self) -> None:
        for handle in (self._write_handle, self._sync_timer, *self._refused.values()):
            if handle is not None:
                handle.cancel()
        try:
            await self._following.aclose()
        finally:
            try:
                await self._telling.aclose()
            finally:
                await super().leave()

    # From the links.

    def link_up(self, peer: EndpointId) -> None:
        self.neighbors[peer] = None
        self._tellers[peer] = Teller(self._links, self.namespace, peer, self._telling, self._sync_written)
        self._events.publish(NeighborUp(peer))
        self._downloads.peer_appeared(self.namespace, bytes(peer))

    def link_down(self, peer: EndpointId) -> None:
        self.neighbors.pop(peer, None)
        if (teller := self._tellers.pop(peer, None)) is not None:
            teller.close()
        self._events.publish(NeighborDown(peer))

    def sync_again(self, peer: EndpointId) -> None:
        self._sessions.want(peer, "neighbor")

    async def take_news(self, peer: EndpointId, news: News) -> None:
        try:
            if news.values:
                if await self._context.access.takes(peer, self.namespace):
                    await self.take_values(peer, news.values)
                elif peer not in self._refused:  # it says this no second time, and may be trusted again
                    self._refused[peer] = asyncio.get_running_loop().call_later(RECHECK, self._sync_refused, peer)
        finally:
            for hash in news.contents:
                self._downloads.announced(self.namespace, hash, bytes(peer))

    # Syncs.

    async def synced(self, event: SyncFinished, tally: Tally) -> None:
        """What other parts bring in their own syncs goes to the providers, too, also where the end went wrong."""
        try:
            await super().synced(event, tally)
        finally:
            if event.reason == "accept" and tally.stored:
                for peer in self.neighbors or self.nearest():
                    if peer != event.peer:
                        self._sync_written(peer)

    def _add(self, peers: Sequence[EndpointId]) -> None:
        for peer in peers:
            if peer != self._context.endpoint.id:
                self._anchors[peer] = None
                self._following.add(peer)

    def _bring(self) -> None:
        """Nobody is followed: sync what was written with whoever may have the part."""
        self._write_handle = None
        for peer in self.nearest():
            self._sync_written(peer)

    def _sync_written(self, peer: EndpointId) -> None:
        self._sessions.want(peer, "write")

    def _sync_refused(self, peer: EndpointId) -> None:
        del self._refused[peer]
        self._sessions.want(peer, "again")

    def _schedule_sync(self) -> None:
        delay = SYNC_EVERY * self._context.rng.uniform(0.5, 1.5)
        self._sync_timer = asyncio.get_running_loop().call_later(delay, self._sync_one)

    def _sync_one(self) -> None:
        self._schedule_sync()
        if peers := {*self.neighbors, *self._anchors}:
            self._sessions.want(self._context.rng.choice(sorted(peers)), "again")
