"""One connection for each pair of peers, kept while it is used.

Whoever needs a peer takes what is open, or dials; who dials meanwhile waits for the same dial. Either side opens
streams on a connection, whoever dialled it. Where both dial at once, the connection of the peer with the *smaller* id
stays, as everywhere in documents (`sync_state`). Any other connection that comes while there is one means that the peer
lost the old one: the new one counts. A connection that does not count any more gets no new streams and is closed when
those that it has are over.

A dial offers ``/iroh-sync/1`` as well. Who takes that speaks iroh alone: such a connection is for one sync, belongs to
who asked for it, and is not kept. That is remembered for `IROH_FOR` seconds, during which dials are not shared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import TidingsError
from ...transport import Connection, Endpoint, EndpointId
from ...transport.errors import EndpointClosed
from ..tasks import Tasks
from .session import ALPN as IROH_ALPN

__all__ = ["ALPN", "Connections", "Use"]

logger = logging.getLogger(__name__)

ALPN = b"tidings/docs/1"
DIAL_TIMEOUT = 10.0
IDLE = 90.0  # seconds without a stream until the dialler closes a connection; neighbours have a digest every 30 to 60
DRAINED = 1.0  # the same for one that another has replaced
ACCEPTED = 1.5  # times longer waits the acceptor, so that seldom both close, or one closes what the other just uses
CROSSING = 10.0  # seconds between two connections that may come of two dials at once
IROH_FOR = 600.0  # seconds
MAX_OF_PEER = 4  # connections open with one peer: the one that counts, and some that drain
MAX_KEPT = 1024  # connections in all; past it those without streams go first
MAX_KNOWN = 4096  # peers


class Use:
    """A connection in use: `release` it. ``kept`` is False for one of iroh's, which is then closed."""

    def __init__(self, connection: Connection, kept: _Kept | None) -> None:
        self.connection = connection
        self._kept = kept

    @property
    def kept(self) -> bool:
        return self._kept is not None

    def release(self) -> None:
        if self._kept is not None:
            self._kept.release()
        else:
            self.connection.close(0, "synced")

    def distrust(self) -> None:
        """No answer came: the next use dials anew."""
        if self._kept is not None:
            self._kept.retire()


class _Kept:
    """One open connection, how many streams it has, and when it closes for want of any."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.since = _now()
        self.retired = False
        self.users = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    @property
    def usable(self) -> bool:
        return self.connection.closed is None and not self.retired

    def use(self) -> Use:
        self.users += 1
        self._cancel()
        return Use(self.connection, self)

    def release(self) -> None:
        self.users -= 1
        self._wait()

    def retire(self) -> None:
        self.retired = True
        self._wait()

    def close(self) -> None:
        self._cancel()
        self.connection.close(0, "not used")

    def _wait(self) -> None:
        self._cancel()
        if self.users == 0 and self.connection.closed is None:
            delay = (DRAINED if self.retired else IDLE) * (1.0 if self.connection.is_client else ACCEPTED)
            self._timer = asyncio.get_running_loop().call_later(delay, self.close)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@dataclass(slots=True)
class _Dial:
    """Shared by all who wait for it."""

    came: asyncio.Future[None]
    """Done when the peer's own connection comes first."""
    task: asyncio.Task[None] | None = None
    waiting: int = 0
    error: TidingsError | None = None
    spare: Connection | None = None
    """Of iroh's: whoever of the waiting comes first takes it."""


@dataclass(slots=True)
class _Peer:
    current: _Kept | None = None
    dial: _Dial | None = None
    iroh_until: float = 0.0

    @property
    def usable(self) -> _Kept | None:
        return self.current if self.current is not None and self.current.usable else None


