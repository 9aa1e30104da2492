"""Relay servers and clients over loopback: who is let in, what arrives, and what bad clients cost."""

import asyncio
import base64
import contextlib
from contextlib import asynccontextmanager
from urllib.request import Request, urlopen

import pytest
from tidings.transport import RelayUrl, SecretKey
from tidings.transport.relay import RelayClient, auth, client, server
from tidings.transport.relay.access import AllowList, DenyList, SharedToken
from tidings.transport.relay.frames import VERSIONS, Datagrams, Denied, Ping, Status, decode, encode
from tidings.transport.relay.server import RateLimit, RelayServer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

ALICE, BOB, CAROL = (SecretKey(bytes([n]) * 32) for n in (1, 2, 3))


def url(relay):
    return f"http://{relay.bound()[0]}/"


class Endpoint:
    """A relay client and what it was given."""

    def __init__(self, relay_url, secret, **options):
        self.received = []
        self.gone = []
        self.statuses = []
        self.client = RelayClient(
            RelayUrl(relay_url),
            secret,
            on_datagrams=lambda peer, datagrams: self.received.append((peer, datagrams)),
            on_gone=self.gone.append,
            on_status=self.statuses.append,
            **options,
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.client.aclose()


async def until(condition, timeout=10.0):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def raw(relay, secret, version=VERSIONS[0]):
    """A connection that was let in, frame by frame."""
    async with connect(
        f"ws://{relay.bound()[0]}/relay", subprotocols=[version], compression=None, proxy=None
    ) as socket:
        challenge = decode(await socket.recv(), by="server", version=version)
        await socket.send(encode(auth.prove(secret, challenge), by="client"))
        assert await socket.recv() == b"\x02"
        yield socket


async def test_datagrams_get_to_their_peer():
    async with RelayServer.open() as relay, Endpoint(url(relay), ALICE) as a, Endpoint(url(relay), BOB) as b:
        assert await a.client.connected(10) and await b.client.connected(10)
        sent = [bytes([n]) * 1200 for n in range(60)] + [b"short"]
        assert a.client.send(BOB.public, sent)
        assert a.client.send(CAROL.public, [b"nobody"])
        await until(lambda: sum(len(datagrams) for _, datagrams in b.received) == 61)
        assert [each for _, datagrams in b.received for each in datagrams] == sent
        assert {peer for peer, _ in b.received} == {ALICE.public}
        await until(lambda: a.client.status.rtt is not None)
        assert relay.metrics.packets_dropped._value.get() == 1
        await a.client.aclose()
        await until(lambda: b.client.status.rtt is not None and b.gone == [ALICE.public])


async def test_the_newest_connection_of_an_id_receives():
    async with RelayServer.open() as relay, Endpoint(url(relay), BOB) as b:
        async with raw(relay, ALICE) as old, raw(relay, ALICE, VERSIONS[1]) as new:
            assert decode(await old.recv(), by="server", version=VERSIONS[0]) == Status(1)
            await b.client.connected(10)
            b.client.send(ALICE.public, [b"hello"])
            assert (await new.recv())[-5:] == b"hello"
            await old.send(encode(Datagrams(BOB.public, b"still here"), by="client"))
            await until(lambda: b.received == [(ALICE.public, [b"still here"])])
            await new.close()
            assert decode(await old.recv(), by="server", version=VERSIONS[0]) == Status(0)
            b.client.send(ALICE.public, [b"again"])
            assert (await old.recv())[-5:] == b"again"
            assert b.gone == []
        await until(lambda: b.gone == [ALICE.public])


async def test_access():
    async with RelayServer.open(access=AllowList([ALICE.public])) as relay:
        async with Endpoint(url(relay), ALICE) as a, Endpoint(url(relay), BOB) as b:
            assert await a.client.connected(10)
            await until(lambda: "not for this endpoint" in b.client.status.problem)
            assert not b.client.is_connected
            relay.access = DenyList([CAROL.public])
            await until(lambda: b.client.is_connected)
    async with RelayServer.open(access=SharedToken(["one", "secret"])) as relay:
        async with (
            Endpoint(url(relay), ALICE, token="secret") as a,
            Endpoint(url(relay), BOB, token="other") as b,
            Endpoint(url(relay), CAROL) as c,
        ):
            assert await a.client.connected(10)
            await until(lambda: b.client.status.problem and c.client.status.problem)
            assert "secret" not in repr(relay.access) + repr(a.client)


async def test_a_false_proof_is_denied():
    async with RelayServer.open() as relay:
        async with connect(
            f"ws://{relay.bound()[0]}/relay", subprotocols=[VERSIONS[0]], compression=None, proxy=None
        ) as socket:
            await socket.recv()
            await socket.send(encode(auth.prove(ALICE, auth.draw()), by="client"))
            assert isinstance(decode(await socket.recv(), by="server", version=VERSIONS[0]), Denied)
            with pytest.raises(ConnectionClosed):
                await socket.recv()


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\xff",
        b"\x04",
        b"\x04" + bytes(32),
        b"\x05" + bytes(35),
        b"\x09short",
        b"\x02",
        b"\x01" + bytes(97),
        "text",
    ],
)
async def test_a_bad_client_costs_itself(bad):
    async with RelayServer.open() as relay, Endpoint(url(relay), ALICE) as a, Endpoint(url(relay), BOB) as b:
        await a.client.connected(10)
        await b.client.connected(10)
        async with raw(relay, CAROL) as socket:
            await socket.send(bad)
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        async with connect(
            f"ws://{relay.bound()[0]}/relay", subprotocols=[VERSIONS[0]], compression=None, proxy=None
        ) as socket:
            await socket.recv()
            await socket.send(bad)
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        a.client.send(BOB.public, [b"x"])
        await until(lambda: b.received)


