"""Errors of the transport layer, by blame (see ``tidings.errors``).

UsageError    InvalidKey  InvalidAddress  InvalidTicket  DatagramTooLarge  EndpointClosed
PeerError     DecodeError  StreamReset  StreamStopped  WrongIdentity  ProtocolRefused  IdentityRefused
NetworkError  Unreachable (LookupFailed)  ConnectionClosed
"""

from __future__ import annotations

from typing import Literal

from ..errors import NetworkError, PeerError, UsageError

__all__ = [
    "ConnectionClosed",
    "DatagramTooLarge",
    "DecodeError",
    "EndpointClosed",
    "IdentityRefused",
    "InvalidAddress",
    "InvalidKey",
    "InvalidTicket",
    "LookupFailed",
    "ProtocolRefused",
    "StreamReset",
    "StreamStopped",
    "Unreachable",
    "WrongIdentity",
]


class InvalidKey(UsageError):
    """Text or bytes that are not a key: ask for the 64 hexadecimal digits that ``tidings id`` prints."""


class InvalidAddress(UsageError):
    """Not an IP address with a port, or not a relay URL."""


class InvalidTicket(UsageError):
    """Not a ticket, a ticket of another kind, or a damaged one: ask its sender to copy the whole line again."""


class DatagramTooLarge(UsageError):
    """A datagram that does not fit one packet to this peer: use a stream, or send less."""


class EndpointClosed(UsageError):
    """The endpoint was closed; open a new one."""


class DecodeError(PeerError):
    """Bytes that are not the message they should be."""


class StreamReset(PeerError):
    """The peer gave up sending on this stream; ``code`` is its reason as a number."""

    def __init__(self, code: int, *, peer: object | None = None) -> None:
        super().__init__(f"the peer reset the stream with code {code}", peer=peer)
        self.code = code


class StreamStopped(PeerError):
    """The peer does not want more of this stream; ``code`` is its reason as a number."""

    def __init__(self, code: int, *, peer: object | None = None) -> None:
        super().__init__(f"the peer stopped the stream with code {code}", peer=peer)
        self.code = code


class WrongIdentity(PeerError):
    """Something answered at the address, but it does not hold the key that was dialled."""


class ProtocolRefused(PeerError):
    """The peer is there but does not speak the protocol (ALPN) that was asked for."""


class IdentityRefused(PeerError):
    """The peer is there but does not accept our key."""


class Unreachable(NetworkError):
    """No address of the peer answered in time, or none is known."""


class LookupFailed(Unreachable):
    """No lookup service said where the peer is."""


class ConnectionClosed(NetworkError):
    """The connection is over.

    ``by`` says who ended it: "local", "peer", or "network" (silence, or a fault in the protocol).
    ``code`` and ``reason`` are what the closing side gave; ``application`` tells an application's code from QUIC's own.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        *,
        by: Literal["local", "peer", "network"],
        application: bool = True,
        peer: object | None = None,
    ) -> None:
        who = {"local": "closed here", "peer": "closed by the peer", "network": "lost"}[by]
        text = f"the connection was {who} (code {code:#x}{', ' + reason if reason else ''})"
        super().__init__(f"{text} (peer {str(peer)[:10]})" if peer is not None else text)
        self.code = code
        self.reason = reason
        self.by = by
        self.application = application
        self.peer: str | None = None if peer is None else str(peer)
