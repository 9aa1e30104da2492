"""Two engines and no socket: time is a number, the network is a list."""

import pytest
from aioquic import tls
from aioquic.buffer import encode_uint_var
from aioquic.quic import events
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from tidings.transport.engine import CONNECTION_WINDOW, STREAM_WINDOW, Engine, make_configuration
from tidings.transport.keys import SecretKey

ADDR = ("peer", 0)


def make_pair(expected=None):
    a, b = SecretKey.generate(), SecretKey.generate()
    client = Engine(
        configuration=make_configuration(a, is_client=True, alpns=[b"x/1"], idle=30),
        expected=expected or b.public,
        reset_token=lambda cid: bytes(16),
    )
    server = Engine(
        configuration=make_configuration(b, is_client=False, alpns=[b"x/1"], idle=30),
        reset_token=lambda cid: cid + cid,
        original_destination_connection_id=client.original_destination_connection_id,
    )
    client.connect(ADDR, 0.0)
    return a, b, client, server


def exchange(client, server, now, rounds=20):
    for _ in range(rounds):
        moved = False
        for sender, receiver in ((client, server), (server, client)):
            for data, _ in sender.datagrams_to_send(now):
                receiver.receive_datagram(data, ADDR, now)
                moved = True
        now += 0.03
        if not moved:
            break
    return now


@pytest.fixture
def pair():
    a, b, client, server = make_pair()
    now = exchange(client, server, 0.0)
    assert client.confirmed
    assert server.confirmed
    assert (client.peer_id, server.peer_id) == (b.public, a.public)
    return client, server, now


def data_events(engine):
    out = []
    while (event := engine.next_event()) is not None:
        if isinstance(event, events.StreamDataReceived):
            out.append(event)
    return out


def test_the_client_is_not_confirmed_before_the_server_has_judged_its_key():
    _, _, client, server = make_pair()
    now = 0.0
    for data, _ in client.datagrams_to_send(now):
        server.receive_datagram(data, ADDR, now)
    for data, _ in server.datagrams_to_send(now):
        client.receive_datagram(data, ADDR, now)
    assert client._handshake_complete
    assert not client.confirmed


def test_another_key_ends_the_handshake_before_ours_is_sent():
    _, _, client, server = make_pair(expected=SecretKey.generate().public)
    exchange(client, server, 0.0)
    assert client.ending.error_code == 0x12A
    assert server.peer_id is None


def test_a_peer_may_send_one_window_and_no_more_until_it_is_read(pair):
    client, server, now = pair
    stream = client.open_stream(unidirectional=True)
    client.send_stream_data(stream, bytes(4 * STREAM_WINDOW))
    now = exchange(client, server, now, rounds=400)
    got = sum(len(event.data) for event in data_events(server))
    assert got == STREAM_WINDOW
    assert server.credit(stream, got)
    now = exchange(client, server, now, rounds=400)
    assert sum(len(event.data) for event in data_events(server)) == STREAM_WINDOW


def test_the_connection_window_holds_over_all_streams(pair):
    client, server, now = pair
    for _ in range(10):
        client.send_stream_data(client.open_stream(unidirectional=True), bytes(STREAM_WINDOW))
    exchange(client, server, now, rounds=1500)
    assert sum(len(event.data) for event in data_events(server)) == CONNECTION_WINDOW


def test_reset_tokens_are_recognised(pair):
    client, server, _ = pair
    assert client.is_reset(b"\x40" + bytes(30) + server.host_cid + server.host_cid)
    assert not client.is_reset(b"\x40" + bytes(60))
    client.end_silently("gone")
    assert client.over
    assert client.ending.reason_phrase == "gone"


def test_keys_are_updated_before_their_limit(pair, monkeypatch):
    client, server, now = pair
    client._next_key_update = client._packet_number
    stream = client.open_stream(unidirectional=True)
    client.send_stream_data(stream, b"new keys")
    exchange(client, server, now)
    assert [event.data for event in data_events(server)] == [b"new keys"]
    assert client._next_key_update > client._packet_number


def test_the_window_does_not_grow_while_the_application_is_the_limit(pair):
    client, server, now = pair
    stream = client.open_stream(unidirectional=True)
    before = client._loss.congestion_window
    for _ in range(200):
        client.send_stream_data(stream, bytes(100))
        now = exchange(client, server, now, rounds=4)
        server.credit(stream, 100)
    assert client._loss.congestion_window <= before + 2 * 1200


