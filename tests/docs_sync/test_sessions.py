"""Who dials, who yields, and that nothing stays locked, between real endpoints."""

import asyncio
from pathlib import Path

from docs_net import eventually, node
from tidings.docs_sync.model.messages import Init, encode_sync
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import RangeFingerprint
from tidings.docs_sync.sync import admittance, sessions
from tidings.docs_sync.sync.session import ALPN
from tidings.transport import SecretKey, frame


def idle(*docs):
    async def check() -> bool:
        return not any(doc._live._sessions._peers for doc in docs)

    return check


async def test_both_dial_at_once(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        theirs = await b.docs.join(mine.ticket(write=True))
        await eventually(idle(mine, theirs))
        for n in range(10):
            await mine._docs._store.write(mine._capability, await a.docs._author(None), b"a%d" % n, b"\1" * 32, 1)
            await theirs._docs._store.write(theirs._capability, await b.docs._author(None), b"b%d" % n, b"\1" * 32, 1)
            mine._live._sessions.want(b.id, "again")
            theirs._live._sessions.want(a.id, "again")
            await asyncio.sleep(0.01)
        await eventually(idle(mine, theirs))
        assert await a.docs._store.initial_message(mine.id) == await b.docs._store.initial_message(mine.id)
        assert len([entry async for entry in mine.entries()]) == 20


async def test_a_call_that_was_given_up_does_not_lock_the_peer_out(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sessions, "SUPERSEDE_GRACE", 0.05)
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        for n in range(40):
            await mine.set(f"k{n}", b"v")
        whole = IdRange(bytes(64), bytes(64))
        init = frame(encode_sync(Init(bytes(mine.id), [RangeFingerprint(whole, b"\1" * 32)])))
        connections = []
        for _ in range(3):  # begins, and never goes on
            connection = await b.endpoint.connect(a.endpoint.addr(), ALPN)
            stream = await connection.open_bi()
            await stream.send.write(init)
            assert await stream.recv.read(4)
            connections.append(connection)
        async with asyncio.timeout(5):
            theirs = await b.docs.join(mine.ticket())
        assert len([entry async for entry in theirs.entries()]) == 40
        for connection in connections:
            connection.close()
        await eventually(idle(mine, theirs))
        assert a.docs._context.admittance.total == 0


async def test_a_node_that_serves_too_many_refuses(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(admittance, "MAX_SERVED", 0)
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        joining = asyncio.ensure_future(b.docs.join(mine.ticket(), timeout=10))
        await asyncio.sleep(0.3)
        assert not joining.done()
        monkeypatch.setattr(admittance, "MAX_SERVED", 64)
        await joining


async def test_a_peer_that_holds_on_to_many_syncs_keeps_nobody_out(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        docs = [await a.docs.create() for _ in range(admittance.MAX_OF_PEER + 8)]
        whole, connections = IdRange(bytes(64), bytes(64)), []
        for doc in docs:
            await doc.set("k", b"v")
            connection = await b.endpoint.connect(a.endpoint.addr(), ALPN)
            stream = await connection.open_bi()
            await stream.send.write(frame(encode_sync(Init(bytes(doc.id), [RangeFingerprint(whole, b"\1" * 32)]))))
            assert await stream.recv.read(4)
            connections.append(connection)
        assert a.docs._context.admittance.total == admittance.MAX_OF_PEER
        for doc in docs[:4]:
            assert await (await c.docs.join(doc.ticket(), timeout=10)).get("k") is not None
        for connection in connections:
            connection.close()

        async def left() -> bool:
            return a.docs._context.admittance.total == 0

        await eventually(left)


async def test_hundreds_of_documents_of_two_nodes_meet_again(tmp_path: Path) -> None:
    """They are compared by a few requests, and only what differs is synced; gossip carries them all."""
    count = 100
    async with node(tmp_path / "a") as a:
        docs = [await a.docs.create() for _ in range(count)]
        secret = SecretKey.generate()
        async with node(tmp_path / "b", secret=secret, in_memory=False) as b:
            await asyncio.gather(*(b.docs.join(doc.ticket()) for doc in docs))
        for doc in docs[::50]:
            await doc.set("new", b"v")
        async with node(tmp_path / "b", secret=secret, in_memory=False) as b:
            copies = {copy.id: copy for copy in await b.docs.open_all()}
            differ = [copies[doc.id] for doc in docs[::50]]
            assert len(copies) == count

            async def together() -> bool:
                met = all(copy.neighbors for copy in copies.values())
                return met and all([await copy.get("new") for copy in differ])

            await eventually(together, 20)
            found = [copy for copy in copies.values() if any(each.synced_at for each in (await copy.status()).peers)]
            assert len(found) < count / 2
