"""``tidings relay``: serve a relay until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from prometheus_client import start_http_server

from ..transport.addr import IpAddr
from ..transport.errors import InvalidAddress
from ..transport.relay.certificates import Certificates
from ..transport.relay.config import RelayConfig, load
from ..transport.relay.server import RelayServer
from .output import Output

__all__ = ["serve_relay"]

DEV_BIND = "[::]:3340"  # the Rust relay's


async def serve_relay(output: Output, config_path: Path | None, bind: str | None) -> None:
    """With a configuration file, or plain at ``bind``. Raises BadConfig, BadCertificate, InvalidAddress."""
    config = (
        RelayConfig(http_bind_addr=bind or DEV_BIND, enable_metrics=False) if config_path is None else load(config_path)
    )
    async with AsyncExitStack() as stack:
        relay = await RelayServer.open(config.http_bind_addr, access=config.admission(), limit=config.rate_limit())
        stack.push_async_callback(relay.aclose, reconnect_in=1.0)
        if config.tls is not None:
            certificates = Certificates(config.tls.certificate, config.tls.key)
            await relay.listen(config.tls.https_bind_addr, certificates.context)
            watching = asyncio.create_task(certificates.watch())
            stack.callback(watching.cancel)
        for addr in relay.bound():
            output.event("listening", f"relay at {addr}", addr=str(addr))
        if config.enable_metrics:
            addr, shutdown = _serve_metrics(relay, IpAddr.parse(config.metrics_bind_addr))
            stack.callback(shutdown)
            output.event("metrics", f"metrics at http://{addr}/metrics", addr=str(addr))
        await _until_told()
        output.event("closing", "telling the clients, then closing")


def _serve_metrics(relay: RelayServer, addr: IpAddr) -> tuple[IpAddr, Callable[[], None]]:
    """Where they are, and what ends it."""
    try:
        server, thread = start_http_server(addr.port, str(addr.ip), registry=relay.metrics.registry)
    except OSError as error:
        raise InvalidAddress(f"cannot serve metrics at {addr}: {error.strerror}") from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return IpAddr.of(str(addr.ip), server.server_port), end


async def _until_told() -> None:
    """Until SIGINT or SIGTERM."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, told.set)
    await told.wait()
