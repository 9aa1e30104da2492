"""A port of the router by UPnP, with the library ``async-upnp-client`` where it is installed (``tidings[upnp]``)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from importlib.util import find_spec
from ipaddress import IPv4Address, ip_address
from typing import Any
from urllib.parse import urlsplit

from .port_mapping_messages import Mapped

__all__ = ["available", "give_back", "map_port"]

SEARCH = 1  # seconds in which a router may answer (iroh's figure)
TIMEOUT = 10.0  # seconds for all of it
LEASE = 7200  # seconds (iroh's figure)
available = find_spec("async_upnp_client") is not None
ANY = IPv4Address(0)
DESCRIPTION = "tidings"


async def map_port(gateway: IPv4Address, here: IPv4Address, port: int) -> Mapped:
    """The same port outside. Raises OSError where the router has no UPnP, or does not want to."""
    from async_upnp_client.exceptions import UpnpError  # an extra, and takes a while to import

    try:
        async with asyncio.timeout(TIMEOUT):
            router = await _find(gateway, here)
            await router.async_add_port_mapping(
                ANY, port, "UDP", port, here, True, DESCRIPTION, timedelta(seconds=LEASE)
            )
            address = await router.async_get_external_ip_address()
            return Mapped(port, LEASE, None if address is None else ip_address(address))
    except (UpnpError, ValueError) as error:
        raise OSError(f"the router refuses by UPnP: {error}") from error


async def give_back(gateway: IPv4Address, here: IPv4Address, port: int) -> None:
    """Raises OSError, TimeoutError."""
    from async_upnp_client.exceptions import UpnpError

    try:
        async with asyncio.timeout(TIMEOUT):
            router = await _find(gateway, here)
            await router.async_delete_port_mapping(ANY, port, "UDP")
    except UpnpError as error:
        raise OSError(f"the router keeps the port: {error}") from error


async def _find(gateway: IPv4Address, here: IPv4Address) -> Any:
    """The default gateway and nobody else: any machine of the network can answer, and name any URL."""
    from async_upnp_client.aiohttp import AiohttpRequester
    from async_upnp_client.client_factory import UpnpFactory
    from async_upnp_client.profiles.igd import IgdDevice

    for found in await IgdDevice.async_search(source=(str(here), 0), timeout=SEARCH):
        location = found.get("location", "")
        if urlsplit(location).hostname == str(gateway):
            device = await UpnpFactory(AiohttpRequester(timeout=5)).async_create_device(location)
            return IgdDevice(device, None)
    raise OSError("no router answers by UPnP")
