"""A relay: passes datagrams between clients that prove their ids, in iroh's relay protocol, version 2 or 1.

Each client has a bounded queue and a task that writes it: a slow one loses its own datagrams, which QUIC repairs, and
holds up nobody. What a client sends is read no faster than its rate limit allows. The relay sees who sends to whom and
how much, never what: datagrams are QUIC's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from importlib import metadata
from urllib.parse import parse_qs, urlsplit

from websockets import Subprotocol
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, NegotiationError
from websockets.http11 import Request, Response

from ..addr import IpAddr
from ..bucket import Bucket
from ..errors import DecodeError, InvalidAddress
from ..keys import EndpointId
from ..opening import Opening
from . import auth
from .access import Access, Everyone
from .frames import (
    MAX_BODY,
    VERSIONS,
    ClientAuth,
    Confirmed,
    Denied,
    Frame,
    Ping,
    Pong,
    Restarting,
    StatusCode,
    Version,
    decode,
    encode,
)
from .metrics import RelayMetrics
from .pages import answer
from .switchboard import Switchboard, say

__all__ = ["RateLimit", "RelayServer"]

logger = logging.getLogger(__name__)


QUEUED = 512  # messages that wait for a client; more are dropped (iroh's figure)
QUEUED_BYTES = 4 << 20  # of them: a message may hold 64 KiB
WRITE_TIMEOUT = 2.0  # seconds for a client to take one
ESTABLISH_TIMEOUT = 30.0  # seconds for a client to say who it is
PING_INTERVAL = 15.0  # seconds, and 1 to 5 more
PONG_TIMEOUT = 5.0
MAX_CLIENTS = 16_384
MAX_HANDSHAKES = 1024  # connections that have not proved a key yet
MAX_MESSAGE = MAX_BODY + 1
ANY = ["::", "0.0.0.0"]  # noqa: S104 - what operators mean by [::]
NORMAL, GOING_AWAY, PROTOCOL_ERROR, POLICY = 1000, 1001, 1002, 1008  # WebSocket close codes


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Of what each client sends: bytes a second, and bytes at once."""

    bytes_per_second: int
    max_burst_bytes: int


