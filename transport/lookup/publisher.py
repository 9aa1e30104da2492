"""Tells lookup services where an endpoint is, when that changes and from time to time; each service by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from ..addr import EndpointAddr
from .records import Record
from .service import Lookup

__all__ = ["Publisher"]

logger = logging.getLogger(__name__)

REPUBLISH = 300.0  # seconds (iroh's figure)
SETTLE = 0.05  # seconds in which changes are gathered
TIMEOUT = 10.0  # seconds for a service to take it
LONGEST_PAUSE = 60.0  # seconds after a failure; the first is one second, the second two (iroh's steps)


class Publisher:
    """``addr`` says where we are. A service is told of the relays alone, unless it has ``publishes_direct``."""

    def __init__(self, services: Sequence[Lookup], addr: Callable[[], EndpointAddr]) -> None:
        self._addr = addr
        self._changed = [asyncio.Event() for _ in services]
        self.problems: dict[str, str] = {}
        """What services could not be told, and why, by their `repr`."""
        self._tasks = [
            asyncio.create_task(self._keep_telling(service, changed), name=f"publish by {service!r}")
            for service, changed in zip(services, self._changed, strict=True)
        ]
        self.update()

    def update(self) -> None:
        """Our addresses may have changed."""
        for changed in self._changed:
            changed.set()

    async def _keep_telling(self, service: Lookup, changed: asyncio.Event) -> None:
        told: Record | None = None
        failures = 0
        pause = REPUBLISH
        while True:
            try:
                async with asyncio.timeout(pause):
                    await changed.wait()
                await asyncio.sleep(SETTLE)
                changed.clear()
                again = failures > 0
            except TimeoutError:
                again = True
            record = _record(service, self._addr())
            if (record == told and not again) or (told is None and not record.addr.addrs):
                continue
            try:
                async with asyncio.timeout(TIMEOUT):
                    await service.publish(record)
                told, failures, pause = record, 0, REPUBLISH
                self.problems.pop(repr(service), None)
            except Exception as error:
                failures += 1
                pause = min(LONGEST_PAUSE, failures)
                reason = str(error) or type(error).__name__
                if self.problems.get(repr(service)) != reason:
                    logger.warning("%r was not told where we are: %s", service, reason)
                self.problems[repr(service)] = reason

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _record(service: Lookup, addr: EndpointAddr) -> Record:
    if getattr(service, "publishes_direct", False):
        return Record(addr)
    return Record(EndpointAddr.of(addr.id, addr.relays))
