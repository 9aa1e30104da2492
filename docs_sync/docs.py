"""Documents as a program uses them.

docs = Docs(endpoint, database, blobs, gossip)
router = Router(endpoint, dict.fromkeys(Docs.ALPNS, docs.handle) | {...})
doc = await docs.create()
await doc.set("greeting", b"hello")
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial
from random import Random, SystemRandom
from typing import ClassVar

from ..blobs import Blobs, Hash
from ..gossip import Gossip
from ..storage import Database, tables
from ..transport import BiStream, Connection, Endpoint, EndpointAddr, EndpointId
from .access.control import RECHECK, Access, AccessControl
from .access.encryption import DocumentCipher, new_document_key
from .access.share_store import Rules, ShareStore
from .access.tickets import DocTicket
from .bulk.history import History
from .contents.download import Downloads
from .doc import Doc, key_bytes
from .errors import (
    BadShare,
    DocumentClosed,
    UnknownDocument,
)
from .live.beside import Beside
from .live.document import LiveDocument
from .live.partial import PartialDocument, check_same_part, stored_prefix
from .model.capability import Capability
from .model.keys import Author, AuthorId, NamespaceId, NamespaceSecret
from .model.messages import AbortReason
from .model.native_messages import FollowRequest, RefusedReason, TellRequest
from .model.part import holds
from .model.policy import DownloadPolicy
from .store.content_store import ContentStore
from .store.documents import DocsStore, now_us
from .sync.dialer import Dialer
from .sync.digests import Digests
from .sync.followers import Followers, refuse_follower
from .sync.native import IncomingSync, Links
from .sync.session import ALPN, FrameReader
from .sync.sessions import SessionContext
from .tasks import Tasks

__all__ = ["Docs"]

logger = logging.getLogger(__name__)

OPEN_AT_ONCE = 64  # documents that are opened before others have their turn: a few ms


class Docs:
    """The documents of a node. Give `handle` to the router; close it before gossip and the database.

    A document is *live*, in the swarm and open to syncs, from `create`, `open` or `join` until `Doc.close`.
    """

    ALPN: ClassVar[bytes] = ALPN
    ALPNS: ClassVar[tuple[bytes, ...]] = (Links.ALPN, ALPN)
    """Between tidings peers, and with those that speak iroh's protocol only. The router gives both to `handle`."""

    def __init__(
        self, endpoint: Endpoint, database: Database, blobs: Blobs, gossip: Gossip, *, access: Access | None = None
    ) -> None:
        rng = Random(SystemRandom().getrandbits(128))  # noqa: S311 - delays, not secrets
        self._endpoint = endpoint
        self._blobs = blobs
        blobs.protect(tables.entries.c.hash, tables.history.c.hash, tables.contents.c.hash)
        self._gossip = gossip
        self._store = DocsStore(database)
        self._access = AccessControl(ShareStore(database), endpoint.id, access)
        gossip.guard(self._access.admits)
        self._links = Links(endpoint, self._store, FrameReader(self._store), self._access, _Serving(self))
        digests = Digests(self._links, self._store, self._access, rng)
        self._followers = Followers(self._store, self._access)
        self._context = SessionContext(
            endpoint, self._store, self._links, rng, Dialer(rng), digests, self._access, self._followers
        )
        self._contents = ContentStore(database)
        self._beside = Beside(self._store)
        self._downloads = Downloads(blobs, self._contents, rng, now_us)
        self._history = History(database, now_us)
        self._open: dict[NamespaceId, Doc] = {}
        self._opening = asyncio.Lock()
        self._default_author: Author | None = None
        self._closed = False
        self._tasks = Tasks()
        self._store.changed.observe(self._on_changed)
        self._tasks.start(self._recheck(), "access to documents")
        self._tasks.start(self._history.look_after(), "history of documents")

    # Documents.

    async def create(self, *, encrypted: bool = False, restricted: bool = False) -> Doc:
        """A new, empty document that this node may write and share.

        ``encrypted``: only who gets a ticket of ours, with the document key in it, can read keys and contents.
        ``restricted``: only the holders of the document's secret and of a `Doc.share` are answered.
        """
        self._check_open()
        secret = NamespaceSecret.generate()
        capability = Capability(secret.id, secret)
        await self._store.add_namespace(capability)
        if encrypted:
            await self._access.adopt(secret.id, restricted=False, cipher_key=new_document_key(), grant=None)
        if restricted:
            await self._access.restrict(capability, True)
        return await self._go_live(capability.id, ())

    async def open(self, id: NamespaceId | str) -> Doc:
        """Make a document of this node live; the same `Doc` where it is already. Raises UnknownDocument."""
        return await self._go_live(_id(id), ())

    async def open_all(self) -> Sequence[Doc]:
        """Make every document of this node live, the oldest first: thousands in a second.

        With the peers of old they are compared, all documents of a peer at once, and synced where they differ.
        """
        async with self._opening:
            self._check_open()
            rules, remembered = await self._access.all_rules(), await self._store.all_remembered_peers()
            docs = []
            for number, (id, each) in enumerate(rules.items(), 1):
                peers, alike = remembered.get(id, ()), not each.restricted
                docs.append(self._open.get(id) or await self._start(id, each, (), peers, patiently=alike))
                if number % OPEN_AT_ONCE == 0:
                    await asyncio.sleep(0)
            return docs

    async def join(
        self,
        ticket: DocTicket | str,
        *,
        prefix: str | bytes | None = None,
        policy: DownloadPolicy | None = None,
        timeout: float = 30.0,
    ) -> Doc:
        """Get a document from those who have it; returns when the first sync is done.

        With ``prefix`` this node holds a *partial replica*: the keys that start with it and, of each author, what at
        prefixes of it may delete there; nothing else is sent or stored. The nodes of the ticket have to be tidings
        nodes. Without, a partial replica that is here becomes whole. ``policy``: which contents are fetched, from the
        first on; see `Doc.set_download_policy`.

        Raises InvalidTicket, BadShare where the ticket was made for another node, OtherPart where this node holds
        something else of the document, EncryptedDocument where the prefix does not end in "/" there, and SyncTimeout
        after ``timeout`` seconds: the document is then kept and live, goes on looking for peers, and `open` gives it.
        """
        if isinstance(ticket, str):
            ticket = DocTicket.parse(ticket)
        if ticket.grant is not None and not ticket.grant.is_for(self._endpoint.id):
            raise BadShare("this ticket lets another node read: ask for one with this node's id, or for anybody")
        if ticket.grant is not None and not ticket.grant.share.is_valid(ticket.id, now_us()):
            raise BadShare("what lets this ticket's holder read is over, or not of this document: ask for another one")
        part = await self._part(ticket, None if prefix is None else key_bytes(prefix))
        await self._store.add_namespace(ticket.capability, part)
        await self._access.adopt(ticket.id, restricted=ticket.restricted, cipher_key=ticket.key, grant=ticket.grant)
        for node in ticket.nodes:
            self._endpoint.lookup.add(node)
        peers = [node.id for node in ticket.nodes if node.id != self._endpoint.id]
        rules = await self._rules(ticket.id)
        check_same_part(rules.prefix, part)
        if rules.prefix is not None and part is None:
            rules = await self._widen(ticket.id)
        if policy is not None:
            await Doc(self, ticket.id, rules).set_download_policy(policy)
        doc = await self._go_live(ticket.id, peers)
        doc._learn(rules)
        if peers:  # else it is our own ticket: everything that it names is here
            await doc.synced(timeout=timeout)
        return doc

    async def list(self) -> AsyncIterator[Doc]:
        """Every document of this node, oldest first. Those that were not open are not made live by this."""
        for id in await self._store.namespaces():
            yield self._open.get(id) or Doc(self, id, await self._rules(id))

    async def drop(self, id: NamespaceId | str) -> None:
        """Forget a document and its keys here; others keep it. Contents stay with the blobs."""
        id = _id(id)
        async with self._opening:
            if (doc := self._open.pop(id, None)) is not None:
                await doc._stop()
            await self._store.drop(id)
            self._access.forget(id)

    def protected_hashes(self) -> AsyncIterator[Hash]:
        """The contents that entries of any document name, superseded ones that are kept included; some twice.

        What collects garbage among the blobs leaves these.
        """
        return self._contents.protected_hashes()

    # Authors.

    async def default_author(self) -> AuthorId:
        """In whose name this node writes unless told otherwise; made once and kept."""
        return (await self._author(None)).id

    async def create_author(self) -> AuthorId:
        author = Author.generate()
        await self._store.add_author(author)
        return author.id

    async def authors(self) -> Sequence[AuthorId]:
        """Those whose secret this node holds, the default one first."""
        return await self._store.authors()

    async def _recheck(self) -> None:
        """Who may not read any more, a share having expired, leaves the swarms."""
        while True:
            await asyncio.sleep(RECHECK)
            for id, doc in self._open.items():
                if doc._live is not None and doc._live.neighbors and self._access.can_change(id):
                    self._gossip.reconsider(bytes(id))

    # Connections.

    async def handle(self, connection: Connection) -> None:
        """Serve what a peer asks that dialled with one of the `ALPNS`; for the router."""
        await (self._links.handle if connection.alpn == Links.ALPN else self._links.handle_iroh)(connection)

    async def aclose(self) -> None:
        """Leave every document and end every task. Safe to call twice."""
        self._closed = True
        async with self._opening:
            docs, self._open = list(self._open.values()), {}
            await asyncio.gather(*(doc._stop() for doc in docs))
        self._context.dialer.close()
        await self._context.digests.aclose()
        await self._context.tasks.aclose()
        await self._links.aclose()
        await self._followers.aclose()
        await self._beside.aclose()
        await self._tasks.aclose()
        await self._downloads.aclose()
        await self._store.aclose()

    async def _go_live(self, id: NamespaceId, peers: Sequence[EndpointId]) -> Doc:
        async with self._opening:
            self._check_open()
            doc = self._open.get(id)
            if doc is not None:
                assert doc._live is not None
                await doc._live.join(peers)
                return doc
            rules, remembered = await self._rules(id), await self._store.remembered_peers(id)
            return await self._start(id, rules, peers, remembered)

    async def _start(
        self,
        id: NamespaceId,
        rules: Rules,
        peers: Sequence[EndpointId],
        remembered: Sequence[EndpointAddr],
        *,
        patiently: bool = False,
    ) -> Doc:
        doc = Doc(self, id, rules)
        self._open[id] = doc  # before it starts: peers that hear of us may call at once
        await self._bring_up(doc, peers, remembered, patiently=patiently)
        return doc

    async def _bring_up(
        self, doc: Doc, peers: Sequence[EndpointId], remembered: Sequence[EndpointAddr], *, patiently: bool = False
    ) -> None:
        """Start ``doc``, which is among the open ones, as what of it is held here."""
        rest = self._gossip, self._downloads, doc.id, doc._events, doc._cipher
        if (part := doc._rules.prefix) is None:
            doc._live = LiveDocument(self._context, *rest)
        else:
            doc._live = PartialDocument(self._context, self._links, *rest, part)
        try:
            await doc._live.start(peers, remembered, patiently=patiently)
        except BaseException:
            del self._open[doc.id]
            await doc._stop()
            raise

    async def _part(self, ticket: DocTicket, prefix: bytes | None) -> bytes | None:
        """The prefix as it is stored. Raises OtherPart, EncryptedDocument."""
        known = await self._access.rules(ticket.id)
        key = ticket.key if known is None else known.cipher_key or ticket.key
        part = stored_prefix(prefix or b"", None if key is None else DocumentCipher(key, ticket.id))
        if known is not None:
            check_same_part(known.prefix, part)
        return part

    async def _widen(self, id: NamespaceId) -> Rules:
        """Hold the whole document from now on; it stays live where it is."""
        async with self._opening:
            await self._store.widen(id)
            self._access.forget(id)
            rules, doc = await self._rules(id), self._open.get(id)
            if doc is not None and isinstance(doc._live, PartialDocument):
                peers = list(doc._live.nearest())
                await doc._live.leave()
                doc._learn(rules)
                await self._bring_up(doc, peers, await self._store.remembered_peers(id))
            return rules

    async def _rules(self, id: NamespaceId) -> Rules:
        rules = await self._access.rules(id)
        if rules is None:
            raise UnknownDocument(f"there is no document {id} here: join it with a ticket")
        return rules

    def _on_changed(self, namespace: bytes) -> None:
        doc = self._open.get(NamespaceId(namespace))
        if doc is not None and doc._live is not None:
            doc._live.changed()

    def _check_open(self) -> None:
        if self._closed:
            raise DocumentClosed("the node was closed: open it again")

    async def _author(self, id: AuthorId | None) -> Author:
        if id is not None:
            return await self._store.author(id)
        if self._default_author is None:
            self._default_author = await self._store.default_author()
        return self._default_author


