"""A peer that follows the reference's rules, known defects included (``reference/iroh-protocols.md`` 2.3, 2.5 to 2.7).

Its entries are a map in memory that outlives its restarts. What it does worse than we:

- its put rule does not see tombstones, nor what stands at the empty key: deletes do not hold (`docs_model.RustPeer`);
- it answers in one message whatever that holds, splits in two, and works out the difference before it puts;
- an entry from a sync is not checked for a size that its hash contradicts;
- refused with ALREADY_SYNCING it goes on believing that it syncs; where its id is the smaller it then refuses the
  peer's calls, too, until it is started again;
- heads are counted before validation, and no sync ever runs without a neighbour, a report or a start to cause it.

Contents it has of its own entries alone.
"""

import asyncio
from contextlib import suppress

from docs_model import RustPeer
from tidings.blobs import Blobs
from tidings.docs_sync.model.entry import EMPTY_HASH, Record, sign_entry
from tidings.docs_sync.model.messages import (
    Abort,
    AbortReason,
    Init,
    Put,
    Sync,
    SyncReport,
    decode_op,
    decode_sync,
    encode_op,
    encode_sync,
)
from tidings.docs_sync.model.reconcile import ContentStatus, RangeItems, Value
from tidings.docs_sync.model.validity import verify_all
from tidings.errors import TidingsError
from tidings.gossip import Gossip, NeighborUp, Received
from tidings.storage import Database
from tidings.transport import Router, frame, read_frame

ALPN = b"/iroh-sync/1"
MAX_FRAME = 1 << 30
MAX_OP = 4096


class RustStore(RustPeer):
    """What survives."""

    def __init__(self, namespace):
        super().__init__()
        self.store.namespace = bytes(namespace)
        self.store.walk = self._walk
        self.contents = {}  # of its own writing, by hash

    def put(self, entry):
        """Whether it is stored."""
        before = self.store.entries.get(bytes(entry.id))
        self._put(entry)
        return self.store.entries.get(bytes(entry.id)) is entry and before is not entry

    @property
    def heads(self):
        heads = {}
        for entry in self.store.entries.values():
            author = entry.id.author
            heads[author] = max(heads.get(author, 0), entry.record.timestamp)
        return heads

    def _walk(self, range_):
        for entry, _ in type(self.store).walk(self.store, range_):
            here = entry.record.hash == EMPTY_HASH or entry.record.hash in self.contents
            yield Value(entry, ContentStatus.COMPLETE if here else ContentStatus.MISSING)


