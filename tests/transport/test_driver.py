"""Hostile bytes on the UDP port, and what answers cost."""

import asyncio
import gc
import os
import random
import socket
import weakref

import pytest
from aioquic.quic.connection import QuicConnection
from tidings.transport import Endpoint, Router, SecretKey
from tidings.transport.driver import SPARE_TIMERS
from tidings.transport.engine import Engine, make_configuration
from tidings.transport.errors import ConnectionClosed, Unreachable


class Raw:
    """A plain UDP socket beside an endpoint."""

    def __init__(self, to):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._to = (str(to.ip), to.port)

    def send(self, data):
        self._socket.sendto(data, self._to)

    async def received(self, wait=0.1):
        await asyncio.sleep(wait)
        out = []
        while True:
            try:
                out.append(self._socket.recv(65_536))
            except BlockingIOError:
                return out

    def close(self):
        self._socket.close()


@pytest.fixture
async def served():
    async def echo(connection):
        while True:
            stream = await connection.accept_bi()
            await stream.send.write(await stream.recv.read_to_end(1 << 20))
            await stream.send.finish()

    async with Endpoint.bind(bind=["127.0.0.1:0"]) as a, Endpoint.bind(bind=["127.0.0.1:0"]) as b:
        async with Router(b, {b"echo/1": echo}):
            raw = Raw(b.bound()[0])
            yield a, b, raw
            raw.close()


async def assert_alive(a, b):
    connection = await a.connect(b.addr(), b"echo/1")
    stream = await connection.open_bi()
    await stream.send.write(b"still here")
    await stream.send.finish()
    assert await asyncio.wait_for(stream.recv.read_to_end(100), 5) == b"still here"


def initial(size=1200, version=b"\0\0\0\1", cid=8):
    """A datagram shaped like the start of a connection, with nothing decryptable in it."""
    rng = random.Random(7)
    head = b"\xc0" + version + bytes((cid,)) + rng.randbytes(cid) + b"\x08" + rng.randbytes(8) + b"\0"
    length = size - len(head) - 2
    return head + (length | 0x4000).to_bytes(2, "big") + rng.randbytes(length)


async def test_random_bytes_are_answered_by_nobody_and_hurt_nobody(served):
    a, b, raw = served
    rng = random.Random(1)
    sent = 0
    for size in [0, 1, 2, 5, 6, 7, 8, 9, 20, 21, 22, 40, 100, 1199, 1200, 1201, 1500, 9000] * 20:
        data = rng.randbytes(size)
        raw.send(data)
        raw.send(b"\xc0\0\0\0\1" + data)
        sent += 2 * size + 5
    answers = await raw.received(0.3)
    assert sum(map(len, answers)) <= sent
    assert not b._driver._cids  # nothing kept
    await assert_alive(a, b)


async def test_undecryptable_first_packets_leave_no_state(served):
    a, b, raw = served
    for _ in range(50):
        raw.send(initial())
    assert await raw.received() == []
    assert not b._driver._cids
    await assert_alive(a, b)


async def test_another_version_gets_a_negotiation_no_larger_than_what_came(served):
    _, _, raw = served
    raw.send(initial(version=b"\x1a\x2a\x3a\x4a"))
    (answer,) = await raw.received()
    assert answer[1:5] == b"\0\0\0\0"
    assert len(answer) < 100
    raw.send(initial(size=1199, version=b"\x1a\x2a\x3a\x4a"))
    raw.send(initial(version=b"\0\0\0\0"))
    assert await raw.received() == []


async def test_resets_are_smaller_than_what_came_and_few(served):
    _, _, raw = served
    for _ in range(30):
        raw.send(b"\x40" + os.urandom(99))
    answers = await raw.received()
    assert 1 <= len(answers) <= 6
    assert all(len(answer) < 100 for answer in answers)
    await asyncio.sleep(0.05)
    raw.send(b"\x40" + os.urandom(20))
    assert await raw.received() == []


async def test_packets_of_a_live_connection_from_a_stranger_do_not_hurt_it(served):
    """Flipped and cut copies of real packets before they arrive, and replayed ones after, while data flows."""
    a, b, raw = served
    connection = await a.connect(b.addr(), b"echo/1")
    rng = random.Random(3)
    loop = asyncio.get_running_loop()
    original = Engine.datagrams_to_send

    def spy(self, now):
        out = original(self, now)
        for data, _ in out:
            if self is connection.engine:
                flipped = bytearray(data)
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
                for bad in (bytes(flipped), data[: rng.randrange(1, len(data))], data + b"\0"):
                    raw.send(bad)
                loop.call_later(0.005, raw.send, data)
        return out

    Engine.datagrams_to_send = spy
    try:
        for _ in range(20):
            stream = await connection.open_bi()
            data = rng.randbytes(5000)
            await stream.send.write(data)
            await stream.send.finish()
            assert await asyncio.wait_for(stream.recv.read_to_end(5000), 10) == data
    finally:
        Engine.datagrams_to_send = original
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "payload", [b"\x40\x3f", b"\x02", b"\x06\0", b"\x08\xff", b"\x31\xff", b"\x04\3\0\0", b"\x1c", b"\x12\xff"]
)
async def test_bad_frames_inside_valid_packets_cost_their_connection_only(served, payload, monkeypatch):
    a, b, _ = served
    bystander = await a.connect(b.addr(), b"echo/1")
    offender = await a.connect(b.addr(), b"echo/1")
    original = QuicConnection._write_application
    done = []

    def write(self, builder, network_path, now):
        if self is offender.engine and not done:
            done.append(True)
            from aioquic import tls
            from aioquic.quic.packet import QuicPacketType

            builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[tls.Epoch.ONE_RTT])
            builder.start_frame(0x01, capacity=len(payload) + 1)
            builder._buffer.seek(builder._buffer.tell() - 1)
            builder._buffer.push_bytes(payload)
        return original(self, builder, network_path, now)

    monkeypatch.setattr(QuicConnection, "_write_application", write)
    offender.send_datagram(b"go")
    end = await asyncio.wait_for(offender.wait_closed(), 5)
    assert end.by == "peer"
    assert not end.application
    with pytest.raises(ConnectionClosed):
        await offender.open_bi()
    assert bystander.closed is None
    await assert_alive(a, b)


