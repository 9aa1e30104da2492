"""Records as TXT of DNS, at ``_iroh.<id in z-base-32>.<origin>`` (``reference/iroh-transport.md`` 2d).

Nobody signs the answers: who lies there can send a dialler to places where nobody holds the key, and no further.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from ...errors import UsageError
from ..addr import IpAddr
from ..errors import LookupFailed
from ..keys import EndpointId
from .records import MAX_LINES, Record

__all__ = ["DnsLookup"]

STARTS = (0.0, 0.2, 0.5, 1.1, 2.1, 4.1)  # seconds at which a question is asked again (iroh's steps)
TIMEOUT = 3.0  # seconds for each


class DnsLookup:
    """``origin`` is the zone, such as ``dns.iroh.link``. ``server`` (``address:port``) is asked in place of those that
    the machine is set up with. Publishing is for the server behind it: see `PkarrLookup`.
    """

    def __init__(self, origin: str, server: str | None = None) -> None:
        try:
            self.origin = dns.name.from_text(origin)
        except dns.exception.DNSException as error:
            raise UsageError(f"{origin!r} is not a name of DNS: {error}") from error
        self._server = None if server is None else IpAddr.parse(server)

    async def resolve(self, id: EndpointId) -> AsyncIterator[Record]:
        """Raises LookupFailed where no server answers."""
        name = dns.name.Name([b"_iroh", id.z32().encode()]).concatenate(self.origin)
        asking = [asyncio.create_task(self._ask(name, at * random.uniform(0.8, 1.2))) for at in STARTS]  # noqa: S311
        problem: Exception | None = None
        try:
            for next_done in asyncio.as_completed(asking):
                try:
                    lines = await next_done
                except (dns.exception.DNSException, OSError) as error:
                    problem = error
                    continue
                if lines:
                    yield Record.parse(id, lines)
                return
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        raise LookupFailed(f"DNS does not answer for {name}: {problem}")

    async def _ask(self, name: dns.name.Name, after: float) -> list[str]:
        """Lines; none where there is no such name."""
        await asyncio.sleep(after)
        resolver = dns.asyncresolver.Resolver(configure=self._server is None)
        if self._server is not None:
            resolver.nameservers = [str(self._server.ip)]
            resolver.port = self._server.port
        try:
            answer = await resolver.resolve(name, "TXT", lifetime=TIMEOUT, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        texts = [b"".join(each.strings) for each in answer][:MAX_LINES]
        return [text.decode("utf-8", "replace") for text in texts]

    async def publish(self, record: Record) -> None:
        """Does nothing."""

    async def aclose(self) -> None:
        """Nothing is open."""

    def __repr__(self) -> str:
        return f"<DnsLookup {self.origin}>"
