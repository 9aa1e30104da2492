"""Gossip between real endpoints on loopback."""

import asyncio

import pytest
from blake3 import blake3
from tidings.errors import UsageError
from tidings.gossip import (
    ALPN,
    MAX_CONTENT,
    InvalidTopic,
    JoinTimeout,
    Lagged,
    MessageTooLarge,
    NeighborDown,
    NeighborUp,
    Received,
    TopicClosed,
    topic_id,
)
from tidings.transport import EndpointAddr
from tidings.transport.errors import ConnectionClosed

from .swarm import event, heard, member, members, until


async def test_two_nodes_share_more_topics_than_a_connection_has_streams() -> None:
    async with members(2) as (first, second):
        names = [f"topic {number}" for number in range(300)]
        theirs = [await first.gossip.subscribe(name) for name in names]
        events: list[list] = [[] for _ in names]
        ours = [
            await second.gossip.attach(name, heard.append, [first.addr])
            for name, heard in zip(names, events, strict=True)
        ]
        await asyncio.gather(*(topic.joined(10) for topic in (*ours, *theirs)))
        for number, topic in enumerate(theirs):
            await topic.broadcast(b"%d" % number)
        await until(lambda: all(any(isinstance(each, Received) for each in heard) for heard in events), 10)
        for number, heard in enumerate(events):
            assert [each.content for each in heard if isinstance(each, Received)] == [b"%d" % number]
        with pytest.raises(UsageError, match="delivered"):
            await anext(ours[0])


async def test_five_nodes_hear_each_other() -> None:
    async with members(5) as nodes:
        first = nodes[0].addr
        topics = [await nodes[0].gossip.subscribe("news")]
        topics += [await node.gossip.subscribe("news", [first]) for node in nodes[1:]]
        await asyncio.gather(*(topic.joined(5) for topic in topics))
        await until(lambda: all(len(topic.neighbors()) == 4 for topic in topics))
        for number, topic in enumerate(topics):
            content = b"from %d" % number
            await topic.broadcast(content)
            for other in topics:
                if other is not topic:
                    assert (await heard(other, content)).delivered_from in [node.endpoint.id for node in nodes]
        assert all(node.gossip.dropped == 0 for node in nodes)
    assert len(asyncio.all_tasks()) == 1, "every task has ended"


async def test_topics_share_a_connection_and_leave_alone() -> None:
    async with members(2) as (a, b):
        one = await a.gossip.subscribe("one"), await b.gossip.subscribe("one", [a.addr])
        two = await a.gossip.subscribe(b"2" * 32), await b.gossip.subscribe(b"2" * 32, [a.endpoint.id])
        await one[1].joined(5)
        await two[0].joined(5)
        await two[1].joined(5)
        assert len(a.endpoint.connections()) == 1
        await two[1].aclose()
        await event(two[0], lambda each: each == NeighborDown(b.endpoint.id))
        await one[0].broadcast(b"still here")
        await heard(one[1], b"still here")
        again = await b.gossip.subscribe(b"2" * 32, [str(a.endpoint.id)])
        await again.joined(5)
        await again.broadcast(b"back")
        await heard(two[0], b"back")


async def test_an_unused_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.gossip.net.peer_set.LINGER", 0.2)
    monkeypatch.setattr("tidings.gossip.net.driver.SWEEP", 0.1)
    async with members(2) as (a, b):
        topic = await a.gossip.subscribe("x")
        async with await b.gossip.subscribe("x", [a.addr]) as other:
            await other.joined(5)
        await until(lambda: not a.endpoint.connections() and not b.endpoint.connections())
        await until(lambda: not a.gossip._driver.peers._peers and not b.gossip._driver.peers._peers)
        assert topic.neighbors() == []


async def test_a_second_subscription_hears_of_the_neighbors_and_keeps_the_topic() -> None:
    async with members(2) as (a, b):
        first = await a.gossip.subscribe("x")
        other = await b.gossip.subscribe("x", [a.addr])
        await first.joined(5)
        second = await a.gossip.subscribe("x")
        assert await anext(second) == NeighborUp(b.endpoint.id)
        await first.aclose()
        assert [each async for each in first] == [NeighborUp(b.endpoint.id)]
        await other.joined(5)
        await other.broadcast(b"for the second")
        await heard(second, b"for the second")
        with pytest.raises(TopicClosed):
            await first.broadcast(b"x")


