"""What a node does for its peers with its blobs, and how much it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from ..transport.keys import EndpointId
from .hash import Hash

__all__ = ["Allow", "BlobSettings", "Kind", "RequestEvent", "State"]

DOWNLOADS = 32  # each holds up to 32 batches of half a MiB

Allow = Callable[[EndpointId, Hash], bool | Awaitable[bool]]
"""Whether the peer may have the blob, or where it is about pushing, may give it to us. An exception refuses it."""

Kind = Literal["get", "get_many", "observe", "push"]
State = Literal["started", "done", "broken", "refused"]


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """A peer's request, when it begins and when it ends.

    ``hash``: what it asks for, or of a hash sequence its root, or of several blobs the first. ``state``: "started", and
    later "done" or "broken", where it ended before its answer did; or "refused" alone. ``sent``: bytes so far.
    ``seconds``: since it came.
    """

    peer: EndpointId
    kind: Kind
    hash: Hash | None
    state: State
    sent: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSettings:
    """Given to `Node.open` as ``blob_settings``, or to `Blobs`. As it is, every peer that knows a hash may have the
    blob, none may push, and nothing but the disk bounds what is kept.
    """

    allow: Allow | None = None
    """Asked for each blob that a peer wants, those of a hash sequence one by one."""
    allow_push: Allow | None = None
    """Asked for each push, and for one of a hash sequence by its root; None: no peer may."""
    on_request: Callable[[RequestEvent], object] | None = None
    """Told of each request, on the event loop."""
    upload_rate: float | None = None
    """Bytes a second that one peer gets at most, over all its connections."""
    quota: int | None = None
    """Bytes that the blobs kept here may have in all; files that are referred to do not count."""
    downloads: int = DOWNLOADS
    """Fetches at a time; the others wait, those of higher ``priority`` before others."""

    def __post_init__(self) -> None:
        if self.downloads < 1:
            raise UsageError("downloads: at least one at a time")
        if self.upload_rate is not None and self.upload_rate <= 0:
            raise UsageError("upload_rate: bytes a second above 0, or None for no limit")
        if self.quota is not None and self.quota < 0:
            raise UsageError("quota: bytes, at least 0, or None for no limit")
