"""UDP and TCP under the zones."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from ...transport.addr import IpAddr
from ...transport.errors import InvalidAddress
from ...transport.opening import Opening
from .limiter import Limiter
from .metrics import LookupMetrics
from .zone import Zones

__all__ = ["DnsServer"]

logger = logging.getLogger(__name__)

RATE, BURST = 100.0, 500.0  # questions a second of one client, and at once
MAX_ANSWERING = 1024  # questions by UDP at once; more are dropped
MAX_TCP = 256  # connections
TCP_IDLE = 10.0  # seconds


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._server.take(data, addr, self._transport)


class DnsServer:
    """Made by `DnsServer.open`."""

    def __init__(self, zones: Zones, metrics: LookupMetrics) -> None:
        self._zones, self._metrics = zones, metrics
        self._limiter = Limiter(RATE, BURST)
        self._answering: set[asyncio.Task[None]] = set()
        self._talking: set[asyncio.Task[None]] = set()
        self._datagrams: asyncio.DatagramTransport | None = None
        self._streams: asyncio.Server | None = None
        self.addr = IpAddr.of("0.0.0.0", 0)  # noqa: S104 - until it is bound
        """Where it is bound, for UDP and TCP alike."""

    @classmethod
    def open(cls, bind: str, zones: Zones, metrics: LookupMetrics) -> Opening[DnsServer]:
        """``await`` it, or use it with ``async with``. Raises InvalidAddress."""
        addr = IpAddr.parse(bind)

        async def open() -> DnsServer:
            server = cls(zones, metrics)
            try:
                await server._bind(addr)
            except OSError as error:
                await server.aclose()
                raise InvalidAddress(
                    f"cannot serve DNS at {addr}: {error.strerror}. Choose another address, or run as who may"
                ) from error
            return server

        return Opening(open)

    async def _bind(self, addr: IpAddr) -> None:
        loop = asyncio.get_running_loop()
        self._streams = await asyncio.start_server(self._serve, str(addr.ip), addr.port)
        self.addr = IpAddr.of(*self._streams.sockets[0].getsockname()[:2])
        self._datagrams, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(str(addr.ip), self.addr.port)
        )

    def take(self, data: bytes, addr: tuple[Any, ...], transport: Any) -> None:
        """A datagram has come."""
        self._metrics.dns_over_udp.inc()
        if not self._limiter.allows(addr[0], asyncio.get_running_loop().time()):
            self._metrics.limited.inc()
        elif len(self._answering) < MAX_ANSWERING:
            task = asyncio.create_task(self._answer(data, addr, transport))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, data: bytes, addr: tuple[Any, ...], transport: asyncio.DatagramTransport) -> None:
        try:
            answer = await self._zones.answer(data, over_udp=True)
        except Exception:
            logger.exception("a question could not be answered")
            return
        if answer is not None and not transport.is_closing():
            transport.sendto(answer, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talking.add(task)
        try:
            if len(self._talking) <= MAX_TCP:
                await self._talk(reader, writer)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception:
            logger.exception("a client of DNS could not be served")
        finally:
            self._talking.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Each message has its length before it (RFC 1035 4.2.2)."""
        host = writer.get_extra_info("peername")[0]
        while True:
            async with asyncio.timeout(TCP_IDLE):
                size = int.from_bytes(await reader.readexactly(2), "big")
                question = await reader.readexactly(size)
                if not self._limiter.allows(host, asyncio.get_running_loop().time()):
                    self._metrics.limited.inc()
                    return
                answer = await self._zones.answer(question, over_udp=False)
                if answer is None:
                    return
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()

    async def aclose(self) -> None:
        """Safe to call twice."""
        if self._datagrams is not None:
            self._datagrams.close()
        if self._streams is not None:
            self._streams.close()
        for task in (*self._answering, *self._talking):
            task.cancel()
        await asyncio.gather(*self._answering, *self._talking, return_exceptions=True)
