"""The straight path beside stock aioquic, over a lossy network in virtual time: every mixture delivers every byte."""

import heapq
import random

import pytest
from aioquic.quic import events
from tidings.transport import fast_path
from tidings.transport.engine import STREAM_WINDOW, Engine, make_configuration
from tidings.transport.fast_path import FastPath
from tidings.transport.keys import SecretKey

ADDR = ("peer", 0)


class Stock(Engine):
    """An engine that always takes aioquic's way."""

    def _receive_fast(self, data, addr, now):
        return False

    def _write_bulk(self, builder, now):
        pass


class Fast(Engine):
    """An engine that counts what takes the straight path."""

    fast_received = fast_sent = 0

    def _take_stream_frame(self, payload):
        taken = super()._take_stream_frame(payload)
        self.fast_received += taken
        return taken

    def _write_run(self, *args):
        sent = super()._write_run(*args)
        self.fast_sent += sent
        return sent


class Network:
    """Two engines, latency, loss, reordering and duplication; time is a number."""

    def __init__(self, client_kind, server_kind, *, rng, loss=0.0, jitter=0.0, duplicate=0.0):
        client_key, server_key = SecretKey.generate(), SecretKey.generate()
        self.client = client_kind(
            configuration=make_configuration(client_key, is_client=True, alpns=[b"x/1"], idle=30),
            expected=server_key.public,
            reset_token=lambda cid: bytes(16),
        )
        self.server = server_kind(
            configuration=make_configuration(server_key, is_client=False, alpns=[b"x/1"], idle=30),
            reset_token=lambda cid: bytes(16),
            original_destination_connection_id=self.client.original_destination_connection_id,
        )
        self.rng, self.loss, self.jitter, self.duplicate = rng, loss, jitter, duplicate
        self.now = 0.0
        self.flying = []
        self.order = 0
        self.got = {self.client: {}, self.server: {}}
        self.ended = {self.client: set(), self.server: set()}
        self.tamper = lambda data: data
        self.client.connect(ADDR, self.now)

    def other(self, engine):
        return self.server if engine is self.client else self.client

    def launch(self, sender, data):
        if self.rng.random() < self.loss:
            return
        for _ in range(2 if self.rng.random() < self.duplicate else 1):
            self.order += 1
            at = self.now + 0.01 + self.rng.random() * self.jitter
            heapq.heappush(self.flying, (at, self.order, self.other(sender), self.tamper(data)))

    def pump(self, engine):
        for data, _ in engine.datagrams_to_send(self.now):
            self.launch(engine, data)
        while (event := engine.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                self.got[engine].setdefault(event.stream_id, bytearray()).extend(event.data)
                engine.credit(event.stream_id, len(event.data))
                if event.end_stream:
                    self.ended[engine].add(event.stream_id)
        assert engine.ending is None, engine.ending

    def run(self, done, seconds=60.0):
        for engine in (self.client, self.server):
            if engine is self.client or engine.peer_spoke:
                self.pump(engine)
        while not done():
            timers = [
                (at, engine)
                for engine in (self.client, self.server)
                if (engine is self.client or engine.peer_spoke) and (at := engine.get_timer()) is not None
            ]
            arrival = self.flying[0][0] if self.flying else float("inf")
            timer, owner = min(timers, key=lambda item: item[0], default=(float("inf"), None))
            self.now = max(self.now, min(arrival, timer))
            assert self.now < seconds, "the transfer stands still"
            if arrival <= timer:
                touched = set()
                while self.flying and self.flying[0][0] <= self.now:
                    _, _, engine, data = heapq.heappop(self.flying)
                    engine.receive_datagram(data, ADDR, self.now)
                    touched.add(engine)
                for engine in sorted(touched, key=lambda engine: engine is self.client):
                    self.pump(engine)
            else:
                self.now += (
                    1e-6  # aioquic's loss timer may be due at a time that rounding puts just before its condition
                )
                owner.handle_timer(self.now)
                self.pump(owner)

    def connect(self):
        self.run(lambda: self.client.confirmed and self.server.confirmed)


def exchange(net, sizes):
    """Streams of these sizes in both directions; everything must arrive, once and in order."""
    expected = {net.client: {}, net.server: {}}
    for sender in (net.client, net.server):
        for size in sizes:
            stream = sender.open_stream(unidirectional=True)
            data = net.rng.randbytes(size)
            sender.send_stream_data(stream, data, True)
            expected[net.other(sender)][stream] = data
    net.run(lambda: all(net.ended[engine] == set(expected[engine]) for engine in expected))
    for engine, streams in expected.items():
        assert {id: bytes(data) for id, data in net.got[engine].items()} == streams


MIXTURES = [(Fast, Fast), (Fast, Stock), (Stock, Fast)]
WEATHER = [{}, {"loss": 0.02}, {"jitter": 0.02}, {"loss": 0.03, "jitter": 0.01, "duplicate": 0.05}]


@pytest.mark.parametrize("weather", WEATHER)
@pytest.mark.parametrize(("client", "server"), MIXTURES)
def test_every_mixture_delivers_every_byte(client, server, weather):
    net = Network(client, server, rng=random.Random(11), **weather)
    net.connect()
    exchange(net, [0, 1, 1000, 100_000, 700_000])
    for engine in (net.client, net.server):
        if isinstance(engine, Fast):
            assert engine.fast_received > 20
            assert engine.fast_sent > (5 if weather else 100)  # where packets get lost the window is small


def test_more_than_a_window_and_many_streams_at_once():
    net = Network(Fast, Fast, rng=random.Random(5), loss=0.005)
    net.connect()
    exchange(net, [3 * STREAM_WINDOW, *[30_000] * 60])


def test_window_updates_do_not_starve_while_both_sides_send_all_they_can():
    net = Network(Fast, Fast, rng=random.Random(6))
    net.connect()
    exchange(net, [6 * STREAM_WINDOW])


def test_keys_may_change_in_mid_transfer():
    net = Network(Fast, Fast, rng=random.Random(7))
    net.connect()
    for _ in range(3):
        net.client.request_key_update()
        exchange_one(net)
        net.server.request_key_update()
        exchange_one(net)


def exchange_one(net, size=200_000):
    stream = net.client.open_stream(unidirectional=True)
    data = net.rng.randbytes(size)
    net.client.send_stream_data(stream, data, True)
    net.run(lambda: stream in net.ended[net.server])
    assert bytes(net.got[net.server][stream]) == data


def test_bytes_changed_on_the_way_are_lost_packets_and_nothing_else():
    net = Network(Fast, Fast, rng=random.Random(8))
    net.connect()

    def tamper(data):
        if net.rng.random() > 0.05:
            return data
        kind = net.rng.randrange(3)
        if kind == 0:
            return data[: net.rng.randrange(1, len(data))]
        if kind == 1:
            return data + b"\0"
        changed = bytearray(data)
        changed[net.rng.randrange(len(data))] ^= 1 << net.rng.randrange(8)
        return bytes(changed)

    net.tamper = tamper
    exchange(net, [400_000])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x08",
        b"\x0c\x02",
        b"\x0e\x02\x00\x41",
        b"\x0e\x02\x00\x05abc",
        b"\x0e\x02\x00\x01ab",
        b"\x09\x02x",
        b"\x0c\xff",
    ],
)
def test_a_payload_that_is_not_one_whole_frame_goes_the_long_way(payload):
    net = Network(Fast, Fast, rng=random.Random(9))
    net.connect()
    stream = net.client.open_stream(unidirectional=True)
    net.client.send_stream_data(stream, b"x")
    net.run(lambda: stream in net.got[net.server])
    assert stream == 2
    before = net.server._local_max_data.used
    assert not FastPath._take_stream_frame(net.server, payload)
    assert net.server._local_max_data.used == before


