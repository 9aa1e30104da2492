"""Dials the syncs that the documents of a node want, in the order of `dial_queue.DialQueue`."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from functools import partial
from random import Random
from typing import Protocol

from ...transport import EndpointId
from .dial_queue import DialQueue

__all__ = ["Dialer", "Dials"]


class Dials(Hashable, Protocol):
    """The syncs of one document."""

    def granted(self, peer: EndpointId) -> asyncio.Task[None] | None:
        """It is the peer's turn. The task that has begun; None where nothing is to be dialled any more."""


class Dialer:
    """Runs no task of its own: the documents' do."""

    def __init__(self, rng: Random) -> None:
        self._queue: DialQueue[Dials, EndpointId] = DialQueue(rng)
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def want(self, document: Dials, peer: EndpointId, *, urgent: bool) -> None:
        self._queue.want(document, peer, urgent=urgent)
        self._pump()

    def drop(self, document: Dials, peer: EndpointId) -> None:
        self._queue.drop(document, peer)

    def unreachable(self, peer: EndpointId) -> None:
        """A dial found nobody."""
        self._queue.unreachable(peer, _now())

    def reachable(self, peer: EndpointId) -> None:
        """The peer was dialled, or has called."""
        if self._queue.reachable(peer):
            self._pump()

    def next_try(self, peer: EndpointId) -> float | None:
        """When, on the loop's clock, a peer that cannot be reached is tried again."""
        return self._queue.next_try(peer)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _pump(self) -> None:
        if self._closed:
            return
        while (granted := self._queue.take(_now())) is not None:
            document, peer = granted
            task = document.granted(peer)
            if task is None:
                self._queue.ended(peer)
            else:  # also of one that was cancelled before it began
                task.add_done_callback(partial(self._ended, peer))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._queue.next_due(_now())
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self._pump)

    def _ended(self, peer: EndpointId, _task: asyncio.Task[None]) -> None:
        self._queue.ended(peer)
        self._pump()


def _now() -> float:
    return asyncio.get_running_loop().time()
