"""Signed words about who may read a restricted document, without I/O.

The holder of a document's secret signs three kinds of *statement*:

- `Share`: whoever proves to be its holder may read until a time. The holder is one endpoint, or, for a ticket that is
  passed on without knowing to whom, a *bearer key* made for this share, whose secret half is in the ticket;
- `Revocation`: that share counts no more;
- `Restriction`: from now on the document is restricted, or is not any more. The latest one counts.

A peer shows a *presentation*: that it holds the secret of the document, or a share that is its own. The connection has
proved the peer's endpoint id already, so a presentation is a signature over that id by the key in question. It is of no
use to anybody else: a bearer's ticket is not given away by being used, as the record alone would be.

Everything signed starts with `CONTEXT`, so that no signature over an entry, which starts with the document's id, can
pass for one of these. Times are microseconds since 1970. Decoders raise DecodeError for anything that is not one value
and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Self

from ...transport.errors import DecodeError
from ...transport.keys import EndpointId, SecretKey
from ...transport.postcard import Reader, Writer
from ..model.keys import NamespaceId, NamespaceSecret

__all__ = [
    "MAX_STATEMENT",
    "SHARE_ID_SIZE",
    "Grant",
    "Presentation",
    "Restriction",
    "Revocation",
    "Share",
    "Statement",
    "decode_statement",
    "present_secret",
]

CONTEXT = b"tidings document access 1\0"
SHARE_ID_SIZE = 16
MAX_STATEMENT = 160
"""Bytes of a statement: a share has at most 134."""

_SHARE, _REVOCATION, _RESTRICTION = range(3)
_BY_SECRET, _BY_SHARE = range(2)
_LATEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Share:
    """The right to read, of ``holder``: an endpoint's id, or with ``is_bearer`` a key made for this share."""

    id: bytes
    holder: EndpointId
    is_bearer: bool
    issued_us: int
    not_after_us: int | None
    signature: bytes = field(default=b"", repr=False)

    @classmethod
    def issue(
        cls, secret: NamespaceSecret, reader: EndpointId | None, issued_us: int, not_after_us: int | None
    ) -> Grant:
        """A new share for ``reader``, or for whoever gets the grant."""
        bearer = SecretKey.generate() if reader is None else None
        holder = reader if bearer is None else bearer.public
        assert holder is not None
        share = cls(os.urandom(SHARE_ID_SIZE), holder, bearer is not None, issued_us, not_after_us)
        return Grant(replace(share, signature=secret.sign(share._signed(secret.id))), bearer)

    def is_valid(self, namespace: NamespaceId, now_us: int) -> bool:
        """Whether the document's secret signed it and its time has not come: at ``not_after_us`` it is over."""
        in_time = self.not_after_us is None or now_us < self.not_after_us
        return in_time and namespace.verify(self._signed(namespace), self.signature)

    def encode(self) -> bytes:
        return self._payload() + self.signature

    def _payload(self) -> bytes:
        out = Writer().u8(_SHARE).raw(self.id).raw(bytes(self.holder)).flag(self.is_bearer).varint(self.issued_us)
        return _write_time(out, self.not_after_us).finish()

    def _signed(self, namespace: NamespaceId) -> bytes:
        return CONTEXT + bytes(namespace) + self._payload()


@dataclass(frozen=True, slots=True)
class Revocation:
    """Share ``share_id`` counts no more. Past ``until_us``, when the share ends anyway, nobody needs to keep this."""

    share_id: bytes
    issued_us: int
    until_us: int | None
    signature: bytes = field(default=b"", repr=False)

    @classmethod
    def issue(cls, secret: NamespaceSecret, share_id: bytes, issued_us: int, until_us: int | None) -> Self:
        revocation = cls(share_id, issued_us, until_us)
        return replace(revocation, signature=secret.sign(revocation._signed(secret.id)))

    def is_genuine(self, namespace: NamespaceId) -> bool:
        return namespace.verify(self._signed(namespace), self.signature)

    def is_over(self, now_us: int) -> bool:
        """Whether the share has ended without this."""
        return self.until_us is not None and self.until_us <= now_us

    def encode(self) -> bytes:
        return self._payload() + self.signature

    def _payload(self) -> bytes:
        out = Writer().u8(_REVOCATION).raw(self.share_id).varint(self.issued_us)
        return _write_time(out, self.until_us).finish()

    def _signed(self, namespace: NamespaceId) -> bytes:
        return CONTEXT + bytes(namespace) + self._payload()


