"""Answering requests: one task for each stream of each connection, bounded, with the encoder's pieces written as fast
as the peer takes them. Whatever is wrong with a request costs its stream and nothing more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import islice
from weakref import WeakValueDictionary

from ..errors import NetworkError, PeerError, StoreError
from ..transport.connection import Connection
from ..transport.errors import ConnectionClosed
from ..transport.keys import EndpointId
from ..transport.stream import BiStream, SendStream
from .bao import HEADER, encode
from .errors import NotFound
from .hash import HASH_SIZE, Hash
from .messages import MAX_REQUEST, GetManyRequest, GetRequest, ResetCode, decode_request
from .ranges import ChunkRanges
from .store import BlobStore

__all__ = ["Allow", "Provider"]

logger = logging.getLogger(__name__)

REQUESTS_OF_PEER = 32  # over all its connections; more streams wait unread until one is answered
REQUESTS = 256  # of all peers together; each holds a piece of 256 KiB and two file descriptors
REQUEST_TIMEOUT = 10.0  # seconds to send a request
WRITE_TIMEOUT = 60.0  # seconds to take a piece of 256 KiB
PAGE = 16  # small blobs read at a time: 256 KiB at most
CROWDED = 6  # while others wait, both are this many times shorter: a few slow peers must not keep everybody out

Allow = Callable[[EndpointId, Hash], bool]
"""Whether the peer may have the blob."""


class Provider:
    """Serves the blobs of ``store`` to whoever connects, or to whom ``allow`` lets."""

    def __init__(self, store: BlobStore, allow: Allow | None = None) -> None:
        self._store = store
        self._allow = allow
        self._free = asyncio.Semaphore(REQUESTS)
        self._free_of_peer: WeakValueDictionary[EndpointId, asyncio.Semaphore] = WeakValueDictionary()

    async def handle(self, connection: Connection) -> None:
        """Serve one connection until it ends."""
        free = self._free_of_peer.setdefault(connection.remote_id, asyncio.Semaphore(REQUESTS_OF_PEER))
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    stream = await connection.accept_bi()
                except ConnectionClosed:
                    return
                await free.acquire()
                task = tasks.create_task(self._answer(connection, stream))
                task.add_done_callback(lambda _: free.release())

    async def _answer(self, connection: Connection, stream: BiStream) -> None:
        peer = connection.remote_id
        try:
            async with self._free:
                async with asyncio.timeout(self._patience(REQUEST_TIMEOUT)):
                    request = decode_request(await stream.recv.read_to_end(MAX_REQUEST))
                hashes = request.hashes if isinstance(request, GetManyRequest) else (request.hash,)
                if self._allow is not None and not all(self._allow(peer, hash) for hash in hashes):
                    stream.send.reset(ResetCode.PERMISSION)
                    return
                if isinstance(request, GetManyRequest):
                    await self._send_many(request, stream.send)
                else:
                    await self._send_all(request, stream.send)
                await stream.send.finish()
        except (PeerError, NetworkError, TimeoutError, NotFound) as error:
            logger.debug("a blob request of %s ends: %s", peer.short(), error or "too slow")
            self._refuse(stream)
        except StoreError as error:
            logger.warning("a blob could not be served: %s", error)
            self._refuse(stream)
        except asyncio.CancelledError:
            self._refuse(stream)
            raise
        except Exception:
            logger.exception("a blob request of %s failed", peer.short())
            self._refuse(stream)

    def _patience(self, seconds: float) -> float:
        return seconds / CROWDED if self._free.locked() else seconds

    @staticmethod
    def _refuse(stream: BiStream) -> None:
        stream.recv.stop(ResetCode.INTERNAL)
        stream.send.reset(ResetCode.INTERNAL)

    async def _send_all(self, request: GetRequest, out: SendStream) -> None:
        """The root, then children as long as the sequence of hashes in the root has them."""
        async with await self._store.reader(request.hash) as root:
            for index, ranges in request.ranges.wanted():
                if index == 0:
                    await self._send(request.hash, ranges, out)
                    continue
                child = await root.read((index - 1) * HASH_SIZE, HASH_SIZE)
                if len(child) < HASH_SIZE:
                    return
                await self._send(Hash(child), ranges, out)

    async def _send_many(self, request: GetManyRequest, out: SendStream) -> None:
        """Up to the first that is not here: the end of the stream tells, where a reset might undo what was sent."""
        wanted = request.wanted()
        while page := list(islice(wanted, PAGE)):
            small = await self._store.small([hash for hash, ranges in page if ranges == ChunkRanges.ALL])
            ready: list[bytes] = []
            for hash, ranges in page:
                if ranges == ChunkRanges.ALL and (data := small.get(hash)) is not None:
                    ready += HEADER.pack(len(data)), data
                    continue
                await self._write(out, b"".join(ready))
                ready.clear()
                try:
                    await self._send(hash, ranges, out)
                except NotFound:
                    return
            await self._write(out, b"".join(ready))

    async def _write(self, out: SendStream, piece: bytes) -> None:
        async with asyncio.timeout(self._patience(WRITE_TIMEOUT)):
            await out.write(piece)

    async def _send(self, hash: Hash, ranges: ChunkRanges, out: SendStream) -> None:
        async with await self._store.reader(hash) as reader:
            pieces = encode(reader.info.size, ranges, reader.data_at, reader.outboard_at)
            while piece := next(pieces, b"") if reader.in_memory else await self._store.run(next, pieces, b""):
                await self._write(out, piece)