async def test_a_slow_subscriber_lags_alone() -> None:
    async with members(2) as (a, b):
        slow, fast = await a.gossip.subscribe("x", capacity=5), await a.gossip.subscribe("x")
        writer = await b.gossip.subscribe("x", [a.addr])
        await writer.joined(5)
        for number in range(50):
            await writer.broadcast(b"%d" % number)
        for number in range(50):
            await heard(fast, b"%d" % number)
        lagged = await anext(slow)
        assert lagged == Lagged(46), "50 messages and a neighbour, five kept"
        await heard(slow, b"45")


async def test_restart_with_the_same_key_rejoins() -> None:
    async with members(2) as (a, b):
        c = await member()
        key = c.endpoint.secret_key
        topics = [await a.gossip.subscribe("x"), await b.gossip.subscribe("x", [a.addr])]
        mine = await c.gossip.subscribe("x", [a.addr])
        await mine.joined(5)
        await c.aclose()
        await event(topics[0], lambda each: each == NeighborDown(c.endpoint.id))
        c = await member(key)
        mine = await c.gossip.subscribe("x", [b.addr])
        await mine.joined(5)
        await mine.broadcast(b"I am back")
        await heard(topics[0], b"I am back")
        await heard(topics[1], b"I am back")
        await c.aclose()


async def test_a_dial_that_failed_is_made_again() -> None:
    b = await member()
    addr, key = b.addr, b.endpoint.secret_key
    await b.aclose()
    async with members(1) as (a,):
        topic = await a.gossip.subscribe("x", [EndpointAddr(addr.id)])  # no address: every dial fails at once
        with pytest.raises(JoinTimeout):
            await topic.joined(0.7)
        b = await member(key)
        there = await b.gossip.subscribe("x")
        a.endpoint.lookup.add(b.addr)
        await topic.joined(10)
        await topic.broadcast(b"at last")
        await heard(there, b"at last")
        await b.aclose()


async def test_a_join_before_the_peer_subscribes_is_repeated() -> None:
    async with members(2) as (a, b):
        early = await a.gossip.subscribe("x", [b.addr])
        await asyncio.sleep(0.3)
        late = await b.gossip.subscribe("x")
        await early.joined(5)
        await late.joined(5)


async def test_addresses_travel_with_the_membership() -> None:
    async with members(3) as (a, b, c):
        topics = [await a.gossip.subscribe("x"), await b.gossip.subscribe("x", [a.addr])]
        await topics[1].joined(5)
        last = await c.gossip.subscribe("x", [a.addr])
        await until(lambda: set(last.neighbors()) == {a.endpoint.id, b.endpoint.id})
        learned = b.endpoint.lookup.get(c.endpoint.id)
        assert learned is not None and learned.addrs == c.addr.addrs


async def test_neighbors_scope() -> None:
    async with members(2) as (a, b):
        topic = await a.gossip.subscribe("x")
        other = await b.gossip.subscribe("x", [a.addr])
        await other.joined(5)
        for _ in range(2):
            await other.broadcast_neighbors(b"near")
            received = await heard(topic, b"near")
            assert received.round is None and received.is_direct


async def test_the_largest_message_arrives_and_a_larger_one_is_refused() -> None:
    async with members(2) as (a, b):
        topic = await a.gossip.subscribe("x")
        other = await b.gossip.subscribe("x", [a.addr])
        await other.joined(5)
        await other.broadcast(bytes(MAX_CONTENT))
        await heard(topic, bytes(MAX_CONTENT))
        with pytest.raises(MessageTooLarge, match="put the content in a blob"):
            await other.broadcast(bytes(MAX_CONTENT + 1))
        with pytest.raises(UsageError):
            await other.broadcast("text")  # type: ignore[arg-type]


async def test_wrong_topics_and_peers_are_refused() -> None:
    assert topic_id("news") == blake3(b"news").digest()
    async with members(1) as (a,):
        with pytest.raises(InvalidTopic):
            await a.gossip.subscribe(b"short")
        with pytest.raises(InvalidTopic):
            await a.gossip.subscribe("half a pair \ud800")
        with pytest.raises(UsageError):
            await a.gossip.subscribe("x", ["not an id"])
        with pytest.raises(UsageError):
            await a.gossip.subscribe("x", "ab")
        topic = await a.gossip.subscribe("x", [a.endpoint.id])
        with pytest.raises(JoinTimeout):
            await topic.joined(0.05)
        await a.gossip.aclose()
        await a.gossip.aclose()
        with pytest.raises(TopicClosed):
            await a.gossip.subscribe("x")


