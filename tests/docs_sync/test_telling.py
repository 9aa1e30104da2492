"""What is written at a partial replica, on its way to one provider."""

import asyncio
from contextlib import asynccontextmanager

from tidings.docs_sync.errors import SyncRefused
from tidings.docs_sync.live.telling import Teller
from tidings.docs_sync.model.entry import EntryId, Record, SignedEntry
from tidings.docs_sync.model.keys import NamespaceSecret
from tidings.docs_sync.model.messages import AbortReason
from tidings.docs_sync.model.native_messages import MAX_NEWS
from tidings.docs_sync.tasks import Tasks
from tidings.transport import SecretKey

ID = NamespaceSecret.generate().id
PEER = SecretKey.generate().public


def entry(key: bytes) -> SignedEntry:
    return SignedEntry(EntryId(bytes(ID), b"a" * 32, key), Record(1, b"h" * 32, 1), b"s" * 64, b"t" * 64)


class Links:
    def __init__(self) -> None:
        self.told = []
        self.gate = asyncio.Event()
        self.raises = None

    async def tell(self, peer, namespace, values):
        assert (peer, namespace) == (PEER, ID)
        await self.gate.wait()
        if self.raises is not None:
            raise self.raises
        self.told.append([value.entry.id.key for value in values])


@asynccontextmanager
async def teller():
    links, synced, tasks = Links(), [], Tasks()
    try:
        yield links, Teller(links, ID, PEER, tasks, synced.append), synced
    finally:
        await tasks.aclose()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_is_written_meanwhile_goes_together():
    async with teller() as (links, it, synced):
        it.add(entry(b"1"))
        await asyncio.sleep(0)
        for key in (b"2", b"3"):
            it.add(entry(key))
        links.gate.set()
        await until(lambda: len(links.told) == 2)
        assert links.told == [[b"1"], [b"2", b"3"]]
        for n in range(10):
            it.add(entry(b"%d" % n))
            await until(lambda n=n: links.told[-1] == [b"%d" % n])
        assert synced == []


async def test_too_much_is_left_to_a_sync():
    async with teller() as (links, it, synced):
        links.gate.set()
        for n in range(MAX_NEWS + 1):
            it.add(entry(b"%d" % n))
        await until(lambda: synced == [PEER])
        for _ in range(20):
            it.add(entry(b"k" * 4096))
        await until(lambda: synced == [PEER, PEER])
        it.add(entry(b"later"))
        await until(lambda: links.told == [[b"later"]])


async def test_what_is_refused_is_left_to_a_sync():
    async with teller() as (links, it, synced):
        links.gate.set()
        links.raises = SyncRefused("no", AbortReason.NOT_FOUND)
        it.add(entry(b"1"))
        await until(lambda: synced == [PEER])


async def test_a_provider_that_is_gone_is_not_told():
    async with teller() as (links, it, synced):
        it.add(entry(b"1"))
        await asyncio.sleep(0)
        it.close()
        await until(lambda: it._task is None)
        assert (links.told, synced) == ([], [])
