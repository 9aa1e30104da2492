"""`Doc.synced`, `Doc.status`, and many documents opened at once, among real nodes."""

import asyncio
import time
from pathlib import Path

import pytest
from docs_net import eventually, node
from tidings.docs_sync import Docs
from tidings.docs_sync.errors import DocumentClosed, SyncTimeout
from tidings.docs_sync.status import Synced
from tidings.transport import EndpointAddr, SecretKey


async def test_synced_brings_what_the_peer_had(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        theirs = await b.docs.join(mine.ticket(write=True))
        for n in range(5):
            # Behind the engine's back: nothing but a sync can find it.
            await mine._docs._store.write(mine._capability, await a.docs._author(None), b"a%d" % n, b"\1" * 32, 1)
            await theirs._docs._store.write(theirs._capability, await b.docs._author(None), b"b%d" % n, b"\1" * 32, 1)
            synced = await theirs.synced(a.id if n % 2 else str(a.id), timeout=10)
            assert synced == Synced(a.id, synced.received, synced.sent)
            assert await theirs.get(b"a%d" % n) is not None
            assert await mine.get(b"b%d" % n) is not None
        assert (await theirs.synced(timeout=10)).peer == a.id


async def test_many_wait_at_once(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        theirs = await b.docs.join(mine.ticket())
        await asyncio.gather(*(doc.synced(timeout=10) for doc in (mine, theirs) for _ in range(10)))


async def test_why_nothing_was_synced(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create()
        with pytest.raises(SyncTimeout, match="no peer of the document is known"):
            await doc.synced(timeout=0.05)
        with pytest.raises(SyncTimeout, match="not found"):
            await doc.synced(_known(a, b), timeout=1)
        waiting = asyncio.ensure_future(doc.synced(timeout=10))
        await asyncio.sleep(0)
        await doc.close()
        with pytest.raises(DocumentClosed):
            await waiting
        with pytest.raises(DocumentClosed):
            await doc.synced(timeout=1)
        assert not doc._docs._context.tasks._tasks or await eventually(_no_tasks(doc._docs)) is None


async def test_status_says_with_whom_when_how_far_and_why_not(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        for n in range(3):
            await mine.set(f"k{n}", b"v")
        before = time.time()
        theirs = await b.docs.join(mine.ticket())
        status = await theirs.status()
        assert (status.entries, status.is_live) == (3, True)
        assert status.fingerprint == (await mine.status()).fingerprint
        (peer,) = status.peers
        assert (peer.peer, peer.received, peer.sent, peer.error) == (a.id, 3, 0, None)
        assert before <= peer.synced_at <= time.time()

        async def neighbors() -> bool:
            return (await theirs.status()).neighbors == (a.id,)

        await eventually(neighbors)
        await mine.close()
        with pytest.raises(SyncTimeout):
            await theirs.synced(a.id, timeout=0.5)

        async def failed() -> bool:
            (peer,) = (await theirs.status()).peers
            return peer.error is not None and "not found" in peer.error and peer.next_try is not None

        await eventually(failed)
        status = await mine.status()
        assert (status.entries, status.is_live, status.peers) == (3, False, ())


async def test_all_documents_are_opened_and_only_what_differs_is_synced(tmp_path: Path) -> None:
    secret = SecretKey.generate()
    async with node(tmp_path / "a") as a:
        tickets = [(await a.docs.create()).ticket() for _ in range(6)]
        docs = {ticket.id: await a.docs.open(ticket.id) for ticket in tickets}
        async with node(tmp_path / "b", secret=secret, in_memory=False) as b:
            for ticket in tickets:
                await b.docs.join(ticket)
            await eventually(_remembered(b.docs, len(tickets)))
        await docs[tickets[2].id].set("new", b"v")
        async with node(tmp_path / "b", secret=secret, in_memory=False) as b:
            opened = await b.docs.open_all()
            assert [doc.id for doc in opened] == [ticket.id for ticket in tickets]
            assert await b.docs.open_all() == opened
            assert await b.docs.open(tickets[0].id) is opened[0]
            await eventually(lambda: opened[2].get("new"))


def _known(node, peer):
    node.endpoint.lookup.add(EndpointAddr(peer.id, peer.endpoint.addr().addrs))
    return peer.id


def _no_tasks(docs: Docs):
    async def check() -> bool:
        return not docs._context.tasks._tasks

    return check


def _remembered(docs: Docs, count: int):
    async def check() -> bool:
        return len(await docs._store.all_remembered_peers()) == count

    return check
