"""``tidings relay``: serve a relay until Ctrl-C."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from ..transport.addr import IpAddr
from ..transport.discovery.discovery_server import AddressDiscoveryServer
from ..transport.errors import InvalidAddress
from ..transport.relay.certificates import Certificates
from ..transport.relay.config import RelayConfig, load
from ..transport.relay.relays import DISCOVERY_PORT
from ..transport.relay.server import RelayServer
from .output import Output
from .serving import catch_end, serve_metrics

__all__ = ["serve_relay"]

DEV_BIND = "[::]:3340"  # the Rust relay's


async def serve_relay(output: Output, config_path: Path | None, bind: str | None) -> None:
    """With a configuration file, or plain at ``bind``. Raises BadConfig, BadCertificate, InvalidAddress."""
    if config_path is None:
        config = RelayConfig(http_bind_addr=bind or DEV_BIND, enable_metrics=False, enable_quic_addr_discovery=True)
    else:
        config = load(config_path)
    told = catch_end()
    async with AsyncExitStack() as stack:
        relay = await RelayServer.open(config.http_bind_addr, access=config.admission(), limit=config.rate_limit())
        stack.push_async_callback(relay.aclose, reconnect_in=1.0)
        if config.tls is not None:
            certificates = Certificates(config.tls.certificate, config.tls.key)
            await relay.listen(config.tls.https_bind_addr, certificates.context)
            watching = asyncio.create_task(certificates.watch())
            stack.callback(watching.cancel)
            if config.enable_quic_addr_discovery:
                await _discovery(stack, relay, config.tls.quic_bind_addr, certificates, output)
        elif config.enable_quic_addr_discovery:
            await _plain_discovery(stack, relay, IpAddr.parse(config.http_bind_addr), output)
        for addr in relay.bound():
            output.event("listening", f"relay at {addr}", addr=str(addr))
        if config.enable_metrics:
            addr, shutdown = serve_metrics(relay.metrics.registry, IpAddr.parse(config.metrics_bind_addr))
            stack.callback(shutdown)
            output.event("metrics", f"metrics at http://{addr}/metrics", addr=str(addr))
        await told.wait()
        output.event("closing", "telling the clients, then closing")


async def _discovery(
    stack: AsyncExitStack, relay: RelayServer, bind: str, certificates: Certificates, output: Output
) -> None:
    """Raises InvalidAddress."""
    opening = AddressDiscoveryServer.open(bind, certificates.files, metrics=relay.metrics)
    server = await stack.enter_async_context(opening)
    certificates.on_renewed = lambda: server.use(certificates.files)
    _tell(server, output)


async def _plain_discovery(stack: AsyncExitStack, relay: RelayServer, http: IpAddr, output: Output) -> None:
    """Clients look for it at the one port: where that is taken, the relay goes without."""
    bind = IpAddr(http.ip, DISCOVERY_PORT if http.port else 0)
    try:
        opening = AddressDiscoveryServer.open(str(bind), metrics=relay.metrics)
        _tell(await stack.enter_async_context(opening), output)
    except InvalidAddress as error:
        output.event("no_discovery", f"clients will not be told their addresses: {error}")


def _tell(server: AddressDiscoveryServer, output: Output) -> None:
    for addr in server.bound():
        output.event("discovery", f"address discovery at {addr}", addr=str(addr))
