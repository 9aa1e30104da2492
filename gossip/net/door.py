"""Asks the program who may be in a topic, and lets pass what is sent to and by those who may."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from ...transport import EndpointId
from ..core.messages import Disconnect, Message
from .admission import Admission

__all__ = ["Admit", "Door", "DoorHost", "Guards"]

logger = logging.getLogger(__name__)

ADMIT_TIMEOUT = 10.0  # seconds for the program to say whether a peer may come in
MAX_ASKED = 1024  # questions to the program at once; about further peers it is not asked, they are refused

Admit = Callable[[EndpointId, bytes], bool | Awaitable[bool]]
"""Whether a peer may be in a topic. One that raises, or takes `ADMIT_TIMEOUT`, refuses that peer for now."""


class Guards:
    """Whom to ask, of all topics; without any everybody is let in."""

    def __init__(self) -> None:
        self.admits: list[Admit] = []
        self.asked = 0

    def __bool__(self) -> bool:
        return bool(self.admits)

    async def judge(self, peer: EndpointId, topic: bytes) -> bool:
        """All have to agree."""
        try:
            async with asyncio.timeout(ADMIT_TIMEOUT):
                for admit in self.admits:
                    answer = admit(peer, topic)
                    if not (await answer if inspect.isawaitable(answer) else answer):
                        return False
        except TimeoutError:
            logger.warning("whether %s may be in topic %s was not said in time: no", peer.short(), topic[:5].hex())
            return False
        except Exception:
            logger.exception("whether %s may be in topic %s: no", peer.short(), topic[:5].hex())
            return False
        return True


class DoorHost(Protocol):
    def send(self, topic: bytes, peer: bytes, message: Message) -> None:
        """To a peer that may get it."""

    def put_out(self, topic: bytes, peer: bytes) -> None:
        """It was refused: no neighbour any more, if it was one."""


class Door:
    """Of one topic."""

    __slots__ = ("_admission", "_asked", "_guards", "_host", "_topic")

    def __init__(self, topic: bytes, guards: Guards, host: DoorHost) -> None:
        self._topic = topic
        self._guards = guards
        self._host = host
        self._admission = Admission()
        self._asked: dict[bytes, asyncio.Task[bool]] = {}

    def admitted(self, peer: bytes) -> bool:
        """Whether ``peer`` is known to be welcome; nobody is asked."""
        return not self._guards or self._admission.verdict(peer, _now()) is True

    def admits(self, peer: bytes) -> bool | Awaitable[bool]:
        """Whether what ``peer`` sends may come in; awaited where the program has to be asked."""
        if not self._guards:
            return True
        verdict = self._admission.verdict(peer, _now())
        return self._answer(peer) if verdict is None else verdict

    def send(self, peer: bytes, message: Message) -> None:
        """To who is admitted; the program is asked about who is neither admitted nor refused."""
        verdict = self._admission.verdict(peer, _now()) if self._guards else True
        if verdict:
            self._host.send(self._topic, peer, message)
        elif verdict is None and not isinstance(message, Disconnect):
            self._admission.hold(peer, message)
            if self._ask(peer) is None:
                self._admission.settle(peer, False, _now())

    def reconsider(self, wanted: Callable[[bytes], bool]) -> None:
        """Ask again about those who are admitted and ``wanted``."""
        if self._guards:
            self._admission.forget_but(wanted)
            for peer in self._admission.admitted:
                self._ask(peer)

    def close(self) -> list[asyncio.Task[bool]]:
        """Ask no more. The questions that are being ended."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        return tasks

    async def _answer(self, peer: bytes) -> bool:
        task = self._ask(peer)
        try:
            return task is not None and await asyncio.shield(task)
        except asyncio.CancelledError:
            if task is not None and task.cancelled():
                return False  # the topic was left meanwhile
            raise

    def _ask(self, peer: bytes) -> asyncio.Task[bool] | None:
        """One question about a peer at a time. None: too many are asked about already."""
        task = self._asked.get(peer)
        if task is None and self._guards.asked < MAX_ASKED:
            self._guards.asked += 1
            task = asyncio.create_task(self._settle(peer), name=f"gossip admission {peer[:5].hex()}")
            self._asked[peer] = task
            task.add_done_callback(lambda _: self._forget(peer))
        return task

    def _forget(self, peer: bytes) -> None:
        self._guards.asked -= 1
        self._asked.pop(peer, None)

    async def _settle(self, peer: bytes) -> bool:
        admitted = await self._guards.judge(EndpointId(peer), self._topic)
        for message in self._admission.settle(peer, admitted, _now()):
            self._host.send(self._topic, peer, message)
        if not admitted:
            self._host.put_out(self._topic, peer)
        return admitted


def _now() -> float:
    return asyncio.get_running_loop().time()
