"""The whole: a store, DNS and HTTP over it, and what is done from time to time."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from ...transport.addr import IpAddr
from ...transport.errors import InvalidAddress
from ...transport.opening import Opening
from .dns_server import DnsServer
from .limiter import Limiter
from .metrics import LookupMetrics
from .store import PacketStore
from .web import make_app
from .zone import Zone, Zones

__all__ = ["LookupServer", "PutLimit"]

logger = logging.getLogger(__name__)

SWEEP = 600.0  # seconds
START_TIMEOUT = 10.0
CLOSE_TIMEOUT = 5  # seconds for requests under way
MAX_REQUESTS = 1024  # at once; others are told to come again


@dataclass(frozen=True, slots=True)
class PutLimit:
    """Packets of one client: a second, and at once. An address may have many endpoints behind it."""

    rate: float = 0.25
    burst: float = 30.0


class _Quiet(uvicorn.Server):
    """Leaves the signals to who runs it."""

    def install_signal_handlers(self) -> None: ...

    def capture_signals(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()


class LookupServer:
    """Made by `LookupServer.open`. ``http`` and ``dns`` are where it is bound."""

    def __init__(self, stack: AsyncExitStack, metrics: LookupMetrics, http: IpAddr, dns: IpAddr | None) -> None:
        self._stack = stack
        self.metrics = metrics
        self.http, self.dns = http, dns

    @classmethod
    def open(
        cls,
        http: str = "127.0.0.1:0",
        dns: str | None = None,
        *,
        zones: tuple[Zone, ...] = (),
        database: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        behind_proxy: str | None = None,
        put_limit: PutLimit | None = None,
    ) -> Opening[LookupServer]:
        """Serve; ``await`` it, or use it with ``async with``.

        ``database`` is the SQLite file, memory where None; ``certificate`` are the files of a certificate and its key;
        ``behind_proxy`` is the address of a proxy whose word on who its clients are is taken. Raises InvalidAddress,
        StoreError.
        """
        at = IpAddr.parse(http)

        async def open() -> LookupServer:
            async with AsyncExitStack() as stack:
                metrics = LookupMetrics()
                store = PacketStore(database, metrics)
                stack.push_async_callback(store.aclose)
                names = Zones(zones, store.get, metrics)
                answering = None
                if dns is not None:
                    answering = await stack.enter_async_context(DnsServer.open(dns, names, metrics))
                limit = put_limit or PutLimit()
                app = make_app(store, names, metrics, Limiter(limit.rate, limit.burst))
                bound = await _serve(stack, app, at, certificate, behind_proxy)
                sweeping = asyncio.create_task(_sweep(store), name="expired packets")
                stack.callback(sweeping.cancel)
                return cls(stack.pop_all(), metrics, bound, answering.addr if answering else None)
            raise AssertionError

        return Opening(open)

    async def aclose(self) -> None:
        """Safe to call twice."""
        await self._stack.aclose()


async def _serve(
    stack: AsyncExitStack, app: Any, at: IpAddr, certificate: tuple[Path, Path] | None, proxy: str | None
) -> IpAddr:
    files = {} if certificate is None else {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]}
    config = uvicorn.Config(
        app,
        host=str(at.ip),
        port=at.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=proxy is not None,
        forwarded_allow_ips=proxy or "",
        limit_concurrency=MAX_REQUESTS,
        timeout_graceful_shutdown=CLOSE_TIMEOUT,
        lifespan="off",
        **files,  # type: ignore[arg-type]
    )
    family = socket.AF_INET if at.ip.version == 4 else socket.AF_INET6
    try:
        opened = socket.create_server((str(at.ip), at.port), family=family, dualstack_ipv6=str(at.ip) == "::")
    except OSError as error:
        raise InvalidAddress(
            f"cannot serve HTTP at {at}: {error.strerror}. Choose another address or port 0"
        ) from error
    server = _Quiet(config)
    serving = asyncio.create_task(server.serve(sockets=[opened]), name="lookup by HTTP")

    async def end() -> None:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        opened.close()

    stack.push_async_callback(end)
    async with asyncio.timeout(START_TIMEOUT):
        while not server.started:
            if serving.done():
                serving.result()
            await asyncio.sleep(0.01)
    return IpAddr.of(*opened.getsockname()[:2])


async def _sweep(store: PacketStore) -> None:
    while True:
        try:
            if dropped := await store.expire(time.time()):
                logger.info("%d packets were not renewed", dropped)
        except Exception:
            logger.exception("expired packets could not be dropped")
        await asyncio.sleep(SWEEP)
