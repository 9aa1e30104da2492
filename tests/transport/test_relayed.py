"""Connections through relays, between endpoints that cannot or do not reach each other directly."""

import asyncio

import pytest
from blake3 import blake3
from tidings.transport import Endpoint, EndpointAddr, IpAddr, RelayUrl
from tidings.transport.errors import Unreachable
from tidings.transport.relay.server import RelayServer

ALPN = b"test/1"


def url_of(relay):
    return f"http://{relay.bound()[0]}/"


def open_endpoint(*relays, alpns=(ALPN,)):
    return Endpoint.bind(alpns=alpns, bind=["127.0.0.1:0"], relays=relays)


async def exchange(a, b, data=b"x" * 300_000):
    """Send ``data`` from one connection's side and back."""
    stream = await a.open_bi()
    sending = asyncio.create_task(stream.send.write(data))
    other = await b.accept_bi()
    echoed = b""
    while len(echoed) < len(data):
        echoed += await other.recv.read(65536)
    await sending
    assert echoed == data


async def test_a_connection_through_a_relay():
    async with RelayServer.open() as relay:
        async with open_endpoint(url_of(relay)) as a, open_endpoint(url_of(relay)) as b:
            await b.online(5)
            assert b.addr().relays == [RelayUrl(url_of(relay))]
            connection = await a.connect(EndpointAddr.of(b.id, b.addr().relays), ALPN)
            accepted = await anext(b.incoming())
            assert accepted.remote_id == a.id
            assert [path.kind for path in connection.paths()] == ["relay"]
            assert [path.kind for path in accepted.paths()] == ["relay"]
            await exchange(connection, accepted)
            connection.close(7, "done")
            assert (await asyncio.wait_for(accepted.wait_closed(), 5)).code == 7


async def test_a_dial_that_goes_both_ways_ends_direct():
    async with RelayServer.open() as relay:
        async with open_endpoint(url_of(relay)) as a, open_endpoint(url_of(relay)) as b:
            await asyncio.gather(a.online(5), b.online(5))
            connection = await a.connect(b.addr(), ALPN)
            accepted = await anext(b.incoming())
            assert [path.kind for path in (*connection.paths(), *accepted.paths())] == ["direct", "direct"]
            await exchange(connection, accepted)
            assert len(b.connections()) == 1


async def test_a_peer_that_only_the_relay_reaches():
    dead = IpAddr.parse("127.0.0.1:9")
    async with RelayServer.open() as relay:
        async with open_endpoint() as a, open_endpoint(url_of(relay)) as b:
            await b.online(5)
            connection = await a.connect(EndpointAddr.of(b.id, [*b.addr().relays, dead]), ALPN)
            assert connection.paths()[0].kind == "relay"
            assert a.relays.home is None  # it has none of its own


async def test_closing_tells_a_peer_behind_a_relay():
    async with RelayServer.open() as relay:
        async with open_endpoint(url_of(relay)) as b:
            await b.online(5)
            a = await open_endpoint()
            await a.connect(EndpointAddr.of(b.id, b.addr().relays), ALPN)
            accepted = await anext(b.incoming())
            await a.aclose()
            assert (await asyncio.wait_for(accepted.wait_closed(), 5)).by == "peer"


async def test_where_no_relay_lets_us_in():
    async with open_endpoint("http://127.0.0.1:9/") as a:
        with pytest.raises(Unreachable, match="cannot be reached"):
            await a.online(0.3)
    async with open_endpoint() as a:
        with pytest.raises(Unreachable, match="there is none"):
            await a.online(0.1)


async def test_another_home_where_the_first_is_gone():
    async with RelayServer.open() as second:
        first = await RelayServer.open()
        async with open_endpoint(url_of(first)) as a:
            await a.online(5)
            a.relays.add(url_of(second))
            await first.aclose()
            async with asyncio.timeout(5):
                while a.relays.home != RelayUrl(url_of(second)):
                    await asyncio.sleep(0.02)
            a.relays.remove(url_of(second))
            assert a.relays.home is None


async def until_direct(connection, timeout=5):
    async with asyncio.timeout(timeout):
        paths = connection.watch_paths()
        while (current := await anext(paths))[0].kind != "direct":
            pass
        return current


async def pump_bytes(connection, size, seen):
    """Send ``size`` counted bytes on a new stream."""
    stream = await connection.open_uni()
    block = bytes(range(256)) * 64
    for _ in range(size // len(block)):
        await stream.write(block)
    await stream.finish()
    seen.append("sent")


async def drain_bytes(connection):
    stream = await connection.accept_uni()
    total, digest = 0, blake3()
    while data := await stream.read(1 << 16):
        digest.update(data)
        total += len(data)
    return total, digest.digest()


async def test_a_relayed_connection_becomes_direct_and_goes_on_without_the_relay():
    async with RelayServer.open() as relay:
        async with open_endpoint(url_of(relay)) as a, open_endpoint(url_of(relay)) as b:
            await asyncio.gather(a.online(5), b.online(5))
            connection = await a.connect(EndpointAddr.of(b.id, b.addr().relays), ALPN)
            accepted = await anext(b.incoming())
            assert connection.paths()[0].kind == "relay"
            for each in (connection, accepted):
                first, *rest = await until_direct(each)
                assert first.selected and "direct" in first.why
                assert [path.kind for path in rest] == ["relay"]
            assert a.connections() == [connection] and b.connections() == [accepted]
            await relay.aclose()
            await exchange(connection, accepted)
            second = await a.connect(b.id, ALPN)
            assert second.paths()[0].kind == "direct"


@pytest.mark.parametrize("upwards", [True, False])
async def test_no_byte_is_lost_when_the_way_changes_under_load(upwards):
    size = 12 << 20
    async with RelayServer.open() as relay:
        async with open_endpoint(url_of(relay)) as a, open_endpoint(url_of(relay)) as b:
            await b.online(5)
            connection = await a.connect(EndpointAddr.of(b.id, b.addr().relays), ALPN)
            accepted = await anext(b.incoming())
            source, sink = (connection, accepted) if upwards else (accepted, connection)
            sending = asyncio.create_task(pump_bytes(source, size, []))
            total, digest = await drain_bytes(sink)
            await sending
            assert total == size
            assert digest == blake3(bytes(range(256)) * (size // 256)).digest()
            assert [each.paths()[0].kind for each in (connection, accepted)] == ["direct", "direct"]


async def test_signalling_ends_with_the_connections(monkeypatch):
    monkeypatch.setattr("tidings.transport.paths.keeper.LINGER", 0.05)
    async with RelayServer.open() as relay:
        async with open_endpoint(url_of(relay)) as a, open_endpoint(url_of(relay)) as b:
            await b.online(5)
            connection = await a.connect(EndpointAddr.of(b.id, b.addr().relays), ALPN)
            await until_direct(connection)
            connection.close()
            async with asyncio.timeout(5):
                while a._driver.connections() or b._driver.connections() or a._paths._peers or b._paths._peers:
                    await asyncio.sleep(0.02)