GARBAGE = {
    "no frame": b"\xff" * 64,
    "a short topic": bytes.fromhex("00000003") + b"abc",
    "no message": bytes.fromhex("00000020") + topic_id("x") + bytes.fromhex("00000002ffff"),
    "too large": bytes.fromhex("00000020") + topic_id("x") + bytes.fromhex("00001001"),
    "more than a message": bytes.fromhex("00000020") + topic_id("x") + bytes.fromhex("00000003010101"),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_costs_its_connection_only(garbage: bytes) -> None:
    async with members(3) as (a, b, c):
        topic = await a.gossip.subscribe("x")
        other = await b.gossip.subscribe("x", [a.addr])
        await other.joined(5)
        connection = await c.endpoint.connect(a.addr, ALPN)
        stream = await connection.open_uni()
        await stream.write(garbage)
        async with asyncio.timeout(5):
            ended = await connection.wait_closed()
        assert isinstance(ended, ConnectionClosed) and ended.by == "peer" and ended.code == 1
        await other.broadcast(b"unharmed")
        await heard(topic, b"unharmed")


async def test_a_silent_stream_delays_nobody_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.gossip.net.link.HEADER_TIMEOUT", 0.5)
    async with members(2) as (a, b):
        topic = await a.gossip.subscribe("x")
        connection = await b.endpoint.connect(a.addr, ALPN)
        silent = await connection.open_uni()
        await silent.write(b"\0")
        talking = await connection.open_uni()
        join = bytes.fromhex("00000020") + topic_id("x") + bytes.fromhex("00000003000000")
        await talking.write(join)
        await topic.joined(0.4)
        async with asyncio.timeout(5):
            await connection.wait_closed()


async def test_a_neighbor_that_does_not_read_delays_nobody() -> None:
    async with members(3) as (a, b, deaf):
        topic = await a.gossip.subscribe("x", capacity=10_000)
        other = await b.gossip.subscribe("x", [a.addr])
        await other.joined(5)
        # A neighbour by its own words that never takes a stream off the connection.
        connection = await deaf.endpoint.connect(a.addr, ALPN)
        stream = await connection.open_uni()
        await stream.write(bytes.fromhex("00000020") + topic_id("x") + bytes.fromhex("00000003000000"))
        await until(lambda: len(topic.neighbors()) == 2)
        for number in range(3000):
            await topic.broadcast(b"%d" % number + bytes(2000))
            if number % 500 == 499:
                await heard(other, b"%d" % number + bytes(2000), timeout=5)
        peer = a.gossip._driver.peers._peers[bytes(deaf.endpoint.id)]
        assert len(peer.queue) > 0 and peer.queue.bytes <= 4 << 20
        connection.close()


async def test_a_neighbor_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.gossip.net.link.WRITE_TIMEOUT", 0.3)
    async with members(2) as (a, deaf):
        topic = await a.gossip.subscribe("x")
        connection = await deaf.endpoint.connect(a.addr, ALPN)
        stream = await connection.open_uni()
        await stream.write(bytes.fromhex("00000020") + topic_id("x") + bytes.fromhex("00000003000000"))
        await topic.joined(5)
        for number in range(3000):
            await topic.broadcast(b"%d" % number + bytes(4000))
        async with asyncio.timeout(5):
            ended = await connection.wait_closed()
        assert ended.code == 2
        await event(topic, lambda each: each == NeighborDown(deaf.endpoint.id))


async def test_both_dial_at_once() -> None:
    async with members(2) as (a, b):
        topics = await asyncio.gather(a.gossip.subscribe("x", [b.addr]), b.gossip.subscribe("x", [a.addr]))
        await asyncio.gather(*(topic.joined(5) for topic in topics))
        await asyncio.sleep(0.2)
        for number in range(20):
            await topics[0].broadcast(b"a%d" % number)
            await topics[1].broadcast(b"b%d" % number)
        for number in range(20):
            await heard(topics[1], b"a%d" % number)
            await heard(topics[0], b"b%d" % number)
        assert len(a.endpoint.connections()) <= 2
