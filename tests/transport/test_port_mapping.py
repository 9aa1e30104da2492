"""Asking a router for a port: messages, and a router that we play."""

import asyncio
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.transport import Endpoint, IpAddr
from tidings.transport.errors import DecodeError
from tidings.transport.network import port_mapping
from tidings.transport.network.port_mapping import PortMapping, gateway_of
from tidings.transport.network.port_mapping_messages import (
    Mapped,
    PcpRequest,
    PmpRequest,
    decode_pcp,
    decode_pmp,
)
from tidings.transport.network.state import NetworkState

NONCE = bytes(range(12))
PUBLIC = IPv4Address("198.51.100.7")


class Router(asyncio.DatagramProtocol):
    """Answers PCP, NAT-PMP, or neither; ``mappings`` by our port."""

    def __init__(self, *, pcp=True, pmp=True, ip=PUBLIC, refuse=0):
        self.pcp, self.pmp, self.ip, self.refuse = pcp, pmp, ip, refuse
        self.mappings = {}
        self.asked = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.asked.append(data)
        if data[0] == 2 and self.pcp:
            lifetime, nonce = struct.unpack(">I", data[4:8])[0], data[24:36]
            port, suggested = struct.unpack(">HH", data[40:44])
            self.keep(port, suggested, lifetime)
            self.transport.sendto(
                struct.pack(
                    ">BBBBI I12x 12sB3xHH16s",
                    2,
                    129,
                    0,
                    self.refuse,
                    lifetime,
                    1,
                    nonce,
                    17,
                    port,
                    suggested,
                    IPv6Address(f"::ffff:{self.ip}").packed,
                ),
                addr,
            )
        elif data[0] == 2 and self.pmp:
            self.transport.sendto(struct.pack(">BBHI", 0, 128, 1, 1), addr)  # a version that it does not know
        elif data[0] == 0 and self.pmp and data[1] == 0:
            self.transport.sendto(struct.pack(">BBHI4s", 0, 128, self.refuse, 1, self.ip.packed), addr)
        elif data[0] == 0 and self.pmp:
            port, suggested, lifetime = struct.unpack(">HHI", data[4:])
            self.keep(port, suggested, lifetime)
            self.transport.sendto(struct.pack(">BBHIHHI", 0, 129, self.refuse, 1, port, suggested, lifetime), addr)

    def keep(self, port, suggested, lifetime):
        if lifetime:
            self.mappings[port] = suggested
        else:
            self.mappings.pop(port, None)

    @classmethod
    async def at(cls, **options):
        router = cls(**options)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: router, local_addr=("127.0.0.1", 0))
        router.addr = IpAddr.of(*router.transport.get_extra_info("sockname"))
        return router


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kinds", [{"pcp": True}, {"pcp": False}])
async def test_a_port_is_kept_and_given_back(kinds, monkeypatch):
    monkeypatch.setattr(port_mapping, "WAITS", (0.1, 0.1))
    router = await Router.at(**kinds)
    changes = []
    mapping = PortMapping(4433, lambda: changes.append(mapping.addr), router.addr)
    await until(lambda: changes)
    assert changes == [IpAddr(PUBLIC, 4433)] and router.mappings == {4433: 4433} and not mapping.problem
    await mapping.aclose()
    await until(lambda: not router.mappings)
    router.transport.close()


@pytest.mark.parametrize(
    ("kinds", "problem"),
    [
        ({"pcp": False, "pmp": False}, "does not answer"),
        ({"ip": IPv4Address("10.0.0.1")}, "itself behind another"),
        ({"refuse": 2}, "not allowed"),
        ({"refuse": 77, "pcp": False}, "code 77"),
    ],
)
async def test_a_router_that_gives_none(kinds, problem, monkeypatch):
    monkeypatch.setattr(port_mapping, "WAITS", (0.05,))
    router = await Router.at(**kinds)
    mapping = PortMapping(4433, lambda: None, router.addr)
    await until(lambda: problem in mapping.problem)
    assert mapping.addr is None
    await mapping.aclose()
    router.transport.close()


async def test_an_endpoint_tells_the_port(monkeypatch):
    router = await Router.at()
    monkeypatch.setattr(port_mapping, "gateway_of", lambda state: router.addr)
    async with Endpoint.bind(bind=["127.0.0.1:0"], port_mapping=True) as endpoint:
        port = endpoint.bound()[0].port
        await until(lambda: IpAddr(PUBLIC, port) in endpoint.addr().direct)
    await until(lambda: not router.mappings)
    router.transport.close()


def test_the_bytes_of_the_rfcs():
    assert PmpRequest(4433, 7200, 4434).encode().hex() == "000100001151115200001c20"
    request = PcpRequest(IPv4Address("192.0.2.1"), 4433, 7200, NONCE).encode()
    assert len(request) == 60 and request[:8].hex() == "0201000000001c20"
    assert request[8:24] == IPv6Address("::ffff:192.0.2.1").packed


@given(st.binary(max_size=80))
def test_noise_is_refused(data):
    for read in (lambda: decode_pmp(data, 4433), lambda: decode_pcp(data, 4433, NONCE)):
        with pytest.raises(DecodeError):
            read()


def test_an_answer_to_another_is_none_to_us():
    answer = struct.pack(">BBHIHHI", 0, 129, 0, 1, 4433, 5544, 60)
    assert decode_pmp(answer, 4433) == Mapped(5544, 60)
    with pytest.raises(DecodeError):
        decode_pmp(answer, 4434)
    assert Mapped(1, 60).addr is None


def test_the_gateway():
    assert gateway_of(NetworkState(routes=frozenset({(4, "eth0", "0101A8C0")}))) == IpAddr.of("192.168.1.1", 5351)
    assert gateway_of(NetworkState(routes=frozenset({(6, "eth0", "fe80" + "0" * 27 + "1")}))) is None
