"""From protocol (ALPN) to the coroutine that serves it.

router = Router(endpoint, {b"echo/1": serve_echo})
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from ..errors import NetworkError, PeerError
from .connection import Connection
from .endpoint import Endpoint
from .errors import EndpointClosed

__all__ = ["Handler", "Router"]

logger = logging.getLogger(__name__)

Handler = Callable[[Connection], Awaitable[None]]
"""Serves one connection; when it raises, the connection is closed and only that one."""

HANDLER_FAILED = 0x71D2  # application close code: the handler raised


class Router:
    """Accepts on ``endpoint`` from now on and gives every connection to its protocol's handler, in a task of its own.

    A connection outlives its handler's return: whoever keeps it closes it.
    """

    def __init__(self, endpoint: Endpoint, handlers: Mapping[bytes, Handler]) -> None:
        self._endpoint = endpoint
        self._handlers = dict(handlers)
        self._tasks: set[asyncio.Task[None]] = set()
        endpoint.set_alpns(list(self._handlers))
        self._acceptor = asyncio.create_task(self._accept(), name=f"router of {endpoint.id.short()}")

    async def aclose(self) -> None:
        """Stop accepting, cancel the handlers and wait for them. The endpoint stays open."""
        with suppress(EndpointClosed):
            self._endpoint.set_alpns([])
        tasks = [self._acceptor, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _accept(self) -> None:
        async for connection in self._endpoint.incoming():
            task = asyncio.create_task(self._serve(connection), name=f"{connection.alpn!r} {connection.remote_id!r}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            del task, connection  # neither is to be kept until the next one comes

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._handlers[connection.alpn](connection)
        except (NetworkError, PeerError) as error:
            logger.info("%r: %s", connection, error)
            connection.close(HANDLER_FAILED, "protocol error")
        except Exception:
            logger.exception("the handler of %r failed", connection)
            connection.close(HANDLER_FAILED, "internal error")