def with_payload(engine, payload, epoch=tls.Epoch.ONE_RTT, kind=QuicPacketType.ONE_RTT):
    """A packet of ``engine`` with frames of our own."""
    builder = QuicPacketBuilder(
        host_cid=engine.host_cid,
        is_client=engine._is_client,
        max_datagram_size=1200,
        packet_number=engine._packet_number,
        peer_cid=engine._peer_cid.cid,
        version=1,
    )
    builder.start_packet(kind, engine._cryptos_initial[1] if epoch is tls.Epoch.INITIAL else engine._cryptos[epoch])
    builder.start_frame(0x01)
    builder._buffer.seek(builder._buffer.tell() - 1)
    builder._buffer.push_bytes(payload)
    (datagram,), _ = builder.flush()
    engine._packet_number = builder.packet_number
    return datagram


def every_second_byte(head, packets):
    for packet in range(packets):
        yield b"".join(head + encode_uint_var(2 * n + 1) + b"\x01x" for n in range(packet * 100, packet * 100 + 100))


@pytest.mark.parametrize(("head", "code"), [(b"\x0e\x02", 0x1), (b"\x06", 0xD)])
def test_a_stream_full_of_holes_ends_the_connection(pair, head, code):
    client, server, now = pair
    for payload in every_second_byte(head, 12):
        server.receive_datagram(with_payload(client, payload), ADDR, now)
    assert server.ending.error_code == code
    assert "out of order" in server.ending.reason_phrase


def test_a_first_flight_full_of_holes_ends_the_handshake():
    _, _, client, server = make_pair()
    client.datagrams_to_send(0.0)
    for payload in every_second_byte(b"\x06", 12):
        server.receive_datagram(with_payload(client, payload, tls.Epoch.INITIAL, QuicPacketType.INITIAL), ADDR, 0.0)
    assert server.ending.error_code == 0xD


def test_holes_as_loss_makes_them_are_filled(pair):
    client, server, now = pair
    stream = client.open_stream(unidirectional=True)
    data = bytes(range(256)) * 1024
    client.send_stream_data(stream, data)
    lost = 0
    got = bytearray()
    for _ in range(400):
        for n, (datagram, _) in enumerate(client.datagrams_to_send(now)):
            if n % 2 and lost < 100:
                lost += 1
            else:
                server.receive_datagram(datagram, ADDR, now)
        now += 0.03
        for datagram, _ in server.datagrams_to_send(now):
            client.receive_datagram(datagram, ADDR, now)
        if (at := client.get_timer()) is not None and at <= now:
            client.handle_timer(now)
        got += b"".join(event.data for event in data_events(server))
        if len(got) == len(data):
            break
    assert lost > 50
    assert got == data


def test_a_keep_alive_is_sent_though_the_window_is_full(pair):
    client, server, now = pair
    client.send_stream_data(client.open_stream(unidirectional=True), bytes(1 << 20))
    while client.datagrams_to_send(now):
        now += 0.01  # and none of them arrives
    assert client._loss.bytes_in_flight + 1200 > client._loss.congestion_window
    client.keep_alive()
    ((datagram, _),) = client.datagrams_to_send(now)
    server.receive_datagram(datagram, ADDR, now)
    for answer, _ in server.datagrams_to_send(now + 0.03):
        client.receive_datagram(answer, ADDR, now + 0.05)
    assert client._loss.bytes_in_flight < 1200 * 5  # the answer tells that the rest is lost


def test_after_a_black_out_the_first_packet_that_arrives_starts_everything_again(pair):
    """Whoever waits for its own next probe would wait as long as the black-out took."""
    client, server, now = pair
    stream = server.open_stream(unidirectional=True)
    server.send_stream_data(stream, bytes(50_000))
    end = now + 20
    server.datagrams_to_send(now)  # lost, as all that follows
    while (at := server.get_timer()) is not None and at < end:
        server.handle_timer(at)
        server.datagrams_to_send(at)
    assert server.get_timer() - end > 2
    client.keep_alive()
    for datagram, _ in client.datagrams_to_send(end):
        server.receive_datagram(datagram, ADDR, end)
        server.end_silence()
    exchange(client, server, end, rounds=60)
    assert sum(len(event.data) for event in data_events(client)) == 50_000
