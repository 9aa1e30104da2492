"""Documents as a program uses them.

docs = Docs(endpoint, database, blobs, gossip)
router = Router(endpoint, {Docs.ALPN: docs.handle, ...})
doc = await docs.create()
await doc.set("greeting", b"hello")
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from random import Random, SystemRandom
from typing import ClassVar, Literal

from ..blobs import Blobs, Hash
from ..blobs.store import Write
from ..errors import NetworkError, PeerError
from ..gossip import Gossip
from ..storage import Database
from ..transport import BiStream, Connection, Endpoint, EndpointId
from .access import Access, AccessControl
from .batch import Batch, checked_hash
from .capability import Capability
from .doc_entry import Entry, pack_value
from .download import Downloads
from .entries import Entries
from .entry import EMPTY_HASH, SignedEntry
from .errors import BadKey, DocumentClosed, EmptyValue, SyncTimeout, SyncViolation
from .events import EventHub, EventStream, SyncFinished
from .keys import Author, AuthorId, NamespaceId, NamespaceSecret
from .live import LiveDocument
from .messages import AbortReason, Init
from .query import Query
from .sessions import MAX_DIALS, SessionContext
from .share_store import ShareStore
from .store import DocsStore, NewEntry
from .sync import ALPN, FrameReader, refuse
from .tickets import DocTicket
from .watch import WatchEvent, watch

__all__ = ["Doc", "Docs"]

logger = logging.getLogger(__name__)

INIT_TIMEOUT = 10.0  # seconds for a peer that connected to say which document it wants
LINGER = 5.0  # seconds for the dialler to close before we do


class Docs:
    """The documents of a node. Give `handle` to the router; close it before gossip and the database.

    A document is *live*, in the swarm and open to syncs, from `create`, `open` or `join` until `Doc.close`.
    """

    ALPN: ClassVar[bytes] = ALPN

    def __init__(
        self, endpoint: Endpoint, database: Database, blobs: Blobs, gossip: Gossip, *, access: Access | None = None
    ) -> None:
        rng = Random(SystemRandom().getrandbits(128))  # noqa: S311 - delays, not secrets
        self._endpoint = endpoint
        self._blobs = blobs
        self._gossip = gossip
        self._store = DocsStore(database)
        dials = asyncio.Semaphore(MAX_DIALS)
        self._access = AccessControl(ShareStore(database), endpoint.id, access)
        gossip.guard(self._access.admits)
        self._context = SessionContext(endpoint, self._store, FrameReader(self._store), rng, dials, self._access)
        self._downloads = Downloads(blobs, rng)
        self._open: dict[NamespaceId, Doc] = {}
        self._opening = asyncio.Lock()
        self._default_author: Author | None = None
        self._closed = False

    # Documents.

    async def create(self) -> Doc:
        """A new, empty document that this node may write and share."""
        self._check_open()
        secret = NamespaceSecret.generate()
        capability = Capability(secret.id, secret)
        await self._store.add_namespace(capability)
        return await self._go_live(capability.id, ())

    async def open(self, id: NamespaceId | str) -> Doc:
        """Make a document of this node live; the same `Doc` where it is already. Raises UnknownDocument."""
        return await self._go_live(_id(id), ())

    async def join(self, ticket: DocTicket | str, *, timeout: float = 30.0) -> Doc:
        """Get a document from those who have it; returns when the first sync is done.

        Raises InvalidTicket, and SyncTimeout after ``timeout`` seconds: the document is then kept and live, goes on
        looking for peers, and `open` gives it.
        """
        if isinstance(ticket, str):
            ticket = DocTicket.parse(ticket)
        await self._store.add_namespace(ticket.capability)
        for node in ticket.nodes:
            self._endpoint.lookup.add(node)
        peers = [node.id for node in ticket.nodes if node.id != self._endpoint.id]
        already = self._open.get(ticket.id)
        events = EventStream() if already is None else already.events()
        doc = await self._go_live(ticket.id, peers, events)
        doc._capability = await self._store.capability(ticket.id)
        if not peers:  # our own ticket: everything that it names is here
            return doc
        error = "no peer of the ticket answered"
        try:
            async with asyncio.timeout(timeout):
                async for event in events:
                    if isinstance(event, SyncFinished):
                        if event.error is None:
                            return doc
                        error = event.error
        except TimeoutError:
            pass
        finally:
            events.close()
        raise SyncTimeout(
            f"document {ticket.id.short()} was not synced within {timeout:g} s ({error}): check that a node of the "
            "ticket runs and can be reached. This node goes on trying"
        )

    async def list(self) -> AsyncIterator[Doc]:
        """Every document of this node, oldest first. Those that were not open are not made live by this."""
        for id in await self._store.namespaces():
            yield self._open.get(id) or Doc(self, await self._store.capability(id))

    async def drop(self, id: NamespaceId | str) -> None:
        """Forget a document and its keys here; others keep it. Contents stay with the blobs."""
        id = _id(id)
        async with self._opening:
            if (doc := self._open.pop(id, None)) is not None:
                await doc._stop()
            await self._store.drop(id)

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

    # Connections.

    async def handle(self, connection: Connection) -> None:
        """Serve one sync that a peer dialled; for the router."""
        try:
            async with asyncio.timeout(INIT_TIMEOUT):
                stream = await connection.accept_bi()
            init = await self._context.frames.read(stream)
            if not isinstance(init, Init):
                raise SyncViolation("the peer began a sync without saying of what", peer=connection.remote_id)
            await self._serve(connection.remote_id, stream, init)
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    await connection.wait_closed()
        except (NetworkError, PeerError, TimeoutError) as error:
            logger.info("%s: %s", connection.remote_id.short(), str(error) or "too slow")
        finally:
            connection.close(0, "sync ended")

    async def aclose(self) -> None:
        """Leave every document and end every task. Safe to call twice."""
        self._closed = True
        async with self._opening:
            docs, self._open = list(self._open.values()), {}
            await asyncio.gather(*(doc._stop() for doc in docs))
        await self._downloads.aclose()
        await self._store.aclose()

    async def _serve(self, peer: EndpointId, stream: BiStream, init: Init) -> None:
        doc = self._open.get(NamespaceId(init.namespace))
        if doc is None or doc._live is None:
            await refuse(self._store, stream, AbortReason.NOT_FOUND)
        else:
            await doc._live.accept(peer, stream, init)

    async def _go_live(self, id: NamespaceId, peers: Sequence[EndpointId], events: EventStream | None = None) -> Doc:
        async with self._opening:
            self._check_open()
            doc = self._open.get(id)
            if doc is not None:
                assert doc._live is not None
                await doc._live.join(peers)
                return doc
            doc = Doc(self, await self._store.capability(id))
            if events is not None:
                doc._events.add(events)
            doc._live = LiveDocument(self._context, self._gossip, self._downloads, id, doc._events)
            self._open[id] = doc  # before it starts: peers that hear of us may call at once
            try:
                await doc._live.start(peers)
            except BaseException:
                del self._open[id]
                await doc._stop()
                raise
            return doc

    def _check_open(self) -> None:
        if self._closed:
            raise DocumentClosed("the node was closed: open it again")

    async def _author(self, id: AuthorId | None) -> Author:
        if id is not None:
            return await self._store.author(id)
        if self._default_author is None:
            self._default_author = await self._store.default_author()
        return self._default_author


class Doc:
    """A replicated map from keys to contents, each entry with its author. Made by `Docs`.

    Keys are bytes, or text that is stored as UTF-8. Several authors can have entries at one key; `get` gives the
    newest. A write replaces what the same author has at *and below* its key: ``set("a")`` removes the older ``"a/b"``.
    """

    def __init__(self, docs: Docs, capability: Capability) -> None:
        self._docs = docs
        self._capability = capability
        self._events = EventHub()
        self._live: LiveDocument | None = None

    @property
    def id(self) -> NamespaceId:
        return self._capability.id

    @property
    def can_write(self) -> bool:
        return self._capability.can_write

    @property
    def is_live(self) -> bool:
        """Whether it takes part in the swarm: open, and not closed since."""
        return self._live is not None

    @property
    def neighbors(self) -> list[EndpointId]:
        """The peers that we exchange live changes with at this moment."""
        return sorted(self._live.neighbors) if self._live is not None else []

    async def set(self, key: str | bytes, value: bytes, *, author: AuthorId | None = None) -> Entry:
        """Store ``value`` at ``key``. When this returns, content and entry survive a crash.

        Raises EmptyValue, BadKey, ReadOnly, UnknownAuthor, ClockBehind.
        """
        return (await self._write(await self._stage(self._raw_key(key), value), author))[0]

    async def set_value(self, key: str | bytes, value: object, *, author: AuthorId | None = None) -> Entry:
        """Store a Python value as msgpack: None, bool, int, float, str, bytes, list, dict.

        Raises NotAValue, and what `set` raises.
        """
        return await self.set(key, pack_value(value), author=author)

    async def set_hash(
        self, key: str | bytes, hash: Hash | bytes, size: int, *, author: AuthorId | None = None
    ) -> Entry:
        """Point ``key`` at a content by its hash and its size in bytes; it need not be here. Raises as `set`."""
        return (await self._write(NewEntry(self._raw_key(key), checked_hash(hash, size), size), author))[0]

    async def delete(self, prefix: str | bytes, *, author: AuthorId | None = None) -> int:
        """Delete the author's entries whose keys start with ``prefix``, here and everywhere; how many there were.

        A tombstone stays, so that older copies cannot come back. Other authors' entries stay, too: only they can go.
        """
        return (await self._write(NewEntry(self._raw_key(prefix), EMPTY_HASH, 0), author))[1]

    def batch(self, *, author: AuthorId | None = None) -> Batch:
        """Many writes in one transaction and one burst of gossip: ``async with doc.batch() as batch: ...``.

        Leaving the block raises ReadOnly, UnknownAuthor, ClockBehind; nothing is written then.
        """
        return Batch(_BatchTarget(self, author))

    async def get(self, key: str | bytes, *, author: AuthorId | None = None) -> Entry | None:
        """The newest entry at ``key``, of any author or of ``author``; None where there is none or it was deleted."""
        found = await self._docs._store.get(self.id, self._raw_key(key), None if author is None else bytes(author))
        return None if found is None else self._entry(found)

    def entries(
        self,
        *,
        prefix: str | bytes | None = None,
        key: str | bytes | None = None,
        author: AuthorId | None = None,
        sort: Literal["key", "author"] = "key",
        descending: bool = False,
        newest: bool = False,
        limit: int | None = None,
        offset: int = 0,
        tombstones: bool = False,
    ) -> Entries:
        """The entries that fit, in any combination; see `query.Query`.

        ``newest``: one for each key, the newest of all authors. Raises BadKey, BadQuery.
        """
        query = Query(
            prefix=None if prefix is None else _key(prefix),
            key=None if key is None else _key(key),
            author=None if author is None else bytes(author),
            sort=sort,
            descending=descending,
            newest=newest,
            limit=limit,
            offset=offset,
            tombstones=tombstones,
        )
        return Entries(self._docs._store, self.id, query, self._entry)

    def watch(self, prefix: str | bytes = b"", *, since: int | None = None) -> AsyncGenerator[WatchEvent, None]:
        """The entries below ``prefix`` as they are (`Present`), `CaughtUp`, then what changes (`Changed`), with no gap.

        However slow its reader is, it loses nothing; what is superseded before it is read is left out. Entries at
        prefixes of ``prefix`` are told as well where they change, for they remove what is below. ``since``: the cursor
        of an earlier watch of this node, to go on behind it. Ends when the document is closed.
        """
        return watch(self._docs._store, self.id, _key(prefix), since, self._entry)

    def events(self) -> EventStream:
        """What happens from now on. Ends when the document is closed."""
        return self._events.subscribe()

    def ticket(self, *, write: bool = False) -> DocTicket:
        """How others join through this node; with ``write`` they may change the document. Raises ReadOnly."""
        capability = self._capability if write else self._capability.read_only()
        if write:
            self._capability.check_writable()
        return DocTicket(capability, (self._docs._endpoint.addr(),))

    async def close(self) -> None:
        """Leave the swarm and end the syncs and events. Everything stays here; `Docs.open` goes on."""
        async with self._docs._opening:
            if self._docs._open.get(self.id) is self:
                del self._docs._open[self.id]
            await self._stop()

    def _raw_key(self, key: str | bytes) -> bytes:
        return _key(key)

    async def _stage(self, key: bytes, value: bytes) -> NewEntry:
        """A write of ``value`` to be, whose content is stored with it."""
        if not value:
            raise EmptyValue("an empty value is how a deletion is written: store at least one byte, or delete the key")
        self._docs._check_open()
        self._capability.check_writable()
        blob, content = await self._docs._blobs.stage_bytes(value)
        return NewEntry(key, bytes(blob.hash), blob.size, content)

    async def _write(self, entry: NewEntry, author: AuthorId | None) -> tuple[Entry, int]:
        entries, removed = await self._write_all([entry], author)
        return entries[0], removed

    async def _write_all(self, entries: Sequence[NewEntry], author: AuthorId | None) -> tuple[list[Entry], int]:
        """What was written, and how many entries with content it replaced."""
        self._docs._check_open()
        writer = await self._docs._author(author)
        written = await self._docs._store.write_batch(self._capability, writer, entries)
        doc = self._docs._open.get(self.id)  # this handle may be one of `list`
        if doc is not None and doc._live is not None:
            for each in written:
                doc._live.inserted(each.entry)
        return [self._entry(each.entry) for each in written], sum(each.removed for each in written)

    def _entry(self, signed: SignedEntry) -> Entry:
        return Entry(signed, self._docs._downloads)

    async def _stop(self) -> None:
        live, self._live = self._live, None
        self._docs._store.changed.end(bytes(self.id))
        if live is not None:
            await live.aclose()

    def __repr__(self) -> str:
        return f"Doc({self.id.short()})"


class _BatchTarget:
    """A document for a `Batch`."""

    def __init__(self, doc: Doc, author: AuthorId | None) -> None:
        self._doc = doc
        self._author = author

    def raw_key(self, key: str | bytes) -> bytes:
        return self._doc._raw_key(key)

    async def stage(self, key: bytes, value: bytes) -> NewEntry:
        return await self._doc._stage(key, value)

    async def keep(self, contents: Sequence[Write]) -> None:
        await self._doc._docs._store.keep(contents)

    async def write_all(self, entries: Sequence[NewEntry]) -> tuple[list[Entry], int]:
        return await self._doc._write_all(entries, self._author)


def _id(id: NamespaceId | str) -> NamespaceId:
    return NamespaceId.parse(id) if isinstance(id, str) else id


def _key(key: str | bytes) -> bytes:
    if isinstance(key, str):
        try:
            return key.encode()
        except UnicodeEncodeError:
            raise BadKey(f"the key {key!r} is not whole text: give bytes that are no UTF-8 as bytes") from None
    if isinstance(key, bytes):
        return key
    raise BadKey(f"a key is text or bytes, not {type(key).__name__}")
