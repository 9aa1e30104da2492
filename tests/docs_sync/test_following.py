"""What a partial replica does with its providers, over links that are played."""

import asyncio
from random import Random

import pytest
from tidings.docs_sync.errors import SyncRefused, SyncViolation
from tidings.docs_sync.live import following, providers
from tidings.docs_sync.live.following import Following
from tidings.docs_sync.model.keys import NamespaceSecret
from tidings.docs_sync.model.messages import AbortReason
from tidings.docs_sync.model.native_messages import News, SyncAgain
from tidings.transport import SecretKey

ID = NamespaceSecret.generate().id
PEERS = [SecretKey.generate().public for _ in range(3)]
BUSY = SyncRefused("busy", AbortReason.INTERNAL_ERROR)


class Links:
    """``script[peer]``: frames to give, an error to raise, or None to wait for ever; one list for each link."""

    def __init__(self, script) -> None:
        self.script = script
        self.dialled = []
        self.open = []

    async def follow(self, peer, namespace, prefix):
        assert (namespace, prefix) == (ID, b"p/")
        self.dialled.append(peer)
        frames = self.script[peer].pop(0) if self.script[peer] else [None]
        self.open.append(peer)
        try:
            for frame in frames:
                if frame is None:
                    await asyncio.Event().wait()
                if isinstance(frame, Exception):
                    raise frame
                yield frame
        finally:
            self.open.remove(peer)


class Listener:
    def __init__(self) -> None:
        self.log = []
        self.raises = None

    def link_up(self, peer):
        self.log.append(("up", peer))

    def link_down(self, peer):
        self.log.append(("down", peer))

    def sync_again(self, peer):
        self.log.append(("sync", peer))

    async def take_news(self, peer, news):
        self.log.append(("news", peer))
        if self.raises is not None:
            raise self.raises


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(providers, "backoff", lambda failures, rng: 0.01)
    monkeypatch.setattr(following, "SYNC_EVERY", 0.01)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def run(script, peers, condition, *, raises=None):
    links, listener = Links(script), Listener()
    listener.raises = raises
    follows = Following(links, ID, b"p/", Random(1), listener)
    for peer in peers:
        follows.add(peer)
    follows.start()
    try:
        await until(lambda: condition(links, listener))
    finally:
        await follows.aclose()
    assert links.open == []
    ups = [peer for what, peer in listener.log if what == "up"]
    assert sorted(ups) == sorted(peer for what, peer in listener.log if what == "down")
    return links, listener


async def test_two_are_followed_and_the_third_when_one_fails(quick):
    a, b, c = PEERS
    script = {a: [[SyncAgain(), None]], b: [[SyncAgain(), None]], c: [[SyncAgain(), None]]}
    links, _ = await run(script, PEERS, lambda links, listener: len(links.open) == 2 and len(listener.log) == 4)
    assert links.dialled == [a, b]
    script = {a: [[SyncAgain(), OSError()]], b: [[SyncAgain(), None]], c: [[SyncAgain(), None]]}
    script[a][0][1] = SyncViolation("bad")
    await run(script, PEERS, lambda links, listener: ("up", c) in listener.log)


async def test_a_link_that_ends_is_made_again(quick):
    a = PEERS[0]
    script = {a: [[SyncAgain(), News((), ())], [TimeoutError()], [SyncAgain(), None]]}
    links, listener = await run(script, [a], lambda links, listener: listener.log.count(("up", a)) == 2)
    assert links.dialled == [a, a, a]
    assert listener.log == [("up", a), ("sync", a), ("news", a), ("down", a), ("up", a), ("sync", a), ("down", a)]


async def test_news_that_cannot_be_taken_end_the_link(quick):
    a = PEERS[0]
    script = {a: [[SyncAgain(), News((), ()), News((), ()), None], [None]]}
    _, listener = await run(
        script, [a], lambda links, listener: len(links.dialled) == 2, raises=SyncViolation("a bad entry")
    )
    assert listener.log.count(("news", a)) == 1


async def test_who_has_no_room_is_synced_with(quick):
    a = PEERS[0]
    _, listener = await run({a: [[BUSY]]}, [a], lambda links, listener: len(links.dialled) == 2)
    assert listener.log == [("sync", a)]


async def test_syncs_are_not_asked_for_at_any_rate(monkeypatch):
    monkeypatch.setattr(following, "SYNC_EVERY", 0.1)
    a = PEERS[0]
    started = asyncio.get_running_loop().time()
    await run({a: [[SyncAgain()] * 4 + [None]]}, [a], lambda links, listener: len(listener.log) == 5)
    assert asyncio.get_running_loop().time() - started >= 0.3
