"""Who may use a relay: everyone, those on a list or not on one, those with a token, or whom a web service admits."""

from __future__ import annotations

import asyncio
import hmac
import urllib.request
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.error import URLError

from ..keys import EndpointId

__all__ = ["Access", "AllowList", "DenyList", "Everyone", "HttpAccess", "SharedToken"]

HTTP_TIMEOUT = 10.0  # seconds for the web service to say yes
MAX_ANSWER = 64  # bytes of its answer: "true" has four


class Access(Protocol):
    async def allows(self, id: EndpointId, token: str | None) -> bool:
        """``id`` is proved; ``token`` is what the client showed beside it."""


class Everyone:
    async def allows(self, id: EndpointId, token: str | None) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class AllowList:
    ids: Collection[EndpointId]

    async def allows(self, id: EndpointId, token: str | None) -> bool:
        return id in self.ids


@dataclass(frozen=True, slots=True)
class DenyList:
    ids: Collection[EndpointId]

    async def allows(self, id: EndpointId, token: str | None) -> bool:
        return id not in self.ids


class SharedToken:
    """Any of these tokens will do. They never print themselves."""

    __slots__ = ("_tokens",)

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    async def allows(self, id: EndpointId, token: str | None) -> bool:
        shown = (token or "").encode()
        return bool(shown) and any(hmac.compare_digest(shown, each) for each in self._tokens)


class HttpAccess:
    """A POST to ``url`` with the id in ``X-Iroh-NodeId``, which Rust relays send; 200 and ``true`` is yes.

    Whatever else comes, or nothing in `HTTP_TIMEOUT`, is no.
    """

    __slots__ = ("_bearer_token", "_url")

    def __init__(self, url: str, bearer_token: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("the URL that is asked for access begins with http:// or https://")
        self._url = url
        self._bearer_token = bearer_token

    async def allows(self, id: EndpointId, token: str | None) -> bool:
        try:
            async with asyncio.timeout(HTTP_TIMEOUT + 1):
                return await asyncio.to_thread(self._ask, id)
        except (URLError, OSError, TimeoutError, ValueError):
            return False

    def _ask(self, id: EndpointId) -> bool:
        headers = {"X-Iroh-NodeId": str(id), "X-Iroh-Endpoint-Id": str(id)}
        if self._bearer_token:
            headers["Authorization"] = f"Bearer {self._bearer_token}"
        request = urllib.request.Request(self._url, data=b"", headers=headers, method="POST")  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT) as answer:  # noqa: S310
            return bool(answer.status == 200 and answer.read(MAX_ANSWER) == b"true")
