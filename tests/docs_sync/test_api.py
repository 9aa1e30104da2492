"""Documents between real endpoints on loopback."""

import asyncio
from pathlib import Path

import pytest
from docs_net import contents, eventually, node
from tidings.docs_sync import (
    ContentReady,
    DocTicket,
    InsertLocal,
    InsertRemote,
    NeighborUp,
    PendingContentReady,
    SyncFinished,
    errors,
)
from tidings.docs_sync.model.messages import Abort, AbortReason, decode_sync
from tidings.docs_sync.sync.session import ALPN
from tidings.errors import PeerError
from tidings.transport import frame, read_frame


async def test_one_node(tmp_path: Path) -> None:
    async with node(tmp_path) as a:
        doc = await a.docs.create()
        events = doc.events()
        entry = await doc.set("greeting", b"hello")
        assert (entry.key, entry.size, entry.author) == (b"greeting", 5, await a.docs.default_author())
        found = await doc.get("greeting")
        assert found == entry
        assert await found.content() == b"hello"
        assert await anext(events) == InsertLocal(entry)
        other = await a.docs.create_author()
        await doc.set("greeting", b"bonjour", author=other)
        assert await (await doc.get(b"greeting")).content() == b"bonjour"
        assert [e.size async for e in doc.entries()] in ([5, 7], [7, 5])
        assert [e.size async for e in doc.entries(newest=True)] == [7]
        await doc.set_value("n", {"a": [1, None, b"x"]})
        assert await (await doc.get("n")).value() == {"a": [1, None, b"x"]}
        with pytest.raises(errors.NotAValue):
            await doc.set_value("n", object())
        with pytest.raises(errors.EmptyValue):
            await doc.set("n", b"")
        with pytest.raises(errors.BadKey):
            await doc.set("half a pair \ud800", b"v")
        with pytest.raises(errors.BadKey):
            await doc.set(5, b"x")
        assert await doc.delete("gr") == 1
        assert await doc.delete("gr") == 0
        assert (await doc.get("greeting")).author == other
        assert [d async for d in a.docs.list()] == [doc]
        await doc.close()
        reopened = await a.docs.open(str(doc.id))
        assert await reopened.get("n") is not None
        await a.docs.drop(doc.id)
        with pytest.raises(errors.UnknownDocument):
            await reopened.set("k", b"v")
        with pytest.raises(errors.UnknownDocument):
            await a.docs.open(doc.id)


