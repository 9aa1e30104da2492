"""Who may read, between nodes: the hook, restricted documents, and shares that are given, end and are revoked."""

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from docs_net import contents, eventually, node
from tidings.docs_sync import docs, errors
from tidings.docs_sync.access import control as access
from tidings.docs_sync.access.shares import Share
from tidings.docs_sync.model.keys import NamespaceSecret
from tidings.docs_sync.model.messages import Init, encode_sync
from tidings.docs_sync.model.native_messages import (
    Digest,
    DigestRequest,
    FollowRequest,
    SyncRequest,
    TellRequest,
    encode_request,
)
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, RangeFingerprint, Value
from tidings.docs_sync.sync.native import Links
from tidings.docs_sync.sync.session import ALPN
from tidings.transport import Endpoint, frame
from tidings.transport.keys import SecretKey

OTHER = NamespaceSecret(b"\xb3" * 32)
ALICE = SecretKey(b"\1" * 32).public


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(docs, "RECHECK", 0.2)
    monkeypatch.setattr(access, "RECHECK", 0.2)
    monkeypatch.setattr(access, "HOOK_MEMORY", 0.0)


async def test_knowing_the_id_is_not_enough(tmp_path):
    """Neither a sync nor the swarm gives anything of a restricted document to who has shown nothing."""
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        assert await doc.is_restricted()
        await doc.set("k", b"v")
        with pytest.raises(errors.SyncTimeout):
            await b.docs.join(doc.ticket().iroh(), timeout=2)
        theirs = await b.docs.open(doc.id)
        await doc.set("k2", b"v")
        await asyncio.sleep(0.5)
        assert await theirs.entries().count() == 0
        assert doc.neighbors == [] and theirs.neighbors == []


