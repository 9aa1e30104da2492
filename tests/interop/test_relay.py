"""Our relay between Rust endpoints, and our relay client beside them."""

import asyncio

import pytest
from tidings.transport import Endpoint, EndpointAddr, EndpointId, IpAddr, RelayUrl, SecretKey
from tidings.transport.relay import RelayClient
from tidings.transport.relay.server import RelayServer

from .rust import Rust, needs

pytestmark = [pytest.mark.interop, needs("iroh")]
ALPN = b"relayed/1".hex()


async def test_rust_endpoints_connect_through_our_relay():
    async with RelayServer.open() as relay, Rust("iroh") as a, Rust("iroh") as b:
        url = f"http://{relay.bound()[0]}/"
        started = [await each.do("start", alpns=[ALPN], relay=url) for each in (a, b)]
        for each in (a, b):
            await each.do("online", timeout=20)
        accepting = asyncio.create_task(b.do("accept", timeout=20))
        dialled = await a.do("connect", timeout=20, peer=started[1]["id"], addrs=[], alpn=ALPN, relay=url)
        accepted = await accepting
        assert accepted["remote"] == started[0]["id"]
        echo = asyncio.create_task(b.do("echo", timeout=20, connection=accepted["connection"]))
        stream = await a.do("open_bi", connection=dialled["connection"])
        await a.do("write", stream=stream, data=(b"through the relay" * 1000).hex())
        assert (
            bytes.fromhex(await a.do("read_to_end", timeout=20, stream=stream, limit=1 << 20))
            == b"through the relay" * 1000
        )
        await echo
        assert relay.metrics.packets_sent._value.get() > 0


async def test_a_rust_endpoint_reaches_our_client():
    heard = asyncio.Queue()
    secret = SecretKey.generate()
    async with RelayServer.open() as relay, Rust("iroh") as rust:
        url = f"http://{relay.bound()[0]}/"
        client = RelayClient(
            RelayUrl(url), secret, on_datagrams=lambda peer, datagrams: heard.put_nowait((peer, datagrams))
        )
        try:
            assert await client.connected(10)
            started = await rust.do("start", alpns=[ALPN], relay=url)
            await rust.do("online", timeout=20)
            dialling = asyncio.create_task(
                rust.do("connect", timeout=20, peer=str(secret.public), addrs=[], alpn=ALPN, relay=url)
            )
            peer, datagrams = await asyncio.wait_for(heard.get(), 15)
            assert str(peer) == started["id"]
            assert len(datagrams[0]) >= 1200 and datagrams[0][0] & 0xF0 == 0xC0  # an Initial
            dialling.cancel()
        finally:
            await client.aclose()


async def echo_through(connection, rust, theirs, size=100_000):
    data = bytes(range(256)) * (size // 256)
    echo = asyncio.create_task(rust.do("echo", timeout=20, connection=theirs))
    stream = await connection.open_bi()
    await stream.send.write(data)
    await stream.send.finish()
    assert await stream.recv.read_to_end(limit=1 << 20) == data
    await echo


async def test_we_dial_a_rust_endpoint_through_the_relay_and_it_follows_us_to_the_direct_way():
    async with RelayServer.open() as relay, Rust("iroh") as rust:
        url = f"http://{relay.bound()[0]}/"
        started = await rust.do("start", alpns=[ALPN], relay=url)
        await rust.do("online", timeout=20)
        id = EndpointId.parse(started["id"])
        async with Endpoint.bind(bind=["127.0.0.1:0"], relays=[url]) as ours:
            accepting = asyncio.create_task(rust.do("accept", timeout=20))
            connection = await ours.connect(EndpointAddr.of(id, [RelayUrl(url)]), bytes.fromhex(ALPN))
            theirs = (await accepting)["connection"]
            assert connection.paths()[0].kind == "relay"
            await echo_through(connection, rust, theirs)
            ours.lookup.add(EndpointAddr.of(id, map(IpAddr.parse, started["addrs"])))
            async with asyncio.timeout(10):
                paths = connection.watch_paths()
                while (await anext(paths))[0].kind != "direct":
                    pass
            await relay.aclose()
            await echo_through(connection, rust, theirs)


@pytest.mark.parametrize("direct", [False, True])
async def test_a_rust_endpoint_dials_us(direct):
    """Through the relay alone, or every way at once: then the direct one is answered, where it stays."""
    async with RelayServer.open() as relay, Rust("iroh") as rust:
        url = f"http://{relay.bound()[0]}/"
        async with Endpoint.bind(alpns=[bytes.fromhex(ALPN)], bind=["127.0.0.1:0"], relays=[url]) as ours:
            await asyncio.gather(ours.online(10), rust.do("start", alpns=[ALPN], relay=url))
            await rust.do("online", timeout=20)
            addrs = list(map(str, ours.bound())) if direct else []
            dialling = asyncio.create_task(
                rust.do("connect", timeout=20, peer=str(ours.id), addrs=addrs, alpn=ALPN, relay=url)
            )
            connection = await asyncio.wait_for(anext(ours.incoming()), 20)
            theirs = (await dialling)["connection"]
            assert connection.paths()[0].kind == ("direct" if direct else "relay")
            await echo_through(connection, rust, theirs)


async def test_a_connection_to_a_rust_endpoint_goes_back_to_the_relay_where_the_direct_way_dies():
    async with RelayServer.open() as relay, Rust("iroh") as rust:
        url = f"http://{relay.bound()[0]}/"
        started = await rust.do("start", alpns=[ALPN], relay=url)
        await rust.do("online", timeout=20)
        id = EndpointId.parse(started["id"])
        async with Endpoint.bind(bind=["127.0.0.1:0"], relays=[url]) as ours:
            await ours.online(10)
            accepting = asyncio.create_task(rust.do("accept", timeout=20))
            addrs = [RelayUrl(url), *map(IpAddr.parse, started["addrs"])]
            connection = await ours.connect(EndpointAddr.of(id, addrs), bytes.fromhex(ALPN))
            theirs = (await accepting)["connection"]
            async with asyncio.timeout(10):
                paths = connection.watch_paths()
                while (await anext(paths))[0].kind != "direct":
                    pass
            for socket in ours._driver.sockets:  # the network swallows what goes by UDP
                socket.send = lambda datagrams: None
            await echo_through(connection, rust, theirs)
            assert connection.paths()[0].kind == "relay"
