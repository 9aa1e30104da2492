"""Real nodes on loopback, and waiting for what they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

LOOPBACK = ["127.0.0.1:0"]


async def until(condition: Callable[[], object], timeout: float = 40.0, explain: Callable[[], object] = str) -> None:
    """Wait until ``condition()``, or what it awaits, is true."""
    end = time.monotonic() + timeout
    while True:
        held = condition()
        if isinstance(held, Awaitable):
            held = await held
        if held:
            return
        assert time.monotonic() < end, f"not within {timeout:g} s: {explain()}"
        await asyncio.sleep(0.02)