def test_limits_are_held_on_the_straight_path():
    net = Network(Fast, Fast, rng=random.Random(10))
    net.connect()
    stream = net.client.open_stream(unidirectional=True)
    net.client.send_stream_data(stream, b"x")
    net.run(lambda: stream in net.got[net.server])
    beyond = STREAM_WINDOW + 10
    payload = b"\x0c\x02" + (beyond | 2 << 30).to_bytes(4, "big") + b"data"
    assert not FastPath._take_stream_frame(net.server, payload)


@pytest.mark.parametrize(
    ("truncated", "size", "expected", "number"),
    [
        (0x9B32, 2, 0xA82F30EA + 1, 0xA82F9B32),
        (0, 1, 256, 256),
        (255, 1, 256, 255),
        (5, 4, 0, 5),
        (0xFFFF, 2, 3, 0xFFFF),
    ],
)
def test_packet_numbers_are_restored_as_in_rfc_9000(truncated, size, expected, number):
    assert fast_path._packet_number(truncated, size, expected) == number


def test_packet_numbers_agree_with_aioquic():
    from aioquic.quic.packet import decode_packet_number

    rng = random.Random(12)
    for _ in range(5000):
        size = rng.randint(1, 4)
        expected = rng.randrange(1 << rng.randint(1, 61))
        truncated = rng.randrange(1 << 8 * size)
        assert fast_path._packet_number(truncated, size, expected) == decode_packet_number(
            truncated, size * 8, expected
        )
