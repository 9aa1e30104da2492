import socket

import pytest
from tidings.transport.addr import IpAddr
from tidings.transport.socket_address import ip_addr_of
from tidings.transport.udp import MAX_SEGMENTS, UdpSocket


@pytest.fixture
def sockets():
    pair = [UdpSocket(IpAddr.parse("127.0.0.1:0")) for _ in range(2)]
    yield pair
    for one in pair:
        one.close()


def drain(udp):
    out = []
    while batch := udp.receive(64):
        out += batch
    return out


@pytest.mark.parametrize("gso", [True, False])
def test_datagrams_keep_their_borders_and_order(sockets, gso):
    a, b = sockets
    a._gso = a._gso and gso
    to = (str(b.local.ip), b.local.port)
    sizes = [1200] * 70 + [300, 1200, 1200, 7, 1, 1452, 1452, 3] + [1200] * (MAX_SEGMENTS + 1)
    sent = [bytes((n % 256,)) * size for n, size in enumerate(sizes)]
    assert a.send([(data, to) for data in sent]) is None
    got = drain(b)
    assert [data for data, _ in got] == sent
    assert {ip_addr_of(addr) for _, addr in got} == {a.local}


def test_runs_end_where_the_address_changes(sockets):
    a, b = sockets
    to_b, to_a = ((str(udp.local.ip), udp.local.port) for udp in (b, a))
    a.send([(b"x" * 10, to_b), (b"y" * 10, to_b), (b"z" * 10, to_a), (b"w" * 10, to_b)])
    assert [data[:1] for data, _ in drain(b)] == [b"x", b"y", b"w"]
    assert [data[:1] for data, _ in drain(a)] == [b"z"]


def test_what_the_kernel_refuses_is_told_and_the_rest_goes_on(sockets):
    a, b = sockets
    to = (str(b.local.ip), b.local.port)
    problem = a.send([(bytes(70_000), to), (b"after", to)])
    assert isinstance(problem, OSError)
    assert [data for data, _ in drain(b)] == [b"after"]


def test_zone_and_scope_are_dropped():
    assert ip_addr_of(("fe80::1%lo", 5, 0, 1)) == IpAddr.parse("[fe80::1]:5")


def test_a_taken_port_is_an_os_error(sockets):
    with pytest.raises(OSError):
        UdpSocket(sockets[0].local)
    assert sockets[0].family == socket.AF_INET
