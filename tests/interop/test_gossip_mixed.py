"""A swarm of four Rust nodes (iroh-gossip 0.97, ``aster``) and four of ours that keep logs."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from tidings import Node
from tidings.gossip import LogConfig, Received
from tidings.transport import EndpointAddr, EndpointId, IpAddr

from .rust import Rust, needs

pytestmark = [pytest.mark.interop, needs("aster"), pytest.mark.timeout(180)]
TOPIC = b"\4" * 32
EACH = 5
LOG = LogConfig(interval=1.0)


async def rust_node(stack, known):
    """It knows the address of ``known``, one of ours."""
    rust = await stack.enter_async_context(Rust("aster"))
    started = await rust.do("start")
    rust.addr = EndpointAddr.of(EndpointId.parse(started["id"]), map(IpAddr.parse, started["addrs"]))
    introduction = await known.docs.create()
    await rust.do("learn", ticket=str(introduction.ticket()))
    await introduction.close()
    return rust


async def our_node(stack):
    return await stack.enter_async_context(Node.open(None, bind=["127.0.0.1:0"]))


async def say(name, ours, theirs):
    """Each says `EACH` messages, plain ones, so that Rust programs could read them. Returns all of them."""
    said = set()
    for number in range(EACH):
        for at, topic in enumerate(ours):
            said.add(f"{name}: tidings {at} {number}".encode())
            assert await topic.broadcast(f"{name}: tidings {at} {number}".encode(), signed=False)
        for at, (rust, topic) in enumerate(theirs):
            said.add(f"{name}: rust {at} {number}".encode())
            await rust.do("gossip_broadcast", topic=topic, data=f"{name}: rust {at} {number}".encode().hex())
        await asyncio.sleep(0.05)
    return said


async def ours_hears(topic, wanted):
    heard = []
    async with asyncio.timeout(40):
        while not wanted <= set(heard):
            event = await anext(topic)
            if isinstance(event, Received):
                heard.append(event.content)
    assert len(heard) == len(set(heard))


async def theirs_hears(rust, topic, wanted):
    wanted = set(wanted)
    while wanted:
        event = await rust.do("gossip_until", topic=topic, kind="received", timeout=30)
        wanted.discard(bytes.fromhex(event["data"]))


def without(said, who):
    return {each for each in said if f": {who} ".encode() not in each}


async def test_four_and_four_hear_everything_also_who_was_away():
    async with AsyncExitStack() as stack:
        nodes = [await our_node(stack) for _ in range(4)]
        rusts = [await rust_node(stack, nodes[known]) for known in (0, 0, 2, 3)]
        ours = [await nodes[0].gossip.subscribe(TOPIC, log=LOG)]
        theirs = []
        for at in (0, 1):  # these come through ours ...
            topic = await rusts[at].do("gossip_subscribe", topic=TOPIC.hex(), bootstrap=[str(nodes[0].id)])
            theirs.append((rusts[at], topic))
        for node in nodes[1:]:  # ... and ours through those
            ours.append(await node.gossip.subscribe(TOPIC, [rusts[0].addr, rusts[1].addr], log=LOG))
            await ours[-1].joined(20)
        for at in (2, 3):
            topic = await rusts[at].do("gossip_subscribe", topic=TOPIC.hex(), bootstrap=[str(nodes[at].id)])
            theirs.append((rusts[at], topic))
        await asyncio.sleep(2)

        said = await say("all", ours, theirs)
        await asyncio.gather(
            *(ours_hears(topic, without(said, f"tidings {at}")) for at, topic in enumerate(ours)),
            *(theirs_hears(*each, without(said, f"rust {at}")) for at, each in enumerate(theirs)),
        )

        # One of each dies; what is said meanwhile is not lost for ours that comes back.
        rusts[3]._process.kill()
        await ours[3].aclose()
        meanwhile = await say("meanwhile", ours[:3], theirs[:3])
        back = await nodes[3].gossip.subscribe(TOPIC, [nodes[1].addr(), rusts[0].addr], log=LOG, since=0)
        again = await say("again", ours[:3], theirs[:3])
        await asyncio.gather(
            *(ours_hears(topic, without(meanwhile | again, f"tidings {at}")) for at, topic in enumerate(ours[:3])),
            *(theirs_hears(*each, without(meanwhile | again, f"rust {at}")) for at, each in enumerate(theirs[:3])),
            ours_hears(back, said | meanwhile | again),
        )
