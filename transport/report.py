"""What the network lets an endpoint do: measured through the relays of its map (``iroh-transport.md`` 1.4)."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from .addr import IpAddr, RelayUrl
from .discovery.finder import AddressFinder
from .relay.pages import CHALLENGE, RESPONSE
from .relay.relays import Relays

__all__ = ["NetReport", "Reporter", "better_home"]

logger = logging.getLogger(__name__)

INTERVAL = 300.0  # seconds between two (iroh's figure)
TIMEOUT = 5.0  # seconds for one
PINGS = 3  # for each relay; the shortest counts
MAX_RELAYS = 16  # that are asked
FOUND_TIMEOUT = 3.0  # seconds in which relays may still tell our addresses
PORTAL_TIMEOUT = 2.0
MUCH_NEARER, GAIN = 2 / 3, 0.005  # of the home's delay, and seconds less: for less an endpoint does not move
MEMORY = 300.0  # seconds for which a delay that was measured counts


@dataclass(frozen=True, slots=True)
class NetReport:
    """``udp_v4``, ``udp_v6``: whether a relay answered by UDP; None where none of them tells addresses.

    ``seen`` are our addresses as relays see them. ``varies_v4``, ``varies_v6``: whether each of them sees another,
    None where fewer than two said anything. ``latencies`` in seconds, of the relays that answered; ``problems`` of
    the others. ``captive_portal``: whether somebody else answers in their place. ``home`` is the relay where others
    find us.
    """

    udp_v4: bool | None = None
    udp_v6: bool | None = None
    seen: tuple[IpAddr, ...] = ()
    varies_v4: bool | None = None
    varies_v6: bool | None = None
    latencies: Mapping[RelayUrl, float] = field(default_factory=dict)
    problems: Mapping[RelayUrl, str] = field(default_factory=dict)
    captive_portal: bool | None = None
    home: RelayUrl | None = None


def better_home(home: RelayUrl | None, latencies: Mapping[RelayUrl, float]) -> RelayUrl | None:
    """The relay that should be the home: the present one, unless another is much nearer."""
    if not latencies:
        return home
    nearest = min(latencies, key=lambda url: latencies[url])
    present = float("inf") if home is None else latencies.get(home, float("inf"))
    return nearest if latencies[nearest] < min(MUCH_NEARER * present, present - GAIN) else home


class Reporter:
    """Measures now and then, prefers the nearest relay as the home, and keeps the last `NetReport`."""

    def __init__(
        self,
        relays: Relays,
        finder: AddressFinder,
        has_family: Callable[[int], bool],
        tls: ssl.SSLContext | None,
        proxy: str | None,
    ) -> None:
        self._relays, self._finder, self._has_family = relays, finder, has_family
        self._tls, self._proxy = tls, proxy
        self._heard: dict[RelayUrl, list[tuple[float, float]]] = {}
        self._again = asyncio.Event()
        self._task = asyncio.create_task(self._keep_choosing(), name="which relay is nearest")

    def network_changed(self) -> None:
        self._heard.clear()
        self._again.set()

    async def report(self) -> NetReport:
        """Measure anew; within `TIMEOUT` seconds."""
        urls = [config.url for config in self._relays.configs()][:MAX_RELAYS]
        tells = any(config.discovery_port is not None for config in self._relays.configs())
        found = asyncio.create_task(self._until_found(len(urls)) if tells else asyncio.sleep(0))
        portal = asyncio.create_task(self._captive_portal(urls))
        latencies, problems = await self._measure(urls)
        captive = await portal
        await found
        seen = self._finder.found()

        def udp(version: int) -> bool | None:
            return any(addr.ip.version == version for addr in seen) if tells and self._has_family(version) else None

        return NetReport(
            udp(4),
            udp(6),
            tuple(seen),
            self._finder.varies(4),
            self._finder.varies(6),
            latencies,
            problems,
            captive,
            self._relays.home,
        )

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_choosing(self) -> None:
        while True:
            self._again.clear()
            try:
                urls = [config.url for config in self._relays.configs()][:MAX_RELAYS]
                if len(urls) > 1:
                    await self._measure(urls)
                    home = better_home(self._relays.home, self._best())
                    if home is not None:
                        self._relays.prefer(home)
            except Exception:
                logger.exception("the nearest relay could not be found")
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._again.wait()

    def _best(self) -> dict[RelayUrl, float]:
        """The shortest delays of late."""
        now = time.monotonic()
        for url, heard in list(self._heard.items()):
            self._heard[url] = [each for each in heard if now < each[0] + MEMORY]
        return {url: min(delay for _, delay in heard) for url, heard in self._heard.items() if heard}

    async def _measure(self, urls: Sequence[RelayUrl]) -> tuple[dict[RelayUrl, float], dict[RelayUrl, str]]:
        import httpx  # takes a while: not for endpoints with one relay or none

        latencies: dict[RelayUrl, float] = {}
        problems: dict[RelayUrl, str] = {}

        async def one(client: httpx.AsyncClient, url: RelayUrl) -> None:
            try:
                for _ in range(PINGS):
                    began = time.monotonic()
                    answer = await client.get(_page(url, "/ping"))
                    if not answer.is_success:
                        problems[url] = f"this is no relay, or it is not well: it answers {answer.status_code}"
                        return
                    delay = time.monotonic() - began
                    latencies[url] = min(delay, latencies.get(url, delay))
            except httpx.HTTPError as error:
                problems[url] = f"it cannot be reached: {error or type(error).__name__}"
            except TimeoutError:
                problems[url] = "it did not answer"

        verify = ssl.create_default_context() if self._tls is None else self._tls
        async with httpx.AsyncClient(timeout=TIMEOUT, verify=verify, proxy=self._proxy, trust_env=False) as client:
            await asyncio.gather(*(one(client, url) for url in urls))
        for url, delay in latencies.items():
            self._heard.setdefault(url, []).append((time.monotonic(), delay))
        return latencies, problems

    async def _until_found(self, relays: int) -> None:
        """Until enough relays have told our addresses, or no more will."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FOUND_TIMEOUT):
                wanted = relays * (self._has_family(4) + self._has_family(6))
                await self._finder.until_found(wanted)

    async def _captive_portal(self, urls: Sequence[RelayUrl]) -> bool | None:
        """None where nobody answers at all."""
        import httpx

        suspected = None
        async with httpx.AsyncClient(timeout=PORTAL_TIMEOUT, trust_env=False) as client:
            for url in urls[:2]:
                challenge = f"ts_{url.host}"
                try:
                    page = _page(url, "/generate_204", plain=True)
                    answer = await client.get(page, headers={CHALLENGE: challenge})
                except httpx.HTTPError:
                    continue
                if answer.status_code == 204 and answer.headers.get(RESPONSE) == f"response {challenge}":
                    return False
                suspected = True
        return suspected


def _page(url: RelayUrl, path: str, *, plain: bool = False) -> str:
    """``plain`` is HTTP, at its own port where the relay has HTTPS."""
    parts = urlsplit(url.url)
    if plain and parts.scheme == "https":
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"http://{host}{path}"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
