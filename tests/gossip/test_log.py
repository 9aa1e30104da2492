"""Topics that keep a log, between real endpoints."""

import asyncio
import time
from itertools import pairwise

import pytest
from tidings.errors import UsageError
from tidings.gossip import ALPN, LOG_ALPN, MAX_BODY, Gossip, LogConfig, MessageTooLarge, Received
from tidings.gossip.core.envelope import MAGIC
from tidings.transport import Endpoint, Router

from .swarm import LOCAL, Member, heard, members, until

QUICK = LogConfig(interval=0.3, grace=0.1)


async def joined(made, **options):
    """All of ``made`` in one topic, each through the one before."""
    topics = [await made[0].gossip.subscribe("log", **options)]
    for before, each in pairwise(made):
        topics.append(await each.gossip.subscribe("log", [before.addr], **options))
        await topics[-1].joined(10)
    return topics


async def received(topic, count, timeout=10):
    out = []
    async with asyncio.timeout(timeout):
        while len(out) < count:
            each = await anext(topic)
            if isinstance(each, Received):
                out.append(each)
    return out


async def test_a_message_says_who_wrote_it():
    async with members(3) as made:
        topics = await joined(made, log=QUICK)
        before = time.time()
        sent = await topics[0].broadcast(b"hello")
        assert sent and sent.neighbors >= 1 and sent.refused is None
        for topic in topics[1:]:
            got = await heard(topic, b"hello")
            assert (got.author, got.number, got.caught_up, got.late) == (made[0].endpoint.id, 1, False, False)
            assert before - 1 < got.sent_at < time.time() + 1
        assert [each.content async for each in topics[2].history()] == [b"hello"]
        assert not [each async for each in topics[2].history(time.time() + 1)]


async def test_the_same_content_may_come_again():
    async with members(2) as made:
        topics = await joined(made, log=QUICK)
        for _ in range(3):
            assert await topics[0].broadcast(b"again")
        assert [each.number for each in await received(topics[1], 3)] == [1, 2, 3]
        assert await topics[0].broadcast(b"plain", signed=False)
        assert "90 seconds" in (await topics[0].broadcast(b"plain", signed=False)).refused
        (plain,) = await received(topics[1], 1)
        assert plain.author is None and plain.content == b"plain"


async def test_who_comes_later_gets_what_it_asks_for():
    async with members(3) as made:
        topics = await joined(made[:2], log=QUICK)
        for number in range(30):
            await topics[number % 2].broadcast(b"%d" % number)
        await received(topics[1], 15)
        began = time.time()
        late = await made[2].gossip.subscribe("log", [made[0].addr], log=QUICK, since=0)
        old = await received(late, 30)
        for author in (made[0], made[1]):
            numbers = [each.number for each in old if each.author == author.endpoint.id]
            assert numbers == list(range(1, 16))
        assert all(each.caught_up and not each.is_direct for each in old)
        await topics[0].broadcast(b"new")
        assert not (await heard(late, b"new")).caught_up
        second = await made[2].gossip.subscribe("log", since=0)
        assert len(await received(second, 31)) == 31
        third = await made[2].gossip.subscribe("log", since=began + 1000)
        await topics[0].broadcast(b"newer")
        assert (await heard(second, b"newer")).content == b"newer"
        assert third._subscription._events.__len__() <= 3  # neighbours, and nothing of the past


async def test_what_was_said_alone_is_heard_by_the_first_who_comes():
    async with members(2) as made:
        first = await made[0].gossip.subscribe("log", log=QUICK)
        assert (await first.broadcast(b"nobody there")).neighbors == 0
        second = await made[1].gossip.subscribe("log", [made[0].addr], since=0)
        assert (await heard(second, b"nobody there")).caught_up


async def test_without_a_log_alone_is_refused_and_signed_is_understood():
    async with members(2) as made:
        first = await made[0].gossip.subscribe("log")
        assert "joined" in (await first.broadcast(b"nobody there")).refused
        second = await made[1].gossip.subscribe("log", [made[0].addr])
        await second.joined(10)
        await first.broadcast(b"signed", signed=True)
        assert (await heard(second, b"signed")).author == made[0].endpoint.id
        with pytest.raises(UsageError, match="log"):
            _ = [each async for each in second.history()]
        with pytest.raises(UsageError, match="without a log"):
            await made[1].gossip.subscribe("log", log=True)
        with pytest.raises(MessageTooLarge, match=str(MAX_BODY)):
            await first.broadcast(bytes(MAX_BODY + 1), signed=True)
        await first.broadcast(bytes(MAX_BODY), signed=True)
        assert len((await received(second, 1))[0].content) == MAX_BODY


