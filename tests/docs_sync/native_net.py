"""Two nodes on loopback with a store and links each, and nothing above: what `Docs` would do is done here by hand."""

import asyncio
from contextlib import asynccontextmanager

from docs_model import AUTHORS, NAMESPACE
from tidings.docs_sync.access.control import AccessControl
from tidings.docs_sync.access.share_store import ShareStore
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.entry import Record, sign_entry
from tidings.docs_sync.model.messages import AbortReason
from tidings.docs_sync.model.native_messages import Refused, RefusedReason
from tidings.docs_sync.store.documents import DocsStore
from tidings.docs_sync.store.query import Query
from tidings.docs_sync.sync.exchange import write_answer
from tidings.docs_sync.sync.native import Links
from tidings.docs_sync.sync.session import ALPN as IROH_ALPN
from tidings.docs_sync.sync.session import FrameReader
from tidings.storage import Database
from tidings.transport import Endpoint, Router

ID = NAMESPACE.id
WRITER = Capability(ID, NAMESPACE)


def signed(key: bytes, timestamp: int, content: int = 1, author: int = 0):
    return sign_entry(NAMESPACE, AUTHORS[author], key, Record(1, bytes([content]) * 32, timestamp))


def run(first: int, count: int):
    return [signed(b"key/%05d" % n, n + 1) for n in range(first, first + count)]


class Peer:
    """A `native.Serve`."""

    def __init__(self, endpoint, store, hook=None) -> None:
        self.endpoint = endpoint
        self.store = store
        self.access = AccessControl(ShareStore(store._database), endpoint.id, hook)
        self.links = Links(endpoint, store, FrameReader(store), self.access, self)
        self.live = {ID}
        self.refuses: AbortReason | None = None
        self.stored = []
        self.served = []
        self.calls = 0
        self.router = None

    @property
    def id(self):
        return self.endpoint.id

    async def speak(self, *, native: bool, iroh: bool):
        if self.router is not None:
            await self.router.aclose()
        handlers = {Links.ALPN: self.links.handle} if native else {}
        self.router = Router(self.endpoint, handlers | ({IROH_ALPN: self.links.handle_iroh} if iroh else {}))

    def is_live(self, namespace):
        return namespace in self.live

    async def sync(self, call):
        self.calls += 1
        if call.namespace not in self.live:
            await call.refuse(AbortReason.NOT_FOUND)
        elif await call.admit():
            if self.refuses is not None:
                await call.refuse(self.refuses)
                return
            try:
                await call.accept(self.on_stored)
                self.served.append(call.tally)
            except Exception as error:
                self.served.append(error)

    async def follow(self, peer, request, stream):
        await write_answer(stream, Refused(RefusedReason.BUSY, "later"), last=True)

    async def on_stored(self, values, missing):
        self.stored += values

    async def sync_with(self, other, prefix=None):
        """Ours of the tallies."""
        session = await self.links.open_sync(other.id, ID, self.on_stored, prefix)
        try:
            async with asyncio.timeout(20):
                await session.dial()
        finally:
            await session.aclose()
        return session.tally

    async def keys(self):
        return {entry.id.key: entry.record async for entry in self.store.query(ID, Query())}

    def connections(self):
        return [kept for kept in self.links._connections._open if kept.closed is None]


@asynccontextmanager
async def peer(*, native: bool = True, hook=None, capability=WRITER):
    database = await Database.open(None)
    store = DocsStore(database)
    await store.add_namespace(capability)
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint:
        it = Peer(endpoint, store, hook)
        await it.speak(native=native, iroh=True)
        try:
            yield it
        finally:
            await it.links.aclose()
            await it.router.aclose()
    await store.aclose()
    await database.aclose()


@asynccontextmanager
async def pair(**options):
    """Two that know each other; ``options`` are the second one's."""
    async with peer() as a, peer(**options) as b:
        a.endpoint.lookup.add(b.endpoint.addr())
        b.endpoint.lookup.add(a.endpoint.addr())
        yield a, b


def by_id(a, b):
    """The one with the smaller id first."""
    return (a, b) if bytes(a.id) < bytes(b.id) else (b, a)


async def until(condition, timeout: float = 15.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)
