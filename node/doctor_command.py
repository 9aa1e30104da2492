"""``tidings doctor``: asks the network, and a peer if one is named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from ..blobs.messages import ALPN as BLOBS_ALPN
from ..blobs.tickets import BlobTicket
from ..docs_sync.access.tickets import DocTicket
from ..docs_sync.sync.connections import ALPN as DOCS_ALPN
from ..docs_sync.sync.session import ALPN as SYNC_ALPN
from ..errors import TidingsError
from ..gossip.net.peer_set import ALPN as GOSSIP_ALPN
from ..transport import Endpoint, EndpointAddr, EndpointId
from ..transport.addr import TransportAddr
from ..transport.errors import InvalidKey, ProtocolRefused, Unreachable
from ..transport.lookup.records import Record
from ..transport.lookup.service import Lookup, resolve
from ..transport.lookup.services import service_of
from ..transport.tickets import EndpointTicket
from .doctor import Finding, of_network, of_port_mapping, of_publishing, of_target
from .output import Output

__all__ = ["diagnose", "targets_of"]

ALPNS = (SYNC_ALPN, GOSSIP_ALPN, BLOBS_ALPN, DOCS_ALPN)
ONLINE_WAIT = 3.0  # seconds
TRY_TIMEOUT, DIAL_TIMEOUT = 5.0, 10.0
RESOLVE_TIMEOUT = 5.0
MAX_TRIED = 12  # addresses, each by itself
MARKS = {"good": "ok  ", "note": "note", "bad": "BAD "}


async def diagnose(
    output: Output,
    *,
    bind: Sequence[str],
    relays: Sequence[str],
    lookup: Sequence[str],
    target: str | None,
) -> bool:
    """Whether nothing is bad. The endpoint has an identity of its own, so that a node may be running beside it."""
    targets = [] if target is None else targets_of(target)
    bad = False

    def tell(finding: Finding) -> None:
        nonlocal bad
        bad = bad or finding.mark == "bad"
        text = f"{MARKS[finding.mark]}  {finding.text}"
        output.event("finding", text, about=finding.about, mark=finding.mark, text=finding.text)

    async with Endpoint.bind(bind=bind, relays=relays or None, port_mapping=True) as endpoint:
        report = None
        if relays:
            with suppress(Unreachable):
                await endpoint.online(ONLINE_WAIT)
            report = await endpoint.report()
        for finding in of_network(endpoint.addr(), report):
            tell(finding)
        if endpoint.port_mapping is not None:
            await endpoint.port_mapping.tried()
            tell(of_port_mapping(endpoint.port_mapping.addr, endpoint.port_mapping.problem))
        for text in lookup:
            if text.startswith("http"):
                tell(of_publishing(text, await _publish(text, endpoint)))
    for each in targets:
        async with Endpoint.bind(bind=bind, relays=relays) as endpoint:
            await _visit(endpoint, each, lookup, tell)
    return not bad


def targets_of(text: str) -> list[EndpointAddr]:
    """From an id or a ticket of any kind. Raises UsageError."""
    with suppress(InvalidKey):
        return [EndpointAddr(EndpointId.parse(text))]
    if text.startswith(("doc", "tdoc")):
        return list(DocTicket.parse(text).nodes)
    if text.startswith("blob"):
        return [BlobTicket.parse(text).addr]
    if text.startswith("endpoint"):
        return [EndpointTicket.parse(text).addr]
    return [EndpointAddr(EndpointId.parse(text))]


async def _publish(text: str, endpoint: Endpoint) -> str | None:
    """Why it failed; None where it did not."""
    service = service_of(text, endpoint.secret_key)
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            await service.publish(Record(EndpointAddr.of(endpoint.id, endpoint.addr().relays)))
    except (TidingsError, TimeoutError) as error:
        return str(error) or "it does not answer"
    finally:
        await service.aclose()
    return None


async def _visit(
    endpoint: Endpoint, target: EndpointAddr, lookup: Sequence[str], tell: Callable[[Finding], None]
) -> None:
    tell(Finding("note", "target", f"Now the peer {target.id}."))
    known = dict.fromkeys(target.sorted())
    for text in lookup:
        service = service_of(text, endpoint.secret_key)
        try:
            said = await _ask(service, target.id)
        except TidingsError as error:
            tell(Finding("bad", "lookup", f"{text} does not say where it is: {error}."))
            continue
        finally:
            await service.aclose()
        known |= dict.fromkeys(said)
        where = ", ".join(map(str, said)) or "nothing"
        tell(Finding("good" if said else "note", "lookup", f"{text} knows of the peer: {where}."))
    places = list(known)[:MAX_TRIED]
    # All at once: a dial adds the places where others have found the peer before.
    ends = await asyncio.gather(*(_dial(endpoint, target.id, [each], TRY_TIMEOUT) for each in places))
    whole = await _dial(endpoint, target.id, known, DIAL_TIMEOUT) if known else "no address of it is known"
    for finding in of_target(list(known), dict(zip(places, ends, strict=True)), whole):
        tell(finding)


async def _ask(service: Lookup, id: EndpointId) -> list[TransportAddr]:
    found: dict[TransportAddr, None] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            async for record in resolve([service], id):
                found |= dict.fromkeys(record.addr.sorted())
    return list(found)


async def _dial(endpoint: Endpoint, id: EndpointId, places: Iterable[TransportAddr], timeout: float) -> float | str:
    """Seconds until the peer had proved its key, or why it did not."""
    began = time.monotonic()
    try:
        connection = await endpoint.connect(EndpointAddr.of(id, places), *ALPNS, timeout=timeout)
        connection.close()
    except ProtocolRefused:
        pass  # it is there, and speaks something else
    except TidingsError as error:
        return str(error)
    return time.monotonic() - began
