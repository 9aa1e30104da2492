"""``tidings/docs/1``: all that two tidings peers say about documents, over one kept connection (``docs/protocol.md``).

Each request is a stream of its own, which either side of a connection opens: a sync, a digest of many documents, or to
follow what is stored below a prefix. `connections` says how long a connection lives and what happens to a peer that
speaks ``/iroh-sync/1`` alone, which `Links` serves and dials as well.

A peer that sends what is no request costs its connection; one whose sync goes wrong, that stream. It has at most
`MAX_STREAMS` of ours at work; further ones wait, and QUIC holds those back that it opens beyond that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import ClassVar, Protocol

from ...errors import TidingsError
from ...transport import BiStream, Connection, Endpoint, EndpointId, frame
from ...transport.errors import ConnectionClosed, DecodeError
from ...transport.framing import read_frame
from ..access.control import AccessControl
from ..errors import NotAllowed, SyncRefused, SyncViolation
from ..model.keys import NamespaceId
from ..model.messages import AbortReason
from ..model.native_messages import (
    MAX_DIGESTS,
    MAX_NEWS_FRAME,
    Accepted,
    Differ,
    Digest,
    DigestRequest,
    FollowRequest,
    News,
    Refused,
    RefusedReason,
    SyncAgain,
    SyncRequest,
    TellRequest,
    decode_news,
    encode_request,
)
from ..model.reconcile import Value
from ..store.documents import DocsStore
from ..tasks import Tasks
from .calls import DialledSync, IncomingSync, IrohDialled, IrohIncoming, NativeDialled, NativeIncoming, Parts, refusal
from .connections import ALPN, Connections, Use
from .exchange import ask, give_up, read_request, write_answer
from .session import FrameReader, OnStored, Pace

__all__ = ["DialledSync", "IncomingSync", "Links", "OnStored", "Serve"]

logger = logging.getLogger(__name__)

MAX_STREAMS = 512  # of one connection that are served at once: 256 of them may follow documents for long
INIT_TIMEOUT = 10.0  # seconds for a peer that connected to say which document it wants
LINGER = 5.0  # seconds for the dialler of iroh's to close before we do
NEWS_TIMEOUT = 60.0  # seconds without a frame from a provider, which sends one every 25, empty if need be
BAD_REQUEST = 1  # application close code


class Serve(Protocol):
    """What `Links` asks of the documents of a node."""

    def is_live(self, namespace: NamespaceId) -> bool:
        """Whether the document is open here: only then a digest of it is answered."""

    async def sync(self, call: IncomingSync) -> None:
        """Serve it or refuse it (`AbortReason.NOT_FOUND` where the document is not open)."""

    async def follow(self, peer: EndpointId, request: FollowRequest, stream: BiStream) -> None:
        """Ask whether the peer may read, answer, and send news until one of both has enough."""

    async def tell(self, peer: EndpointId, request: TellRequest) -> bool:
        """Take what a partial replica wrote; False where the document is not here, or nothing is taken from it."""


class Links:
    """The connections of a node's documents. Close it before the endpoint."""

    ALPN: ClassVar[bytes] = ALPN

    def __init__(
        self, endpoint: Endpoint, store: DocsStore, frames: FrameReader, access: AccessControl, serve: Serve
    ) -> None:
        self._parts = Parts(store, frames, access)
        self._serve = serve
        self._connections = Connections(endpoint, self._start_serving)
        self._tasks = Tasks()

    async def open_sync(
        self, peer: EndpointId, namespace: NamespaceId, on_stored: OnStored, prefix: bytes | None = None
    ) -> DialledSync:
        """Connected and ready to `DialledSync.dial`, for the document or the part below ``prefix``.

        Raises NotAllowed (before anybody is dialled where that is known), DialError, TimeoutError.
        """
        access = self._parts.access
        restricted = await access.is_restricted(namespace)
        if not restricted and not await access.allows(peer, namespace, "read"):
            raise NotAllowed("the peer may not read this document: it is not dialled", peer=peer)
        use, _ = await self._connections.use(peer)
        if use.kept:
            use.release()  # kept a while longer than it takes to begin
            rtt = use.connection.rtt
            return NativeDialled(
                self._parts, peer, namespace, prefix, self._connections, on_stored, rtt, restricted=restricted
            )
        if prefix is not None:
            use.release()
            raise SyncRefused("the peer speaks iroh's protocol only, which knows no parts", AbortReason.NOT_FOUND)
        return IrohDialled(self._parts, peer, namespace, use, on_stored)

    async def digest(self, peer: EndpointId, digests: Sequence[Digest]) -> set[bytes] | None:
        """The namespaces that differ at the peer; None: it speaks iroh only. Any number; those it may not read are not
        asked about. Raises what dials and streams raise, DecodeError, SyncViolation, TimeoutError."""
        if self._connections.speaks_iroh_only(peer):
            return None
        access, differ = self._parts.access, set[bytes]()
        readable = [
            each._replace(fingerprint=await access.marked(NamespaceId(each.namespace), each.fingerprint))
            for each in digests
            if await access.allows(peer, NamespaceId(each.namespace), "read")
        ]
        for start in range(0, len(readable), MAX_DIGESTS):
            some = readable[start : start + MAX_DIGESTS]
            asked = await ask(self._connections, peer, frame(encode_request(DigestRequest(some))))
            if asked is None:
                return None
            use, stream, answer = asked
            give_up(stream)
            use.release()
            if not isinstance(answer, Differ) or any(position >= len(some) for position in answer.positions):
                raise SyncViolation("the answer to a digest is none", peer=peer)
            differ.update(some[position].namespace for position in answer.positions)
        return differ

    async def follow(
        self, peer: EndpointId, namespace: NamespaceId, prefix: bytes
    ) -> AsyncGenerator[News | SyncAgain, None]:
        """What the peer stores below the prefix from now on, beginning with `SyncAgain`. Close the generator.

        Raises NotAllowed (before anybody is dialled where that is known), SyncRefused, DecodeError, TimeoutError, and
        what dials and streams raise.
        """
        access = self._parts.access
        if not await access.is_restricted(namespace) and not await access.allows(peer, namespace, "read"):
            raise NotAllowed("the peer may not read this document: it is not dialled", peer=peer)
        share = await access.presentation(namespace)
        asked = await ask(
            self._connections, peer, frame(encode_request(FollowRequest(bytes(namespace), prefix, share)))
        )
        if asked is None:
            raise SyncRefused("the peer speaks iroh's protocol only, which knows no parts", AbortReason.NOT_FOUND)
        use, stream, answer = asked
        try:
            if isinstance(answer, Refused):
                raise refusal(namespace, answer)
            if not isinstance(answer, Accepted):
                raise SyncViolation("the answer to a request to follow is none", peer=peer)
            while True:
                async with asyncio.timeout(NEWS_TIMEOUT):
                    payload = await read_frame(stream.recv, MAX_NEWS_FRAME)
                if payload is None:
                    return
                yield decode_news(payload)
        finally:
            give_up(stream)
            use.release()

    async def tell(self, peer: EndpointId, namespace: NamespaceId, values: Sequence[Value]) -> None:
        """Bring the peer what was written here: at most `MAX_NEWS` entries of `MAX_TOLD` bytes.

        Raises NotAllowed, SyncRefused, SyncViolation, DecodeError, TimeoutError, and what dials and streams raise.
        """
        if not await self._parts.access.allows(peer, namespace, "read"):
            raise NotAllowed("the peer may not read this document: nothing of it is sent", peer=peer)
        share = await self._parts.access.presentation(namespace)
        asked = await ask(self._connections, peer, frame(encode_request(TellRequest(bytes(namespace), values, share))))
        if asked is None:
            raise SyncRefused("the peer speaks iroh's protocol only, which knows no parts", AbortReason.NOT_FOUND)
        use, stream, answer = asked
        give_up(stream)
        use.release()
        if isinstance(answer, Refused):
            raise refusal(namespace, answer)
        if not isinstance(answer, Accepted):
            raise SyncViolation("the answer to a request to take entries is none", peer=peer)

    async def handle(self, connection: Connection) -> None:
        """Serve the requests of a peer that dialled; for the router."""
        if self._connections.admit(connection):
            await self._serve_all(connection)

    async def handle_iroh(self, connection: Connection) -> None:
        """Serve the one sync that a peer dialled with iroh's protocol; for the router."""
        peer, pace = connection.remote_id, Pace()
        try:
            async with asyncio.timeout(INIT_TIMEOUT):
                stream = await connection.accept_bi()
                init = await self._parts.frames.read_init(stream, pace)
            await self._serve.sync(IrohIncoming(self._parts, peer, stream, connection.rtt, init, pace))
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    await connection.wait_closed()
        except (TidingsError, TimeoutError) as error:
            logger.info("%s: %s", peer.short(), str(error) or "too slow")
        finally:
            connection.close(0, "sync ended")

    async def aclose(self) -> None:
        """Close every connection and end every stream."""
        await self._connections.aclose()
        await self._tasks.aclose()

    def _start_serving(self, connection: Connection) -> None:
        self._tasks.start(self._serve_all(connection), f"requests of {connection.remote_id.short()}")

    async def _serve_all(self, connection: Connection) -> None:
        """Until the connection ends."""
        room = asyncio.Semaphore(MAX_STREAMS)
        try:
            while True:
                await room.acquire()
                stream = await connection.accept_bi()
                if self._tasks.closed:
                    return
                if (use := self._connections.serving(connection)) is None:
                    return  # it was lost meanwhile
                self._tasks.start(self._serve_stream(connection, stream, room, use), "a request")
        except ConnectionClosed as closed:
            logger.debug("%r: %s", connection, closed)
        finally:
            self._connections.forget(connection)

    async def _serve_stream(self, connection: Connection, stream: BiStream, room: asyncio.Semaphore, use: Use) -> None:
        try:
            try:
                request = await read_request(stream)
            except DecodeError as error:
                logger.info("no request of %s: %s", connection.remote_id.short(), error)
                connection.close(BAD_REQUEST, "no request")
                return
            await self._answer(connection, stream, request)
        except (TidingsError, TimeoutError) as error:
            logger.info("a request of %s: %s", connection.remote_id.short(), str(error) or "too slow")
            give_up(stream)
        except BaseException:
            give_up(stream)
            raise
        finally:
            use.release()
            room.release()

    async def _answer(
        self,
        connection: Connection,
        stream: BiStream,
        request: SyncRequest | DigestRequest | FollowRequest | TellRequest,
    ) -> None:
        peer = connection.remote_id
        match request:
            case SyncRequest():
                await self._serve.sync(NativeIncoming(self._parts, peer, request, stream, connection.rtt))
            case DigestRequest(digests):
                await write_answer(stream, Differ(await self._compare(peer, digests)), last=True)
            case FollowRequest():
                await self._serve.follow(peer, request, stream)
            case TellRequest():
                reason = RefusedReason.NOT_FOUND
                taken = await self._serve.tell(peer, request)
                await write_answer(stream, Accepted() if taken else Refused(reason, reason.value), last=True)

    async def _compare(self, peer: EndpointId, digests: Sequence[Digest]) -> list[int]:
        """Where they differ here. Equal ones are left out like those that the peer may not read, so access is asked
        for few."""
        live = [place for place, each in enumerate(digests) if self._serve.is_live(NamespaceId(each.namespace))]
        ours = await self._parts.store.summaries([NamespaceId(digests[place].namespace) for place in live])
        differ: list[int] = []
        for place in live:
            theirs, id = digests[place], NamespaceId(digests[place].namespace)
            mine = ours.get(id)
            equal = (
                mine is not None
                and mine.size == theirs.size
                and await self._parts.access.marked(id, mine.fingerprint) == theirs.fingerprint
            )
            if not equal and await self._parts.access.allows(peer, id, "read"):
                differ.append(place)
        return differ
