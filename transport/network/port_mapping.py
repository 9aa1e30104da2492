"""A port of the router that leads to ours, kept while the endpoint is open."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from ..addr import IpAddr
from ..errors import DecodeError
from . import upnp
from .port_mapping_messages import (
    NONCE_SIZE,
    PORT,
    Mapped,
    PcpRequest,
    PmpAddress,
    PmpRequest,
    decode_pcp,
    decode_pmp,
)
from .state import NetworkState, read_state

__all__ = ["PortMapping", "gateway_of"]

logger = logging.getLogger(__name__)

LIFETIME = 7200  # seconds that are asked for; it is asked again at the half
WAITS = (0.25, 0.5, 1.0)  # seconds for an answer, each after asking once more (RFC 6886 3.1)
PAUSE = 300.0  # seconds before a router that would not is asked again
SHORTEST = 20.0  # seconds between two requests, however short a lifetime the router grants
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
NOT_PUBLIC = tuple(map(IPv4Network, (*PRIVATE, "0.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16")))
SILENT = "the router does not answer to NAT-PMP or PCP"
MAX_ANSWER = 1100  # bytes (RFC 6887 7)


T = TypeVar("T")


class PortMapping:
    """``port`` is the one of ours. ``on_change`` is called when `addr` has changed. Only for IPv4: IPv6 has no NAT."""

    def __init__(self, port: int, on_change: Callable[[], None], gateway: IpAddr | None = None) -> None:
        """``gateway`` is the default route's unless given."""
        self._port, self._on_change, self._gateway = port, on_change, gateway
        self.addr: IpAddr | None = None
        """Where the router lets others in, None where it does not."""
        self.problem = "the router has not answered yet"
        self._nonce = os.urandom(NONCE_SIZE)
        self._again = asyncio.Event()
        self._tried = asyncio.Event()
        self._giving_back: Callable[[IPv4Address], bytes] | None = None
        self._by_upnp: tuple[IPv4Address, IPv4Address] | None = None
        self._task = asyncio.create_task(self._keep(), name=f"port {port} of the router")

    async def tried(self) -> None:
        """Wait until the router has answered, or will not."""
        await self._tried.wait()

    def network_changed(self) -> None:
        self._again.set()

    async def aclose(self) -> None:
        """Give the port back, as far as one datagram can, or some seconds of UPnP."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        gateway = self._gateway or gateway_of(read_state())
        if self._giving_back is not None and gateway is not None:
            with suppress(OSError), _connected(gateway) as opened:
                opened.send(self._giving_back(_address(opened)))
        if self._by_upnp is not None:
            with suppress(OSError, TimeoutError):
                await upnp.give_back(*self._by_upnp, self._port)

    async def _keep(self) -> None:
        while True:
            self._again.clear()
            pause = PAUSE
            try:
                mapped = await self._map()
                self._note(mapped.addr, "")
                pause = max(SHORTEST, mapped.lifetime / 2)
            except (OSError, DecodeError, TimeoutError) as error:
                self._note(None, str(error) or SILENT)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._again.wait()

    def _note(self, addr: IpAddr | None, problem: str) -> None:
        if problem != self.problem:
            logger.info("port mapping: %s", problem or f"others reach us at {addr}")
        self.problem = problem
        self._tried.set()
        if addr != self.addr:
            self.addr = addr
            self._on_change()

    async def _map(self) -> Mapped:
        """By PCP, or else by NAT-PMP. OSError, DecodeError, TimeoutError."""
        gateway = self._gateway or gateway_of(read_state())
        if gateway is None:
            raise OSError("there is no default route, so no router to ask")
        suggested = self._port if self.addr is None else self.addr.port
        with _connected(gateway) as opened:
            try:
                mapped = await self._map_by_datagrams(opened, suggested)
            except (TimeoutError, DecodeError) as problem:
                if not upnp.available:
                    raise
                places = IPv4Address(str(gateway.ip)), _address(opened)
                try:
                    mapped = await upnp.map_port(*places, self._port)
                except (OSError, TimeoutError) as error:
                    logger.debug("%s", error)
                    raise problem from error
                self._giving_back, self._by_upnp = None, places
        if mapped.ip is None or any(mapped.ip in network for network in NOT_PUBLIC if mapped.ip.version == 4):
            raise DecodeError(f"the router is itself behind another: its address is {mapped.ip}")
        return mapped

    async def _map_by_datagrams(self, opened: socket.socket, suggested: int) -> Mapped:
        try:
            asked = PcpRequest(_address(opened), self._port, LIFETIME, self._nonce, suggested)
            mapped = await _ask(opened, asked.encode(), lambda data: decode_pcp(data, self._port, self._nonce))
            self._giving_back = lambda ip: PcpRequest(ip, self._port, 0, self._nonce).encode()
        except (TimeoutError, DecodeError) as problem:
            logger.debug("PCP: %s", problem or "no answer")
            mapped = await self._map_by_pmp(opened, suggested)
            self._giving_back = lambda ip: PmpRequest(self._port, 0).encode()
        return mapped

    async def _map_by_pmp(self, opened: socket.socket, suggested: int) -> Mapped:
        ip = await _ask(opened, PmpAddress().encode(), lambda data: decode_pmp(data, self._port))
        request = PmpRequest(self._port, LIFETIME, suggested).encode()
        mapped = await _ask(opened, request, lambda data: decode_pmp(data, self._port))
        if isinstance(ip, Mapped) or not isinstance(mapped, Mapped):
            raise DecodeError("the router answered another question")
        return Mapped(mapped.port, mapped.lifetime, ip)


async def _ask(opened: socket.socket, request: bytes, decode: Callable[[bytes], T]) -> T:
    """What the first answer says; raises what ``decode`` does, and TimeoutError where none comes."""
    loop = asyncio.get_running_loop()
    try:
        for wait in WAITS:
            await loop.sock_sendall(opened, request)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    return decode(await loop.sock_recv(opened, MAX_ANSWER))
    except ConnectionRefusedError as error:
        raise TimeoutError from error
    raise TimeoutError


def _connected(gateway: IpAddr) -> socket.socket:
    """So that only the gateway can answer."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.connect((str(gateway.ip), gateway.port))
    except OSError:
        opened.close()
        raise
    return opened


def _address(opened: socket.socket) -> IPv4Address:
    return IPv4Address(opened.getsockname()[0])


def gateway_of(state: NetworkState) -> IpAddr | None:
    """The router of IPv4, as Linux tells of it; elsewhere there is none that we know."""
    for version, _, gateway in sorted(state.routes):
        if version == 4 and len(gateway) == 8 and int(gateway, 16):
            return IpAddr(IPv4Address(bytes.fromhex(gateway)[::-1]), PORT)
    return None
