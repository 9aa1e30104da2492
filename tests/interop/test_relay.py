"""Our relay between Rust endpoints, and our relay client beside them."""

import asyncio

import pytest
from tidings.transport import RelayUrl, SecretKey
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
