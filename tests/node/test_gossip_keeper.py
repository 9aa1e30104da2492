"""A topic's log and its peers are there again after a restart, and after a crash but for the last moment."""

import asyncio
import time

import pytest
from tidings import Node
from tidings.errors import UsageError
from tidings.gossip import Gossip, LogConfig, Received
from tidings.gossip.keeper import KeptMessage
from tidings.node.gossip_keeper import DatabaseKeeper
from tidings.storage import Database
from tidings.transport import SecretKey

STORED = LogConfig(stored=True)


async def contents(topic):
    return [each.content async for each in topic.history()]


async def heard(topic, content):
    async with asyncio.timeout(20):
        async for event in topic:
            if isinstance(event, Received) and event.content == content:
                return event
    raise AssertionError("the topic ended")


async def test_a_log_is_there_again_and_what_is_in_it_does_not_come_twice(tmp_path):
    async with Node.open(None) as other:
        theirs = await other.gossip.subscribe("t", log=True)
        async with Node.open(tmp_path) as node:
            ours = await node.gossip.subscribe("t", [other.addr()], log=STORED)
            await ours.joined()
            for number in range(3):
                await ours.broadcast(b"ours %d" % number)
                await theirs.broadcast(b"theirs %d" % number)
            await heard(ours, b"theirs 2")
        await theirs.broadcast(b"meanwhile")
        async with Node.open(tmp_path) as node:
            ours = await node.gossip.subscribe("t", [other.addr()], log=STORED, since=0)
            expected = {b"%s %d" % (who, number) for who in (b"ours", b"theirs") for number in range(3)}
            got = [(await anext(ours)) for _ in range(6)]
            assert {each.content for each in got} == expected
            event = await heard(ours, b"meanwhile")
            assert event.caught_up and event.number == 4
            await asyncio.sleep(0.5)
            assert sorted(await contents(ours)) == sorted([*expected, b"meanwhile"])
            await ours.broadcast(b"again")
            assert (await heard(theirs, b"again")).number == 1, "of a session of its own"


async def test_peers_are_remembered(tmp_path):
    async with Node.open(None) as other:
        theirs = await other.gossip.subscribe("t")
        async with Node.open(tmp_path) as node:
            ours = await node.gossip.subscribe("t", [other.addr()])
            await ours.joined()
        async with Node.open(tmp_path) as node:
            ours = await node.gossip.subscribe("t")
            await ours.joined(10)
            assert ours.neighbors() == [other.id]
            await ours.broadcast(b"back")
            await heard(theirs, b"back")


async def test_the_store_is_bounded_as_the_log_is():
    database = await Database.open(None)
    keeper = DatabaseKeeper(database, SecretKey.generate().public)
    topic = b"t" * 32
    for start in range(0, 100, 10):
        batch = [KeptMessage(position, time.time(), b"%d" % position) for position in range(start, start + 10)]
        await keeper.keep(topic, batch, first=max(0, start - 15))
    kept = await keeper.load(topic, messages=True)
    assert [each.position for each in kept.messages] == list(range(75, 100))
    assert (await keeper.load(topic, messages=False)).messages == []
    assert (await DatabaseKeeper(database, SecretKey.generate().public).load(topic, messages=True)).messages == []
    await database.aclose()


async def test_a_store_that_fails_costs_no_message(tmp_path, caplog):
    async with Node.open(tmp_path) as node, Node.open(None) as other:
        ours = await node.gossip.subscribe("t", log=STORED)
        theirs = await other.gossip.subscribe("t", [node.addr()])
        await theirs.joined()
        await node.database.aclose()
        await ours.broadcast(b"in spite of it")
        await heard(theirs, b"in spite of it")
        await asyncio.sleep(0.5)
    assert "is not kept for now" in caplog.text


async def test_without_a_store_nothing_is_stored():
    async with Node.open(None) as node:
        gossip = Gossip(node.endpoint)
        with pytest.raises(UsageError, match="keeper"):
            await gossip.subscribe("t", log=LogConfig(stored=True))
        await gossip.aclose()
