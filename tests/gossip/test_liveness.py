"""Neighbours that die without a word, that stop reading, and a node that is cut off itself."""

import asyncio
from itertools import pairwise

from tidings.gossip import NeighborDown, Received, TopicConfig
from tidings.gossip.core.config import LivenessConfig

from .swarm import event, heard, members, until

QUICK = TopicConfig(liveness=LivenessConfig(probe_after=0.3, dead_after=0.8, stalled_after=0.8))


def mute(member):
    """Nothing comes in or goes out any more; nobody is told."""
    member.endpoint._driver.receive = lambda datagrams: None
    member.endpoint._driver.send = lambda datagrams: None


async def triangle(made):
    topics = [await made[0].gossip.subscribe("alive")]
    for before, each in pairwise(made):
        each.gossip._driver.peers._liveness = QUICK.liveness
        topics.append(await each.gossip.subscribe("alive", [before.addr]))
        await topics[-1].joined(10)
    made[0].gossip._driver.peers._liveness = QUICK.liveness
    await until(lambda: all(len(topic.neighbors()) >= len(made) - 1 for topic in topics))
    return topics


async def test_a_silent_neighbor_is_replaced_within_seconds():
    async with members(3) as made:
        topics = await triangle(made)
        mute(made[2])
        gone = made[2].endpoint.id
        for topic in topics[:2]:
            await event(topic, lambda each: isinstance(each, NeighborDown) and each.peer == gone, timeout=5)
        await topics[0].broadcast(b"the others go on")
        await heard(topics[1], b"the others go on")


async def test_quiet_neighbors_stay():
    async with members(3) as made:
        topics = await triangle(made)
        await asyncio.sleep(3)
        assert all(len(topic.neighbors()) == 2 for topic in topics)


async def test_who_is_cut_off_itself_blames_nobody():
    async with members(3) as made:
        topics = await triangle(made)
        mute(made[0])
        await asyncio.sleep(2.5)
        assert len(topics[0].neighbors()) == 2
        assert made[0].endpoint.id not in topics[1].neighbors() + topics[2].neighbors()


async def test_a_neighbor_that_stops_reading_costs_nobody_else_anything():
    async with members(3) as made:
        topics = await triangle(made)
        stuck = asyncio.get_running_loop().create_future()
        for peer in made[2].gossip._driver.peers._peers.values():
            peer.admits = lambda topic: stuck
        got = set()

        async def read():
            async for each in topics[1]:
                if isinstance(each, Received):
                    got.add(each.content[:4])

        reading = asyncio.create_task(read())
        away = made[2].endpoint.id
        async with asyncio.timeout(30):
            number = 0
            while away in topics[0].neighbors():
                await topics[0].broadcast(number.to_bytes(4, "big") + bytes(4000))
                number += 1
        await until(lambda: len(got) == number)
        reading.cancel()
        stuck.set_result(False)
