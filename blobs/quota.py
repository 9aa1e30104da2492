"""A bound for the bytes of all blobs that are kept here.

What arrives is counted as it comes. What leaves is not: when the count passes the limit, the store is measured anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .errors import QuotaExceeded

__all__ = ["Quota"]


class Quota:
    """``measure`` counts the bytes in the store, which takes a query and a look at each partial blob."""

    def __init__(self, limit: int | None, measure: Callable[[], Awaitable[int]]) -> None:
        self.limit = limit
        self._measure = measure
        self._used: int | None = None  # at most; None: not measured yet
        self._measuring = asyncio.Lock()

    async def take(self, size: int) -> None:
        """Room for so many bytes more, or `QuotaExceeded`."""
        if self.limit is None:
            return
        if self._used is None or self._used + size > self.limit:
            async with self._measuring:
                if self._used is None or self._used + size > self.limit:
                    self._used = await self._measure()
        if self._used + size > self.limit:
            raise QuotaExceeded(
                f"the blobs here have {self._used} bytes of {self.limit}, and {size} more would come: remove tags, or "
                "entries of documents, and collect (tidings blob gc), or raise the quota"
            )
        self._used += size