async def test_no_common_version_is_refused():
    async with RelayServer.open() as relay:
        for subprotocols in (None, ["iroh-relay-v9"]):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://{relay.bound()[0]}/relay", subprotocols=subprotocols, proxy=None)
            assert refused.value.response.status_code == 400


async def test_who_sends_too_fast_is_slowed_down_and_told_once():
    async with RelayServer.open(limit=RateLimit(20_000, 4_000)) as relay, Endpoint(url(relay), ALICE) as a:
        async with Endpoint(url(relay), BOB) as b:
            await a.client.connected(10)
            await b.client.connected(10)
            started = asyncio.get_running_loop().time()
            for n in range(12):
                assert a.client.send(BOB.public, [bytes([n]) * 1000])
            await until(lambda: len(b.received) == 12)
            assert asyncio.get_running_loop().time() - started > 0.3
            assert [each.problem for each in a.statuses if "slows us down" in each.problem]
            assert relay.metrics.limited_clients._value.get() == 1


async def test_a_slow_client_loses_its_own_datagrams(monkeypatch):
    monkeypatch.setattr(server, "QUEUED", 20)
    monkeypatch.setattr(server, "WRITE_TIMEOUT", 0.3)
    async with RelayServer.open() as relay, Endpoint(url(relay), ALICE) as a, Endpoint(url(relay), BOB) as b:
        await a.client.connected(10)
        await b.client.connected(10)
        async with raw(relay, CAROL) as slow:
            slow.transport.pause_reading()
            for _ in range(400):
                while not a.client.send(CAROL.public, [bytes(1200)] * 50):
                    await asyncio.sleep(0.001)
            while not a.client.send(BOB.public, [b"on time"]):
                await asyncio.sleep(0.001)
            await until(lambda: b.received == [(ALICE.public, [b"on time"])])
            await until(lambda: relay.metrics.clients._value.get() == 2)  # it was given up


async def test_a_client_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(server, "PING_INTERVAL", -0.9)
    monkeypatch.setattr(server, "PONG_TIMEOUT", 0.2)
    async with RelayServer.open() as relay, raw(relay, ALICE) as silent:
        with pytest.raises(ConnectionClosed):
            while True:
                await silent.recv()


async def test_a_relay_that_restarts(monkeypatch):
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.2)
    relay = await RelayServer.open()
    place = str(relay.bound()[0])
    async with Endpoint(url(relay), ALICE) as a, Endpoint(url(relay), BOB) as b:
        await until(lambda: a.client.status.rtt and b.client.status.rtt)
        await relay.aclose(reconnect_in=0.1)
        await until(lambda: not a.client.is_connected and not b.client.is_connected)
        assert a.client.status.problem
        async with RelayServer.open(place):
            await until(lambda: a.client.is_connected and b.client.is_connected)
            a.client.send(BOB.public, [b"back"])
            await until(lambda: b.received == [(ALICE.public, [b"back"])])


