"""The machine's addresses and default routes, and what two states of them have different."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import ifaddr

__all__ = ["NetworkState", "difference", "read_state"]

ROUTES = {4: Path("/proc/net/route"), 6: Path("/proc/net/ipv6_route")}  # of Linux; elsewhere addresses must do
UP, GATEWAY = 0x1, 0x2  # flags of a route (linux/route.h)


@dataclass(frozen=True, slots=True)
class NetworkState:
    """``addresses``: (interface, IP address) of all but loopback and link-local ones. ``routes``: (IP version,
    interface, gateway as the kernel writes it) of the default routes."""

    addresses: frozenset[tuple[str, IPv4Address | IPv6Address]] = frozenset()
    routes: frozenset[tuple[int, str, str]] = frozenset()

    @property
    def ips(self) -> set[IPv4Address | IPv6Address]:
        return {ip for _, ip in self.addresses}


def read_state() -> NetworkState:
    """What it is now. Takes about a millisecond, on interfaces with many addresses more."""
    addresses = set()
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            text = each.ip if isinstance(each.ip, str) else each.ip[0]
            ip = ip_address(text.partition("%")[0])
            if not (ip.is_loopback or ip.is_link_local):
                addresses.add((adapter.name, ip))
    routes: set[tuple[int, str, str]] = set()
    for version, parse in ((4, _default_routes_v4), (6, _default_routes_v6)):
        with contextlib.suppress(OSError):
            routes |= {(version, *route) for route in parse(ROUTES[version].read_text().splitlines())}
    return NetworkState(frozenset(addresses), frozenset(routes))


def _default_routes_v4(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    """``Iface Destination Gateway Flags RefCnt Use Metric Mask ...``, numbers in hexadecimal."""
    for line in lines:
        match line.split():
            case [interface, "00000000", gateway, flags, _, _, _, "00000000", *_] if int(flags, 16) & UP:
                yield interface, gateway


def _default_routes_v6(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    """``destination length source length next-hop metric refcnt use flags interface``."""
    for line in lines:
        match line.split():
            case [destination, "00", _, _, gateway, _, _, _, flags, interface] if not int(destination, 16):
                if int(flags, 16) & GATEWAY:
                    yield interface, gateway


def difference(old: NetworkState, new: NetworkState) -> str:
    """What has changed, in words; empty where nothing has."""
    words = [f"{ip} came to {name}" for name, ip in _sorted(new.addresses - old.addresses)]
    words += [f"{ip} went from {name}" for name, ip in _sorted(old.addresses - new.addresses)]
    for version in (4, 6):
        before = {route for route in old.routes if route[0] == version}
        after = {route for route in new.routes if route[0] == version}
        if before != after:
            what = "came" if not before else "went" if not after else "is another"
            words.append(f"the default route of IPv{version} {what}")
    return ", ".join(words)


def _sorted(
    addresses: Iterable[tuple[str, IPv4Address | IPv6Address]],
) -> list[tuple[str, IPv4Address | IPv6Address]]:
    return sorted(addresses, key=lambda each: (each[0], each[1].version, each[1].packed))