class _Client:
    def __init__(self, socket: ServerConnection, id: EndpointId, version: Version, metrics: RelayMetrics) -> None:
        self.id = id
        self.version = version
        self.socket = socket
        self.told_of_limit = False
        self.pong = asyncio.Event()
        self.ping: bytes = b""
        self._metrics = metrics
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._waiting = asyncio.Event()

    def say(self, frame: Frame) -> None:
        self.send(encode(frame, by="server"))

    def send(self, message: bytes) -> bool:
        """Queue a message; False where the queue is full and it is lost."""
        if len(self._queue) >= QUEUED or self._queued + len(message) > QUEUED_BYTES:
            return False
        self._queue.append(message)
        self._queued += len(message)
        self._waiting.set()
        return True

    async def write(self) -> None:
        """Send what is queued, for ever. Raises TimeoutError where the client does not take it."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while self._queue:
                message = self._queue.popleft()
                self._queued -= len(message)
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await self.socket.send(message)
                self._metrics.bytes_sent.inc(len(message))

    async def keep_alive(self) -> None:
        """Raises TimeoutError where the client does not answer."""
        while True:
            await asyncio.sleep(PING_INTERVAL + random.uniform(1, 5))  # noqa: S311 - so that not all come at once
            self.pong.clear()
            self.ping = os.urandom(8)
            self.say(Ping(self.ping))
            async with asyncio.timeout(PONG_TIMEOUT):
                await self.pong.wait()


class RelayServer:
    """Made by `RelayServer.open`."""

    def __init__(self, access: Access, limit: RateLimit | None) -> None:
        self.metrics = RelayMetrics()
        self.access = access
        self.limit = limit
        """May be set while the relay runs; connections that exist keep theirs."""
        self._board: Switchboard[_Client] = Switchboard()
        self._handshakes = 0
        self._servers: list[Server] = []

    @classmethod
    def open(
        cls,
        bind: str = "127.0.0.1:0",
        *,
        tls: ssl.SSLContext | None = None,
        access: Access | None = None,
        limit: RateLimit | None = None,
    ) -> Opening[RelayServer]:
        """Serve at ``bind``; ``await`` it, or use it with ``async with``. With ``tls`` as https, else as http.

        ``access`` says who may use it, everyone unless given. Raises InvalidAddress.
        """

        async def open() -> RelayServer:
            server = cls(access or Everyone(), limit)
            await server.listen(bind, tls)
            return server

        return Opening(open)

    async def listen(self, bind: str, tls: ssl.SSLContext | None = None) -> None:
        """Serve at another address, too. Raises InvalidAddress."""
        addr = IpAddr.parse(bind)

        def page(connection: ServerConnection, request: Request) -> Response | None:
            return self._page(connection, request, encrypted=tls is not None)

        try:
            server = await serve(
                self._serve,
                ANY if str(addr.ip) == ANY[0] else str(addr.ip),  # type: ignore[arg-type]
                addr.port,
                ssl=tls,
                process_request=page,
                select_subprotocol=_choose,
                compression=None,
                server_header=None,
                max_size=MAX_MESSAGE,
                max_queue=16,
                write_limit=1 << 18,
                ping_interval=None,  # the protocol has its own
                open_timeout=ESTABLISH_TIMEOUT,
                close_timeout=WRITE_TIMEOUT,
            )
        except OSError as error:
            raise InvalidAddress(
                f"cannot listen at {addr}: {error.strerror}. Choose another address or port 0"
            ) from error
        self._servers.append(server)

    def bound(self) -> list[IpAddr]:
        return [IpAddr.of(*socket.getsockname()[:2]) for server in self._servers for socket in server.sockets]

    async def aclose(self, *, reconnect_in: float = 0.0, try_for: float = 30.0) -> None:
        """Tell every client to connect again after ``reconnect_in`` seconds, and close. Safe to call twice."""
        notice = encode(Restarting(int(1000 * reconnect_in), int(1000 * try_for)), by="server")
        for client in list(self._board):
            client.send(notice)
        await asyncio.sleep(0)  # what the clients take at once still goes out
        for server in self._servers:
            server.close(code=GOING_AWAY)
        for server in self._servers:
            await server.wait_closed()
        self._servers = []

    # -- one connection --------------------------------------------------------------------------------------------

    def _page(self, connection: ServerConnection, request: Request, *, encrypted: bool) -> Response | None:
        page = answer(urlsplit(request.path).path, request.headers, version=_version(), encrypted=encrypted)
        if page is None:
            if len(self._board) < MAX_CLIENTS and self._handshakes < MAX_HANDSHAKES:
                return None
            self.metrics.refused.inc()
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "This relay is full: try another.\n")
        response = connection.respond(page.status, page.text)
        for name, value in page.headers.items():
            if name in response.headers:
                del response.headers[name]
            response.headers[name] = value
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        self._handshakes += 1
        try:
            async with asyncio.timeout(ESTABLISH_TIMEOUT):
                client = await self._let_in(socket)
        except (ConnectionClosed, TimeoutError):
            return
        except DecodeError as error:
            self.metrics.bad_frames.inc()
            await socket.close(PROTOCOL_ERROR, str(error)[:120])
            return
        finally:
            self._handshakes -= 1
        if client is None:
            await socket.close(POLICY, "not allowed")
            return
        self._tell(self._board.join(client))
        self.metrics.accepts.inc()
        self._count()
        tasks = [asyncio.create_task(each) for each in (client.write(), client.keep_alive(), self._read(client))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._tell(self._board.leave(client))
            self.metrics.disconnects.inc()
            self._count()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            self._note_end(client, ends)
            with suppress(ConnectionClosed):
                await socket.close(NORMAL)

    async def _let_in(self, socket: ServerConnection) -> _Client | None:
        assert socket.subprotocol is not None and socket.request is not None
        version: Version = VERSIONS[VERSIONS.index(socket.subprotocol)]
        challenge = auth.draw()
        await socket.send(encode(challenge, by="server"))
        said = decode(_binary(await socket.recv()), by="client", version=version)
        if not isinstance(said, ClientAuth):
            raise DecodeError("a client has to say first who it is")
        why = ""
        if not auth.is_proof(said, challenge):
            why = "the signature is not of this challenge by this key"
        elif not await self.access.allows(said.id, _token(socket.request)):
            why = "this relay is not for this endpoint: ask who runs it"
        if why:
            self.metrics.denials.inc()
            logger.info("%s is not let in: %s", said.id.short(), why)
            await socket.send(encode(Denied(why), by="server"))
            return None
        await socket.send(encode(Confirmed(), by="server"))
        return _Client(socket, said.id, version, self.metrics)

    async def _read(self, client: _Client) -> None:
        """Serve what the client sends until it leaves. Raises DecodeError, ConnectionClosed."""
        loop, limit, metrics = asyncio.get_running_loop(), self.limit, self.metrics
        bucket = None if limit is None else Bucket(limit.bytes_per_second, limit.max_burst_bytes, loop.time())
        while True:
            message = _binary(await client.socket.recv())
            metrics.bytes_received.inc(len(message))
            if bucket is not None and (wait := bucket.take(len(message), loop.time())):
                metrics.limited_bytes.inc(len(message))
                if not client.told_of_limit:
                    client.told_of_limit = True
                    metrics.limited_clients.inc()
                    client.say(say(StatusCode.RATE_LIMITED, client.version))
                await asyncio.sleep(wait)
            routed = self._board.route(client, message)
            if routed is None:
                self._take(client, decode(message, by="client", version=client.version))
                continue
            metrics.packets_received.inc()
            to, forwarded = routed
            if to is not None and to.send(forwarded):
                metrics.packets_sent.inc()
            else:
                metrics.packets_dropped.inc()

    def _take(self, client: _Client, frame: Frame) -> None:
        self.metrics.others_received.inc()
        match frame:
            case Ping(data):
                self.metrics.pings.inc()
                client.say(Pong(data))
                self.metrics.pongs.inc()
            case Pong(data):
                if data == client.ping:
                    client.pong.set()
            case _:
                raise DecodeError("a client proves who it is once")

    def _note_end(self, client: _Client, ends: Sequence[object]) -> None:
        for end in ends:
            match end:
                case DecodeError():
                    self.metrics.bad_frames.inc()
                    logger.info("%s: %s", client.id.short(), end)
                case TimeoutError():
                    logger.info("%s does not answer", client.id.short())
                case ConnectionClosed() | asyncio.CancelledError() | None:
                    pass
                case BaseException():
                    logger.error("serving %s failed", client.id.short(), exc_info=end)

    def _tell(self, notices: list[tuple[_Client, Frame]]) -> None:
        for client, frame in notices:
            client.say(frame)

    def _count(self) -> None:
        self.metrics.clients.set(len(self._board))
        self.metrics.ids.set(self._board.ids)

    def __repr__(self) -> str:
        return f"<RelayServer at {', '.join(map(str, self.bound()))}, {len(self._board)} clients>"


def _version() -> str:
    try:
        return metadata.version("tidings")
    except metadata.PackageNotFoundError:  # run from its sources
        return "unknown"


def _choose(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol:
    for version in VERSIONS:
        if version in offered:
            return Subprotocol(version)
    raise NegotiationError(f"this relay speaks {' and '.join(VERSIONS)}")


def _binary(message: str | bytes) -> bytes:
    if isinstance(message, str):
        raise DecodeError("a text came where the relay protocol has bytes alone")
    return message


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    found = parse_qs(urlsplit(request.path).query).get("token")
    return found[0] if found else None
