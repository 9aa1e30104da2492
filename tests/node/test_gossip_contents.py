"""Messages above the limit: the node's blobs carry them, whole, in order, also to who comes later."""

import asyncio
import os

import pytest
from tidings import Node
from tidings.gossip import Gossip, MessageTooLarge, Missed, Received
from tidings.gossip.net import parcels
from tidings.node.gossip_carrier import LIMIT, BlobCarrier
from tidings.transport import EndpointId
from tidings.transport.errors import DecodeError


async def next_events(topic, count, kinds=(Received,)):
    found = []
    async with asyncio.timeout(20):
        async for event in topic:
            if isinstance(event, kinds):
                found.append(event)
                if len(found) == count:
                    return found
    raise AssertionError("the topic ended")


@pytest.mark.parametrize("log", [False, True])
async def test_large_and_small_come_whole_and_in_order(log):
    contents = [b"first", os.urandom(300_000), b"between", os.urandom(5_000), b"last"]
    async with Node.open(None) as a, Node.open(None) as b, Node.open(None) as c:
        first = await a.gossip.subscribe("t", log=log)
        topics = [first, *[await node.gossip.subscribe("t", [a.addr()], log=log) for node in (b, c)]]
        for topic in topics:
            await topic.joined()
        for content in contents:
            assert await topics[1].broadcast(content, signed=True)
        for topic in (topics[0], topics[2]):
            got = await next_events(topic, len(contents))
            assert [each.content for each in got] == contents
            assert {each.author for each in got} == {b.id}


async def test_who_comes_later_gets_it_from_others_than_its_author():
    content = os.urandom(100_000)
    async with Node.open(None) as a:
        hers = await a.gossip.subscribe("t", log=True)
        async with Node.open(None) as b:
            topic = await b.gossip.subscribe("t", [a.addr()], log=True)
            await topic.joined()
            await topic.broadcast(content)
            (event,) = await next_events(hers, 1)
            author = b.id
        async with Node.open(None) as c:
            late = await c.gossip.subscribe("t", [a.addr()], since=0)
            (event,) = await next_events(late, 1)
            assert event.content == content and event.author == author and event.caught_up
            assert [each.content async for each in late.history()] == [content]
            again = await c.gossip.subscribe("t", since=0)
            assert [each.content for each in await next_events(again, 1)] == [content]


async def test_a_content_that_nobody_gives_is_reported_and_holds_up_what_follows_for_a_while_only(monkeypatch):
    monkeypatch.setattr(parcels, "FETCH_TIMEOUT", 0.5)
    async with Node.open(None) as a, Node.open(None) as b:
        hers = await a.gossip.subscribe("t", log=True)
        his = await b.gossip.subscribe("t", [a.addr()], log=True)
        await his.joined()
        monkeypatch.setattr(BlobCarrier, "put", lambda self, content: asyncio.sleep(0, bytes(32) + bytes(8)))
        await his.broadcast(bytes(10_000))
        await his.broadcast(b"behind it")
        missed, behind = await next_events(hers, 2, (Received, Missed))
        assert missed == Missed(b.id, 1, 1)
        assert behind.content == b"behind it"


async def test_what_is_too_large_is_refused_before_it_is_kept():
    async with Node.open(None) as a:
        topic = await a.gossip.subscribe("t")
        with pytest.raises(MessageTooLarge, match=str(LIMIT)):
            await topic.broadcast(bytes(LIMIT + 1))
        with pytest.raises(MessageTooLarge):
            await topic.broadcast(bytes(5_000), signed=False)
        assert await a.blobs.list() == []
        gossip = Gossip(a.endpoint)
        alone = await gossip.subscribe("t")
        with pytest.raises(MessageTooLarge, match="carrier"):
            await alone.broadcast(bytes(5_000))
        await gossip.aclose()


async def test_names_of_strangers_are_checked():
    async with Node.open(None) as a:
        carrier = BlobCarrier(a.blobs)
        for name in (b"", bytes(39), bytes(32) + (LIMIT + 1).to_bytes(8, "little")):
            with pytest.raises(DecodeError):
                await carrier.get(name, [EndpointId(bytes(a.id))])