async def test_opened_to_everybody_again(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        await doc.set("k", b"v")
        await doc.restrict(False)
        assert not doc.ticket().restricted
        theirs = await b.docs.join(doc.ticket().iroh())
        assert await contents(theirs) == {b"k": b"v"}


async def test_restricted_from_now_on(tmp_path, quick):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create()
        theirs = await b.docs.join(doc.ticket().iroh())

        async def met():
            return doc.neighbors == [b.id]

        await eventually(met)
        await doc.restrict()

        async def parted():
            return doc.neighbors == []

        await eventually(parted)
        await doc.set("k", b"v")
        await asyncio.sleep(0.5)
        assert await theirs.entries().count() == 0


async def test_what_a_program_sees_of_its_shares(tmp_path):
    async with node(tmp_path / "a") as a:
        doc = await a.docs.create(restricted=True, encrypted=True)
        week = await doc.share(ALICE, expires=timedelta(days=7))
        for_ever = await doc.share()
        assert week.restricted and week.key == doc.ticket().key and not week.capability.can_write
        first, second = await doc.shares()
        assert (first.reader, second.reader, second.expires) == (ALICE, None, None)
        assert first.expires - first.issued == timedelta(days=7) and first.issued.tzinfo is UTC
        await doc.revoke(first)
        assert [share.revoked for share in await doc.shares()] == [True, False]
        await doc.revoke(second.id.hex())
        assert [share.revoked for share in await doc.shares()] == [True, True]
        assert first.id == week.grant.share.id and second.id == for_ever.grant.share.id
        for wrong in ("no id", b"short", "00" * 16):
            with pytest.raises(errors.UnknownShare):
                await doc.revoke(wrong)
        words = repr(for_ever) + repr(await doc.shares()) + repr(await a.docs._access.rules(doc.id))
        assert for_ever.grant.bearer.to_bytes().hex() not in words and for_ever.key.hex() not in words


async def test_a_document_that_is_listed_and_open(tmp_path, quick):
    """What is done by one handle counts for the other."""
    async with node(tmp_path / "a") as a:
        doc = await a.docs.create()
        assert [each async for each in a.docs.list()] == [doc]
        await doc.close()
        (listed,) = [each async for each in a.docs.list()]
        doc = await a.docs.open(doc.id)
        await listed.restrict()
        assert doc.ticket().restricted and listed.ticket().restricted
        await doc.restrict(False)
        assert not (await listed.share()).restricted


async def test_a_ticket_for_another_node(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        with pytest.raises(errors.BadShare, match="another node"):
            await b.docs.join(await doc.share(ALICE))
        assert [each async for each in b.docs.list()] == []


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_the_hook_of_a_node(tmp_path, kind):
    """Refused "read" nothing goes there, refused "write" nothing is taken from there; others are not affected."""
    refused = set()

    def hook(peer, document, asked):
        return not (asked == kind and peer in refused)

    async with (
        node(tmp_path / "a", access=hook) as a,
        node(tmp_path / "b") as b,
        node(tmp_path / "c") as c,
    ):
        refused.add(b.id)
        doc = await a.docs.create()
        await doc.set("from a", b"1")
        joining = b.docs.join(doc.ticket(write=True), timeout=2)
        if kind == "read":
            with pytest.raises(errors.SyncTimeout):
                await joining
            theirs = await b.docs.open(doc.id)
            assert await theirs.entries().count() == 0
            assert doc.neighbors == []
        else:
            theirs = await joining
            assert await contents(theirs) == {b"from a": b"1"}
            await theirs.set("from b", b"2")
            await asyncio.sleep(1)
            assert await doc.get("from b") is None
        welcome = await c.docs.join(doc.ticket(write=True))
        await welcome.set("from c", b"3")

        async def came():
            return await doc.get("from c") is not None

        await eventually(came)


async def test_entries_that_only_an_unwelcome_peer_delivered_come_by_another_way(tmp_path):
    """Gossip delivers each entry once. What others wrote is not lost because it came by the wrong hands."""
    refused = set()
    async with (
        node(tmp_path / "a", access=lambda peer, document, kind: kind == "read" or peer not in refused) as a,
        node(tmp_path / "b") as b,
        node(tmp_path / "c") as c,
    ):
        refused.add(b.id)
        doc = await a.docs.create()
        await b.docs.join(doc.ticket())
        welcome = await c.docs.join(doc.ticket(write=True))

        async def met():
            return len(doc.neighbors) == len(welcome.neighbors) == 2

        await eventually(met)
        for n in range(20):
            await welcome.set(f"k{n}", b"v")

        async def came():
            return await doc.entries().count() == 20

        await eventually(came)


async def test_a_share_lets_in_whom_it_is_for(tmp_path, quick):
    """By sync, by gossip, and both ways; and the ticket of another is of no use."""
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        doc = await a.docs.create(restricted=True, encrypted=True)
        await doc.set("k", b"v")
        ticket = await doc.share(b.id, expires=timedelta(days=1))
        theirs = await b.docs.join(str(ticket))
        assert await contents(theirs) == {b"k": b"v"} and await theirs.is_restricted()

        async def met():
            return doc.neighbors == [b.id] and theirs.neighbors == [a.id]

        await eventually(met)
        await doc.set("live", b"v2")

        async def came():
            return await theirs.get("live") is not None

        await eventually(came)
        with pytest.raises(errors.BadShare):
            await c.docs.join(str(ticket))
        with pytest.raises(errors.SyncTimeout):
            await c.docs.join(replace(ticket, grant=None), timeout=1)
        stolen = await c.docs.open(doc.id)
        assert await stolen.entries().count() == 0 and stolen.neighbors == []


async def test_a_reader_serves_other_readers_and_nobody_else(tmp_path):
    """The one who issued the shares is gone: those who hold one go on among themselves."""
    async with node(tmp_path / "b") as b, node(tmp_path / "c") as c, node(tmp_path / "d") as d:
        async with node(tmp_path / "a") as a:
            doc = await a.docs.create(restricted=True)
            await doc.set("k", b"v")
            ticket = await doc.share()
            await b.docs.join(ticket)
            assert await contents(await b.docs.open(doc.id)) == {b"k": b"v"}
        here = b.endpoint.addr()
        theirs = await c.docs.join(ticket.at(here))
        assert await contents(theirs) == {b"k": b"v"}
        with pytest.raises(errors.SyncTimeout):
            await d.docs.join(ticket.at(here).iroh(), timeout=1)
        assert await (await d.docs.open(doc.id)).entries().count() == 0


async def test_a_writer_needs_no_share(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        await doc.set("k", b"v")
        theirs = await b.docs.join(doc.ticket(write=True))
        await theirs.set("from b", b"2")

        async def came():
            return await doc.get("from b") is not None

        await eventually(came)


async def test_a_revoked_share_lets_in_nobody_any_more(tmp_path, quick):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        await doc.set("before", b"v")
        ticket = await doc.share()
        theirs = await b.docs.join(ticket)

        async def met():
            return doc.neighbors == [b.id]

        await eventually(met)
        await doc.revoke(ticket.grant.share.id)

        async def parted():
            return doc.neighbors == []

        await eventually(parted)
        await doc.set("after", b"v")
        theirs._live.want(a.id, "again")
        await asyncio.sleep(1)
        assert await contents(theirs) == {b"before": b"v"}, "what it has it keeps, and gets no more"
        again = await b.docs.join(await doc.share(b.id))
        assert again is theirs and await theirs.get("after") is not None


async def test_a_share_that_expires_lets_in_nobody_any_more(tmp_path, quick, monkeypatch):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        theirs = await b.docs.join(await doc.share(b.id, expires=timedelta(minutes=1)))

        async def met():
            return doc.neighbors == [b.id]

        await eventually(met)

        monkeypatch.setattr(a.docs._access, "_clock", lambda: time.time_ns() // 1000 + 60_000_000)

        async def parted():
            return doc.neighbors == [] and await doc.shares() == []

        await eventually(parted)
        await doc.set("after", b"v")
        await asyncio.sleep(0.5)
        assert await theirs.get("after") is None


async def test_a_revocation_travels_over_a_third_node(tmp_path, quick):
    """A revokes while C, who serves B, is away; C hears of it when it is back, from A, and B gets nothing of C."""
    async with node(tmp_path / "a") as a, node(tmp_path / "c") as c, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        await doc.set("k", b"v")
        for_b = await doc.share(b.id)
        middle = await c.docs.join(await doc.share(c.id))
        theirs = await b.docs.join(for_b.at(c.endpoint.addr()))
        assert await contents(theirs) == {b"k": b"v"}

        async def met():
            return b.id in middle.neighbors and a.id in middle.neighbors

        await eventually(met)
        await doc.revoke(for_b.grant.share.id)

        async def parted():
            return b.id not in middle.neighbors and b.id not in doc.neighbors

        await eventually(parted)
        await doc.set("after", b"v")

        async def came():
            return await middle.get("after") is not None

        await eventually(came)
        theirs._live.want(c.id, "again")
        await asyncio.sleep(1)
        assert await theirs.get("after") is None


async def test_after_a_restart_everything_is_as_it_was(tmp_path):
    async with node(tmp_path / "a", in_memory=False) as a:
        doc = await a.docs.create(restricted=True)
        await doc.set("k", b"v")
        ticket = await doc.share()
        gone = await doc.share()
        await doc.revoke(gone.grant.share.id)
        async with node(tmp_path / "b", in_memory=False) as b:
            await b.docs.join(ticket)
    async with node(tmp_path / "a", in_memory=False) as a, node(tmp_path / "b", in_memory=False) as b:
        doc = await a.docs.open(doc.id)
        assert await doc.is_restricted() and [share.revoked for share in await doc.shares()] == [False, True]
        await doc.set("k2", b"v")
        theirs = await b.docs.open(doc.id)
        b.endpoint.lookup.add(a.endpoint.addr())
        await theirs._live.join([a.id])

        async def came():
            return await theirs.get("k2") is not None

        await eventually(came)


async def test_a_part_of_an_encrypted_document_for_who_has_a_share(tmp_path, quick):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        doc = await a.docs.create(restricted=True, encrypted=True)
        await doc.set("in/1", b"1")
        await doc.set("out/1", b"2")
        ticket = await doc.share(b.id)
        theirs = await b.docs.join(ticket, prefix="in/")
        assert await contents(theirs) == {b"in/1": b"1"}
        await doc.set("in/2", b"3")

        async def came():
            return await theirs.get("in/2") is not None

        await eventually(came)
        with pytest.raises(errors.SyncTimeout):
            await c.docs.join(replace(ticket, grant=None), prefix="in/", timeout=1)
        assert await (await c.docs.open(doc.id)).entries().count() == 0
        await doc.revoke(ticket.grant.share.id)
        await asyncio.sleep(0.5)
        await doc.set("in/3", b"4")
        await asyncio.sleep(0.5)
        assert await theirs.get("in/3") is None


async def test_a_stranger_cannot_tell_a_restricted_document_from_none(tmp_path):
    """Every request of both protocols, by hand: the answer is byte for byte the one for a document nobody has."""
    async with node(tmp_path / "a") as a, Endpoint.bind(bind=["127.0.0.1:0"]) as stranger:
        doc = await a.docs.create(restricted=True)
        entry = (await doc.set("k", b"v")).signed
        shown = Share.issue(OTHER, stranger.id, 1, None).present(OTHER.id, stranger.id)

        async def answer(alpn, payload):
            connection = await stranger.connect(a.endpoint.addr(), alpn)
            async with asyncio.timeout(10):
                stream = await connection.open_bi()
                await stream.send.write(frame(payload))
                await stream.send.finish()
                data = await stream.recv.read_to_end(1 << 16)
            connection.close()
            return data

        def requests(id):
            whole = RangeFingerprint(IdRange(bytes(64), bytes(64)), bytes(32))
            yield ALPN, encode_sync(Init(id, [whole]))
            for request in (
                SyncRequest(id, bytes(32)),
                DigestRequest([Digest(id, bytes(32), 0)]),
                FollowRequest(id, b"k"),
                TellRequest(id, [Value(entry, ContentStatus.COMPLETE)]),
            ):
                yield Links.ALPN, encode_request(request)
            yield Links.ALPN, encode_request(FollowRequest(id, b"k", shown))

        for (alpn, mine), (_, nobodys) in zip(requests(bytes(doc.id)), requests(bytes(OTHER.id)), strict=True):
            got = await answer(alpn, mine)
            assert got and got == await answer(alpn, nobodys), mine
        assert await doc.entries().count() == 1


async def test_a_hook_that_hangs_for_one_document_does_not_hold_up_another(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(access, "HOOK_TIMEOUT", 0.3)
    caplog.set_level(logging.CRITICAL)
    slow, bad = set(), set()

    async def hook(peer, document, kind):
        if document in slow:
            await asyncio.sleep(60)
        if document in bad:
            raise RuntimeError("a fault of the program's")
        return True

    async with node(tmp_path / "a", access=hook) as a, node(tmp_path / "b") as b:
        docs = [await a.docs.create() for _ in range(3)]
        for doc in docs:
            await doc.set("k", b"v")
        slow.add(docs[0].id)
        bad.add(docs[1].id)
        outcomes = await asyncio.gather(*(b.docs.join(doc.ticket(), timeout=2) for doc in docs), return_exceptions=True)
        assert [type(each) for each in outcomes[:2]] == [errors.SyncTimeout] * 2
        assert await contents(outcomes[2]) == {b"k": b"v"}
        slow.clear()
        bad.clear()
        for doc in docs[:2]:
            theirs = await b.docs.join(doc.ticket(), timeout=10)
            assert await contents(theirs) == {b"k": b"v"}
