"""One stream over TCP, and one over aioquic as it comes, behind the same pipe: the limit of this machine."""

import asyncio
import datetime
import ipaddress
import ssl
import sys
import time
from pathlib import Path

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "interop"))
from rust_peer import obey

BLOCK = bytes(1 << 20)
DATAGRAM = 1452


class Plain:
    total = 0

    async def tcp_listen(self):
        self.server = await asyncio.start_server(self._take, "127.0.0.1", 0, limit=1 << 22)
        return self.server.sockets[0].getsockname()[1]

    async def tcp_send(self, port, size):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        start = time.perf_counter()
        for _ in range(size >> 20):
            writer.write(BLOCK)
            await writer.drain()
        writer.write_eof()
        await reader.read()
        return time.perf_counter() - start

    async def quic_listen(self):
        configuration = QuicConfiguration(
            is_client=False, alpn_protocols=["plain"], max_datagram_size=DATAGRAM, **_large_windows()
        )
        configuration.private_key = ed25519.Ed25519PrivateKey.generate()
        configuration.certificate = _certificate(configuration.private_key)
        self.server = await serve(
            "127.0.0.1",
            0,
            configuration=configuration,
            stream_handler=lambda reader, writer: setattr(
                self, "taking", asyncio.ensure_future(self._take(reader, writer))
            ),
        )
        return self.server._transport.get_extra_info("sockname")[1]

    async def quic_send(self, port, size):
        configuration = QuicConfiguration(
            alpn_protocols=["plain"], verify_mode=ssl.CERT_NONE, max_datagram_size=DATAGRAM, **_large_windows()
        )
        async with connect(
            "127.0.0.1", port, configuration=configuration, create_protocol=QuicConnectionProtocol
        ) as connection:
            reader, writer = await connection.create_stream()
            start = time.perf_counter()
            for _ in range(size >> 20):
                writer.write(BLOCK)
            writer.write_eof()
            await reader.read()
            return time.perf_counter() - start

    async def _take(self, reader, writer):
        while await reader.read(1 << 20):
            pass
        writer.write_eof()


def _large_windows():
    return {"max_data": 1 << 24, "max_stream_data": 1 << 24}


def _certificate(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plain")])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, None)
    )


if __name__ == "__main__":
    asyncio.run(obey(Plain()))