class Connections:
    """``serve`` is called with each new connection that was dialled here and speaks `ALPN`, and is to end with it."""

    def __init__(self, endpoint: Endpoint, serve: Callable[[Connection], None]) -> None:
        self._endpoint = endpoint
        self._serve = serve
        self._peers: dict[EndpointId, _Peer] = {}
        self._open: dict[Connection, _Kept] = {}
        self._dials = Tasks()

    def speaks_iroh_only(self, peer: EndpointId) -> bool:
        state = self._peers.get(peer)
        return state is not None and state.iroh_until > _now()

    async def use(self, peer: EndpointId) -> tuple[Use, bool]:
        """A connection to the peer, and whether it was open before. Raises what `Endpoint.connect` raises."""
        state = self._peer(peer)
        if state.usable is not None:
            return state.usable.use(), True
        use = None if state.iroh_until > _now() else await self._wait_for_dial(peer, state)
        return use or self._taken(await self._connect(peer)), False

    def admit(self, connection: Connection) -> bool:
        """Keep a connection that the peer dialled; False where there is no room, and it was closed."""
        if len(self._open) >= MAX_KEPT:
            idle = next((kept for kept in self._open.values() if not kept.users), None)
            if idle is None:
                connection.close(0, "too many connections")
                return False
            idle.close()
        self._keep(connection)
        return True

    def serving(self, connection: Connection) -> Use | None:
        """For a stream that the peer opened; None where the connection is over."""
        kept = self._open.get(connection)
        return None if kept is None else kept.use()

    def forget(self, connection: Connection) -> None:
        """It is over."""
        kept = self._open.pop(connection, None)
        if kept is None:
            return
        kept.close()
        state = self._peers.get(connection.remote_id)
        if state is not None and state.current is kept:
            state.current = None
            if state.dial is None:
                del self._peers[connection.remote_id]

    async def aclose(self) -> None:
        await self._dials.aclose()
        for kept in list(self._open.values()):
            kept.close()

    async def _connect(self, peer: EndpointId) -> Connection:
        return await self._endpoint.connect(peer, ALPN, IROH_ALPN, timeout=DIAL_TIMEOUT)

    async def _wait_for_dial(self, peer: EndpointId, state: _Peer) -> Use | None:
        """None where the peer speaks iroh, and another took what was dialled."""
        dial = state.dial
        if dial is None:
            if self._dials.closed:
                raise EndpointClosed("the documents of this node were closed")
            dial = state.dial = _Dial(asyncio.get_running_loop().create_future())
            dial.task = self._dials.start(self._dial(peer, state, dial), f"dial {peer.short()}")
        assert dial.task is not None
        dial.waiting += 1
        try:
            # Cancelled here, the dial goes on for the others.
            await asyncio.wait([dial.task, dial.came], return_when=asyncio.FIRST_COMPLETED)
            if state.usable is None:
                await asyncio.wait([dial.task])
            if dial.task.cancelled():
                raise EndpointClosed("the documents of this node were closed while it dialled")
            if state.usable is not None and dial.spare is None:
                return state.usable.use()  # also where the peer's own dial came through, and ours did not
            if dial.error is not None:
                raise dial.error.with_traceback(None)
            if dial.spare is not None:
                spare, dial.spare = dial.spare, None
                return Use(spare, None)
            return None
        finally:
            dial.waiting -= 1
            if not dial.waiting and dial.spare is not None:
                dial.spare.close(0, "nobody needs it any more")

    async def _dial(self, peer: EndpointId, state: _Peer, dial: _Dial) -> None:
        try:
            connection = await self._connect(peer)
        except TidingsError as error:
            dial.error = error
            return
        finally:
            state.dial = None
        if connection.alpn == ALPN:
            self._keep(connection)
            self._serve(connection)
        elif dial.waiting:
            state.iroh_until = _now() + IROH_FOR
            dial.spare = connection
        else:
            connection.close(0, "nobody needs it any more")

    def _taken(self, connection: Connection) -> Use:
        """What a dial of one's own gave."""
        if connection.alpn == ALPN:
            self._keep(connection)
            self._serve(connection)
            return self._open[connection].use()
        self._peer(connection.remote_id).iroh_until = _now() + IROH_FOR
        return Use(connection, None)

    def _keep(self, connection: Connection) -> None:
        peer = connection.remote_id
        of_peer = [kept for kept in self._open.values() if kept.connection.remote_id == peer]
        if len(of_peer) >= MAX_OF_PEER:
            of_peer[0].close()
        state = self._peer(peer)
        state.iroh_until = 0.0
        new, old = _Kept(connection), state.usable
        self._open[connection] = new
        if state.dial is not None and not state.dial.came.done():
            state.dial.came.set_result(None)
        if old is not None and self._goes_before(old, new):
            new.retire()
            return
        state.current = new
        if old is not None:
            old.retire()

    def _goes_before(self, old: _Kept, new: _Kept) -> bool:
        if old.connection.is_client == new.connection.is_client or new.since - old.since > CROSSING:
            return False
        return old.connection.is_client == (bytes(self._endpoint.id) < bytes(old.connection.remote_id))

    def _peer(self, peer: EndpointId) -> _Peer:
        if peer not in self._peers:
            if len(self._peers) >= MAX_KNOWN:
                for old in [id for id, state in self._peers.items() if not (state.usable or state.dial)]:
                    del self._peers[old]
            self._peers[peer] = _Peer()
        return self._peers[peer]


def _now() -> float:
    return asyncio.get_running_loop().time()
