"""Following a document between real endpoints: what the provider does."""

import asyncio
from contextlib import aclosing, asynccontextmanager
from functools import partial

import pytest
from native_net import ID, WRITER, pair, signed, until
from tidings.docs_sync.access import control as access
from tidings.docs_sync.errors import NotAllowed, SyncRefused
from tidings.docs_sync.model.native_messages import News, SyncAgain
from tidings.docs_sync.model.reconcile import ContentStatus
from tidings.docs_sync.sync import followers
from tidings.docs_sync.sync.followers import Followers


@asynccontextmanager
async def provider(**options):
    """A follower, and a provider that serves it."""
    async with pair(**options) as (a, b):
        feeds = Followers(b.store, b.access)
        b.follow = partial(feeds.serve, is_open=lambda: b.is_open)
        b.is_open = True
        try:
            yield a, b, feeds
        finally:
            await feeds.aclose()


def is_quiet(frame):
    return isinstance(frame, News) and not frame.values and not frame.contents


class Link:
    """The frames of one link, read when asked for."""

    def __init__(self, frames) -> None:
        self._frames = frames

    async def next(self):
        """The next frame that says something."""
        async with asyncio.timeout(15):
            while is_quiet(frame := await anext(self._frames)):
                pass
            return frame

    async def keys(self, count):
        keys = []
        while len(keys) < count:
            frame = await self.next()
            assert isinstance(frame, News)
            keys += [value.entry.id.key for value in frame.values]
        return keys


@asynccontextmanager
async def following(a, b, prefix=b"p/"):
    async with aclosing(a.links.follow(b.id, ID, prefix)) as frames:
        link = Link(frames)
        assert isinstance(await link.next(), SyncAgain)
        yield link


async def test_what_is_stored_below_the_prefix_is_told():
    async with provider() as (a, b, _), following(a, b) as link, following(a, b, b"q") as other:
        author = await b.store.default_author()
        await b.store.write(WRITER, author, b"p/1", b"h" * 32, 1)
        await b.store.insert(ID, [signed(b"p/2", 5), signed(b"x", 5), signed(b"q", 5)])
        await b.store.write(WRITER, author, b"p", b"h" * 32, 1)
        assert await link.keys(3) == [b"p/1", b"p/2", b"p"]
        assert await other.keys(1) == [b"q"]


async def test_contents_that_come_later_are_announced(tmp_path):
    async with provider() as (a, b, feeds):
        async with following(a, b) as link:
            entry = signed(b"p/1", 5)
            await b.store.insert(ID, [entry])
            news = await link.next()
            assert [value.status for value in news.values] == [ContentStatus.MISSING]
            feeds.content_here(ID, b"other" * 6 + b"ab")
            feeds.content_here(ID, entry.record.hash)
            assert await link.next() == News([], [entry.record.hash])
        await until(lambda: not feeds._known)
        async with following(a, b) as link:  # it heard of the entry by a sync
            feeds.content_here(ID, entry.record.hash)
            assert await link.next() == News([], [entry.record.hash])


async def test_nothing_is_lost_between_a_link_and_the_sync_that_it_asks_for():
    async with provider() as (a, b, _):
        written = 0

        async def write():
            nonlocal written
            while True:
                written += 1
                await b.store.insert(ID, [signed(b"p/%d" % written, written)])

        writer = asyncio.create_task(write())
        async with following(a, b) as link:
            await a.sync_with(b, b"p/")
            await asyncio.sleep(0.2)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            last = {entry.id.key async for _, entry in changes(b.store)}
            have = {entry.id.key async for _, entry in changes(a.store)}
            while not last <= have:
                frame = await link.next()
                have |= {value.entry.id.key for value in frame.values}


async def changes(store):
    for each in await store.changes(ID, 0, 100_000):
        yield each


