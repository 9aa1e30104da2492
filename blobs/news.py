"""Telling all who wait that something has changed."""

from __future__ import annotations

import asyncio

__all__ = ["News"]


class News:
    """Who waits is woken by the next `tell`, and then looks for itself. Used on one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout: float | None = None) -> None:
        """Return at the next `tell`, or after ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            pass
