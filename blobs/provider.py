"""Answering requests: one task for each stream of each connection, bounded, with the encoder's pieces written as fast
as the peer takes them. Whatever is wrong with a request costs its stream and nothing more.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from weakref import WeakValueDictionary

from ..errors import NetworkError, PeerError, StoreError
from ..transport.bucket import Bucket
from ..transport.connection import Connection
from ..transport.errors import ConnectionClosed
from ..transport.keys import EndpointId
from ..transport.stream import BiStream, SendStream
from .bao import HEADER, encode
from .errors import NotFound, QuotaExceeded
from .growing import GrowingBlobs
from .hash import HASH_SIZE, Hash
from .messages import (
    MAX_REQUEST,
    PUSH,
    GetManyRequest,
    GetRequest,
    ObserveRequest,
    PushRequest,
    Request,
    ResetCode,
    decode_request,
)
from .observe import encode_item, read_length
from .push import receive_push
from .ranges import ChunkRanges
from .settings import Allow, BlobSettings, Kind, RequestEvent, State
from .store import BlobStore

__all__ = ["Provider", "Served"]

logger = logging.getLogger(__name__)

REQUESTS_OF_PEER = 32  # over all its connections; more streams wait unread until one is answered
REQUESTS = 256  # of all peers together; each holds a piece of 256 KiB and two file descriptors
OBSERVERS = 512  # of all peers together
OBSERVE_INTERVAL = 0.1  # seconds between two items for one observer
REQUEST_TIMEOUT = 10.0  # seconds to send a request
WRITE_TIMEOUT = 60.0  # seconds to take a piece of 256 KiB
SPAN = 2048  # hashes of a sequence read at a time at most
PAGE = 16  # small blobs read at a time: 256 KiB at most
CROWDED = 6  # while others wait, both are this many times shorter: a few slow peers must not keep everybody out
_KINDS: dict[type[Request], Kind] = {
    GetRequest: "get",
    GetManyRequest: "get_many",
    ObserveRequest: "observe",
    PushRequest: "push",
}


@dataclass(slots=True)
class Served:
    """What was asked of this node, and what it sent."""

    requests: int = 0
    refused: int = 0
    broken: int = 0
    """Requests that ended before their answer did."""
    bytes_sent: int = 0
    blobs_pushed: int = 0
    active: int = 0


class Provider:
    """Serves the blobs of ``store`` to whoever connects, as far as the settings let it."""

    def __init__(self, store: BlobStore, growing: GrowingBlobs, settings: BlobSettings) -> None:
        self.served = Served()
        self._store = store
        self._growing = growing
        self._settings = settings
        self._limits: WeakValueDictionary[EndpointId, _Limit] = WeakValueDictionary()
        self._observers = asyncio.Semaphore(OBSERVERS)
        self._free = asyncio.Semaphore(REQUESTS)
        self._free_of_peer: WeakValueDictionary[EndpointId, asyncio.Semaphore] = WeakValueDictionary()

    async def handle(self, connection: Connection) -> None:
        """Serve one connection until it ends."""
        free = self._free_of_peer.setdefault(connection.remote_id, asyncio.Semaphore(REQUESTS_OF_PEER))
        limit = None
        if self._settings.upload_rate is not None:
            limit = self._limits.setdefault(connection.remote_id, _Limit(self._settings.upload_rate))
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    stream = await connection.accept_bi()
                except ConnectionClosed:
                    return
                await free.acquire()
                task = tasks.create_task(self._answer(connection, stream, limit))
                task.add_done_callback(lambda _: free.release())

    async def _answer(self, connection: Connection, stream: BiStream, limit: _Limit | None) -> None:
        peer = connection.remote_id
        self.served.requests += 1
        self.served.active += 1
        log = _Log(peer, self._settings.on_request)
        out = _Out(self, peer, stream.send, limit)
        try:
            async with asyncio.timeout(self.patience(REQUEST_TIMEOUT)):
                request = await _read_request(stream)
            if not await self._may(peer, request):
                self.served.refused += 1
                log.tell(request, "refused")
                stream.recv.stop(ResetCode.PERMISSION)
                stream.send.reset(ResetCode.PERMISSION)
                return
            log.tell(request, "started")
            if isinstance(request, ObserveRequest):
                await self._tell(request.hash, stream)
                log.tell(request, "done")
                return
            async with self._free:
                match request:
                    case GetManyRequest():
                        await self._send_many(request, out)
                    case GetRequest():
                        await self._send_all(request, out)
                    case PushRequest():
                        self.served.blobs_pushed += await receive_push(
                            self._store, self._growing, request, stream.recv, peer
                        )
                await stream.send.finish()
            log.tell(request, "done", out.sent)
        except (PeerError, NetworkError, TimeoutError, NotFound) as error:
            logger.debug("a blob request of %s ends: %s", peer.short(), error or "too slow")
            self._refuse(stream)
        except QuotaExceeded as error:
            logger.warning("a blob that peer %s gives is not taken: %s", peer.short(), error)
            self._refuse(stream, ResetCode.LIMIT)
        except StoreError as error:
            logger.warning("a blob could not be served: %s", error)
            self._refuse(stream)
        except asyncio.CancelledError:
            self._refuse(stream)
            raise
        except Exception:
            logger.exception("a blob request of %s failed", peer.short())
            self._refuse(stream)
        finally:
            self.served.active -= 1
            log.end(out.sent)

    async def _may(self, peer: EndpointId, request: Request) -> bool:
        if isinstance(request, PushRequest):
            return self._settings.allow_push is not None and await _ask(self._settings.allow_push, peer, request.hash)
        hashes = request.hashes if isinstance(request, GetManyRequest) else (request.hash,)
        for hash in hashes:
            if not await self._may_read(peer, hash):
                return False
        return True

    async def _may_read(self, peer: EndpointId, hash: Hash) -> bool:
        return self._settings.allow is None or await _ask(self._settings.allow, peer, hash)

    async def _tell(self, hash: Hash, stream: BiStream) -> None:
        """Answer Observe until the peer stops it."""
        if self._observers.locked():
            self.served.refused += 1
            stream.send.reset(ResetCode.LIMIT)
            return
        async with self._observers:
            telling = asyncio.create_task(self._tell_changes(hash, stream.send), name=f"observed: {hash.short()}")
            stopped = asyncio.create_task(stream.send.stopped(), name=f"observer of {hash.short()}")
            try:
                await asyncio.wait([telling, stopped], return_when=asyncio.FIRST_EXCEPTION)
                for task in (telling, stopped):
                    if task.done():
                        task.result()
            finally:
                for task in (telling, stopped):
                    task.cancel()
                await asyncio.gather(telling, stopped, return_exceptions=True)
                stream.send.reset(ResetCode.INTERNAL)

    async def _tell_changes(self, hash: Hash, out: SendStream) -> None:
        told = ChunkRanges.NONE
        async with aclosing(self._growing.watch(hash)) as states:
            async for size, have in states:
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await out.write(encode_item(size, have ^ told))
                told = have
                await asyncio.sleep(OBSERVE_INTERVAL)
        await asyncio.Event().wait()  # nothing will change any more; the peer ends it

    def patience(self, seconds: float) -> float:
        return seconds / CROWDED if self._free.locked() else seconds

    def _refuse(self, stream: BiStream, code: ResetCode = ResetCode.INTERNAL) -> None:
        self.served.broken += 1
        stream.recv.stop(code)
        stream.send.reset(code)

    async def _send_all(self, request: GetRequest, out: _Out) -> None:
        """The root, then children as long as the sequence of hashes in the root has them."""
        if request.ranges.is_blob:
            await self._send(request.hash, request.ranges.items[0][1], out)
            return
        async with await self._store.reader(request.hash) as root:
            wanted = request.ranges.wanted()
            while page := list(islice(wanted, PAGE)):
                first, last = max(page[0][0] - 1, 0), page[-1][0]
                together = last - first <= SPAN
                hashes = await root.read(first * HASH_SIZE, (last - first) * HASH_SIZE) if together else b""
                blobs: list[tuple[Hash, ChunkRanges]] = []
                for index, ranges in page:
                    if index == 0:
                        blobs.append((request.hash, ranges))
                        continue
                    at = (index - 1 - first) * HASH_SIZE
                    child = hashes[at : at + HASH_SIZE] if together else await root.read(at, HASH_SIZE)
                    if len(child) < HASH_SIZE or not await self._may_read(out.peer, Hash(child)):
                        break
                    blobs.append((Hash(child), ranges))
                if not await self._send_page(blobs, out) or len(blobs) < len(page):
                    return

    async def _send_many(self, request: GetManyRequest, out: _Out) -> None:
        """Up to the first that is not here: the end of the stream tells, where a reset might undo what was sent."""
        wanted = request.wanted()
        while page := list(islice(wanted, PAGE)):
            if not await self._send_page(page, out):
                return

    async def _send_page(self, page: list[tuple[Hash, ChunkRanges]], out: _Out) -> bool:
        """False: the rest is not here."""
        small = await self._store.small([hash for hash, ranges in page if ranges == ChunkRanges.ALL])
        ready: list[bytes] = []
        for hash, ranges in page:
            if ranges == ChunkRanges.ALL and (data := small.get(hash)) is not None:
                ready += HEADER.pack(len(data)), data
                continue
            await out.write(b"".join(ready))
            ready.clear()
            try:
                await self._send(hash, ranges, out)
            except NotFound:
                return False
        await out.write(b"".join(ready))
        return True

    async def _send(self, hash: Hash, ranges: ChunkRanges, out: _Out) -> None:
        """All of it, or of a partial blob what comes before the first part that is not here; then `NotFound`."""
        try:
            reader = await self._store.reader(hash)
        except NotFound:
            async with self._growing.open(hash) as growing:
                files = growing.files
                await self._read_ahead(encode(growing.size, ranges, growing.data_at, files.outboard_at), out)
                return
        async with reader:
            pieces = encode(reader.info.size, ranges, reader.data_at, reader.outboard_at)
            if not reader.in_memory:
                await self._read_ahead(pieces, out)
                return
            for piece in pieces:
                await out.write(piece)

    async def _read_ahead(self, pieces: Iterator[bytes], out: _Out) -> None:
        """Write them all; while one is on its way, read the next from the disk."""
        reading = asyncio.create_task(self._store.run(next, pieces, b""))
        try:
            while piece := await reading:
                reading = asyncio.create_task(self._store.run(next, pieces, b""))
                await out.write(piece)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class _Limit:
    """What one peer may have, over all its connections."""

    def __init__(self, rate: float) -> None:
        self.bucket = Bucket(rate, rate / 4, asyncio.get_running_loop().time())


class _Out:
    """A stream that counts, and waits for the peer to take what is written, but not for ever."""

    def __init__(self, provider: Provider, peer: EndpointId, stream: SendStream, limit: _Limit | None) -> None:
        self.peer = peer
        self._provider = provider
        self._stream = stream
        self._limit = limit
        self.sent = 0

    async def write(self, piece: bytes) -> None:
        if self._limit is not None:
            await asyncio.sleep(self._limit.bucket.take(len(piece), asyncio.get_running_loop().time()))
        async with asyncio.timeout(self._provider.patience(WRITE_TIMEOUT)):
            await self._stream.write(piece)
        self.sent += len(piece)
        self._provider.served.bytes_sent += len(piece)


class _Log:
    """Tells ``on_request`` of one request: its begin, and its end however it comes."""

    def __init__(self, peer: EndpointId, on_request: Callable[[RequestEvent], object] | None) -> None:
        self._peer = peer
        self._on_request = on_request
        self._begun = asyncio.get_running_loop().time()
        self._open: Request | None = None

    def tell(self, request: Request, state: State, sent: int = 0) -> None:
        self._open = request if state == "started" else None
        if self._on_request is None:
            return
        hash = next(iter(request.hashes), None) if isinstance(request, GetManyRequest) else request.hash
        seconds = asyncio.get_running_loop().time() - self._begun
        try:
            self._on_request(RequestEvent(self._peer, _KINDS[type(request)], hash, state, sent, seconds))
        except Exception:
            logger.exception("on_request of the blob settings failed")

    def end(self, sent: int) -> None:
        """Whatever has not ended well."""
        if self._open is not None:
            self.tell(self._open, "broken", sent)


async def _ask(allow: Allow, peer: EndpointId, hash: Hash) -> bool:
    answer = allow(peer, hash)
    if inspect.isawaitable(answer):
        async with asyncio.timeout(REQUEST_TIMEOUT):
            answer = await answer
    return bool(answer)


async def _read_request(stream: BiStream) -> Request:
    """Of Push what stands before the data."""
    first = await stream.recv.read(1)
    if first != bytes((PUSH,)):
        return decode_request(first + await stream.recv.read_to_end(MAX_REQUEST))
    return PushRequest.decode(await stream.recv.read_exactly(await read_length(stream.recv, MAX_REQUEST)))
