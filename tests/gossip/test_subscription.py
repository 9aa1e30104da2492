"""A subscriber's queue: order, lag, end."""

import asyncio

import pytest
from tidings.gossip.errors import SubscriberTooSlow
from tidings.gossip.subscription import Lagged, Received, Subscription
from tidings.transport import EndpointId

PEER = EndpointId(bytes(32))


def received(number: int, round: int | None = 0) -> Received:
    return Received(b"%d" % number, PEER, round)


async def test_a_slow_reader_learns_how_much_it_missed() -> None:
    subscription = Subscription(3)
    for number in range(5):
        subscription.push(received(number))
    assert await subscription.next() == Lagged(2)
    assert [await subscription.next() for _ in range(3)] == [received(2), received(3), received(4)]


async def test_the_end_comes_after_what_is_queued() -> None:
    subscription = Subscription()
    subscription.push(received(1))
    subscription.close()
    subscription.push(received(2))
    assert await subscription.next() == received(1)
    assert await subscription.next() is None


async def test_a_waiting_reader_is_woken_by_the_end() -> None:
    subscription = Subscription()
    reader = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    subscription.close()
    assert await reader is None


async def test_a_cancelled_reader_loses_nothing() -> None:
    subscription = Subscription()
    reader = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    subscription.push(received(1))
    assert await subscription.next() == received(1)


def test_direct_is_round_zero_or_neighbours_only() -> None:
    assert received(1, 0).is_direct and received(1, None).is_direct and not received(1, 3).is_direct


async def test_one_that_is_to_fail_ends_behind_what_is_queued() -> None:
    subscription: Subscription[Received] = Subscription(2, "fail")
    for number in range(4):
        subscription.push(received(number))
    assert [await subscription.next() for _ in range(2)] == [received(0), received(1)]
    for _ in range(2):
        with pytest.raises(SubscriberTooSlow, match="2 events"):
            await subscription.next()


async def test_one_that_blocks_has_messages_wait_and_in_the_end_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.gossip.subscription.PATIENCE", 0.05)
    subscription: Subscription[Received] = Subscription(1, "block")
    assert not subscription.blocks
    subscription.push(received(1))
    assert subscription.blocks
    await subscription.room()
    waiting = asyncio.create_task(subscription.room())
    await asyncio.sleep(0)
    assert await subscription.next() == received(1)
    await waiting
    assert not subscription.blocks and subscription.lost == 0
    subscription.push(received(2))
    subscription.push(received(3))
    assert subscription.lost == 1
    subscription.close()
    assert not subscription.blocks