async def test_two_nodes_live(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        for n in range(50):
            await mine.set(f"key/{n}", b"value %d" % n)
        theirs = await b.docs.join(str(mine.ticket(write=True)))
        assert await contents(theirs) == {b"key/%d" % n: b"value %d" % n for n in range(50)}
        events = theirs.events()
        await eventually(lambda: asyncio.sleep(0, bool(mine.neighbors)))
        await mine.set("live", b"edit")
        seen = []
        async with asyncio.timeout(10):
            async for event in events:
                seen.append(event)
                if isinstance(event, ContentReady):
                    break
        inserted = next(event for event in seen if isinstance(event, InsertRemote))
        assert inserted.entry.key == b"live"
        assert inserted.from_peer == a.id
        assert await inserted.entry.content() == b"edit"
        await theirs.set("back", b"edit")
        await eventually(lambda: mine.get("back"))
        assert await (await mine.get("back")).content() == b"edit"
        assert await mine.delete("key/") == 50

        async def gone() -> bool:
            return not [e async for e in theirs.entries(prefix="key/")]

        await eventually(gone)


async def test_a_read_ticket(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        await mine.set("k", b"v")
        theirs = await b.docs.join(mine.ticket())
        with pytest.raises(errors.ReadOnly):
            await theirs.set("k", b"w")
        with pytest.raises(errors.ReadOnly):
            theirs.ticket(write=True)
        assert not theirs.can_write
        assert await contents(theirs) == {b"k": b"v"}
        upgraded = await b.docs.join(mine.ticket(write=True))
        assert upgraded is theirs
        await theirs.set("k", b"w")


async def test_edits_while_apart_meet_again(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        await mine.set("both", b"1")
        await mine.set("folder/a", b"1")
        ticket = mine.ticket(write=True)
        theirs = await b.docs.join(ticket)
        await theirs.close()
        await mine.delete("folder/")
        await mine.set("mine", b"2")
        [handle] = [doc async for doc in b.docs.list()]
        assert not handle.is_live
        await handle.set("theirs", b"3")
        await handle.set("both", b"2")
        theirs = await b.docs.join(ticket)
        expected = {b"both": b"2", b"mine": b"2", b"theirs": b"3"}
        assert await contents(theirs) == expected

        async def same() -> bool:
            return await contents(mine) == expected

        await eventually(same)


async def test_events_of_a_join(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        events = mine.events()
        await mine.set("k", b"v")
        await b.docs.join(mine.ticket())
        kinds = set()
        async with asyncio.timeout(10):
            async for event in events:
                kinds.add(type(event))
                if kinds >= {InsertLocal, NeighborUp, SyncFinished, PendingContentReady}:
                    break


async def test_nobody_answers(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        ticket = mine.ticket()
        await mine.close()
        with pytest.raises(errors.SyncTimeout, match="not found"):
            await b.docs.join(ticket, timeout=1)
        # It goes on trying: when the document is back there, it comes.
        theirs = await b.docs.open(ticket.id)
        mine = await a.docs.open(mine.id)
        await mine.set("k", b"v")
        await eventually(lambda: theirs.get("k"))


async def test_content_that_comes_later(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        from tidings.blobs import Hash

        await mine.set_hash("k", Hash.of(b"later"), 5)
        theirs = await b.docs.join(mine.ticket())
        entry = await theirs.get("k")
        with pytest.raises(errors.ContentMissing):
            await entry.content(0.2)
        with pytest.raises(errors.ContentMissing):
            await entry.arrival(0.1)
        await a.blobs.add_bytes(b"later")
        await entry.arrival(20)
        assert await b.blobs.has(entry.hash)
        assert await entry.content(20) == b"later"


async def test_hostile_streams(tmp_path: Path) -> None:
    """Whatever a peer sends at the start or in a frame costs its connection only."""
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        await mine.set("k", b"v")
        good = b"\0" + bytes(mine.id)
        for data in [
            b"",
            b"\0",
            b"\xff" * 100,
            frame(b"\x07"),
            frame(b"\1\0"),
            frame(b"\2\0"),
            frame(good + b"\x01\x00\x3f" + bytes(200)),
            frame(good + b"\xc0\x84\x3d" + bytes(200)),
            frame(good + b"\0")[:-1],
        ]:
            connection = await b.endpoint.connect(a.endpoint.addr(), ALPN)
            stream = await connection.open_bi()
            try:
                await stream.send.write(data)
                await stream.send.finish()
                await stream.recv.read_to_end(1000)
            except (PeerError, Exception) as error:
                assert error
            connection.close()
        connection = await b.endpoint.connect(a.endpoint.addr(), ALPN)
        stream = await connection.open_bi()
        await stream.send.write(frame(b"\0" + bytes(32) + b"\0"))
        assert decode_sync(await read_frame(stream.recv, 100)) == Abort(AbortReason.NOT_FOUND)
        connection.close()
        theirs = await b.docs.join(mine.ticket())
        assert await contents(theirs) == {b"k": b"v"}


async def test_three_nodes_and_a_restart(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        await mine.set("k", b"v")
        await b.docs.join(mine.ticket(write=True))
        async with node(tmp_path / "c", in_memory=False) as c:
            theirs = await c.docs.join(mine.ticket(write=True))
            secret = c.endpoint.secret_key
            await theirs.set("c", b"1")
            await eventually(lambda: mine.get("c"))
        await mine.set("k", b"w")
        async with node(tmp_path / "c", in_memory=False, secret=secret) as c:
            c.endpoint.lookup.add(a.endpoint.addr())
            theirs = await c.docs.open(mine.id)

            async def same() -> bool:
                return await contents(theirs) == {b"k": b"w", b"c": b"1"}

            await eventually(same)
            assert DocTicket.parse(str(theirs.ticket())).id == mine.id


async def test_after_the_end_every_write_says_so(tmp_path: Path) -> None:
    async with node(tmp_path) as a:
        doc = await a.docs.create()
        await a.docs.aclose()
        for write in (lambda: doc.set("a", b"b"), lambda: doc.delete("a"), a.docs.create, lambda: a.docs.open(doc.id)):
            with pytest.raises(errors.DocumentClosed):
                await write()
