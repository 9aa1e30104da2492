"""What the commands that serve have in common: metrics, and an end by a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry, start_http_server

from ..transport.addr import IpAddr
from ..transport.errors import InvalidAddress

__all__ = ["catch_end", "serve_metrics"]


def serve_metrics(registry: CollectorRegistry, addr: IpAddr) -> tuple[IpAddr, Callable[[], None]]:
    """Where they are, and what ends it. Raises InvalidAddress."""
    try:
        server, thread = start_http_server(addr.port, str(addr.ip), registry=registry)
    except OSError as error:
        raise InvalidAddress(f"cannot serve metrics at {addr}: {error.strerror}") from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return IpAddr.of(str(addr.ip), server.server_port), end


def catch_end() -> asyncio.Event:
    """From now on SIGINT and SIGTERM set this, instead of ending the program."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, told.set)
    return told
