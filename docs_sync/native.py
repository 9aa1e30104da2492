"""``tidings/docs/1``: everything between two tidings peers over one kept connection (``docs/protocol.md``).

A dial offers this protocol and ``/iroh-sync/1`` in one handshake, so a Rust peer costs nothing extra: it takes its own,
and gets a connection for each sync, as it expects. Between tidings peers a connection is kept while it is used; each
request is a stream of its own, which the dialler and the acceptor of the connection may both open.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from typing import ClassVar, Protocol

from ..transport import BiStream, Connection, Endpoint, EndpointId
from .access import AccessControl
from .keys import NamespaceId
from .messages import AbortReason
from .native_messages import Digest, FollowRequest, News, SyncAgain
from .reconcile import Tally, Value
from .store import DocsStore
from .sync import FrameReader

__all__ = ["DialledSync", "IncomingSync", "Links", "OnStored", "Serve"]

ALPN = b"tidings/docs/1"

OnStored = Callable[[Sequence[Value], Set[bytes]], Awaitable[None]]
"""What a message brought, once it is durable, and the hashes of its contents that are not here."""


class DialledSync(Protocol):
    """A sync that we dialled: `dial` it once, then `aclose` it whatever happened."""

    @property
    def tally(self) -> Tally: ...

    async def dial(self) -> None:
        """The whole sync. Raises SyncRefused (``reason`` is an `AbortReason`), NotAllowed, SyncViolation, DecodeError,
        TimeoutError, and what streams raise."""

    async def aclose(self) -> None:
        """Let go of the stream, or of the connection where the peer speaks iroh only; lingers half a second there."""


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
        """Whether the peer may read. Where not, it has been told so, and nothing of the document was."""

    async def refuse(self, reason: AbortReason) -> None: ...

    async def accept(self, on_stored: OnStored) -> None:
        """The whole sync. Raises as `DialledSync.dial`; the stream is then reset already."""


class Serve(Protocol):
    """What `Links` asks of the documents of a node."""

    def is_live(self, namespace: NamespaceId) -> bool:
        """Whether the document is open: only then a digest is answered."""

    async def sync(self, call: IncomingSync) -> None:
        """Serve it or refuse it (`AbortReason.NOT_FOUND` where the document is not open)."""

    async def follow(self, peer: EndpointId, request: FollowRequest, stream: BiStream) -> None:
        """Ask `AccessControl.allows`, answer with `write_answer`, then send news with `write_news`."""


class Links:
    """The connections of a node's documents. Close it before the endpoint."""

    ALPN: ClassVar[bytes] = ALPN

    def __init__(
        self, endpoint: Endpoint, store: DocsStore, frames: FrameReader, access: AccessControl, serve: Serve
    ) -> None: ...

    async def open_sync(
        self, peer: EndpointId, namespace: NamespaceId, on_stored: OnStored, prefix: bytes | None = None
    ) -> DialledSync:
        """Connected and ready to `DialledSync.dial`, for the document or the part below ``prefix``.

        Raises NotAllowed (before anybody is dialled where that is known), DialError, TimeoutError.
        """
        raise NotImplementedError

    async def digest(self, peer: EndpointId, digests: Sequence[Digest]) -> set[bytes] | None:
        """The namespaces that differ at the peer; None: it speaks iroh only, or cannot be reached. Any number."""
        raise NotImplementedError

    def follow(self, peer: EndpointId, namespace: NamespaceId, prefix: bytes) -> AsyncIterator[News | SyncAgain]:
        """What the peer stores below the prefix from now on. Raises SyncRefused, and what dials and streams raise."""
        raise NotImplementedError

    async def handle(self, connection: Connection) -> None:
        """Serve the requests of a peer that dialled; for the router."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close every connection and end every stream."""


async def write_answer(stream: BiStream, answer: object) -> None:
    raise NotImplementedError