class _Serving:
    """The documents of a node for `native.Links`."""

    def __init__(self, docs: Docs) -> None:
        self._docs = docs

    def is_live(self, namespace: NamespaceId) -> bool:
        return self._serves(namespace, None)

    async def sync(self, call: IncomingSync) -> None:
        doc = self._docs._open.get(call.namespace)
        if doc is None or doc._live is None:
            await call.refuse(AbortReason.NOT_FOUND)
        else:
            await doc._live.accept(call)

    async def follow(self, peer: EndpointId, request: FollowRequest, stream: BiStream) -> None:
        is_open = partial(self._serves, NamespaceId(request.namespace), request.prefix)
        if is_open():
            await self._docs._followers.serve(peer, request, stream, is_open)
        else:
            await refuse_follower(stream, RefusedReason.NOT_FOUND)

    async def tell(self, peer: EndpointId, request: TellRequest) -> bool:
        admittance = self._docs._context.admittance
        if not admittance.enter(peer):
            return False  # it syncs instead, when there is room
        try:
            return await self._take(peer, request)
        finally:
            admittance.leave(peer)

    async def _take(self, peer: EndpointId, request: TellRequest) -> bool:
        doc, access = self._docs._open.get(namespace := NamespaceId(request.namespace)), self._docs._access
        if doc is None or not await access.allows(peer, namespace, "read", request.share):
            return False
        if not await access.takes(peer, namespace) or doc._live is None:
            return False
        await doc._live.told(peer, request.values)
        return True

    def _serves(self, namespace: NamespaceId, prefix: bytes | None) -> bool:
        """Whether the document, or its part below ``prefix``, is open here."""
        doc = self._docs._open.get(namespace)
        return doc is not None and doc._live is not None and holds(doc._live.prefix, prefix)


def _id(id: NamespaceId | str) -> NamespaceId:
    return NamespaceId.parse(id) if isinstance(id, str) else id
