"""``tidings lookup``: serve lookups until Ctrl-C."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path

from ..errors import UsageError
from ..transport.addr import IpAddr
from .lookup_server.server import LookupServer
from .lookup_server.zone import Zone
from .output import Output
from .serving import catch_end, serve_metrics

__all__ = ["serve_lookup"]


async def serve_lookup(
    output: Output,
    *,
    http: str,
    dns: str | None,
    origins: Sequence[str],
    servers: Sequence[str],
    addresses: Sequence[str],
    database: Path | None,
    certificate: Path | None,
    key: Path | None,
    behind_proxy: str | None,
    metrics: str | None,
) -> None:
    """Raises UsageError, InvalidAddress, StoreError."""
    if (certificate is None) != (key is None):
        raise UsageError("a certificate needs its key: --certificate and --key go together")
    if dns is not None and not origins:
        raise UsageError("DNS needs a zone to answer for: --origin lookup.example")
    try:
        zones = tuple(Zone.of(origin, servers, [ip_address(each) for each in addresses]) for origin in origins)
    except ValueError as error:
        raise UsageError(f"--address: {error}") from error
    told = catch_end()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            LookupServer.open(
                http,
                dns,
                zones=zones,
                database=database,
                certificate=None if certificate is None or key is None else (certificate, key),
                behind_proxy=behind_proxy,
            )
        )
        scheme = "http" if certificate is None else "https"
        output.event("listening", f"lookup at {scheme}://{server.http}/pkarr", addr=str(server.http))
        if server.dns is not None:
            output.event("dns", f"DNS at {server.dns}", addr=str(server.dns))
        if metrics is not None:
            addr, shutdown = serve_metrics(server.metrics.registry, IpAddr.parse(metrics))
            stack.callback(shutdown)
            output.event("metrics", f"metrics at http://{addr}/metrics", addr=str(addr))
        await told.wait()
        output.event("closing", "closing")