async def test_a_forged_message_is_not_delivered():
    async with members(3) as made:
        topics = await joined(made, log=QUICK)
        driver = made[0].gossip._driver
        await driver.broadcast(topics[0]._joined, MAGIC + bytes(200), signed=False)
        await topics[0].broadcast(b"genuine")
        assert (await received(topics[2], 1))[0].content == b"genuine"


async def test_a_peer_without_logs_is_left_alone():
    async with members(1) as made:
        endpoint = await Endpoint.bind(bind=LOCAL)
        gossip = Gossip(endpoint)
        plain = Member(endpoint, gossip, Router(endpoint, {ALPN: gossip.handle}))  # as an iroh peer
        try:
            ours = await made[0].gossip.subscribe("log", log=QUICK)
            theirs = await plain.gossip.subscribe("log", [made[0].addr])
            await theirs.joined(10)
            await until(lambda: bytes(endpoint.id) in ours._joined.core.log._plain)
            await ours.broadcast(b"for all", signed=False)
            assert (await heard(theirs, b"for all")).author is None
            await theirs.broadcast(b"from there")
            assert (await heard(ours, b"from there")).content == b"from there"
            assert not made[0].gossip._driver._logs._peers
        finally:
            await plain.aclose()


async def test_garbage_costs_the_connection_alone():
    async with members(2) as made:
        topics = await joined(made, log=QUICK)
        for data in (b"\x00\x00\x00\x05hello", b"\xff\xff\xff\xff", b"\x00\x00\x00\x28" + bytes(40)):
            async with Endpoint.bind(bind=LOCAL) as stranger:
                connection = await stranger.connect(made[0].addr, LOG_ALPN)
                stream = await connection.open_bi()
                await stream.send.write(data)
                await asyncio.wait_for(connection.wait_closed(), 5)
        await topics[0].broadcast(b"still here")
        await heard(topics[1], b"still here")


async def test_closing_ends_all_tasks():
    async with members(2) as made:
        topics = await joined(made, log=QUICK)
        await topics[0].broadcast(b"x")
        await heard(topics[1], b"x")
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if "gossip" in task.get_name()]


async def test_a_reader_that_blocks_slows_the_others_down_and_loses_nothing():
    async with members(2) as made:
        first = await made[0].gossip.subscribe("slow")
        second = await made[1].gossip.subscribe("slow", [made[0].addr], capacity=4, when_full="block")
        await second.joined(10)
        sending = asyncio.gather(*(first.broadcast(b"%d" % number) for number in range(200)))
        contents = []
        while len(contents) < 200:
            async with asyncio.timeout(10):
                each = await anext(second)
            if isinstance(each, Received):
                contents.append(int(each.content))
            await asyncio.sleep(0.005)
        await sending
        assert contents == list(range(200)) and second.lost == 0
        with pytest.raises(UsageError, match="when_full"):
            await made[0].gossip.subscribe("slow", when_full="wait")


async def test_a_burst_of_signed_messages_waits_for_its_check_and_loses_nothing(monkeypatch):
    monkeypatch.setattr("tidings.gossip.net.signatures.MAX_UNCHECKED", 64)
    monkeypatch.setattr("tidings.gossip.net.signatures.CHECKED_AT_ONCE", 8)
    async with members(2) as made:
        first = await made[0].gossip.subscribe("burst")
        second = await made[1].gossip.subscribe("burst", [made[0].addr], capacity=4096)
        await second.joined(10)
        for number in range(1000):
            await first.broadcast(b"%d" % number, signed=True)
        numbers = []
        async with asyncio.timeout(30):
            while len(numbers) < 1000:
                each = await anext(second)
                if isinstance(each, Received):
                    numbers.append(each.number)
        assert numbers == list(range(1, 1001))
