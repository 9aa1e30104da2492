"""A connection to a relay that comes back by itself.

Datagrams wait in a bounded queue, are sent in batches where they have one size, and are lost while the relay is away:
they are QUIC's, which repairs that. What is wrong, and since when, is in `RelayClient.status`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, WebSocketException

from ..addr import RelayUrl
from ..errors import DecodeError
from ..keys import EndpointId, SecretKey
from . import auth
from .frames import (
    MAX_BODY,
    VERSIONS,
    Challenge,
    Confirmed,
    Datagrams,
    Denied,
    EndpointGone,
    Frame,
    Health,
    Ping,
    Pong,
    Restarting,
    Status,
    StatusCode,
    Version,
    decode,
    encode,
)
from .pages import RELAY

__all__ = ["OnDatagrams", "OnGone", "RelayClient", "RelayStatus", "batches"]

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT, LONGEST_CONNECT = 10.0, 40.0  # seconds until the relay has confirmed us, doubled after a failure
PING_INTERVAL = 15.0  # seconds without a message until we ask
PONG_TIMEOUT = 5.0  # seconds for the first answer; then three round trips
MIN_PONG_TIMEOUT = 0.5
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 16.0  # seconds between attempts, doubled each time
SOON, SOON_PAUSE = 30.0, 1.0  # seconds in which a relay that was lost is asked this often: most of them restart
DRAIN = 0.5  # seconds for what is queued when it closes
QUEUED = 64  # messages that wait for the relay to take them
STALE = 3.0  # seconds after which a datagram that waits for the relay is of no use any more
MAX_BATCH = MAX_BODY - 35  # bytes of datagrams beside an id, ECN and the size

OnDatagrams = Callable[[EndpointId, Sequence[bytes]], None]
OnGone = Callable[[EndpointId], None]


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """``problem``: why it is not connected, or what the relay said of the connection. ``rtt`` in seconds."""

    url: RelayUrl
    state: Literal["connecting", "connected", "closed"] = "connecting"
    problem: str = ""
    rtt: float | None = None


class RelayClient:
    """Connects at once, in a task of its own, and again whenever the connection was lost. Close it with `aclose`."""

    def __init__(
        self,
        url: RelayUrl,
        secret: SecretKey,
        *,
        on_datagrams: OnDatagrams,
        on_gone: OnGone = lambda gone: None,
        on_status: Callable[[RelayStatus], None] = lambda status: None,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """``token`` is for relays that want one; ``proxy`` is the URL of an HTTP proxy. Callbacks must not wait."""
        self.status = RelayStatus(url)
        self._secret = secret
        self._token = token
        self._tls = tls
        self._proxy = proxy
        self._rng = rng or random.Random()  # noqa: S311 - pauses
        self._on_datagrams, self._on_gone, self._on_status = on_datagrams, on_gone, on_status
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[float, bytes]] = deque()
        self._waiting = asyncio.Event()
        self._changed = asyncio.Event()
        self._sending = False
        self._socket: ClientConnection | None = None
        self._connecting: asyncio.Future[ClientConnection] | None = None
        self._hurry = asyncio.Event()
        self._drained = asyncio.Event()
        self._pinged: tuple[bytes, float] | None = None
        self._heard_at = 0.0
        self._proved = False  # a pong came: the connection is worth starting anew at once
        self._hold_until = 0.0
        self._limit = CONNECT_TIMEOUT
        self._task = asyncio.create_task(self._run(), name=f"relay {url}")

    @property
    def url(self) -> RelayUrl:
        return self.status.url

    @property
    def is_connected(self) -> bool:
        return self.status.state == "connected"

    def send(self, peer: EndpointId, datagrams: Sequence[bytes]) -> bool:
        """Queue datagrams for ``peer``; False where the queue is full and some are lost."""
        now = self._loop.time()
        for frame in batches(peer, datagrams):
            if len(self._queue) >= QUEUED:
                return False
            self._queue.append((now, encode(frame, by="client")))
        self._waiting.set()
        return True

    def check(self, ips: Collection[IPv4Address | IPv6Address]) -> None:
        """Ask whether the relay is still there, after the network changed. ``ips`` are our addresses now.

        A connection from an address that is gone is given up at once, an attempt begun anew, a pause ended.
        """
        self._hurry.set()
        if self._socket is None:
            if self._connecting is not None:
                self._connecting.cancel()
            return
        local = ip_address(str(self._socket.local_address[0]).partition("%")[0])
        if not local.is_loopback and local not in ips:
            self._socket.transport.abort()
        elif self.is_connected:
            self._heard_at = -PING_INTERVAL
            self._waiting.set()

    async def connected(self, timeout: float) -> bool:
        """Wait until it is, ``timeout`` seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.status.state == "connecting":
                    self._changed.clear()
                    await self._changed.wait()
        return self.is_connected

    async def aclose(self) -> None:
        """Leave, once the relay has taken what is queued (it may say that connections are over)."""
        if self.is_connected:
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN):
                    while self._queue or self._sending:
                        self._drained.clear()
                        await self._drained.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._note(state="closed", problem="")

    # -- the connection --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause, lost_at = FIRST_PAUSE, -SOON
        while True:
            self._proved = False
            self._note(state="connecting", rtt=None, problem=await self._attempt())
            self._limit = min(LONGEST_CONNECT, 2 * self._limit)
            if self._proved:
                pause, lost_at, self._limit = FIRST_PAUSE, self._loop.time(), CONNECT_TIMEOUT
            longest = SOON_PAUSE if self._loop.time() < lost_at + SOON else LONGEST_PAUSE
            pause = min(longest, 2 * pause)
            held = max(0.0, self._hold_until - self._loop.time())
            self._hurry.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(held + pause * self._rng.uniform(0.5, 1.0)):
                    await self._hurry.wait()
                    pause = FIRST_PAUSE

    async def _attempt(self) -> str:
        """One connection from its beginning to its end; why it ended."""
        try:
            async with asyncio.timeout(self._limit) as limit:
                self._connecting = asyncio.ensure_future(self._connect())
                await asyncio.wait([self._connecting])
                if self._connecting.cancelled():
                    return "the network changed"
                self._socket = socket = self._connecting.result()
                try:
                    version = await self._introduce(socket)
                    limit.reschedule(None)
                    self._note(state="connected", problem="")
                    await self._serve(socket, version)
                finally:
                    self._socket = None
                    with suppress(TimeoutError, OSError, WebSocketException):
                        async with asyncio.timeout(1.0):
                            await socket.close()
        except TimeoutError:
            return "the relay did not answer"
        except ConnectionClosed as closed:
            return f"the relay closed the connection: {closed.rcvd.reason if closed.rcvd else 'without a word'}"
        except (DecodeError, _Refused) as error:
            return str(error)
        except (InvalidHandshake, InvalidURI) as error:
            return f"this is no relay, or it is not well: {error}"
        except (OSError, WebSocketException) as error:
            return f"the relay cannot be reached: {error}"
        finally:
            if self._connecting is not None:
                self._connecting.cancel()
                self._connecting = None
        return "the connection ended"

    async def _connect(self) -> ClientConnection:
        parts = urlsplit(self.url.url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        host = self.url.host
        options: dict[str, object] = {}
        if scheme == "wss":
            options = {"ssl": self._tls or ssl.create_default_context(), "server_hostname": host}
        if self._token is not None:
            options["additional_headers"] = {"Authorization": f"Bearer {self._token}"}
        socket = await connect(
            urlunsplit((scheme, parts.netloc, RELAY, "", "")),
            subprotocols=[Subprotocol(version) for version in VERSIONS],
            compression=None,
            user_agent_header=None,
            proxy=self._proxy,
            max_size=MAX_BODY + 1,
            max_queue=64,
            write_limit=1 << 18,
            ping_interval=None,
            open_timeout=None,  # `CONNECT_TIMEOUT` is for all of it
            close_timeout=1.0,
            **options,  # type: ignore[arg-type]
        )
        if socket.subprotocol not in VERSIONS:
            await socket.close()
            raise _Refused("this is no relay: it agreed on no version of the protocol")
        return socket

    async def _introduce(self, socket: ClientConnection) -> Version:
        version: Version = VERSIONS[VERSIONS.index(socket.subprotocol)]
        while True:
            match await self._receive(socket, version):
                case Challenge() as challenge:
                    await socket.send(encode(auth.prove(self._secret, challenge), by="client"))
                case Confirmed():
                    return version
                case Denied(reason):
                    raise _Refused(f"the relay does not let us in: {reason}")
                case _:
                    raise DecodeError("a relay has to let us in before it says anything else")

    async def _serve(self, socket: ClientConnection, version: Version) -> None:
        self._heard_at, self._pinged = -PING_INTERVAL, None  # ask at once: the answer tells how far it is
        tasks = [asyncio.create_task(each) for each in (self._read(socket, version), self._write(socket))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, socket: ClientConnection, version: Version) -> None:
        while True:
            frame = await self._receive(socket, version)
            self._heard_at = self._loop.time()
            self._take(frame)

    async def _receive(self, socket: ClientConnection, version: Version) -> Frame:
        message = await socket.recv()
        if isinstance(message, str):
            raise DecodeError("a text came where the relay protocol has bytes alone")
        return decode(message, by="server", version=version)

    async def _write(self, socket: ClientConnection) -> None:
        """Send what is queued, and ask for a sign of life. Raises TimeoutError where none comes."""
        while True:
            while self._queue:
                queued_at, message = self._queue.popleft()
                if self._loop.time() < queued_at + STALE:
                    self._sending = True
                    await socket.send(message)
                    self._sending = False
            self._drained.set()
            now = self._loop.time()
            if self._pinged is not None:
                if now >= (until := self._pinged[1] + self._patience()):
                    raise TimeoutError
            elif now >= (until := self._heard_at + PING_INTERVAL):
                self._pinged = os.urandom(8), now
                until = now + self._patience()
                await socket.send(encode(Ping(self._pinged[0]), by="client"))
            self._waiting.clear()
            if not self._queue:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        await self._waiting.wait()

    def _patience(self) -> float:
        rtt = self.status.rtt
        return PONG_TIMEOUT if rtt is None else min(PONG_TIMEOUT, max(MIN_PONG_TIMEOUT, 3 * rtt))

    def _take(self, frame: Frame) -> None:
        match frame:
            case Datagrams(peer=peer):
                self._on_datagrams(peer, list(frame.split()))
            case Ping(data):
                self._queue.append((self._loop.time(), encode(Pong(data), by="client")))
                self._waiting.set()
            case Pong(data):
                if self._pinged is not None and data == self._pinged[0]:
                    self._proved = True
                    self._note(rtt=self._loop.time() - self._pinged[1])
                    self._pinged = None
                    self._waiting.set()
            case EndpointGone(id):
                self._on_gone(id)
            case Status(code):
                self._note(problem="" if code == StatusCode.HEALTHY else _PROBLEMS.get(code, f"status {code}"))
            case Health(problem):
                self._note(problem=problem)
            case Restarting(reconnect_in, _):
                self._hold_until = self._loop.time() + min(reconnect_in / 1000, LONGEST_PAUSE)
            case _:
                raise DecodeError("the relay let us in once already")

    def _note(self, **changes: object) -> None:
        status = replace(self.status, **changes)  # type: ignore[arg-type]
        if status != self.status:
            if (status.state, status.problem) != (self.status.state, self.status.problem):
                logger.info("relay %s: %s %s", status.url, status.state, status.problem)
            self.status = status
            self._changed.set()
            self._on_status(status)

    def __repr__(self) -> str:
        return f"<RelayClient {self.url}, {self.status.state}>"


class _Refused(Exception):
    """The relay is there and does not serve us."""


_PROBLEMS = {
    int(StatusCode.SAME_ID_ELSEWHERE): "another endpoint with this id is connected, and gets what is sent to it: two "
    "processes use one identity",
    int(StatusCode.RATE_LIMITED): "we send more than this relay allows: it slows us down",
}


def batches(peer: EndpointId, datagrams: Sequence[bytes]) -> Iterator[Datagrams]:
    """As few frames as it takes: runs of one size, the last of a run may be shorter."""
    start = 0
    while start < len(datagrams):
        size = len(datagrams[start])
        stop, total = start + 1, size
        while stop < len(datagrams) and len(datagrams[stop]) <= size and total + len(datagrams[stop]) <= MAX_BATCH:
            total += len(datagrams[stop])
            stop += 1
            if len(datagrams[stop - 1]) < size:
                break
        if stop - start == 1:
            yield Datagrams(peer, datagrams[start])
        else:
            yield Datagrams(peer, b"".join(datagrams[start:stop]), size)
        start = stop
