"""Addresses as the socket module writes them, and ours."""

from __future__ import annotations

from typing import Any

from .addr import IpAddr

__all__ = ["SocketAddress", "ip_addr_of", "socket_address"]

SocketAddress = tuple[Any, ...]
"""(host, port) for IPv4, (host, port, flow, scope) for IPv6."""


def socket_address(addr: IpAddr) -> SocketAddress:
    return (str(addr.ip), addr.port) if addr.ip.version == 4 else (str(addr.ip), addr.port, 0, 0)


def ip_addr_of(addr: SocketAddress) -> IpAddr:
    """Without zone, flow and scope."""
    return IpAddr.of(str(addr[0]).partition("%")[0], int(addr[1]))
