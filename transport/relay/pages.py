"""What a relay answers to plain HTTP requests: probes of its clients and of those who run it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

__all__ = ["CHALLENGE", "RELAY", "RESPONSE", "Page", "answer"]

RELAY = "/relay"
"""Where the WebSocket is."""

CHALLENGE = "X-Iroh-Challenge"
RESPONSE = "X-Iroh-Response"
_CHALLENGE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'self'",
    "X-Content-Type-Options": "nosniff",
}
_PING = {"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"}


class Page(NamedTuple):
    status: HTTPStatus
    text: str
    headers: dict[str, str]


def answer(path: str, headers: Mapping[str, str], *, version: str, encrypted: bool) -> Page | None:
    """To a GET of ``path``; None where it is the WebSocket's."""
    safe = dict(_SAFE)
    if encrypted:
        safe["Strict-Transport-Security"] = "max-age=63072000; includeSubDomains"
    match path:
        case "/relay":
            return None
        case "/ping":
            return Page(HTTPStatus.OK, "", safe | _PING)
        case "/generate_204":
            challenge = headers.get(CHALLENGE, "")
            proof = {RESPONSE: f"response {challenge}"} if _CHALLENGE.fullmatch(challenge) else {}
            return Page(HTTPStatus.NO_CONTENT, "", safe | proof)
        case "/healthz":
            status = json.dumps({"status": "ok", "version": version})
            return Page(HTTPStatus.OK, status, safe | {"Content-Type": "application/json"})
        case "/robots.txt":
            return Page(HTTPStatus.OK, "User-agent: *\nDisallow: /\n", safe)
        case "/" | "/index.html":
            return Page(HTTPStatus.OK, "A relay for tidings and iroh endpoints.\n", safe)
        case _:
            return Page(HTTPStatus.NOT_FOUND, "There is nothing here.\n", safe)
