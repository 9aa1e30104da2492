"""A node keeps its UDP ports from one run to the next, so that tickets it gave out go on working."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..storage.files import write_durably
from ..transport import IpAddr
from ..transport.errors import InvalidAddress

__all__ = ["read_ports", "with_ports", "write_ports"]


def read_ports(path: Path) -> dict[int, int]:
    """Port by address family (4 or 6); empty where the file is missing or unreadable: it is a convenience only."""
    try:
        ports = json.loads(path.read_text())
        return {int(family): int(port) for family, port in ports.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def with_ports(bind: Sequence[str], ports: dict[int, int]) -> list[str]:
    """``bind`` with each port 0 replaced by the one of the last run."""
    out = []
    for text in bind:
        addr = IpAddr.parse(text)
        try:
            out.append(str(IpAddr(addr.ip, addr.port or ports.get(addr.ip.version, 0))))
        except InvalidAddress:
            out.append(text)
    return out


def write_ports(path: Path, bound: Sequence[IpAddr], known: dict[int, int]) -> None:
    ports = {addr.ip.version: addr.port for addr in bound}
    if ports != known:
        write_durably(path, json.dumps(ports).encode())
