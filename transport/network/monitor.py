"""Tells when the machine's network has changed, or the machine has slept.

Linux says that something happened through a netlink socket, of which nothing but that is used; then, and every few
seconds on other systems, the state is read and compared. One monitor serves all endpoints of an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from .state import NetworkState, difference, read_state

__all__ = ["NetworkChange", "NetworkMonitor", "NetworkWatch", "watch"]

logger = logging.getLogger(__name__)

DEBOUNCE = 0.25  # seconds after the first sign: changes come in flocks (iroh's figure)
POLL = 5.0  # seconds between looks where nobody gives signs
POLL_BESIDE = 60.0  # and where somebody does
CLOCK_CHECK = 5.0  # seconds between looks at the clocks
JUMP = 5.0  # seconds that a clock may be off without anybody having slept

# rtnetlink.h: links, addresses and routes of both families
GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """``why``, in words. ``slept``: the process did not run for a while."""

    why: str
    state: NetworkState
    slept: bool = False


Listener = Callable[[NetworkChange], None]


class NetworkMonitor:
    """Runs while somebody listens. ``read`` gives the state, ``clock`` the time of day in seconds."""

    def __init__(
        self, read: Callable[[], NetworkState] = read_state, clock: Callable[[], float] = time.time, poll: float = POLL
    ) -> None:
        self._read, self._clock, self._poll = read, clock, poll
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[NetworkWatch, Listener] = {}
        self._sign = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def listen(self, listener: Listener) -> NetworkWatch:
        """Call ``listener`` at every change, until the watch is closed. It must not wait."""
        watch = NetworkWatch(self)
        self._listeners[watch] = listener
        if not self._tasks:
            work = (self._look(), self._check_clocks())
            self._tasks = [asyncio.create_task(each, name="network monitor") for each in work]
        return watch

    async def forget(self, watch: NetworkWatch) -> None:
        self._listeners.pop(watch, None)
        if not self._listeners:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        source = _open_netlink()
        if source is not None:
            self._loop.add_reader(source.fileno(), self._on_sign, source)
        poll = self._poll if source is None else max(self._poll, POLL_BESIDE)
        try:
            state = await asyncio.to_thread(self._read)
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(poll):
                        await self._sign.wait()
                    await asyncio.sleep(DEBOUNCE)
                self._sign.clear()
                try:
                    new = await asyncio.to_thread(self._read)
                except OSError as error:
                    logger.warning("cannot see the network's state: %s", error)
                    continue
                if why := difference(state, new):
                    state = new
                    self._tell(NetworkChange(why, new))
        finally:
            if source is not None:
                self._loop.remove_reader(source.fileno())
                source.close()

    def _on_sign(self, source: socket.socket) -> None:
        with contextlib.suppress(OSError):  # also where more came than fits: a sign, too
            while source.recv(65_536):
                pass
        self._sign.set()

    async def _check_clocks(self) -> None:
        while True:
            at, day = self._loop.time(), self._clock()
            await asyncio.sleep(CLOCK_CHECK)
            late = self._loop.time() - at - CLOCK_CHECK
            jump = self._clock() - day - (self._loop.time() - at)
            if late > JUMP or jump > JUMP:
                state = await asyncio.to_thread(self._read)
                self._tell(NetworkChange(f"nothing ran for {max(late, jump):.0f} s", state, slept=True))

    def _tell(self, change: NetworkChange) -> None:
        logger.info("the network has changed: %s", change.why)
        for listener in list(self._listeners.values()):
            try:
                listener(change)
            except Exception:
                logger.exception("a listener of network changes failed")


class NetworkWatch:
    def __init__(self, monitor: NetworkMonitor) -> None:
        self._monitor = monitor

    async def aclose(self) -> None:
        """No further call. Safe to call twice."""
        await self._monitor.forget(self)


_monitors: WeakKeyDictionary[asyncio.AbstractEventLoop, NetworkMonitor] = WeakKeyDictionary()


def watch(listener: Listener) -> NetworkWatch:
    """Listen to the monitor of the running event loop."""
    loop = asyncio.get_running_loop()
    monitor = _monitors.get(loop)
    if monitor is None:
        _monitors[loop] = monitor = NetworkMonitor()
    return monitor.listen(listener)


def _open_netlink() -> socket.socket | None:
    if not hasattr(socket, "AF_NETLINK"):
        return None
    try:
        source = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)  # NETLINK_ROUTE
        try:
            source.bind((0, GROUPS))
        except OSError:
            source.close()
            raise
    except OSError as error:
        logger.info("the system gives no signs of network changes (%s): looking every %g s", error, POLL)
        return None
    return source
