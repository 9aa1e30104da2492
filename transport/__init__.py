"""Identity-addressed QUIC: dial a public key, get an authenticated connection.

Keys, addresses and tickets in every text and byte form that iroh has; an `Endpoint` on one UDP socket for each
address family; a `Router` from protocol to handler; streams with back-pressure; datagrams; errors that say whose
fault it is.
"""

from .addr import CustomAddr, EndpointAddr, IpAddr, RelayUrl, TransportAddr
from .connection import Connection
from .endpoint import Endpoint
from .framing import frame, read_frame
from .keys import EndpointId, PublicKey, SecretKey
from .lookup import Lookup, MemoryLookup, Record
from .paths import PathInfo
from .relay import RelayConfig
from .router import Handler, Router
from .stream import BiStream, RecvStream, SendStream
from .tickets import EndpointTicket

__all__ = [
    "BiStream",
    "Connection",
    "CustomAddr",
    "Endpoint",
    "EndpointAddr",
    "EndpointId",
    "EndpointTicket",
    "Handler",
    "IpAddr",
    "Lookup",
    "MemoryLookup",
    "PathInfo",
    "PublicKey",
    "Record",
    "RecvStream",
    "RelayConfig",
    "RelayUrl",
    "Router",
    "SecretKey",
    "SendStream",
    "TransportAddr",
    "frame",
    "read_frame",
]
