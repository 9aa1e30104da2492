"""The relays of an endpoint: a map of its own, one of them its home, and those that its peers name.

The home is where others find us: the first of the map that lets us in, until another is preferred or it is gone for
longer than `GRACE`. Relays of peers are connected to when there is something to send, and left when idle for a minute.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from ..addr import RelayUrl
from ..keys import EndpointId, SecretKey
from .client import RelayClient, RelayStatus

__all__ = ["DISCOVERY_PORT", "RelayConfig", "Relays"]

logger = logging.getLogger(__name__)

DISCOVERY_PORT = 7842  # UDP, where a relay tells clients what address they have (iroh's)
GRACE = 0.5  # seconds in which a home that was lost may come back before another is looked for
IDLE = 60.0  # seconds without a datagram after which a relay that is not the home is left (iroh's figure)
SWEEP = 5.0
MAX_FOREIGN = 64  # relays that only peers have named: they could name any number


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """A relay, with what is needed to use it. ``token`` is for relays that want one.

    ``discovery_port`` is the UDP port where it tells clients their address, None where it does not.
    """

    url: RelayUrl
    token: str | None = field(default=None, repr=False)
    discovery_port: int | None = DISCOVERY_PORT

    @classmethod
    def of(cls, relay: RelayConfig | RelayUrl | str) -> RelayConfig:
        """From whatever a program has; InvalidAddress where a text is no relay's URL."""
        if isinstance(relay, RelayConfig):
            return relay
        return cls(relay if isinstance(relay, RelayUrl) else RelayUrl(relay))


