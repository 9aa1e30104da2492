"""Endpoints of the local network, without any server: multicast DNS (RFC 6762) in iroh's form."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
import struct
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Network, IPv6Network

import ifaddr

from ..addr import EndpointAddr
from ..errors import DecodeError, LookupFailed
from ..keys import EndpointId
from .local_messages import Question, decode, encode_answer, encode_question
from .records import Record

__all__ = ["LocalLookup"]

logger = logging.getLogger(__name__)

PORT = 5353
GROUPS = {4: "224.0.0.251", 6: "ff02::fb"}
ASK_AT = (0.0, 0.7, 2.0, 5.0)  # seconds
WINDOW = 10.0  # seconds in which answers count (iroh's figure)
FRESH = 30.0  # seconds for which an answer is taken for true
MAX_HEARD = 1024  # ids
MAX_WAITING = 64  # answers about one id that nobody has taken
ANSWER_WITHIN = 0.1  # seconds, drawn: not all at once
MAX_DATAGRAM = 9000  # bytes (RFC 6762 17)


class LocalLookup:
    """Anybody on the link learns which ids are on it, and where. ``advertise=False`` only listens and asks."""

    publishes_direct = True

    def __init__(self, *, advertise: bool = True) -> None:
        self._advertise = advertise
        self._record: Record | None = None
        self._heard: OrderedDict[EndpointId, tuple[float, Record]] = OrderedDict()
        self._waiting: dict[EndpointId, set[asyncio.Queue[Record]]] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._answering: asyncio.TimerHandle | None = None
        self._links: list[IPv4Network | IPv6Network] = []

    async def resolve(self, id: EndpointId) -> AsyncIterator[Record]:
        """Answers as they come, for `WINDOW` seconds. Raises LookupFailed where multicast cannot be used here."""
        self._start()
        known = self._heard.get(id)
        now = asyncio.get_running_loop().time()
        if known is not None and now < known[0] + FRESH:
            yield known[1]
        answers: asyncio.Queue[Record] = asyncio.Queue(MAX_WAITING)
        self._waiting.setdefault(id, set()).add(answers)
        asking = asyncio.create_task(self._ask(), name="who is on this link?")
        said: Record | None = None if known is None else known[1]
        try:
            async with asyncio.timeout(WINDOW):
                while True:
                    record = await answers.get()
                    if record != said:
                        said = record
                        yield record
        except TimeoutError:
            return
        finally:
            asking.cancel()
            self._waiting[id].discard(answers)
            if not self._waiting[id]:
                del self._waiting[id]

    async def publish(self, record: Record) -> None:
        """Answer with this from now on, and say it once. Raises LookupFailed."""
        self._start()
        if self._advertise and record != self._record:
            self._record = record
            self._answer()

    def heard(self) -> list[EndpointAddr]:
        """Who is on the link, as far as they were heard of late."""
        now = asyncio.get_running_loop().time()
        return [record.addr for at, record in self._heard.values() if now < at + FRESH]

    async def aclose(self) -> None:
        """Safe to call twice."""
        if self._answering is not None:
            self._answering.cancel()
            self._answering = None
        for each in self._sockets.values():
            asyncio.get_running_loop().remove_reader(each.fileno())
            each.close()
        self._sockets = {}
        self._record = None

    # -- the link --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        problem: OSError | None = None
        for version in GROUPS.keys() - self._sockets.keys():
            try:
                self._sockets[version] = opened = _open(version)
                asyncio.get_running_loop().add_reader(opened.fileno(), self._on_readable, opened)
            except OSError as error:
                problem = error
        if not self._sockets:
            raise LookupFailed(f"multicast cannot be used on this machine: {problem}")

    async def _ask(self) -> None:
        began = asyncio.get_running_loop().time()
        for at in ASK_AT:
            await asyncio.sleep(began + at - asyncio.get_running_loop().time())
            self._send(encode_question())

    def _send(self, message: bytes) -> None:
        self._links = []
        for version, interface, links in _interfaces():
            self._links += links
            opened = self._sockets.get(version)
            if opened is None:
                continue
            try:
                _use(opened, version, interface)
                opened.sendto(message, (GROUPS[version], PORT))
            except OSError as error:
                logger.debug("multicast by %s: %s", interface, error)

    def _answer(self) -> None:
        self._answering = None
        if self._record is not None:
            self._send(encode_answer(self._record))

    def _on_readable(self, opened: socket.socket) -> None:
        for _ in range(32):
            try:
                data, sender = opened.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                logger.debug("multicast: %s", error)
                return
            if self._is_near(sender[0]):
                self._receive(data)

    def _is_near(self, host: str) -> bool:
        """On this link: others could make us fill it with answers (RFC 6762 11)."""
        ip = ipaddress.ip_address(host.partition("%")[0])
        if not self._links:
            self._links = [link for _, _, links in _interfaces() for link in links]
        return ip.is_link_local or any(ip in link for link in self._links if link.version == ip.version)

    def _receive(self, data: bytes) -> None:
        try:
            said = decode(data)
        except DecodeError as error:
            logger.debug("on the link: %s", error)
            return
        loop = asyncio.get_running_loop()
        if isinstance(said, Question):
            if self._record is not None and self._answering is None:
                self._answering = loop.call_later(random.uniform(0, ANSWER_WITHIN), self._answer)  # noqa: S311
            return
        for record in said:
            if self._record is not None and record.addr.id == self._record.addr.id:
                continue
            self._heard[record.addr.id] = loop.time(), record
            self._heard.move_to_end(record.addr.id)
            if len(self._heard) > MAX_HEARD:
                self._heard.popitem(last=False)
            for waiting in self._waiting.get(record.addr.id, ()):
                if not waiting.full():
                    waiting.put_nowait(record)

    def __repr__(self) -> str:
        return "<LocalLookup>"


def _open(version: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if version == 4:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        opened.bind(("", PORT))
    except OSError:
        opened.close()
        raise
    for of, interface, _ in _interfaces():
        if of == version:
            try:
                _use(opened, version, interface)
            except OSError as error:
                logger.debug("multicast by %s: %s", interface, error)
    return opened


def _use(opened: socket.socket, version: int, interface: str | int) -> None:
    """Send by this interface from now on, and hear what comes by it."""
    if version == 4:
        here = socket.inet_aton(str(interface))
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
        level, option, group = socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUPS[4]) + here
    else:
        here = struct.pack("@I", interface)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, here)
        level, option = socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP
        group = socket.inet_pton(socket.AF_INET6, GROUPS[6]) + here
    try:
        opened.setsockopt(level, option, group)
    except OSError as error:
        logger.debug("this interface is heard already, or cannot be: %s", error)


def _interfaces() -> Iterator[tuple[int, str | int, list[IPv4Network | IPv6Network]]]:
    """IP version, what multicast calls the interface, and the networks on it."""
    for adapter in ifaddr.get_adapters():
        links: dict[int, list[IPv4Network | IPv6Network]] = {4: [], 6: []}
        first: dict[int, str | int] = {}
        for each in adapter.ips:
            host = each.ip if isinstance(each.ip, str) else each.ip[0]
            network = ipaddress.ip_network(f"{host.partition('%')[0]}/{each.network_prefix}", strict=False)
            links[network.version].append(network)
            if network.version == 4:
                first.setdefault(4, host)
            elif adapter.index is not None:
                first.setdefault(6, adapter.index)
        for version, interface in first.items():
            yield version, interface, links[version]
