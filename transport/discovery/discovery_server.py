"""The relay's side of address discovery: one UDP socket, on which QUIC clients learn their address."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ..addr import IpAddr
from ..driver import Driven, Driver
from ..errors import InvalidAddress
from ..keys import SecretKey
from ..opening import Opening
from ..relay.metrics import RelayMetrics
from ..udp import UdpSocket
from .discovery_engine import DiscoveryEngine, discovery_configuration
from .peers import Telling

__all__ = ["AddressDiscoveryServer"]

logger = logging.getLogger(__name__)

MAX_CLIENTS = 16_384


class AddressDiscoveryServer(Driver):
    """Made by `AddressDiscoveryServer.open`."""

    max_connections = MAX_CLIENTS

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.metrics = RelayMetrics()

    @classmethod
    def open(
        cls, bind: str, certificate: tuple[Path, Path] | None = None, *, metrics: RelayMetrics | None = None
    ) -> Opening[AddressDiscoveryServer]:
        """Tell at ``bind``; ``await`` it, or use it with ``async with``.

        ``certificate`` are the files of a certificate and its key. Without, one is made that proves nothing, for relays
        on plain HTTP, whose clients could not check anything else either. ``metrics`` are the relay's, to count in.
        Raises InvalidAddress.
        """
        addr = IpAddr.parse(bind)

        async def open() -> AddressDiscoveryServer:
            server = cls(SecretKey.generate(), _open_sockets(addr), lambda connection: None)
            server.metrics = metrics or server.metrics
            server.use(certificate)
            return server

        return Opening(open)

    def use(self, certificate: tuple[Path, Path] | None) -> None:
        """Serve with this one from now on."""
        configuration = discovery_configuration(is_client=False)
        if certificate is None:
            _load_made(configuration)
        else:
            configuration.load_cert_chain(*certificate)
        self._server = configuration

    def bound(self) -> list[IpAddr]:
        return [socket.local for socket in self.sockets]

    def _answer(self, original: bytes, retried: bytes | None, now: float) -> Driven:
        assert self._server is not None
        self.metrics.discovery_incoming.inc()
        engine = DiscoveryEngine(
            configuration=self._server,
            reset_token=self.reset_token,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        return Telling(engine, now)

    def _accepted(self, connection: Driven) -> None:
        self.metrics.discovery_connections.inc()
        super()._accepted(connection)

    def _forget(self, connection: Driven) -> None:
        super()._forget(connection)
        told = isinstance(connection, Telling) and connection.established
        (self.metrics.discovery_closed if told else self.metrics.discovery_errors).inc()

    async def aclose(self) -> None:
        self.close()


def _open_sockets(addr: IpAddr) -> list[UdpSocket]:
    """``[::]`` is every address of both families, as far as the machine has them."""
    sockets: list[UdpSocket] = []
    problem: OSError | None = None
    for wanted in [addr, IpAddr.of("0.0.0.0", addr.port)] if str(addr.ip) == "::" else [addr]:  # noqa: S104
        try:
            sockets.append(UdpSocket(IpAddr(wanted.ip, sockets[0].local.port) if sockets else wanted))
        except OSError as error:
            problem = error
    if not sockets:
        assert problem is not None
        raise InvalidAddress(f"cannot bind {addr}: {problem.strerror}. Choose another address or port 0")
    return sockets


def _load_made(configuration: QuicConfiguration) -> None:
    """Give it a certificate that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tidings relay")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pem"
        path.touch(mode=0o600)
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        configuration.load_cert_chain(path, path)