class Relays:
    """Datagrams in and out through any of them. ``on_change`` is called when the home or a relay's state changes."""

    def __init__(
        self,
        secret: SecretKey,
        relays: Iterable[RelayConfig] = (),
        *,
        on_datagrams: Callable[[RelayUrl, EndpointId, Sequence[bytes]], None],
        on_gone: Callable[[RelayUrl, EndpointId], None] = lambda url, peer: None,
        on_change: Callable[[], None] = lambda: None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        self._secret = secret
        self._tls, self._proxy = tls, proxy
        self._on_datagrams, self._on_gone, self._on_change = on_datagrams, on_gone, on_change
        self._map = {relay.url: relay for relay in relays}
        self._loop = asyncio.get_running_loop()
        self._clients: dict[RelayUrl, RelayClient] = {}
        self._used_at: dict[RelayUrl, float] = {}
        self._states: dict[RelayUrl, str] = {}
        self._preferred: RelayUrl | None = None
        self._home: RelayUrl | None = None
        self._online = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._grace: asyncio.TimerHandle | None = None
        self._closed = False
        self._sweeper = asyncio.create_task(self._sweep(), name="idle relays")
        self._look_for_home()

    # -- the map ---------------------------------------------------------------------------------------------------

    def configs(self) -> list[RelayConfig]:
        return list(self._map.values())

    def add(self, relay: RelayConfig | RelayUrl | str) -> None:
        """Put a relay in the map, in place of one of the same URL."""
        config = RelayConfig.of(relay)
        if self._map.get(config.url) != config:
            self._map[config.url] = config
            self._leave(config.url)
            self._look_for_home()

    def remove(self, relay: RelayUrl | str) -> None:
        """Take a relay out of the map. Peers may still be reached through it, where it is theirs."""
        url = relay if isinstance(relay, RelayUrl) else RelayUrl(relay)
        if self._map.pop(url, None) is not None:
            self._leave(url)
            if self._home == url:
                self._set_home(None)
            self._look_for_home()

    # -- the home --------------------------------------------------------------------------------------------------

    @property
    def home(self) -> RelayUrl | None:
        """The relay where others find us; None while there is none."""
        return self._home

    async def online(self) -> None:
        """Wait until there is a home."""
        await self._online.wait()

    def prefer(self, url: RelayUrl) -> None:
        """Make this relay of the map the home, as soon as it lets us in."""
        if url in self._map and self._preferred != url:
            self._preferred = url
            self._open(url)
            self._choose()

    def _look_for_home(self) -> None:
        """Ask those that may be: the preferred one alone, or all of the map when it does not answer."""
        self._grace = None
        if self._closed or (self._home is not None and self.is_connected(self._home)):
            return
        preferred = self._preferred
        for url in self._map:
            if preferred is None or url == preferred or not self.is_connected(preferred):
                self._open(url)
        self._choose()

    def _choose(self) -> None:
        connected = [url for url in self._map if self.is_connected(url)]
        if self._preferred in connected:
            self._set_home(self._preferred)
        elif self._home not in connected:
            if connected:
                self._set_home(min(connected, key=self._distance))
            elif self._grace is None and not self._closed:
                self._grace = self._loop.call_later(GRACE, self._look_for_home)

    def _distance(self, url: RelayUrl) -> float:
        rtt = self._clients[url].status.rtt
        return float("inf") if rtt is None else rtt

    def _set_home(self, url: RelayUrl | None) -> None:
        if url != self._home:
            self._home = url
            if url is None:
                self._online.clear()
            else:
                logger.info("home relay: %s", url)
                self._online.set()
            self._on_change()

    # -- datagrams -------------------------------------------------------------------------------------------------

    def send(self, url: RelayUrl, peer: EndpointId, datagrams: Sequence[bytes]) -> bool:
        """Queue datagrams; False where some are lost, as they are while the relay is away."""
        client = self._open(url)
        if client is None:
            return False
        self._used_at[url] = self._loop.time()
        return client.send(peer, datagrams)

    def is_connected(self, url: RelayUrl) -> bool:
        client = self._clients.get(url)
        return client is not None and client.is_connected

    def connected(self) -> list[RelayUrl]:
        return [url for url, client in self._clients.items() if client.is_connected]

    def statuses(self) -> list[RelayStatus]:
        return [client.status for client in self._clients.values()]

    def check(self, ips: Collection[IPv4Address | IPv6Address]) -> None:
        """Ask each relay whether it is still there, after a change of the network. ``ips`` are our addresses now."""
        for client in self._clients.values():
            client.check(ips)

    def _open(self, url: RelayUrl) -> RelayClient | None:
        client = self._clients.get(url)
        if client is None and not self._closed:
            config = self._map.get(url)
            if config is None and len(self._clients) - len(self._map) >= MAX_FOREIGN:
                return None
            self._used_at[url] = self._loop.time()
            self._clients[url] = client = RelayClient(
                url,
                self._secret,
                on_datagrams=lambda peer, datagrams: self._received(url, peer, datagrams),
                on_gone=lambda peer: self._on_gone(url, peer),
                on_status=self._on_status,
                token=None if config is None else config.token,
                tls=self._tls,
                proxy=self._proxy,
            )
        return client

    def _received(self, url: RelayUrl, peer: EndpointId, datagrams: Sequence[bytes]) -> None:
        self._used_at[url] = self._loop.time()
        self._on_datagrams(url, peer, datagrams)

    def _on_status(self, status: RelayStatus) -> None:
        if self._states.get(status.url) == status.state:
            return
        self._states[status.url] = status.state
        if status.url in self._map:
            self._choose()
        self._on_change()

    def _leave(self, url: RelayUrl) -> None:
        client = self._clients.pop(url, None)
        self._states.pop(url, None)
        if client is not None:
            task = asyncio.create_task(client.aclose(), name=f"leave {url}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            now = self._loop.time()
            for url in list(self._clients):
                lost = self._home is None and url in self._map  # it may become the home
                if url != self._home and not lost and now > self._used_at.get(url, 0.0) + IDLE:
                    self._leave(url)

    async def aclose(self) -> None:
        self._closed = True
        if self._grace is not None:
            self._grace.cancel()
        self._sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeper
        for url in list(self._clients):
            self._leave(url)
        await asyncio.gather(*self._closing, return_exceptions=True)
        self._home = None
        self._online.clear()
