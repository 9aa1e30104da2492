"""HTTP: packets are put and fetched at ``/pkarr/<id>``, and DNS is asked at ``/dns-query`` (RFC 8484)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from importlib import metadata

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ...errors import UsageError
from ...transport.errors import DecodeError
from ...transport.keys import EndpointId
from ...transport.lookup.pkarr import MAX_DNS, SignedPacket
from .limiter import Limiter
from .metrics import LookupMetrics
from .store import Full, PacketStore
from .zone import Zones

__all__ = ["AHEAD", "make_app"]

MAX_BODY = 72 + MAX_DNS
MAX_QUESTION = 65_535
BODY_TIMEOUT = 10.0  # seconds
AHEAD = 3600  # seconds that a publisher's clock may be ahead of ours
PACKET, MESSAGE = "application/x-pkarr-signed-packet", "application/dns-message"
GET_RATE, GET_BURST = 100.0, 500.0  # requests a second of one client, and at once


def make_app(store: PacketStore, zones: Zones, metrics: LookupMetrics, puts: Limiter) -> Starlette:
    gets = Limiter(GET_RATE, GET_BURST)

    def limited(request: Request, limiter: Limiter) -> Response | None:
        host = request.client.host if request.client else ""
        if limiter.allows(host, time.monotonic()):
            return None
        metrics.limited.inc()
        return PlainTextResponse("too many requests: wait a moment\n", 429, {"Retry-After": "5"})

    async def fetch(request: Request) -> Response:
        if refused := limited(request, gets):
            return refused
        try:
            id = EndpointId.from_z32(request.path_params["key"])
        except UsageError as error:
            return PlainTextResponse(f"{error}\n", 400)
        packet = await store.get(id)
        if packet is None:
            return PlainTextResponse("nothing is known of this key\n", 404)
        headers = {"Cache-Control": "no-store", "Last-Modified": _http_date(packet.timestamp)}
        return Response(packet.payload(), 200, headers, PACKET)

    async def publish(request: Request) -> Response:
        if refused := limited(request, puts):
            metrics.refused.inc()
            return refused
        try:
            id = EndpointId.from_z32(request.path_params["key"])
            packet = SignedPacket.from_payload(id, await _body(request, MAX_BODY))
            if packet.timestamp > (time.time() + AHEAD) * 1_000_000:
                raise DecodeError("the packet is from the future: set the clock of the machine that made it")
            await store.put(packet, time.time())
        except Full as error:
            metrics.refused.inc()
            return PlainTextResponse(f"{error}\n", 507)
        except (UsageError, DecodeError) as error:
            metrics.refused.inc()
            return PlainTextResponse(f"{error}\n", 400)
        return Response(status_code=204)

    async def ask(request: Request) -> Response:
        if refused := limited(request, gets):
            return refused
        metrics.dns_over_http.inc()
        try:
            if request.method == "POST":
                question = await _body(request, MAX_QUESTION)
            else:
                question = base64.urlsafe_b64decode(request.query_params.get("dns", "") + "===")
        except (DecodeError, binascii.Error, ValueError):
            question = b""
        answer = await zones.answer(question, over_udp=False)
        if answer is None:
            return PlainTextResponse("this is no question of DNS\n", 400)
        return Response(answer, 200, None, MESSAGE)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": _version()})

    async def index(request: Request) -> Response:
        return PlainTextResponse("A lookup server for tidings and iroh endpoints.\n")

    return Starlette(
        routes=[
            Route("/pkarr/{key}", fetch, methods=["GET"]),
            Route("/pkarr/{key}", publish, methods=["PUT"]),
            Route("/dns-query", ask, methods=["GET", "POST"]),
            Route("/healthz", health),
            Route("/", index),
        ],
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET", "PUT", "POST"])],
    )


async def _body(request: Request, limit: int) -> bytes:
    """Raises DecodeError where it is too long, or too slow."""
    body = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise DecodeError(f"a body of more than {limit} bytes")
    except TimeoutError as error:
        raise DecodeError(f"the body did not come within {BODY_TIMEOUT:g} s") from error
    return body


def _http_date(microseconds: int) -> str:
    from email.utils import formatdate

    return formatdate(min(microseconds // 1_000_000, 1 << 33), usegmt=True)


def _version() -> str:
    try:
        return metadata.version("tidings")
    except metadata.PackageNotFoundError:  # run from its sources
        return "unknown"
