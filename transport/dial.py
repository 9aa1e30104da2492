"""Dialling: several places, one key, the first that answers and proves it wins.

The first flight of one handshake goes to every place that is known, direct and relayed, at once; places that lookups
find later get it too. Somebody who answers and does not hold the key costs the dial another handshake, without his
place: an impostor or a stale address never costs the dial. One who answers and then says nothing more gets no more
than `STUCK` seconds for himself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import chain, zip_longest

from .addr import IpAddr, RelayUrl, TransportAddr
from .connection import NO_PACKET, Connection
from .driver import Driver
from .errors import ConnectionClosed, IdentityRefused, ProtocolRefused, Unreachable, WrongIdentity
from .keys import EndpointId
from .paths.place import Place, place_of, transport_addr

__all__ = ["dial", "dial_order"]

MAX_PLACES = 16  # tried for one dial; each gets the first flight
MAX_RELAYS = 2  # of them
STUCK = 2.0  # seconds from a dial's beginning without a proof, after which others than the one who answered are asked

# QUIC carries a TLS alert as 0x100 + its number (RFC 9001 4.8).
ALERTS = range(0x100, 0x200)
BAD_CERTIFICATE = 0x12A
NO_APPLICATION_PROTOCOL = 0x178

DialError = Unreachable | WrongIdentity | ProtocolRefused | IdentityRefused


def dial_order(addrs: Sequence[TransportAddr]) -> list[TransportAddr]:
    """IPv6 and IPv4 in turn, IPv6 first, each in the order given; then relays. The rest is left out."""
    direct = [addr for addr in addrs if isinstance(addr, IpAddr)]
    relays = [addr for addr in addrs if isinstance(addr, RelayUrl)][:MAX_RELAYS]
    six = [addr for addr in direct if addr.ip.version == 6]
    four = [addr for addr in direct if addr.ip.version == 4]
    pairs = [addr for addr in chain.from_iterable(zip_longest(six, four)) if addr is not None]
    return [*pairs[: MAX_PLACES - len(relays)], *relays]


async def dial(
    driver: Driver,
    id: EndpointId,
    alpns: Sequence[bytes],
    addrs: Sequence[TransportAddr],
    timeout: float,
    more: AsyncGenerator[Sequence[TransportAddr], None] | None = None,
    *,
    early: bool = False,
) -> Connection:
    """An established connection to ``id`` within ``timeout`` seconds; raises the most telling error of all attempts.

    ``alpns`` are offered together. ``more`` gives further addresses; that it fails counts where there was no other. It
    is closed at the end. ``early``: with a ticket of ``id`` the connection is there at once, its handshake under way.
    """
    attempts = Attempts(driver, id, alpns, addrs, early)
    learning = None
    if more is not None:
        learning = asyncio.create_task(_learn(more, attempts), name=f"learn {id.short()}")
    winner: asyncio.Task[Connection] | None = None
    try:
        async with asyncio.timeout(timeout):
            winner = await attempts.run(learning)
    except TimeoutError:
        pass  # what failed before may still say more than the silence of the rest
    finally:
        failed = attempts.errors()
        if learning is not None:
            learning.cancel()
            (end,) = await asyncio.gather(learning, return_exceptions=True)
            if isinstance(end, DialError):
                failed.append(end)
        await attempts.drop(winner)
    if winner is not None:
        return winner.result()
    if attempts.silent:
        places = ", ".join(str(transport_addr(place)) for place in attempts.silent)
        failed.append(Unreachable(f"{id.short()} did not answer within {timeout:g} s at {places}"))
    if not failed:
        failed.append(Unreachable(f"no lookup named an address of {id.short()} that can be reached from here"))
    raise min(failed, key=_telling)


async def _learn(more: AsyncGenerator[Sequence[TransportAddr], None], attempts: Attempts) -> None:
    async with aclosing(more):
        async for addrs in more:
            attempts.add(addrs)


class Attempts:
    """The handshakes of one dial. All but the newest have been answered by somebody who has not proved the key yet."""

    def __init__(
        self, driver: Driver, id: EndpointId, alpns: Sequence[bytes], addrs: Sequence[TransportAddr], early: bool
    ) -> None:
        self._driver, self._id, self._alpns, self._early = driver, id, alpns, early
        self._left: dict[Place, None] = {}  # that nobody wrong has answered at
        self._struck: set[Place] = set()
        self._gone_silent: dict[Place, None] = {}  # of those: who answered, and then said nothing more
        self._tasks: dict[asyncio.Task[Connection], Connection] = {}
        self._newest: Connection | None = None
        self._learnt = asyncio.Event()
        self.add(addrs)

    def add(self, addrs: Sequence[TransportAddr]) -> None:
        """Try further addresses."""
        known = len(self._left) + len(self._struck)
        places = [place for addr in dial_order(addrs) if (place := place_of(addr, self._id)) is not None]
        fresh = [place for place in places if place not in self._left and place not in self._struck]
        self._left.update(dict.fromkeys(fresh[: MAX_PLACES - known]))
        if self._newest is not None and self._newest.place is None:
            self._driver.dial_also(self._newest, self._left)
        self._learnt.set()

    @property
    def silent(self) -> list[Place]:
        """Where nobody has said who he is."""
        return list(self._left)

    def errors(self) -> list[BaseException]:
        return [error for task in self._tasks if task.done() and (error := task.exception()) is not None]

    async def run(self, learning: asyncio.Task[None] | None) -> asyncio.Task[Connection] | None:
        """The first handshake that succeeds; None where all have failed, and no further place will come."""
        loop = asyncio.get_running_loop()
        while True:
            for task in self._tasks:
                if task.done() and task.exception() is None:
                    return task
            if self._left and (self._newest is None or self._newest.closed is not None):
                self._begin()
            pending: list[asyncio.Future[object]] = [task for task in self._tasks if not task.done()]  # type: ignore[misc]
            is_learning = learning is not None and not learning.done()
            if not pending and not is_learning:
                if not self._gone_silent:
                    return None
                self._struck -= self._gone_silent.keys()  # bad networks do that, too: there is time for another try
                self._left, self._gone_silent = self._gone_silent, {}
                continue
            self._learnt.clear()
            waiting = asyncio.ensure_future(self._learnt.wait())
            pending.append(waiting)  # type: ignore[arg-type]
            if is_learning:
                assert learning is not None
                pending.append(learning)  # type: ignore[arg-type]
            stuck = None if self._newest is None else max(0.0, self._begun_at + STUCK - loop.time())
            try:
                done, _ = await asyncio.wait(pending, timeout=stuck, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if not done:
                self._ask_others()

    def _begin(self) -> None:
        self._begun_at = asyncio.get_running_loop().time()
        self._newest = connection = self._driver.dial(self._id, self._alpns, self._left, early=self._early)
        task = asyncio.create_task(self._attempt(connection), name=f"dial {self._id.short()}")
        self._tasks[task] = connection

    def _ask_others(self) -> None:
        """Whoever has answered does not come to a proof: he may yet, but others get their turn."""
        self._begun_at = asyncio.get_running_loop().time()
        if self._newest is not None and self._newest.place is not None:
            self._strike(self._newest.place)
            self._gone_silent[self._newest.place] = None
            if self._left:
                self._begin()

    def _strike(self, place: Place) -> None:
        self._left.pop(place, None)
        self._struck.add(place)

    async def _attempt(self, connection: Connection) -> Connection:
        try:
            await connection.wait_established()
        except ConnectionClosed as end:
            place = connection.place
            if place is None:  # nobody has answered in all the time that a handshake may take
                where = "any of its addresses"
            else:
                self._strike(place)
                if end.reason == NO_PACKET:
                    self._gone_silent[place] = None
                else:
                    self._gone_silent.pop(place, None)
                where = str(transport_addr(place))
            raise _explain(end, self._id, self._alpns, where) from end
        except BaseException:
            connection.close()
            raise
        return connection

    async def drop(self, winner: asyncio.Task[Connection] | None) -> None:
        """Cancel what still runs; close what also succeeded, and the winner too where nobody waits for it any more."""
        for task in self._tasks:
            if task is not winner:
                _close_result(task)
                task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        except asyncio.CancelledError:
            if winner is not None:
                _close_result(winner)
            raise


def _close_result(attempt: asyncio.Task[Connection]) -> None:
    if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _explain(end: ConnectionClosed, id: EndpointId, alpns: Sequence[bytes], where: str) -> DialError:
    """Why a handshake failed, from the code that ended it and who sent it."""
    if end.by == "peer":
        if end.code == NO_APPLICATION_PROTOCOL:
            names = " or ".join(repr(alpn.decode()) for alpn in alpns)
            return ProtocolRefused(f"the peer at {where} does not accept the protocol {names}", peer=id)
        if end.code in ALERTS or end.application:
            return IdentityRefused(f"the peer at {where} refused us: {end.reason or hex(end.code)}", peer=id)
    elif end.code == BAD_CERTIFICATE:
        return WrongIdentity(f"whoever is at {where} holds another key than the one dialled", peer=id)
    return Unreachable(f"the handshake with {id.short()} at {where} failed: {end.reason or hex(end.code)}")


def _telling(error: BaseException) -> int:
    """A refusal by the right peer says more than an impostor, an impostor more than silence."""
    kinds = (ProtocolRefused, IdentityRefused, WrongIdentity, Unreachable)
    return next((rank for rank, kind in enumerate(kinds) if isinstance(error, kind)), len(kinds))
