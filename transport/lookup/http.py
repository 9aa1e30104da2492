"""Signed packets by HTTP: PUT and GET at a server that speaks pkarr (``reference/iroh-transport.md`` 2d).

The server is not trusted: a packet is signed by the key that it speaks of. It can keep packets back, and it learns who
asks for whom.
"""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator

import httpx

from ...errors import UsageError
from ..errors import DecodeError, LookupFailed
from ..keys import EndpointId, SecretKey
from .pkarr import MAX_DNS, SignedPacket, next_timestamp
from .records import Record

__all__ = ["PkarrLookup"]

TIMEOUT = 5.0  # seconds for an answer
MAX_BODY = 72 + MAX_DNS
MAX_NEWEST = 4096  # ids whose newest packet is remembered
AHEAD = 3600.0  # seconds; a packet from later than that is not a measure of what is new
MICROSECONDS = 1_000_000


class PkarrLookup:
    """``url`` is what the id is put behind, such as ``https://dns.iroh.link/pkarr``.

    With ``secret_key`` it publishes where that key's endpoint is: its relays alone, unless ``direct``, since everybody
    can read it. Without, it only looks up. ``tls`` and ``proxy`` are as for `Endpoint.bind`.
    """

    def __init__(
        self,
        url: str,
        secret_key: SecretKey | None = None,
        *,
        direct: bool = False,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url!r} is not the URL of a lookup server: write https://lookup.example/pkarr")
        self.url = url.rstrip("/")
        self.publishes_direct = direct
        self._secret = secret_key
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT, proxy=proxy, verify=ssl.create_default_context() if tls is None else tls
        )
        self._last = 0
        self._newest: OrderedDict[EndpointId, SignedPacket] = OrderedDict()

    async def resolve(self, id: EndpointId) -> AsyncIterator[Record]:
        """Raises LookupFailed where the server cannot be asked, or says what the key has not signed."""
        packet = await self._get(id)
        if packet is None:
            return
        newest = self._newest.get(id)
        if newest is not None and newest.is_newer_than(packet):
            packet = newest  # a server, or somebody on the way, repeats what no longer holds
        elif packet.timestamp < (time.time() + AHEAD) * MICROSECONDS:
            self._newest[id] = packet
            self._newest.move_to_end(id)
            if len(self._newest) > MAX_NEWEST:
                self._newest.popitem(last=False)
        yield packet.record()

    async def publish(self, record: Record) -> None:
        """Does nothing without a key. Raises LookupFailed."""
        if self._secret is None:
            return
        if not self._last:  # a clock that was set back must not make what we say older than what we said
            known = await self._get(self._secret.public)
            self._last = 0 if known is None else known.timestamp
        self._last = next_timestamp(self._last, time.time_ns() // 1000)
        packet = SignedPacket.sign(self._secret, record, self._last)
        answer = await self._ask("PUT", packet.id, packet.payload())
        if not answer.is_success:
            raise LookupFailed(f"{self.url} does not take our record: {answer.status_code} {answer.text[:200]}")

    async def _get(self, id: EndpointId) -> SignedPacket | None:
        answer = await self._ask("GET", id)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if not answer.is_success:
            raise LookupFailed(f"{self.url} answers {answer.status_code}")
        try:
            return SignedPacket.from_payload(id, answer.content)
        except DecodeError as error:
            raise LookupFailed(f"{self.url}: {error}") from error

    async def _ask(self, method: str, id: EndpointId, body: bytes | None = None) -> httpx.Response:
        try:
            request = self._client.build_request(method, f"{self.url}/{id.z32()}", content=body)
            answer = await self._client.send(request, stream=True)
            try:
                content = b""
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_BODY:
                        break
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise LookupFailed(f"{self.url} cannot be asked: {error or type(error).__name__}") from error
        return httpx.Response(answer.status_code, content=content[: MAX_BODY + 1])

    async def aclose(self) -> None:
        await self._client.aclose()

    def __repr__(self) -> str:
        return f"<PkarrLookup {self.url}>"
