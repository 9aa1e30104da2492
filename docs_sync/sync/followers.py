"""Those who follow documents of this node: they are told what is stored, as it is stored.

Each followed document has a *feed*, one task that reads what arrived in the store, whoever wrote it, this process or
another one, and puts it into the queue of each follower (`follow.FollowQueue`). A slow follower costs its own queue and
nothing else: its stream takes what its peer reads, and what does not fit becomes one `SyncAgain`.

Whether a follower may still read is asked again every `RECHECK` seconds. Who hears nothing for long gets an empty
frame, to tell silence from a provider that is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ...errors import TidingsError
from ...storage import DatabaseClosed
from ...transport import BiStream, EndpointId, frame
from ..access import control as access_rules
from ..access.control import AccessControl
from ..model.keys import NamespaceId
from ..model.native_messages import (
    Accepted,
    FollowRequest,
    News,
    Refused,
    RefusedReason,
    encode_news,
)
from ..store.documents import DocsStore
from ..tasks import Tasks
from .exchange import write_answer
from .follow import FollowQueue

__all__ = ["Followers", "refuse_follower"]

logger = logging.getLogger(__name__)

MAX_FOLLOWERS = 1024  # of a node; idle ones cost a task and some kB each
MAX_OF_PEER = 256  # of those one peer's, so that it does not take the room of all
PAGE = 256  # arrivals read at once
MAX_CONTENTS = 4096  # contents that wait for the feed; who misses one asks for it by and by
LOOK_AGAIN = 30.0  # seconds between two looks into the store unasked: there may be a thousand feeds
QUIET = 25.0  # seconds without news until an empty frame says that we are there; who follows waits for 60
WRITE_TIMEOUT = 60.0  # seconds for the follower to take a frame


@dataclass(slots=True, eq=False)
class _Follower:
    queue: FollowQueue
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False

    def end(self) -> None:
        self.over = True
        self.wake.set()


@dataclass(slots=True, eq=False)
class _Feed:
    followers: set[_Follower] = field(default_factory=set)
    contents: dict[bytes, None] = field(default_factory=dict)
    started: asyncio.Event = field(default_factory=asyncio.Event)


class Followers:
    """Of all documents of a node. Close it before the store."""

    def __init__(self, store: DocsStore, access: AccessControl) -> None:
        self._store = store
        self._access = access
        self._feeds: dict[NamespaceId, _Feed] = {}
        self._known: dict[tuple[EndpointId, NamespaceId, bytes], _Follower] = {}
        self._tasks = Tasks()

    async def serve(
        self, peer: EndpointId, request: FollowRequest, stream: BiStream, is_open: Callable[[], bool]
    ) -> None:
        """Answer a request to follow, then feed the follower until one of both has enough, or the document is closed.

        ``is_open``: whether the document is open here. Raises what streams raise, and TimeoutError.
        """
        namespace = NamespaceId(request.namespace)
        if not await self._access.allows(peer, namespace, "read", request.share):
            await refuse_follower(stream, RefusedReason.NOT_FOUND)
            return
        key = (peer, namespace, request.prefix)
        if (old := self._known.pop(key, None)) is not None:  # the peer has given that one up, or it would not ask
            old.end()
        if self._tasks.closed or not self._has_room(peer):
            await refuse_follower(stream, RefusedReason.BUSY)
            return
        follower = self._known[key] = _Follower(FollowQueue(request.prefix))
        leaving = self._tasks.start(_end_with(stream, follower), f"follower {peer.short()} of {namespace.short()}")
        feed = self._join(namespace, follower)
        try:
            await feed.started.wait()  # else what is stored between the first sync and the feed's start were lost
            if not is_open():  # closed before the feed waited, which has not heard of it
                await refuse_follower(stream, RefusedReason.NOT_FOUND)
                return
            await write_answer(stream, Accepted())
            await self._send(peer, namespace, follower, stream)
            await stream.send.finish()
            stream.recv.stop(0)
        finally:
            leaving.cancel()
            feed.followers.discard(follower)
            if self._known.get(key) is follower:
                del self._known[key]

    def content_here(self, namespace: NamespaceId, hash: bytes) -> None:
        """A content of the document came."""
        feed = self._feeds.get(namespace)
        if feed is not None and feed.followers and len(feed.contents) < MAX_CONTENTS:
            feed.contents[hash] = None
            self._store.changed.tell(bytes(namespace))

    async def aclose(self) -> None:
        for follower in self._known.values():
            follower.end()
        await self._tasks.aclose()

    def _has_room(self, peer: EndpointId) -> bool:
        return len(self._known) < MAX_FOLLOWERS and sum(each[0] == peer for each in self._known) < MAX_OF_PEER

    async def _send(self, peer: EndpointId, namespace: NamespaceId, follower: _Follower, stream: BiStream) -> None:
        recheck_at, quiet_at = _now() + access_rules.RECHECK, _now() + QUIET
        while not follower.over:
            follower.wake.clear()
            if not follower.queue:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(recheck_at, quiet_at)):
                        await follower.wake.wait()
            if _now() >= recheck_at:
                if not await self._access.allows(peer, namespace, "read"):
                    logger.info("%s may not read %s any more", peer.short(), namespace.short())
                    return
                recheck_at = _now() + access_rules.RECHECK
            news = follower.queue.take() or (News((), ()) if _now() >= quiet_at else None)
            if news is not None and not follower.over:
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await stream.send.write(frame(encode_news(news)))
                quiet_at = _now() + QUIET

    def _join(self, namespace: NamespaceId, follower: _Follower) -> _Feed:
        feed = self._feeds.get(namespace)
        if feed is None:
            feed = self._feeds[namespace] = _Feed()
            self._tasks.start(self._read(namespace, feed), f"feed of {namespace.short()}")
        feed.followers.add(follower)
        return feed

    async def _read(self, namespace: NamespaceId, feed: _Feed) -> None:
        """Until nobody follows any more, or the document is closed."""
        try:
            with self._store.changed.waiter(bytes(namespace)) as waiter:
                after = await self._store.last_seq(namespace)
                feed.started.set()
                while feed.followers and not waiter.over:
                    waiter.look()
                    full, after = await self._offer(namespace, feed, after)
                    if not full:
                        await waiter.news(LOOK_AGAIN)
        except DatabaseClosed:
            pass
        except TidingsError as error:  # who still wants to follow comes again
            logger.warning("what is new in %s could not be read: %s", namespace.short(), error)
        finally:
            del self._feeds[namespace]
            feed.started.set()
            for follower in feed.followers:
                follower.end()

    async def _offer(self, namespace: NamespaceId, feed: _Feed, after: int) -> tuple[bool, int]:
        """What arrived after number ``after``, to all: whether there may be more, and the last number."""
        arrivals = await self._store.arrivals(namespace, after, PAGE)
        for _, value in arrivals:
            for follower in feed.followers:
                if follower.queue.offer(value):
                    follower.wake.set()
        if feed.contents:
            hashes, feed.contents = list(feed.contents), {}
            for hash, key in (await self._store.keys_of_contents(namespace, hashes)).items():
                for follower in feed.followers:
                    if follower.queue.content_here(hash, key):
                        follower.wake.set()
        return len(arrivals) == PAGE, arrivals[-1][0] if arrivals else after


async def refuse_follower(stream: BiStream, reason: RefusedReason) -> None:
    await write_answer(stream, Refused(reason, reason.value), last=True)


async def _end_with(stream: BiStream, follower: _Follower) -> None:
    """End the follower when its peer stops the stream, or the connection is lost."""
    with suppress(TidingsError):
        await stream.send.stopped()
    follower.end()


def _now() -> float:
    return asyncio.get_running_loop().time()
