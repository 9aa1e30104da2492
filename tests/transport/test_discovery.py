"""Address discovery: an endpoint learns from relays what address its packets come from."""

import asyncio
import ssl
import subprocess

import pytest
from aioquic._buffer import Buffer, BufferReadError
from hypothesis import given
from hypothesis import strategies as st
from tidings.transport import Endpoint, IpAddr, RelayUrl
from tidings.transport.discovery.discovery_server import AddressDiscoveryServer
from tidings.transport.discovery.observed_address import (
    encode_parameter,
    frame_type,
    pull_observed,
    push_observed,
)
from tidings.transport.relay.relays import RelayConfig
from tidings.transport.relay.server import RelayServer

ANYWHERE = "127.0.0.1:0"


@pytest.fixture
def certificate(tmp_path):
    call = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    call += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*call, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True, cwd=tmp_path)
    return tmp_path / "cert.pem", tmp_path / "key.pem"


def told_by(server, url="http://127.0.0.1:9/"):
    return RelayConfig(RelayUrl(url), discovery_port=server.bound()[0].port)


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def test_the_parameter_is_what_others_send():
    assert encode_parameter(0).hex() == "c00000009f81a176" + "01" + "00"


@given(st.ip_addresses(), st.integers(0, 65535), st.integers(0, 1 << 60))
def test_a_report_is_read_as_it_was_written(ip, port, number):
    addr = IpAddr(ip, port)
    buffer = Buffer(capacity=64)
    push_observed(buffer, number, addr)
    data = buffer.data
    assert pull_observed(Buffer(data=data), frame_type(addr)) == (number, addr)
    with pytest.raises(BufferReadError):
        pull_observed(Buffer(data=data[:-1]), frame_type(addr))


async def test_an_endpoint_learns_its_address():
    async with AddressDiscoveryServer.open(ANYWHERE) as server:
        async with Endpoint.bind(bind=[ANYWHERE], relays=[told_by(server)]) as endpoint:
            finder = endpoint._finder
            await until(finder.found)
            assert finder.found() == endpoint.bound()
            assert finder.varies(4) is None
            assert server.metrics.registry.get_sample_value("relayserver_qad_connections_total") == 1
            endpoint.relays.remove("http://127.0.0.1:9/")
            await until(lambda: not finder.found())
        await until(lambda: server.metrics.registry.get_sample_value("relayserver_qad_connections_closed_total") == 1)


async def test_the_address_is_told_again_after_the_network_changed():
    async with AddressDiscoveryServer.open(ANYWHERE) as server:
        async with Endpoint.bind(bind=[ANYWHERE], relays=[told_by(server)]) as endpoint:
            await until(endpoint._finder.found)
            endpoint._finder.ask_again()
            assert endpoint._finder.found() == []
            await until(endpoint._finder.found)


async def test_two_relays_that_see_the_same_address():
    async with AddressDiscoveryServer.open(ANYWHERE) as one, AddressDiscoveryServer.open("127.0.0.2:0") as other:
        relays = [told_by(one), told_by(other, "http://127.0.0.2:9/")]
        async with Endpoint.bind(bind=[ANYWHERE], relays=relays) as endpoint:
            await until(lambda: endpoint._finder.varies(4) is not None)
            assert endpoint._finder.varies(4) is False


async def test_a_certificate_is_checked_where_the_relay_has_one(certificate):
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    url = "https://localhost:9/"
    async with AddressDiscoveryServer.open(ANYWHERE, certificate) as server:
        async with Endpoint.bind(bind=[ANYWHERE], relays=[told_by(server, url)], tls=trusting) as endpoint:
            await until(endpoint._finder.found)
        async with Endpoint.bind(bind=[ANYWHERE], relays=[told_by(server, url)]) as endpoint:
            await until(lambda: server.metrics.registry.get_sample_value("relayserver_qad_incoming_total") >= 2)
            await asyncio.sleep(0.2)
            assert endpoint._finder.found() == []


async def test_noise_does_not_stop_the_server():
    async with AddressDiscoveryServer.open(ANYWHERE) as server:
        at = server.bound()[0]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(str(at.ip), at.port)
        )
        for size in (1, 20, 500, 1200):
            for first in (0x00, 0x0B, 0x40, 0xC0, 0xFF):
                transport.sendto(bytes([first]) * size)
        async with Endpoint.bind(bind=[ANYWHERE], relays=[told_by(server)]) as endpoint:
            await until(endpoint._finder.found)
        transport.close()


async def test_an_endpoint_without_an_answer_goes_on():
    async with RelayServer.open() as relay:
        config = RelayConfig(RelayUrl(f"http://{relay.bound()[0]}/"), discovery_port=9)
        async with Endpoint.bind(bind=[ANYWHERE], relays=[config]) as endpoint:
            await endpoint.online(5)
            assert endpoint._finder.found() == []
