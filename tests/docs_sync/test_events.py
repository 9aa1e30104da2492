"""The queue of a subscriber."""

import asyncio

from tidings.docs_sync import events as module
from tidings.docs_sync.events import EventHub, Lagged, PendingContentReady


async def test_a_slow_subscriber_loses_the_oldest_and_hears_of_it(monkeypatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 3)
    hub = EventHub()
    stream = hub.subscribe()
    for _ in range(5):
        hub.publish(PendingContentReady())
    hub.close()
    assert [event async for event in stream] == [Lagged(2)] + [PendingContentReady()] * 3


async def test_events_wake_and_end() -> None:
    hub = EventHub()
    stream = hub.subscribe()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    hub.publish(PendingContentReady())
    assert await waiting == PendingContentReady()
    hub.close()
    assert [event async for event in stream] == []
    assert [event async for event in hub.subscribe()] == []


async def test_forgotten_subscribers_cost_nothing() -> None:
    hub = EventHub()
    hub.subscribe()
    hub.publish(PendingContentReady())
    assert not hub.is_heard
