"""TLS 1.3 with raw public keys (RFC 7250): both sides of every connection prove an Ed25519 key, nothing else.

The profile is iroh's (``reference/iroh-transport.md`` 2a): extensions 19 and 20 offer and select "raw public key", the
only certificate is a 44-byte SubjectPublicKeyInfo, the only signature scheme is Ed25519, and a client without a key is
refused. There is no X.509, no name and no authority: the key *is* the peer.

aioquic's TLS context is subclassed, not patched. What is touched of its private surface, all of it held by the tests:
``_initialize`` of the connection (in ``engine``), and here ``_set_peer_certificate``, ``_server_handle_certificate``,
``_client_handle_encrypted_extensions``, ``_server_handle_hello``, and the attributes set in `make_raw_key_context`.
"""

from __future__ import annotations

from typing import Any, cast

from aioquic import tls
from aioquic._buffer import Buffer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from .keys import KEY_SIZE, EndpointId

__all__ = ["RawKeyCertificate", "RawKeyContext", "make_raw_key_context"]

SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")  # DER: SEQUENCE { SEQUENCE { Ed25519 } BIT STRING 256 bits }
CLIENT_CERTIFICATE_TYPE = 19
SERVER_CERTIFICATE_TYPE = 20
RAW_PUBLIC_KEY = 2


class CertificateRequired(tls.Alert):
    description = tls.AlertDescription.certificate_required


class RawKeyCertificate:
    """Stands where aioquic expects an X.509 certificate: the two methods that its TLS calls."""

    def __init__(self, id: EndpointId) -> None:
        self.id = id
        self._key = Ed25519PublicKey.from_public_bytes(bytes(id))

    @classmethod
    def from_spki(cls, der: bytes) -> RawKeyCertificate:
        prefix, key = der[: len(SPKI_PREFIX)], der[len(SPKI_PREFIX) :]
        if prefix != SPKI_PREFIX or len(key) != KEY_SIZE:
            raise tls.AlertBadCertificate("the certificate is not an Ed25519 public key")
        id = EndpointId(key)
        if id.has_small_order():
            raise tls.AlertBadCertificate("the public key has small order")
        return cls(id)

    def public_bytes(self, encoding: Encoding) -> bytes:
        assert encoding is Encoding.DER
        return SPKI_PREFIX + bytes(self.id)

    def public_key(self) -> Ed25519PublicKey:
        return self._key


class RawKeyContext(tls.Context):
    """aioquic's TLS state machine with the certificate steps replaced."""

    expected: EndpointId | None = None
    """The id that was dialled; None on the accepting side."""

    ticket_id: EndpointId | None = None
    """On the accepting side of a resumed handshake: the id that the ticket was given to."""

    offers_early_data = False

    @property
    def peer_id(self) -> EndpointId | None:
        """The key that the peer sent, or that its ticket stands for; proven once the handshake is complete."""
        certificate = cast("RawKeyCertificate | None", self._peer_certificate)
        if certificate is not None:
            return certificate.id
        return (self.expected or self.ticket_id) if self.session_resumed else None

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        if len(certificate.certificates) != 1:
            raise tls.AlertBadCertificate("expected exactly one raw public key")
        peer = RawKeyCertificate.from_spki(certificate.certificates[0][0])
        if self.expected is not None and peer.id != self.expected:
            raise tls.AlertBadCertificate("the peer holds another key than the one dialled")
        self._peer_certificate = cast(Any, peer)
        self._peer_certificate_chain = []

    def _client_handle_encrypted_extensions(self, input_buf: Buffer) -> None:
        super()._client_handle_encrypted_extensions(input_buf)
        self._require_raw_keys(self.received_extensions, lambda value: value == bytes((RAW_PUBLIC_KEY,)))

    def _server_handle_hello(self, input_buf: Buffer, *output_bufs: Buffer) -> None:
        # Look at the offer before anything is sent: a client that cannot do raw keys gets the reason.
        hello = tls.pull_client_hello(Buffer(data=input_buf.data_slice(0, input_buf.capacity)))
        self._require_raw_keys(hello.other_extensions, lambda value: RAW_PUBLIC_KEY in value[1:])
        self.offers_early_data = hello.early_data
        super()._server_handle_hello(input_buf, *output_bufs)
        if self.session_resumed:
            self._server_expect_finished()  # a resumed handshake has no certificate (RFC 8446 2.2)

    def _server_handle_certificate(self, input_buf: Buffer, *args: Any) -> None:
        super()._server_handle_certificate(input_buf, *args)
        if self._peer_certificate is None:
            raise CertificateRequired("the client sent no public key")

    def _require_raw_keys(self, extensions: Any, accepts: Any) -> None:
        values = dict(extensions or [])
        for kind in (CLIENT_CERTIFICATE_TYPE, SERVER_CERTIFICATE_TYPE):
            if not accepts(values.get(kind, b"")):
                raise tls.AlertUnsupportedCertificate("the peer does not do raw public keys (RFC 7250)")


def make_raw_key_context(context: tls.Context, *, is_client: bool, expected: EndpointId | None) -> RawKeyContext:
    """Turn the context that aioquic has just built into one that does raw keys."""
    context.__class__ = RawKeyContext
    assert isinstance(context, RawKeyContext)
    context.expected = expected
    context._signature_algorithms = [tls.SignatureAlgorithm.ED25519]
    context._supported_groups = [tls.Group.X25519]
    kinds = bytes((1, RAW_PUBLIC_KEY)) if is_client else bytes((RAW_PUBLIC_KEY,))
    context.handshake_extensions += [(CLIENT_CERTIFICATE_TYPE, kinds), (SERVER_CERTIFICATE_TYPE, kinds)]
    context._request_client_certificate = not is_client
    return context
