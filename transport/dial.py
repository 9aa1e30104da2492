"""Dialling: several addresses, one key, the first that proves it wins (RFC 8305, "happy eyeballs").

Attempts start 250 ms apart, or at once when the one before has failed, IPv6 and IPv4 in turn. Each is a handshake of
its own, so that an impostor or a stale address costs one attempt and never the dial. Addresses that lookups find while
it goes on are tried in their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import chain, zip_longest

from .addr import IpAddr
from .connection import Connection
from .driver import Driver
from .errors import ConnectionClosed, IdentityRefused, ProtocolRefused, Unreachable, WrongIdentity
from .keys import EndpointId
from .udp import SocketAddress

__all__ = ["dial", "dial_order"]

ATTEMPT_DELAY = 0.25  # seconds (RFC 8305 section 5)
MAX_ATTEMPTS = 16  # addresses tried for one dial

# QUIC carries a TLS alert as 0x100 + its number (RFC 9001 4.8).
ALERTS = range(0x100, 0x200)
BAD_CERTIFICATE = 0x12A
NO_APPLICATION_PROTOCOL = 0x178

DialError = Unreachable | WrongIdentity | ProtocolRefused | IdentityRefused


def dial_order(addrs: Sequence[IpAddr]) -> list[IpAddr]:
    """IPv6 and IPv4 in turn, IPv6 first, each in the order given."""
    six = [addr for addr in addrs if addr.ip.version == 6]
    four = [addr for addr in addrs if addr.ip.version == 4]
    pairs = chain.from_iterable(zip_longest(six, four))
    return [addr for addr in pairs if addr is not None][:MAX_ATTEMPTS]


async def dial(
    driver: Driver,
    id: EndpointId,
    alpns: Sequence[bytes],
    addrs: Sequence[IpAddr],
    timeout: float,
    more: AsyncGenerator[Sequence[IpAddr], None] | None = None,
) -> Connection:
    """An established connection to ``id`` within ``timeout`` seconds; raises the most telling error of all attempts.

    ``alpns`` are offered together. ``more`` gives further addresses; that it fails counts where there was no other. It
    is closed at the end.
    """
    order = dial_order(addrs)
    attempts: list[asyncio.Task[Connection]] = []
    winner: asyncio.Task[Connection] | None = None
    learnt = asyncio.Event()
    learning = None if more is None else asyncio.create_task(_learn(more, order, learnt), name=f"learn {id.short()}")
    try:
        async with asyncio.timeout(timeout):
            while winner is None:
                if len(attempts) < len(order):
                    addr = order[len(attempts)]
                    name = f"dial {id.short()} at {addr}"
                    attempts.append(asyncio.create_task(_attempt(driver, id, alpns, addr), name=name))
                    last = len(attempts) == len(order) and (learning is None or learning.done())
                    winner = await _first_success(attempts, None if last else ATTEMPT_DELAY)
                elif learning is not None and not learning.done():
                    learnt.clear()
                    winner = await _first_success_or(attempts, learning, learnt)
                else:
                    winner = await _first_success(attempts, None)
                    break
    except TimeoutError:
        pass  # what failed before may still say more than the silence of the rest
    finally:
        failed = [error for task in attempts if task.done() and (error := task.exception()) is not None]
        if learning is not None:
            learning.cancel()
            (end,) = await asyncio.gather(learning, return_exceptions=True)
            if isinstance(end, DialError):
                failed.append(end)
        await _drop_losers(attempts, winner)
    if winner is not None:
        return winner.result()
    silent = len(attempts) - len(failed)
    if silent:
        places = ", ".join(map(str, order))
        failed.append(Unreachable(f"{id.short()} did not answer within {timeout:g} s at {places}"))
    if not failed:
        failed.append(Unreachable(f"no lookup named an address of {id.short()} that can be reached from here"))
    raise min(failed, key=_telling)


async def _learn(more: AsyncGenerator[Sequence[IpAddr], None], order: list[IpAddr], learnt: asyncio.Event) -> None:
    """Put further addresses behind those of ``order``, as they are found."""
    async with aclosing(more):
        async for addrs in more:
            fresh = [addr for addr in dial_order(addrs) if addr not in order]
            order += fresh[: MAX_ATTEMPTS - len(order)]
            learnt.set()


async def _first_success_or(
    attempts: list[asyncio.Task[Connection]], learning: asyncio.Task[None], learnt: asyncio.Event
) -> asyncio.Task[Connection] | None:
    """The first attempt that succeeds; None when there is another address, or no further one will come."""
    waiting = asyncio.create_task(learnt.wait())
    try:
        while True:
            for task in attempts:
                if task.done() and task.exception() is None:
                    return task
            if waiting.done() or learning.done():
                return None
            pending = [task for task in attempts if not task.done()]
            await asyncio.wait([*pending, waiting, learning], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _first_success(
    attempts: list[asyncio.Task[Connection]], timeout: float | None
) -> asyncio.Task[Connection] | None:
    """The first attempt that succeeds; None when the newest one has failed or the time is over."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    while True:
        for task in attempts:
            if task.done() and task.exception() is None:
                return task
        pending = [task for task in attempts if not task.done()]
        if not pending or (attempts[-1].done() and deadline is not None):
            return None
        left = None if deadline is None else max(0.0, deadline - loop.time())
        done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None


async def _drop_losers(attempts: list[asyncio.Task[Connection]], winner: asyncio.Task[Connection] | None) -> None:
    """Cancel what still runs; close what also succeeded, and the winner too where nobody waits for it any more."""
    for task in attempts:
        if task is not winner:
            _close_result(task)
            task.cancel()
    try:
        await asyncio.gather(*attempts, return_exceptions=True)
    except asyncio.CancelledError:
        if winner is not None:
            _close_result(winner)
        raise


def _close_result(attempt: asyncio.Task[Connection]) -> None:
    if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _attempt(driver: Driver, id: EndpointId, alpns: Sequence[bytes], addr: IpAddr) -> Connection:
    connection = driver.dial(id, alpns, _socket_address(addr))
    try:
        await connection.wait_established()
    except ConnectionClosed as end:
        raise _explain(end, id, alpns, addr) from end
    except BaseException:
        connection.close()
        raise
    return connection


def _socket_address(addr: IpAddr) -> SocketAddress:
    return (str(addr.ip), addr.port) if addr.ip.version == 4 else (str(addr.ip), addr.port, 0, 0)


def _explain(end: ConnectionClosed, id: EndpointId, alpns: Sequence[bytes], addr: IpAddr) -> DialError:
    """Why a handshake failed, from the code that ended it and who sent it."""
    if end.by == "peer":
        if end.code == NO_APPLICATION_PROTOCOL:
            names = " or ".join(repr(alpn.decode()) for alpn in alpns)
            return ProtocolRefused(f"the peer at {addr} does not accept the protocol {names}", peer=id)
        if end.code in ALERTS or end.application:
            return IdentityRefused(f"the peer at {addr} refused us: {end.reason or hex(end.code)}", peer=id)
    elif end.code == BAD_CERTIFICATE:
        return WrongIdentity(f"whoever is at {addr} holds another key than the one dialled", peer=id)
    return Unreachable(f"the handshake with {id.short()} at {addr} failed: {end.reason or hex(end.code)}")


def _telling(error: BaseException) -> int:
    """A refusal by the right peer says more than an impostor, an impostor more than silence."""
    kinds = (ProtocolRefused, IdentityRefused, WrongIdentity, Unreachable)
    return next((rank for rank, kind in enumerate(kinds) if isinstance(error, kind)), len(kinds))
