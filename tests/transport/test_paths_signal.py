"""What comes of ways from strangers and from peers that lie: probes and signals."""

import asyncio
import os

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.errors import NetworkError, PeerError
from tidings.transport import Endpoint, EndpointAddr, IpAddr, RelayUrl
from tidings.transport.errors import DecodeError
from tidings.transport.framing import frame
from tidings.transport.paths.probes import FIRST_BYTE, MAX_REMEMBERED, SIZE, Kind, Probe, ProbeKey, tag_of
from tidings.transport.paths.signal import MAX_DIRECT, PATHS_ALPN, Signal
from tidings.transport.relay.server import RelayServer

HERE = IpAddr.parse("192.0.2.1:1")
SIX = IpAddr.parse("[2001:db8::1]:65535")
RELAY = RelayUrl("https://relay.example/")


def test_a_probe_is_told_from_quic_and_opens_for_its_key_alone():
    key, other = ProbeKey.generate(), ProbeKey.generate()
    sealed = key.seal(Probe(Kind.PING, 7))
    assert len(sealed) == SIZE and sealed[0] == FIRST_BYTE and not sealed[0] & 0xC0
    assert tag_of(sealed) == key.tag
    assert other.open(sealed) is None
    assert key.open(sealed) == Probe(Kind.PING, 7)
    assert key.open(sealed) is None  # a copy
    assert key.key.hex() not in repr(key)


@given(st.integers(0, SIZE - 1), st.integers(1, 255))
def test_a_probe_with_any_byte_changed_is_nobodys(at, change):
    key = ProbeKey(bytes(8), bytes(32))
    sealed = bytearray(key.seal(Probe(Kind.PONG, 1 << 40)))
    sealed[at] ^= change
    assert key.open(bytes(sealed)) is None


def test_pings_may_come_in_any_order_but_once():
    key = ProbeKey.generate()
    sealed = [key.seal(Probe(Kind.PING, number)) for number in range(1, 3 * MAX_REMEMBERED)]
    assert all(key.open(each) for each in reversed(sealed[:50]))
    assert not any(key.open(each) for each in sealed[:50])
    assert all(key.open(each) for each in sealed[50:])
    assert not any(key.open(each) for each in sealed)
    assert len(key._seen) <= MAX_REMEMBERED


def test_signals():
    key = ProbeKey.generate()
    signal = Signal((HERE, SIX, RELAY), key)
    decoded = Signal.decode(signal.encode())
    assert decoded.addrs == signal.addrs
    assert (decoded.key.tag, decoded.key.key) == (key.tag, key.key)
    assert Signal.decode(Signal((HERE,)).encode()) == Signal((HERE,))
    many = Signal(tuple(IpAddr.of("192.0.2.1", port) for port in range(1, 100)))
    assert len(Signal.decode(many.encode()).addrs) == MAX_DIRECT


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        msgpack.packb([1, 2]),
        msgpack.packb({"direct": []}),
        msgpack.packb({"direct": [b"1234567"], "relays": []}),
        msgpack.packb({"direct": ["192.0.2.1:1"], "relays": []}),
        msgpack.packb({"direct": [bytes(6)] * 100, "relays": []}),
        msgpack.packb({"direct": [bytes(4) + b"\0\1"], "relays": []}),
        msgpack.packb({"direct": [b"\xc0\0\2\1\0\0"], "relays": []}),
        msgpack.packb({"direct": [b"\xe0\0\0\1\0\1"], "relays": []}),
        msgpack.packb({"direct": [b"\xff\xff\xff\xff\0\1"], "relays": []}),
        msgpack.packb({"direct": [], "relays": ["ftp://x/"]}),
        msgpack.packb({"direct": [], "relays": [7]}),
        msgpack.packb({"direct": [], "relays": ["https://x/"] * 100}),
        msgpack.packb({"direct": [], "relays": [], "key": b"short", "tag": bytes(8)}),
        msgpack.packb({"direct": [], "relays": [], "key": bytes(32)}),
        msgpack.packb({1: 2}),
    ],
)
def test_what_is_no_signal(message):
    with pytest.raises(DecodeError):
        Signal.decode(message)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_signal_or_a_decode_error(data):
    try:
        Signal.decode(data)
    except DecodeError:
        pass


@pytest.fixture
async def related():
    """Two endpoints with a relayed connection: the dialler, the accepter."""
    async with RelayServer.open() as relay:
        url = f"http://{relay.bound()[0]}/"
        async with (
            Endpoint.bind(bind=["127.0.0.1:0"], relays=[url]) as a,
            Endpoint.bind(alpns=[b"test/1"], bind=["127.0.0.1:0"], relays=[url]) as b,
        ):
            await b.online(5)
            connection = await a.connect(EndpointAddr.of(b.id, b.addr().relays), b"test/1")
            yield a, b, connection


@pytest.mark.parametrize("said", [b"", b"junk", frame(b"junk"), frame(Signal((HERE,)).encode()), b"\xff\xff\xff\xff"])
async def test_a_peer_that_signals_nonsense_costs_its_signalling_alone(related, said, monkeypatch):
    monkeypatch.setattr("tidings.transport.paths.keeper.HELLO_TIMEOUT", 0.3)
    a, b, connection = related
    signalling = await a.connect(b.addr(), PATHS_ALPN)
    stream = await signalling.open_bi()
    await stream.send.write(said)
    await asyncio.wait_for(signalling.wait_closed(), 5)
    await connection.open_bi()
    assert connection.closed is None


async def test_a_peer_that_signals_without_end_is_cut_off(related):
    a, b, connection = related
    signalling = await a.connect(b.addr(), PATHS_ALPN)
    stream = await signalling.open_bi()
    await stream.send.write(frame(Signal((), ProbeKey.generate()).encode()))
    for _ in range(100):
        await stream.send.write(frame(Signal((HERE,)).encode()))
    end = await asyncio.wait_for(signalling.wait_closed(), 5)
    assert "without end" in end.reason
    assert connection.closed is None


async def test_a_stranger_cannot_signal(related):
    _, b, _ = related
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as stranger:
        with pytest.raises((NetworkError, PeerError), match="no connection whose ways"):
            signalling = await stranger.connect(b.addr(), PATHS_ALPN)
            raise await asyncio.wait_for(signalling.wait_closed(), 5)


async def test_probes_of_strangers_are_not_answered(related):
    """Whatever is sent to an endpoint's socket from outside: nothing comes back, and no way changes."""
    _, b, connection = related
    paths = connection.watch_paths()
    async with asyncio.timeout(5):
        while (await anext(paths))[0].kind != "direct":
            pass
    before = connection.paths()[0].addr
    session = next(iter(b._paths.by_tag.values()))
    heard = []

    class Stranger(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            heard.append(data)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Stranger, remote_addr=("127.0.0.1", b.bound()[0].port), family=2)
    try:
        good = session.key_here.seal(Probe(Kind.PING, 1 << 50))
        for data in (
            good[:-1] + bytes((good[-1] ^ 1,)),
            good[:20],
            good[:1] + os.urandom(SIZE - 1),
            good[:4] + os.urandom(33),
        ):
            transport.sendto(data)
        await asyncio.sleep(0.1)
        assert heard == []
        transport.sendto(good)  # as if stolen on its way: answered, and asked back, and no more than it weighs thrice
        transport.sendto(good)
        await asyncio.sleep(1.0)
        assert 1 <= len(heard) <= 3
        assert sum(map(len, heard)) <= 3 * SIZE
        assert connection.paths()[0].addr == before
        assert len(connection.paths()) == 2
    finally:
        transport.close()
