"""Lookup services by name, as command lines and settings give them."""

from __future__ import annotations

import ssl
from typing import Protocol

from ...errors import UsageError
from ..keys import SecretKey
from .service import Lookup

__all__ = ["OpenedLookup", "service_of"]

DNS_PORT = 53


class OpenedLookup(Lookup, Protocol):
    """To be closed by who made it."""

    async def aclose(self) -> None: ...


def service_of(
    text: str, secret: SecretKey, *, tls: ssl.SSLContext | None = None, proxy: str | None = None
) -> OpenedLookup:
    """``https://lookup.example/pkarr`` publishes and looks up; ``dns:lookup.example``, or ``dns://server/lookup.example``
    for a server of DNS that is not the machine's, looks up; ``local`` finds, and is found, on the local network.

    Raises UsageError.
    """
    scheme, _, rest = text.partition(":")
    match scheme.lower():
        case "http" | "https":
            from .http import PkarrLookup

            return PkarrLookup(text, secret, tls=tls, proxy=proxy)
        case "dns" if rest:
            from .dns import DnsLookup

            server, slash, origin = rest.removeprefix("//").partition("/")
            return DnsLookup(origin, _with_port(server)) if slash else DnsLookup(rest)
        case "local" if not rest:
            from .local import LocalLookup

            return LocalLookup()
    raise UsageError(
        f"{text!r} names no lookup service: write https://lookup.example/pkarr, dns:lookup.example or local"
    )


def _with_port(server: str) -> str:
    return server if server.rpartition(":")[2].isdigit() and not server.endswith("]") else f"{server}:{DNS_PORT}"