class RustNode:
    """One run of the peer."""

    def __init__(self, endpoint, store, secret, author, clock, directory):
        self.endpoint = endpoint
        self.store = store
        self._secret = secret
        self._author = author
        self._clock = clock
        self._directory = directory
        self._running = {}  # peer: "connect" or "accept"
        self._resync = set()
        self._tasks = set()

    async def start(self, peers):
        self._database = await Database.open(None)
        self._blobs = Blobs(self.endpoint, self._database, self._directory)
        for content in self.store.contents.values():
            await self._blobs.add_bytes(content)
        self._gossip = Gossip(self.endpoint)
        handlers = {ALPN: self._handle, Gossip.ALPN: self._gossip.handle, Blobs.ALPN: self._blobs.handle}
        self._router = Router(self.endpoint, handlers)
        self._topic = await self._gossip.subscribe(bytes(self._secret.id), list(peers))
        self._spawn(self._receive())
        for addr in peers:
            self._connect(addr.id)

    async def aclose(self):
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._gossip.aclose()
        await self._router.aclose()
        await self._blobs.aclose()
        await self._database.aclose()
        await self.endpoint.aclose()

    async def write(self, key, content):
        """``content`` None deletes. The entry, or None where its own rule refuses it."""
        record = Record(0, EMPTY_HASH, self._clock())
        if content is not None:
            blob = await self._blobs.add_bytes(content)
            self.store.contents[bytes(blob.hash)] = content
            record = Record(blob.size, bytes(blob.hash), self._clock())
        entry = sign_entry(self._secret, self._author, key, record)
        if not self.store.put(entry):
            return None
        self._spawn(self._topic.broadcast(encode_op(Put(entry))))
        return entry

    def sync(self, peer):
        self._connect(peer)

    # The engine.

    async def _receive(self):
        async for event in self._topic:
            if isinstance(event, NeighborUp):
                self._connect(event.peer)
            elif isinstance(event, Received):
                match decode_op(event.content):
                    case Put(entry):
                        if verify_all([entry])[0]:
                            self.store.put(entry)
                    case SyncReport(_, heads):
                        ours = self.store.heads
                        if any(ours.get(author, -1) < timestamp for author, timestamp in heads.items()):
                            self._connect(event.delivered_from, resync=True)

    def _connect(self, peer, *, resync=False):
        if peer == self.endpoint.id:
            return
        if peer in self._running:
            if resync:
                self._resync.add(peer)
            return
        self._running[peer] = "connect"
        self._spawn(self._dial(peer))

    async def _dial(self, peer):
        connection, outcome = None, None
        try:
            connection = await self.endpoint.connect(peer, ALPN)
            stream = await connection.open_bi()
            await self._send(stream, Init(bytes(self._secret.id), self.store.start()))
            outcome = await self._alternate(stream)
            if outcome is AbortReason.ALREADY_SYNCING:
                return  # and our state stays as it is
            await self._close(stream)
        except TidingsError:
            outcome = None
        finally:
            if connection is not None:
                connection.close()
        self._finished(peer, outcome)

    async def _handle(self, connection):
        peer = connection.remote_id
        outcome = None
        try:
            stream = await connection.accept_bi()
            init = decode_sync(await read_frame(stream.recv, MAX_FRAME))
            running = self._running.get(peer)
            reason = None
            if init.namespace != bytes(self._secret.id):
                reason = AbortReason.NOT_FOUND
            elif running == "accept" or (running == "connect" and self.endpoint.id < peer):
                reason = AbortReason.ALREADY_SYNCING
            if reason is not None:
                await self._send(stream, Abort(reason))
                await self._close(stream)
                connection.close()
                return
            self._running[peer] = "accept"
        except TidingsError:
            connection.close()
            return
        try:
            outcome = await self._alternate(stream, init)
            await self._close(stream)
        except TidingsError:
            outcome = None
        finally:
            connection.close()
        self._finished(peer, outcome)

    async def _alternate(self, stream, message=None):
        """The heads that came, or why the peer refused."""
        heads = {}
        while True:
            if message is None:
                payload = await read_frame(stream.recv, MAX_FRAME)
                if payload is None:
                    return heads
                message = decode_sync(payload)
            if isinstance(message, Abort):
                return None if message.reason is not AbortReason.ALREADY_SYNCING else message.reason
            values = [value for part in message.message if isinstance(part, RangeItems) for value in part.values]
            for entry, _ in values:
                heads[entry.id.author] = max(heads.get(entry.id.author, 0), entry.record.timestamp)
            assert all(verify_all([value.entry for value in values])), "a peer sent a forged entry"
            reply = self.store.handle(message.message)
            if not reply:
                return heads
            await self._send(stream, Sync(reply))
            message = None

    def _finished(self, peer, heads):
        self._running.pop(peer, None)
        if heads:
            report = encode_op(SyncReport(bytes(self._secret.id), heads))
            if len(report) <= MAX_OP:
                self._spawn(self._topic.broadcast_neighbors(report))
        if peer in self._resync:
            self._resync.discard(peer)
            self._connect(peer)

    async def _send(self, stream, message):
        await stream.send.write(frame(encode_sync(message)))

    async def _close(self, stream):
        await stream.send.finish()
        await stream.send.stopped()
        await stream.recv.read_to_end(0)

    def _spawn(self, work):
        async def run():
            with suppress(TidingsError):
                await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
