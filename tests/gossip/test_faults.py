"""Peers that send what no honest peer sends: they are dropped and scored, and nobody else notices."""

import asyncio

import pytest
from tidings.gossip import ALPN, Received
from tidings.gossip.core.codec import encode
from tidings.gossip.core.messages import Join, Payload
from tidings.gossip.net.log_driver import LOG_ALPN
from tidings.transport import Endpoint, frame

from .swarm import heard, members, until

TOPIC = b"t" * 32
GARBAGE = {
    "no message": frame(b"\xff\xff\xff"),
    "a frame too large": (1 << 20).to_bytes(4, "big"),
    "another's id": frame(encode(Payload(bytes(32), b"content", 0))),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_costs_its_sender_its_place_and_nobody_else_anything(kind):
    async with members(2) as (a, b), Endpoint.bind(bind=["127.0.0.1:0"]) as bad:
        hers = await a.gossip.subscribe(TOPIC)
        his = await b.gossip.subscribe(TOPIC, [a.addr])
        await his.joined()
        for _ in range(2):
            connection = await bad.connect(a.addr, ALPN)
            stream = await connection.open_uni()
            await stream.write(frame(TOPIC) + frame(encode(Join(None))) + GARBAGE[kind] * 2)
            async with asyncio.timeout(5):
                await connection.wait_closed()
            if bad.id in a.gossip.scores() and a.gossip.scores()[bad.id] >= 100:
                break
        assert a.gossip.scores()[bad.id] >= 100
        assert sum(a.gossip.stats.faults.values()) >= 2
        await until(lambda: bad.id not in hers.neighbors())
        connection = await bad.connect(a.addr, ALPN)
        async with asyncio.timeout(5):
            await connection.wait_closed()
        assert b.endpoint.id not in a.gossip.scores()
        await hers.broadcast(b"still here")
        assert isinstance(await heard(his, b"still here"), Received)


async def test_garbage_among_logs_is_a_fault_too():
    async with members(1) as (a,), Endpoint.bind(bind=["127.0.0.1:0"]) as bad:
        await a.gossip.subscribe(TOPIC, log=True)
        for _ in range(2):
            connection = await bad.connect(a.addr, LOG_ALPN)
            stream = await connection.open_bi()
            await stream.send.write(frame(TOPIC + b"\xc1"))
            async with asyncio.timeout(5):
                await connection.wait_closed()
        assert a.gossip.scores()[bad.id] >= 100
        connection = await bad.connect(a.addr, LOG_ALPN)
        async with asyncio.timeout(5):
            await connection.wait_closed()