async def test_an_engine_that_fails_costs_its_connection_only(served, monkeypatch, caplog):
    a, b, _ = served
    bystander = await a.connect(b.addr(), b"echo/1")
    victim = await a.connect(b.addr(), b"echo/1")
    original = Engine.receive_datagram

    def receive(self, data, addr, now):
        if self is victim.engine:
            raise AssertionError("a bug in the engine")
        return original(self, data, addr, now)

    monkeypatch.setattr(Engine, "receive_datagram", receive)
    stream = await victim.open_bi()
    await stream.send.write(b"x")
    end = await asyncio.wait_for(victim.wait_closed(), 5)
    assert end.by == "network"
    assert "a bug in the engine" in caplog.text
    assert bystander.closed is None
    await assert_alive(a, b)


async def test_under_a_flood_of_handshakes_addresses_must_be_proved(served, monkeypatch):
    a, b, _ = served
    monkeypatch.setattr("tidings.transport.driver.RETRY_ABOVE", 0)
    connection = await a.connect(b.addr(), b"echo/1")
    assert connection.engine._retry_count == 1
    await assert_alive(a, b)


async def test_a_timer_that_fails_costs_its_connection_only(served, monkeypatch, caplog):
    a, b, _ = served
    bystander = await a.connect(b.addr(), b"echo/1")
    victim = await a.connect(b.addr(), b"echo/1")
    original = QuicConnection.handle_timer

    def handle_timer(self, now):
        if self is victim.engine:
            raise AssertionError("a bug in a timer")
        return original(self, now)

    monkeypatch.setattr(QuicConnection, "handle_timer", handle_timer)
    await (await victim.open_bi()).send.write(b"x")
    end = await asyncio.wait_for(victim.wait_closed(), 10)
    assert end.by == "network"
    assert "a bug in a timer" in caplog.text
    assert bystander.closed is None
    await assert_alive(a, b)


async def test_timers_that_were_replaced_do_not_pile_up(served):
    a, b, _ = served
    connection = await a.connect(b.addr(), b"echo/1")
    stream = await connection.open_uni()
    for _ in range(300):
        await stream.write(b"x")
        await asyncio.sleep(0.001)
    for endpoint in (a, b):
        assert len(endpoint._driver._timers) <= 2 * len(endpoint._driver._armed) + SPARE_TIMERS


async def test_a_connection_that_is_over_is_kept_by_nobody(served):
    """Neither by a timer that was to come, nor as the last that was accepted."""
    a, b, _ = served
    bystander = await a.connect(b.addr(), b"echo/1")
    await bystander.open_bi()
    connection = await a.connect(b.addr(), b"echo/1")
    stream = await connection.open_bi()
    await stream.send.finish()
    await stream.recv.read()
    kept = [weakref.ref(each) for each in (connection, *b.connections()[1:])]
    assert len(kept) == 2
    connection.close()
    del connection, stream
    async with asyncio.timeout(10):
        while any(each() is not None for each in kept):
            await asyncio.sleep(0.05)
            gc.collect()


async def test_one_host_cannot_use_up_all_handshakes(served, monkeypatch):
    a, b, raw = served
    monkeypatch.setattr("tidings.transport.driver.MAX_HANDSHAKES_OF_HOST", 3)
    for _ in range(5):
        engine = Engine(
            configuration=make_configuration(SecretKey.generate(), is_client=True, alpns=[b"echo/1"], idle=30),
            expected=b.id,
            reset_token=lambda cid: bytes(16),
        )
        engine.connect(("127.0.0.1", 1), 0.0)
        raw.send(engine.datagrams_to_send(0.0)[0][0])
    await asyncio.sleep(0.1)
    assert len(b._driver._handshakes) == 3
    with pytest.raises(Unreachable):
        await a.connect(b.addr(), b"echo/1", timeout=0.3)
    async with Endpoint.bind(bind=["127.0.0.2:0"]) as elsewhere:
        await elsewhere.connect(b.addr(), b"echo/1")
    for connection in list(b._driver._handshakes):
        connection.close()
    await assert_alive(a, b)
    assert not b._driver._handshakes_of


async def test_strangers_do_not_make_us_look_through_all_connections(served, monkeypatch):
    a, b, raw = served
    await asyncio.gather(*(a.connect(b.addr(), b"echo/1") for _ in range(20)))
    looks = 0
    original = Engine.get_peer_address

    def counting(self):
        nonlocal looks
        looks += 1
        return original(self)

    monkeypatch.setattr(Engine, "get_peer_address", counting)
    for _ in range(50):
        raw.send(b"\x40" + os.urandom(60))
    await raw.received()
    assert looks <= 2 * 20
