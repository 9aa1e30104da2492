"""Which addresses others see us at: asked of every relay of the map that tells, over the endpoint's own sockets.

A connection to each relay is kept: it holds the mapping of a NAT open, and the relay tells when it changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterable

from aioquic.quic.configuration import QuicConfiguration

from ..addr import IpAddr, RelayUrl
from ..driver import Driver
from ..relay.relays import RelayConfig
from ..socket_address import SocketAddress
from .discovery_engine import DiscoveryEngine, discovery_configuration
from .peers import Asking

__all__ = ["AddressFinder"]

logger = logging.getLogger(__name__)

MAX_RELAYS = 5  # that are asked (iroh's figure)
RESOLVE_TIMEOUT = 3.0  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds before a relay is asked again
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

Asked = tuple[RelayConfig, int]
"""A relay, and the version of IP that it is asked with."""


class AddressFinder:
    """``on_change`` is called when what is found has changed. ``tls`` checks relays with ``https`` URLs."""

    def __init__(self, driver: Driver, on_change: Callable[[], None], tls: ssl.SSLContext | None = None) -> None:
        self._driver, self._on_change, self._tls = driver, on_change, tls
        self._tasks: dict[Asked, asyncio.Task[None]] = {}
        self._seen: dict[Asked, IpAddr] = {}
        self._connections: dict[Asked, Asking] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    def found(self) -> list[IpAddr]:
        """Our addresses as relays see them, each once."""
        return list(dict.fromkeys(self._seen.values()))

    def varies(self, version: int) -> bool | None:
        """Whether relays see us at different addresses of IP ``version``: then strangers see yet another.

        None where fewer than two relays said anything.
        """
        seen = [addr for (_, asked), addr in self._seen.items() if asked == version]
        return None if len(seen) < 2 else len(set(seen)) > 1

    def seen_by(self) -> dict[RelayUrl, list[IpAddr]]:
        said: dict[RelayUrl, list[IpAddr]] = defaultdict(list)
        for (config, _), addr in self._seen.items():
            said[config.url].append(addr)
        return dict(said)

    async def until_found(self, count: int) -> None:
        """Until so many relays have said something, each family by itself."""
        while len(self._seen) < count:
            self._news.clear()
            await self._news.wait()

    def ask(self, relays: Iterable[RelayConfig]) -> None:
        """Ask these relays from now on, and no others."""
        wanted = {
            (config, version)
            for config in [config for config in relays if config.discovery_port is not None][:MAX_RELAYS]
            for version in FAMILIES
            if self._driver.has_family(version)
        }
        for asked in self._tasks.keys() - wanted:
            self._give_up(asked)
        for asked in wanted - self._tasks.keys():
            self._tasks[asked] = asyncio.create_task(self._keep_asking(asked), name=f"our address, by {asked[0].url}")

    def ask_again(self) -> None:
        """The network has changed: what was found may not hold."""
        for asked in list(self._tasks):
            self._give_up(asked)
            self._tasks[asked] = asyncio.create_task(self._keep_asking(asked), name=f"our address, by {asked[0].url}")

    async def aclose(self) -> None:
        for asked in list(self._tasks):
            self._give_up(asked)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _give_up(self, asked: Asked) -> None:
        task = self._tasks.pop(asked)
        task.cancel()
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._seen.pop(asked, None)
        connection = self._connections.pop(asked, None)
        if connection is not None and connection.closed is None:
            connection.close()
            self._driver.touch(connection)

    async def _keep_asking(self, asked: Asked) -> None:
        config, version = asked
        pause = FIRST_PAUSE
        while True:
            try:
                if await self._ask(asked):
                    pause = FIRST_PAUSE
            except (OSError, TimeoutError) as error:
                logger.debug("%s does not tell our IPv%d address: %s", config.url, version, error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come at once
            pause = min(LONGEST_PAUSE, 4 * pause)

    async def _ask(self, asked: Asked) -> bool:
        """Until the connection is over; whether it told anything. OSError, TimeoutError."""
        config, version = asked
        server = await _resolve(config, version)
        over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        told = False

        def news(connection: Asking) -> None:
            nonlocal told
            if connection is not self._connections.get(asked):
                return
            before = self._seen.get(asked)
            if connection.closed is not None:
                self._seen.pop(asked, None)
                if not over.done():
                    over.set_result(connection.problem)
            elif connection.observed is not None:
                told = True
                self._seen[asked] = connection.observed
            if self._seen.get(asked) != before:
                logger.info("%s sees us at %s", config.url, self._seen.get(asked, "no address any more"))
                self._news.set()
                self._on_change()

        engine = DiscoveryEngine(configuration=self._configuration(config.url), reset_token=self._driver.reset_token)
        connection = Asking(engine, server, asyncio.get_running_loop().time(), news)
        self._connections[asked] = connection
        self._driver.drive(connection)
        problem = await over
        logger.debug("%s tells our IPv%d address no more: %s", config.url, version, problem)
        return told

    def _configuration(self, url: RelayUrl) -> QuicConfiguration:
        if not url.is_encrypted or (self._tls is not None and self._tls.verify_mode is ssl.CERT_NONE):
            return discovery_configuration(is_client=True, server_name=url.host, verify_mode=ssl.CERT_NONE)
        configuration = discovery_configuration(is_client=True, server_name=url.host)
        if self._tls is not None:
            authorities = map(ssl.DER_cert_to_PEM_cert, self._tls.get_ca_certs(binary_form=True))
            configuration.load_verify_locations(cadata="".join(authorities).encode())
        else:
            known = ssl.get_default_verify_paths()
            with contextlib.suppress(OSError):  # else those that aioquic brings along
                configuration.load_verify_locations(cafile=known.cafile, capath=known.capath)
        return configuration


async def _resolve(config: RelayConfig, version: int) -> SocketAddress:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(RESOLVE_TIMEOUT):
        found = await loop.getaddrinfo(
            config.url.host, config.discovery_port, family=FAMILIES[version], type=socket.SOCK_DGRAM
        )
    if not found:
        raise OSError("no address")
    addr: SocketAddress = found[0][4]
    return addr