@dataclass(frozen=True, slots=True)
class Restriction:
    """Whether the document is restricted since ``issued_us``."""

    restricted: bool
    issued_us: int
    signature: bytes = field(default=b"", repr=False)

    @classmethod
    def issue(cls, secret: NamespaceSecret, restricted: bool, issued_us: int) -> Self:
        restriction = cls(restricted, issued_us)
        return replace(restriction, signature=secret.sign(restriction._signed(secret.id)))

    def is_genuine(self, namespace: NamespaceId) -> bool:
        return namespace.verify(self._signed(namespace), self.signature)

    def encode(self) -> bytes:
        return self._payload() + self.signature

    def _payload(self) -> bytes:
        return Writer().u8(_RESTRICTION).flag(self.restricted).varint(self.issued_us).finish()

    def _signed(self, namespace: NamespaceId) -> bytes:
        return CONTEXT + bytes(namespace) + self._payload()


Statement = Share | Revocation | Restriction


def decode_statement(data: bytes) -> Statement:
    """What it says; whether it was the document's secret that signed is another question."""
    reader = Reader(data)
    statement = _read_statement(reader)
    reader.end()
    return statement


def _read_statement(data: Reader) -> Statement:
    match data.variant(3):
        case 0:
            id, holder = data.raw(SHARE_ID_SIZE), EndpointId(data.raw(32))
            return Share(id, holder, data.flag(), data.varint(_LATEST), _read_time(data), data.raw(64))
        case 1:
            return Revocation(data.raw(SHARE_ID_SIZE), data.varint(_LATEST), _read_time(data), data.raw(64))
        case _:
            return Restriction(data.flag(), data.varint(_LATEST), data.raw(64))


def _read_share(data: Reader) -> Share:
    statement = _read_statement(data)
    if not isinstance(statement, Share):
        raise DecodeError("a share is needed here, not another statement")
    return statement


@dataclass(frozen=True, slots=True)
class Grant:
    """A share with what its holder needs to use it: what a ticket carries. A bearer's has a secret."""

    share: Share
    bearer: SecretKey | None = None

    def encode(self) -> bytes:
        secret = b"" if self.bearer is None else self.bearer.to_bytes()
        return self.share.encode() + secret

    @classmethod
    def decode(cls, data: bytes) -> Self:
        reader = Reader(data)
        share = _read_share(reader)
        bearer = SecretKey(reader.raw(32)) if share.is_bearer else None
        reader.end()
        if bearer is not None and bearer.public != share.holder:
            raise DecodeError("the secret of a share is not that of its holder")
        return cls(share, bearer)

    def is_for(self, endpoint: EndpointId) -> bool:
        """Whether ``endpoint`` can use it."""
        return self.bearer is not None or self.share.holder == endpoint

    def present(self, namespace: NamespaceId, endpoint: EndpointId) -> bytes | None:
        """What ``endpoint`` shows to prove that it may read; None where the share is another endpoint's."""
        if self.bearer is None:
            signature = b""
            if not self.is_for(endpoint):
                return None
        else:
            signature = self.bearer.sign(_presented(namespace, endpoint))
        return Writer().u8(_BY_SHARE).raw(self.share.encode()).raw(signature).finish()


def present_secret(secret: NamespaceSecret, endpoint: EndpointId) -> bytes:
    """What ``endpoint`` shows to prove that it holds the secret of the document."""
    return Writer().u8(_BY_SECRET).raw(secret.sign(_presented(secret.id, endpoint))).finish()


@dataclass(frozen=True, slots=True)
class Presentation:
    """What a peer showed; ``share`` is None for who claims to hold the document's secret."""

    share: Share | None
    signature: bytes = field(repr=False)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        reader = Reader(data)
        share = None if reader.variant(2) == _BY_SECRET else _read_share(reader)
        signature = reader.raw(0 if share is not None and not share.is_bearer else 64)
        reader.end()
        return cls(share, signature)

    def admits(self, namespace: NamespaceId, endpoint: EndpointId, now_us: int, revoked: Container[bytes]) -> bool:
        """Whether this lets ``endpoint`` read now. ``revoked`` has the ids of the shares that count no more."""
        share = self.share
        if share is None:
            return namespace.verify(_presented(namespace, endpoint), self.signature)
        if share.id in revoked or not share.is_valid(namespace, now_us):
            return False
        if share.is_bearer:
            return share.holder.verify(_presented(namespace, endpoint), self.signature)
        return share.holder == endpoint


def _presented(namespace: NamespaceId, endpoint: EndpointId) -> bytes:
    return CONTEXT + b"presented by\0" + bytes(namespace) + bytes(endpoint)


def _write_time(out: Writer, time_us: int | None) -> Writer:
    return out.flag(False) if time_us is None else out.flag(True).varint(time_us)


def _read_time(data: Reader) -> int | None:
    return data.varint(_LATEST) if data.flag() else None
