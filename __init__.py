"""tidings: identity-addressed gossip, document sync and verified blobs for Python, on iroh's wire protocols.

    async with Node.open("notes/") as node:
        doc = await node.docs.create()
        await doc.set("greeting", b"hello")
        print(doc.ticket(write=True))

The names here are loaded when they are first used, so that ``import tidings`` costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blobs import Blobs, BlobTicket, Hash
    from .docs_sync import Doc, Docs, DocTicket, Entry
    from .errors import NetworkError, PeerError, StoreError, TidingsError, UsageError
    from .gossip import Gossip, Topic
    from .node import Node
    from .transport import Connection, Endpoint, EndpointAddr, EndpointId, EndpointTicket, IpAddr, Router, SecretKey

__version__ = "0.1.0.dev0"

_HOMES = {
    "blobs": ("BlobTicket", "Blobs", "Hash"),
    "docs_sync": ("Doc", "DocTicket", "Docs", "Entry"),
    "errors": ("NetworkError", "PeerError", "StoreError", "TidingsError", "UsageError"),
    "gossip": ("Gossip", "Topic"),
    "node": ("Node",),
    "transport": (
        "Connection",
        "Endpoint",
        "EndpointAddr",
        "EndpointId",
        "EndpointTicket",
        "IpAddr",
        "Router",
        "SecretKey",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BlobTicket",
    "Blobs",
    "Connection",
    "Doc",
    "DocTicket",
    "Docs",
    "Endpoint",
    "EndpointAddr",
    "EndpointId",
    "EndpointTicket",
    "Entry",
    "Gossip",
    "Hash",
    "IpAddr",
    "NetworkError",
    "Node",
    "PeerError",
    "Router",
    "SecretKey",
    "StoreError",
    "TidingsError",
    "Topic",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