async def test_a_slow_follower_costs_itself_only():
    async with provider() as (a, b, _), following(a, b) as slow, following(a, b, b"p") as quick:
        keys = [b"p/%05d/" % n + b"k" * 2000 for n in range(3000)]
        told = []
        for start in range(0, len(keys), 250):
            await b.store.insert(ID, [signed(key, 1) for key in keys[start : start + 250]])
            told += await quick.keys(250)
        assert told == keys
        seen = [await slow.next()]
        while not isinstance(seen[-1], SyncAgain):
            seen.append(await slow.next())
        assert sum(len(frame.values) for frame in seen[:-1]) < len(keys)
        await b.store.insert(ID, [signed(b"p/more", 1)])
        assert b"p/more" in await slow.keys(1)


async def test_a_follower_that_takes_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(followers, "WRITE_TIMEOUT", 0.2)
    async with provider() as (a, b, feeds), following(a, b):
        for start in range(0, 4000, 500):
            await b.store.insert(ID, [signed(b"p/%05d/" % n + b"k" * 3000, 1) for n in range(start, start + 500)])
            if not feeds._known:
                break
        await until(lambda: not feeds._known)


async def test_who_leaves_is_forgotten():
    async with provider() as (a, b, feeds):
        async with following(a, b), following(a, b, b"q"):
            assert len(feeds._known) == 2
        await until(lambda: not feeds._known)
        await b.store.insert(ID, [signed(b"p/1", 1)])
        await until(lambda: not feeds._feeds)


async def test_following_once_more_ends_the_first_link():
    async with provider() as (a, b, feeds), following(a, b) as first, following(a, b) as second:
        with pytest.raises(StopAsyncIteration):
            await first.next()
        assert len(feeds._known) == 1
        await b.store.insert(ID, [signed(b"p/1", 1)])
        assert await second.keys(1) == [b"p/1"]


async def test_closing_the_document_ends_the_link():
    async with provider() as (a, b, feeds), following(a, b) as link:
        b.store.changed.end(bytes(ID))
        with pytest.raises(StopAsyncIteration):
            await link.next()
        await until(lambda: not feeds._feeds)


async def test_who_may_not_read_is_refused_and_whose_right_ends_is_sent_away(monkeypatch):
    monkeypatch.setattr(access, "RECHECK", 0.1)
    allowed = False
    async with provider(hook=lambda peer, document, kind: allowed) as (a, b, _):
        with pytest.raises(SyncRefused):
            async with following(a, b):
                pass
        allowed = True
        async with following(a, b) as link:
            await b.store.insert(ID, [signed(b"p/1", 1)])
            assert await link.keys(1) == [b"p/1"]
            allowed = False
            with pytest.raises(StopAsyncIteration):
                await link.next()
            await b.store.insert(ID, [signed(b"p/2", 1)])


async def test_there_is_no_room_for_any_number(monkeypatch):
    monkeypatch.setattr(followers, "MAX_OF_PEER", 2)
    async with provider() as (a, b, feeds), following(a, b), following(a, b, b"q"):
        with pytest.raises(SyncRefused):
            async with following(a, b, b"r"):
                pass
        assert len(feeds._known) == 2


async def test_an_idle_link_says_that_it_is_there(monkeypatch):
    monkeypatch.setattr(followers, "QUIET", 0.05)
    async with provider() as (a, b, _), aclosing(a.links.follow(b.id, ID, b"p/")) as frames:
        async with asyncio.timeout(15):
            quiet = 0
            async for frame in frames:
                quiet += is_quiet(frame)
                if quiet > 3:
                    break


async def test_a_document_that_closes_meanwhile_is_not_followed():
    async with provider() as (a, b, _):
        b.is_open = False
        async with aclosing(a.links.follow(b.id, ID, b"p/")) as frames:
            with pytest.raises(SyncRefused):
                await anext(frames)


async def test_who_may_not_read_is_not_followed(monkeypatch):
    async with provider() as (a, b, _):

        async def refuse(peer, namespace, kind, share=None):
            return False

        monkeypatch.setattr(a.access, "allows", refuse)
        async with aclosing(a.links.follow(b.id, ID, b"p/")) as frames:
            with pytest.raises(NotAllowed):
                await anext(frames)
        assert not a.connections()
