"""Partial replicas between real nodes on loopback."""

import asyncio
from random import Random

import pytest
from docs_net import contents, eventually, node
from tidings.docs_sync import DocTicket, NeighborUp, SyncFinished, errors
from tidings.docs_sync.access import control as access
from tidings.docs_sync.model.part import in_part
from tidings.docs_sync.store.query import Query
from tidings.node import Node
from tidings.transport import SecretKey
from tidings.transport.stream import RecvStream


async def rows(where, doc):
    """The keys of all rows of the document, tombstones included."""
    query = Query(tombstones=True)
    return sorted([entry.id.key async for entry in where.docs._store.query(doc.id, query)])


async def until(condition, timeout: float = 15.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


def followed(doc, by: int = 1):
    return until(lambda: len(doc.neighbors) == by)


async def has(where, doc, *keys):
    await eventually(lambda: same(where, doc, keys))


async def same(where, doc, keys):
    return await rows(where, doc) == sorted(keys)


async def test_only_the_part_is_sent_and_stored(tmp_path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        async with mine.batch() as batch:
            for n in range(500):
                await batch.set(f"papers/{n}", b"paper %d" % n)
        for n in range(20):
            await mine.set(f"photos/{n}", b"photo %d" % n)
        theirs = await b.docs.join(mine.ticket(write=True), prefix="photos/")
        assert theirs.prefix == b"photos/"
        assert await contents(theirs) == {b"photos/%d" % n: b"photo %d" % n for n in range(20)}
        assert len(await rows(b, theirs)) == 20
        await followed(theirs)
        assert theirs.neighbors == [a.id]
        assert mine.neighbors == []  # not in the swarm
        # Live: entries of the part come with their contents, others do not.
        await mine.set("papers/new", b"paper")
        await mine.set("photos/new", b"photo")
        await eventually(lambda: theirs.get("photos/new"))
        assert await (await theirs.get("photos/new")).content() == b"photo"
        assert await theirs.get("papers/new") is None
        assert len(await rows(b, theirs)) == 21
        for status in (await theirs.status()).peers:
            assert status.received <= 21
        other = await a.docs.create_author()
        await mine.set("photos", b"an ancestor", author=other)
        await eventually(lambda: theirs.get("photos"))


async def test_the_rest_is_not_sent(tmp_path, monkeypatch) -> None:
    received = {}
    on_data = RecvStream.on_data

    def count(self, data, end):
        sender = self._connection.remote_id
        received[sender] = received.get(sender, 0) + len(data)
        on_data(self, data, end)

    monkeypatch.setattr(RecvStream, "on_data", count)
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        async with mine.batch() as batch:
            for n in range(5000):
                await batch.set(f"papers/{n}", b"paper %d" % n)
            await batch.set("photos/1", b"photo")
        theirs = await b.docs.join(mine.ticket(write=True), prefix="photos/")
        await followed(theirs)
        for n in range(200):
            await mine.set(f"papers/more/{n}", b"paper %d" % n)
        await mine.set("photos/2", b"photo")
        await eventually(lambda: theirs.get("photos/2"))
        await theirs.synced()
        assert len(await rows(b, theirs)) == 2
        assert received[a.id] < 10_000  # 5,200 entries are a megabyte


async def test_deletions_above_the_prefix_apply(tmp_path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        for key in ("photos/1", "photos/2/x", "phone", "zoo"):
            await mine.set(key, b"v")
        theirs = await b.docs.join(mine.ticket(write=True), prefix="photos/")
        assert await rows(b, theirs) == [b"photos/1", b"photos/2/x"]
        await followed(theirs)
        await mine.delete("pho")
        await has(b, theirs, b"pho")
        await mine.set("photos/3", b"v")
        await has(b, theirs, b"pho", b"photos/3")
        # And while it is away: the sync brings them.
        await theirs.close()
        await mine.delete("")
        await mine.set("photos/4", b"v")
        theirs = await b.docs.open(mine.id)
        assert theirs.prefix == b"photos/"
        await has(b, theirs, b"", b"photos/4")


async def test_writes_go_both_ways_and_no_further_than_the_part(tmp_path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        mine = await a.docs.create()
        await mine.set("photos/1", b"v")
        whole = await c.docs.join(mine.ticket(write=True))
        theirs = await b.docs.join(mine.ticket(write=True), prefix="photos/")
        await theirs.set("photos/2", b"from the part")
        await eventually(lambda: mine.get("photos/2"))
        assert await (await mine.get("photos/2")).content() == b"from the part"
        await eventually(lambda: whole.get("photos/2"))
        async with theirs.batch() as batch:
            for n in range(100):
                await batch.set(f"photos/many/{n}", b"%d" % n)
        await eventually(lambda: mine.get("photos/many/99"))
        assert await theirs.delete("photos/many/") == 100
        await eventually(lambda: same(a, mine, (b"photos/1", b"photos/2", b"photos/many/")))
        await whole.set("photos/3", b"from afar")
        await eventually(lambda: theirs.get("photos/3"))
        assert await (await theirs.get("photos/3")).content() == b"from afar"
        for key in ("papers", "photos", "", "photo/x"):
            with pytest.raises(errors.NotHeld):
                await theirs.set(key, b"v")
            with pytest.raises(errors.NotHeld):
                await theirs.delete(key)
        with pytest.raises(errors.NotHeld):
            async with theirs.batch() as batch:
                await batch.set("photos/4", b"v")
                await batch.set("elsewhere", b"v")
        assert await theirs.get("photos/4") is None


async def test_joining_again(tmp_path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        for key in ("papers/1", "photos/1"):
            await mine.set(key, b"v")
        ticket = mine.ticket()
        theirs = await b.docs.join(ticket, prefix="photos/")
        assert await b.docs.join(ticket, prefix=b"photos/") is theirs
        for prefix in ("papers/", "photos/1", "ph"):
            with pytest.raises(errors.OtherPart):
                await b.docs.join(ticket, prefix=prefix)
        assert await rows(b, theirs) == [b"photos/1"]
        assert await b.docs.join(ticket) is theirs
        assert theirs.prefix is None
        assert await rows(b, theirs) == [b"papers/1", b"photos/1"]
        with pytest.raises(errors.OtherPart):
            await b.docs.join(ticket, prefix="photos/")
        await eventually(lambda: asyncio.sleep(0, bool(mine.neighbors)))  # in the swarm now
        await mine.set("papers/2", b"v")
        await eventually(lambda: theirs.get("papers/2"))
        await b.docs.drop(mine.id)
        theirs = await b.docs.join(ticket, prefix="papers/")
        assert await rows(b, theirs) == [b"papers/1", b"papers/2"]


async def test_widening_keeps_events_and_the_choice(tmp_path) -> None:
    async with node(tmp_path / "a") as a:
        mine = await a.docs.create()
        for key in ("papers/1", "photos/1"):
            await mine.set(key, b"v")
        async with node(tmp_path / "b", in_memory=False) as b:
            theirs = await b.docs.join(mine.ticket(), prefix="photos/")
        async with node(tmp_path / "b", in_memory=False) as b:
            theirs = await b.docs.open(mine.id)
            assert theirs.prefix == b"photos/"
            events = theirs.events()
            await theirs.widen()
            assert theirs.prefix is None
            assert await rows(b, theirs) == [b"papers/1", b"photos/1"]
            await theirs.widen()
            async with asyncio.timeout(15):
                while not (isinstance(event := await anext(events), SyncFinished) and event.prefix is None):
                    pass
        async with node(tmp_path / "b", in_memory=False) as b:
            assert (await b.docs.open(mine.id)).prefix is None


async def test_a_provider_that_comes_back_is_followed_again(tmp_path) -> None:
    secret = SecretKey.generate()
    async with node(tmp_path / "b") as b:
        async with node(tmp_path / "a", secret=secret, in_memory=False) as a:
            mine = await a.docs.create()
            await mine.set("photos/1", b"v")
            theirs = await b.docs.join(mine.ticket(write=True), prefix="photos/")
            await followed(theirs)
            port = a.endpoint.bound()[0].port
        await followed(theirs, by=0)
        await theirs.set("photos/2", b"written alone")
        async with node(tmp_path / "a", secret=secret, in_memory=False, port=port) as a:
            mine = await a.docs.open(theirs.id)
            await mine.set("photos/3", b"v")
            await eventually(lambda: theirs.get("photos/3"), 30)
            await eventually(lambda: mine.get("photos/2"), 30)
            await followed(theirs)


async def test_two_providers(tmp_path) -> None:
    async with node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        async with node(tmp_path / "a") as a:
            mine = await a.docs.create()
            await mine.set("photos/1", b"v")
            whole = await c.docs.join(mine.ticket(write=True))
            ticket = DocTicket(mine.ticket(write=True).capability, (a.endpoint.addr(), c.endpoint.addr()))
            theirs = await b.docs.join(ticket, prefix="photos/")
            await followed(theirs, by=2)
            await mine.set("photos/2", b"v")
            await eventually(lambda: theirs.get("photos/2"))
        await whole.set("photos/3", b"v")
        await eventually(lambda: theirs.get("photos/3"))
        await theirs.set("photos/4", b"v")
        await eventually(lambda: whole.get("photos/4"))
        await until(lambda: theirs.neighbors == [c.id])


async def test_a_part_is_served_to_smaller_parts_only(tmp_path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        mine = await a.docs.create()
        for key in ("papers/1", "photos/2025/1", "photos/2026/1"):
            await mine.set(key, b"v")
        await mine.delete("pho")
        for key in ("photos/2025/1", "photos/2026/1"):
            await mine.set(key, b"w")
        between = await b.docs.join(mine.ticket(), prefix="photos/")
        assert {node.id for node in between.ticket().nodes} == {a.id, b.id}
        only_b = DocTicket(between.ticket().capability, (b.endpoint.addr(),))
        last = await c.docs.join(only_b, prefix="photos/2026/")
        assert await rows(c, last) == [b"pho", b"photos/2026/1"]
        await followed(last)
        await mine.set("photos/2026/2", b"passed on")
        await eventually(lambda: last.get("photos/2026/2"))
        assert await (await last.get("photos/2026/2")).content() == b"passed on"
        await c.docs.drop(mine.id)
        for prefix in ("papers/", "ph", None):
            with pytest.raises(errors.SyncTimeout):
                await c.docs.join(only_b, prefix=prefix, timeout=0.5)
            assert await rows(c, mine) == []
            await c.docs.drop(mine.id)


async def test_what_a_smaller_part_brings_in_a_sync_goes_up(tmp_path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        mine = await a.docs.create()
        between = await b.docs.join(mine.ticket(write=True), prefix="photos/")
        await followed(between)
        only_b = DocTicket(between.ticket(write=True).capability, (b.endpoint.addr(),))
        last = await c.docs.join(only_b, prefix="photos/2026/")
        await followed(last)
        peer = last._live._tellers.pop(b.id)  # as where a sync takes its place
        peer.close()
        await last.set("photos/2026/1", b"v")
        await last.synced(b.id)
        await eventually(lambda: mine.get("photos/2026/1"))


async def test_who_may_not_read_any_more_is_sent_away(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(access, "RECHECK", 0.2)
    allowed = True
    hook = lambda peer, document, kind: allowed  # noqa: E731
    async with node(tmp_path / "a", access=hook) as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        await mine.set("photos/1", b"v")
        theirs = await b.docs.join(mine.ticket(), prefix="photos/")
        await followed(theirs)
        allowed = False
        await followed(theirs, by=0)
        await mine.set("photos/2", b"v")
        await asyncio.sleep(0.5)
        assert await theirs.get("photos/2") is None
        allowed = True
        await followed(theirs)
        await eventually(lambda: theirs.get("photos/2"))


async def test_a_restricted_document_in_part(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(access, "RECHECK", 0.2)
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        mine = await a.docs.create(restricted=True)
        await mine.set("photos/1", b"v")
        ticket = await mine.share(b.id)
        theirs = await b.docs.join(ticket, prefix="photos/")
        await followed(theirs)
        await mine.set("photos/2", b"v")
        await eventually(lambda: theirs.get("photos/2"))
        with pytest.raises(errors.SyncTimeout):
            await c.docs.join(mine.ticket(), prefix="photos/", timeout=1)
        await mine.revoke(ticket.grant.share.id)
        await followed(theirs, by=0)


async def test_an_encrypted_document_in_part(tmp_path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create(encrypted=True)
        for key in ("papers/1", "photos/1"):
            await mine.set(key, b"v")
        with pytest.raises(errors.EncryptedDocument):
            await b.docs.join(mine.ticket(), prefix="pho")
        theirs = await b.docs.join(mine.ticket(write=True), prefix="photos/")
        assert theirs.prefix == b"photos/"
        assert await contents(theirs) == {b"photos/1": b"v"}
        assert len(await rows(b, theirs)) == 1
        await followed(theirs)
        await mine.set("photos/2", b"w")
        await eventually(lambda: theirs.get("photos/2"))
        await theirs.set("photos/3", b"x")
        await eventually(lambda: mine.get("photos/3"))
        with pytest.raises(errors.NotHeld):
            await theirs.set("papers/2", b"v")
        for prefix in ("p", "photos", ""):
            with pytest.raises(errors.NotHeld):
                await theirs.delete(prefix)
        assert await theirs.delete("photos/") == 1  # its own


async def test_many_writes_at_once_arrive(tmp_path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        await mine.set("photos/x", b"v")
        theirs = await b.docs.join(mine.ticket(write=True), prefix="photos/")
        await followed(theirs)
        watched = set()

        async def watch():
            async for event in theirs.watch("photos/"):
                if (entry := getattr(event, "entry", None)) is not None:
                    watched.add(entry.key)

        watching = asyncio.create_task(watch())
        async with mine.batch() as batch:
            for n in range(3000):
                await batch.set(f"photos/{n:05}", b"%d" % n)
        wanted = {b"photos/%05d" % n for n in range(3000)} | {b"photos/x"}
        await until(lambda: watched == wanted, 30)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def in_part_rows(where, doc, prefix):
    query = Query(tombstones=True)
    found = [entry async for entry in where.docs._store.query(doc.id, query)]
    return sorted(entry for entry in found if in_part(entry.id.key, prefix))


@pytest.mark.parametrize("seed", range(3))
async def test_parts_and_wholes_converge(tmp_path, seed) -> None:
    """Random writes and deletions at all of them, while links come and go."""
    rng = Random(seed)
    names = ["", "p", "p/", "p/1", "p/2", "p/q", "p/q/", "p/q/1", "p/q/2", "p/q/r/3", "x", "x/1"]
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        whole = await a.docs.create()
        await whole.set("p/q/0", b"first")
        ticket = whole.ticket(write=True)
        large = await b.docs.join(ticket, prefix="p/")
        nodes = (a.endpoint.addr(), b.endpoint.addr())
        small = await c.docs.join(DocTicket(ticket.capability, nodes[rng.randrange(2) :]), prefix="p/q/")
        docs = {a: whole, b: large, c: small}
        for step in range(120):
            where = rng.choice([a, b, c])
            doc = docs[where]
            keys = [key for key in names if doc.prefix is None or key.encode().startswith(doc.prefix)]
            if rng.random() < 0.1:
                await doc.close()
                docs[where] = await where.docs.open(doc.id)
            elif rng.random() < 0.2:
                await doc.delete(rng.choice(keys))
            else:
                await doc.set(rng.choice(keys), b"%d" % step)

        async def equal() -> bool:
            found = [await in_part_rows(where, whole, b"p/") for where in (a, b)]
            less = [await in_part_rows(where, whole, b"p/q/") for where in (a, b, c)]
            return found[0] == found[1] and less[0] == less[1] == less[2]

        await eventually(equal, 30)
        for where, prefix in ((b, b"p/"), (c, b"p/q/")):
            assert all(in_part(key, prefix) for key in await rows(where, whole))


async def test_neighbors_are_events_too(tmp_path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        theirs = await b.docs.join(mine.ticket(), prefix="photos/")  # nothing is there yet
        events = theirs.events()
        await theirs.close()
        assert not theirs.is_live
        theirs = await b.docs.open(mine.id)
        events = theirs.events()
        if not theirs.neighbors:
            async with asyncio.timeout(15):
                while (event := await anext(events)) != NeighborUp(a.id):
                    assert isinstance(event, SyncFinished)


async def test_a_part_of_what_two_nodes_have_in_one_database(tmp_path, postgres_url) -> None:
    """The follower of one node hears what the other one stores."""
    bind, shared = ["127.0.0.1:0"], {"database": postgres_url, "blobs": tmp_path / "blobs"}
    async with (
        Node.open(tmp_path / "a", bind=bind, **shared) as a,
        Node.open(tmp_path / "b", bind=bind, **shared) as b,
        Node.open(tmp_path / "c", bind=bind) as c,
    ):
        mine = await a.docs.create()
        await mine.set("photos/1", b"1")
        await mine.set("papers/1", b"1")
        beside = await b.docs.open(mine.id)
        theirs = await c.docs.join(mine.ticket(write=True), prefix="photos/")
        await followed(theirs)
        await mine.set("photos/2", b"2")
        await beside.set("photos/3", b"3")
        await beside.set("papers/3", b"3")
        for key in ("photos/2", "photos/3"):
            await eventually(lambda key=key: theirs.get(key))
        await theirs.set("photos/4", b"4")
        await eventually(lambda: beside.get("photos/4"))
        assert await contents(theirs) == {b"photos/%d" % n: b"%d" % n for n in (1, 2, 3, 4)}
