"""A swarm of a Rust node (iroh-gossip 0.97, ``aster``) and tidings nodes."""

import asyncio

import pytest
from tidings import Node
from tidings.gossip import MAX_CONTENT, NeighborDown, Received

from .rust import needs

pytestmark = [pytest.mark.interop, needs("aster")]
TOPIC = b"\7" * 32


async def until(topic, kind, timeout=20):
    async with asyncio.timeout(timeout):
        return await anext(event async for event in topic if isinstance(event, kind))


async def we_bootstrap(node, aster):
    subscribing = asyncio.create_task(aster.do("gossip_subscribe", topic=TOPIC.hex(), bootstrap=[]))
    ours = await node.gossip.subscribe(TOPIC, bootstrap=[aster.addr])
    return ours, await subscribing  # the Rust call returns with its first neighbour


async def they_bootstrap(node, aster):
    ours = await node.gossip.subscribe(TOPIC)
    return ours, await aster.do("gossip_subscribe", topic=TOPIC.hex(), bootstrap=[str(node.id)])


@pytest.mark.parametrize("bootstrap", [we_bootstrap, they_bootstrap])
async def test_broadcasts_are_heard_both_ways(node, aster, bootstrap):
    ours, theirs = await bootstrap(node, aster)
    await ours.joined(timeout=20)
    assert ours.neighbors() == [aster.addr.id]
    for content in (b"from python", b"", b"x" * MAX_CONTENT):
        await ours.broadcast(content)
        event = await aster.do("gossip_until", topic=theirs, kind="received")
        assert event["data"] == content.hex()
    for content in (b"from rust", b"y" * MAX_CONTENT):
        await aster.do("gossip_broadcast", topic=theirs, data=content.hex())
        event = await until(ours, Received)
        assert (event.content, event.delivered_from) == (content, aster.addr.id)


async def test_a_mixed_swarm_of_three_hears_everybody(node, aster):
    ours, theirs = await we_bootstrap(node, aster)
    async with Node.open(None, bind=["127.0.0.1:0"]) as third:
        other = await third.gossip.subscribe(TOPIC, bootstrap=[aster.addr])
        await asyncio.gather(ours.joined(timeout=20), other.joined(timeout=20))
        await asyncio.sleep(0.5)
        await other.broadcast(b"third")
        assert (await until(ours, Received)).content == b"third"
        assert (await aster.do("gossip_until", topic=theirs, kind="received"))["data"] == b"third".hex()
        await ours.broadcast(b"first")
        assert (await until(other, Received)).content == b"first"


async def test_we_leave_and_join_again(node, aster):
    ours, theirs = await we_bootstrap(node, aster)
    await ours.joined(timeout=20)
    await ours.aclose()
    await aster.do("gossip_until", topic=theirs, kind="down")
    again = await node.gossip.subscribe(TOPIC, bootstrap=[aster.addr])
    await again.joined(timeout=20)
    await again.broadcast(b"back")
    assert (await aster.do("gossip_until", topic=theirs, kind="received"))["data"] == b"back".hex()


async def test_a_rust_node_that_dies_is_noticed(node, aster):
    ours, _ = await we_bootstrap(node, aster)
    await ours.joined(timeout=20)
    aster._process.kill()
    assert (await until(ours, NeighborDown, timeout=45)).peer == aster.addr.id