async def test_a_relay_that_is_silent(monkeypatch):
    monkeypatch.setattr(client, "PONG_TIMEOUT", 0.2)
    monkeypatch.setattr(server._Client, "say", lambda self, frame: None)
    async with RelayServer.open() as relay, Endpoint(url(relay), ALICE) as a:
        await until(lambda: "did not answer" in a.client.status.problem)


async def test_what_waits_for_a_relay_is_bounded_and_does_not_grow_old(monkeypatch):
    monkeypatch.setattr(client, "STALE", 0.05)
    monkeypatch.setattr(client, "QUEUED", 3)
    async with RelayServer.open() as relay, Endpoint(url(relay), BOB) as b:
        await b.client.connected(10)
        async with Endpoint(url(relay), ALICE) as a:
            assert [a.client.send(BOB.public, [b"old"]) for _ in range(4)] == [True, True, True, False]
            a.client._queue = type(a.client._queue)((at - 1, message) for at, message in a.client._queue)
            await a.client.connected(10)
            await until(lambda: not a.client._queue)
            a.client.send(BOB.public, [b"new"])
            await until(lambda: b.received == [(ALICE.public, [b"new"])])


async def test_pages():
    async with RelayServer.open() as relay:

        def get(path, **headers):
            with urlopen(Request(url(relay)[:-1] + path, headers=headers)) as answer:
                return answer.status, answer.headers, answer.read()

        status, headers, _ = await asyncio.to_thread(get, "/ping")
        assert status == 200 and headers["Access-Control-Allow-Origin"] == "*"
        status, headers, body = await asyncio.to_thread(get, "/generate_204", **{"X-Iroh-Challenge": "ts_127.0.0.1"})
        assert (status, body, headers["X-Iroh-Response"]) == (204, b"", "response ts_127.0.0.1")
        _, headers, _ = await asyncio.to_thread(get, "/generate_204", **{"X-Iroh-Challenge": "<script>"})
        assert "X-Iroh-Response" not in headers
        status, headers, body = await asyncio.to_thread(get, "/healthz")
        assert status == 200 and b'"ok"' in body
        with pytest.raises(Exception, match="404"):
            await asyncio.to_thread(get, "/etc/passwd")


async def test_pings_are_answered():
    async with RelayServer.open() as relay, raw(relay, ALICE) as socket:
        await socket.send(encode(Ping(b"12345678"), by="client"))
        assert await socket.recv() == b"\x0a12345678"


class Proxy:
    """An HTTP proxy that opens tunnels (CONNECT), with or without a password."""

    def __init__(self, password=None):
        self.asked = []
        self._password = password

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = head.split()[1]
        self.asked.append(target)
        if self._password and self._password not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            writer.close()
            return
        host, _, port = target.rpartition(":")
        onward = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def pump(source, sink):
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, onward[1]), pump(onward[0], writer))


async def test_a_relay_behind_a_proxy():
    async with RelayServer.open() as relay, Proxy() as proxy:
        place = f"http://127.0.0.1:{proxy.port}"
        async with Endpoint(url(relay), ALICE, proxy=place) as a, Endpoint(url(relay), BOB, proxy=place) as b:
            await until(lambda: a.client.is_connected and b.client.is_connected)
            a.client.send(BOB.public, [b"through"])
            await until(lambda: b.received == [(ALICE.public, [b"through"])])
        assert set(proxy.asked) == {str(relay.bound()[0])}


async def test_a_proxy_that_wants_a_password():
    password = base64.b64encode(b"me:secret").decode()
    async with RelayServer.open() as relay, Proxy(password) as proxy:
        with_password = f"http://me:secret@127.0.0.1:{proxy.port}"
        without = f"http://127.0.0.1:{proxy.port}"
        async with Endpoint(url(relay), ALICE, proxy=without) as a, Endpoint(url(relay), BOB, proxy=with_password) as b:
            await until(lambda: b.client.is_connected and a.client.status.problem)
            assert not a.client.is_connected and "407" in a.client.status.problem


async def test_an_attempt_that_hangs_is_begun_anew_when_the_network_changes():
    accepted = []
    silent = await asyncio.start_server(lambda reader, writer: accepted.append(writer), "127.0.0.1", 0)
    place = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/"
    async with Endpoint(place, ALICE) as a:
        await until(lambda: len(accepted) == 1)
        a.client.check([])
        await until(lambda: len(accepted) == 2)
    for writer in accepted:
        writer.close()
    silent.close()
