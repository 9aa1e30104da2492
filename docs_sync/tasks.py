"""An owner of tasks that end by themselves or with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TypeVar

__all__ = ["Tasks", "in_thread"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *args: object) -> T:
    """``work`` in a thread. Cancelled, it still ends before this returns: what it works on stays in one hand."""
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


class Tasks:
    """`start` them, `aclose` cancels and awaits what still runs. What a task raises is logged: it is a bug."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        if self._closed:
            work.close()
            raise RuntimeError("the owner of this task was closed")
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    @property
    def closed(self) -> bool:
        return self._closed

    async def aclose(self) -> None:
        self._closed = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)
