"""Rust peers and documents that not everybody may read: they carry what they cannot read, and are let in or not."""

import asyncio

import pytest
from tidings import DocTicket, Node

from .rust import needs

pytestmark = [pytest.mark.interop, needs("aster")]

LOOPBACK = ["127.0.0.1:0"]


async def content_there(aster, doc, entry):
    """Wait until the Rust peer has the content of ``entry``; its bytes."""
    async with asyncio.timeout(20):
        while True:
            try:
                return bytes.fromhex(await aster.do("doc_content", doc=doc, hash=str(entry.hash)))
            except Exception:
                await asyncio.sleep(0.1)


async def test_a_rust_peer_carries_an_encrypted_document_between_two_that_never_meet(aster):
    async with Node.open(None, bind=LOOPBACK) as a:
        ours = await a.docs.create(encrypted=True)
        await ours.set("diary/monday", b"dear diary")
        deleted = await ours.set("diary/sunday", b"never mind")
        ticket = ours.ticket(write=True)
        carried = await aster.do("doc_join", ticket=str(ours.ticket().iroh()))
        await aster.do("doc_wait", doc=carried["doc"], count=2)
        large = await ours.set("diary/film", bytes(range(256)) * 2000)
        await ours.delete("diary/sunday")
        entry = await ours.get("diary/monday")
        stored = [await content_there(aster, carried["doc"], each) for each in (entry, large)]
        raw = [each.signed.id.key.hex() for each in (entry, large, deleted)]
        async with asyncio.timeout(20):
            while len(await aster.do("doc_entries", doc=carried["doc"], keys=raw)) != 2:
                await asyncio.sleep(0.1)
    assert b"diary" not in stored[0]
    assert not await aster.do("doc_entries", doc=carried["doc"], keys=[b"diary/monday".hex()])

    theirs = DocTicket.parse(await aster.do("doc_share", doc=carried["doc"], mode="read"))
    assert not theirs.capability.can_write and theirs.id == ticket.id
    async with Node.open(None, bind=LOOPBACK) as b:
        doc = await b.docs.join(ticket.at(*theirs.nodes), timeout=20)
        found = {entry.key: await entry.content() async for entry in doc.entries()}
        assert found == {b"diary/monday": b"dear diary", b"diary/film": bytes(range(256)) * 2000}
        await doc.set("diary/tuesday", b"better")
        tuesday = await doc.get("diary/tuesday")
        await content_there(aster, carried["doc"], tuesday)


async def test_a_hook_that_refuses_a_rust_peer_costs_nothing_else(aster):
    refused = set()

    async def hook(peer, document, kind):
        return (peer, document) not in refused

    async with Node.open(None, bind=LOOPBACK, access=hook) as node, Node.open(None, bind=LOOPBACK) as other:
        closed, opened = await node.docs.create(), await node.docs.create()
        refused.add((aster.addr.id, closed.id))
        for doc in (closed, opened):
            await doc.set("k", b"v")
        theirs = await aster.do("doc_join", ticket=str(closed.ticket(write=True)))
        joined = await aster.do("doc_join", ticket=str(opened.ticket(write=True)))
        await aster.do("doc_wait", doc=joined["doc"], count=1)
        welcome = await other.docs.join(closed.ticket(write=True))
        await welcome.set("live", b"v")
        async with asyncio.timeout(20):
            while await closed.get("live") is None:
                await asyncio.sleep(0.05)
        author = await aster.do("doc_author")
        await aster.do("doc_set", doc=theirs["doc"], author=author, key=b"from rust".hex(), value=b"x".hex())
        await aster.do("doc_set", doc=joined["doc"], author=author, key=b"from rust".hex(), value=b"x".hex())
        async with asyncio.timeout(20):
            while await opened.get("from rust") is None:
                await asyncio.sleep(0.05)
        keys = [key.encode().hex() for key in ("k", "live")]
        assert await aster.do("doc_entries", doc=theirs["doc"], keys=keys) == []
        assert await closed.get("from rust") is None
        assert aster.addr.id not in closed.neighbors


async def test_a_restricted_document_is_not_for_rust_peers(node, aster):
    """They can show nothing; a hook may let them in all the same."""
    doc = await node.docs.create(restricted=True)
    await doc.set("k", b"v")
    theirs = await aster.do("doc_join", ticket=str(doc.ticket().iroh()))
    await asyncio.sleep(1.5)
    assert await aster.do("doc_entries", doc=theirs["doc"], keys=[b"k".hex()]) == []
    assert doc.neighbors == []
    with pytest.raises(Exception, match="doc"):
        await aster.do("doc_join", ticket=str(await doc.share()))

    async with Node.open(None, bind=LOOPBACK, access=lambda peer, document, kind: peer == aster.addr.id) as host:
        welcome = await host.docs.create(restricted=True)
        await welcome.set("k", b"v")
        joined = await aster.do("doc_join", ticket=str(welcome.ticket().iroh()))
        await aster.do("doc_wait", doc=joined["doc"], count=1)


async def test_what_a_rust_peer_gives_away_of_an_encrypted_document(node, aster):
    """No key: its tickets have no room for one."""
    ours = await node.docs.create(encrypted=True)
    await ours.set("k", b"v")
    with pytest.raises(Exception, match="doc"):
        await aster.do("doc_join", ticket=str(ours.ticket()))
    joined = await aster.do("doc_join", ticket=str(ours.ticket().iroh()))
    await aster.do("doc_wait", doc=joined["doc"], count=1)
    rust = DocTicket.parse(await aster.do("doc_share", doc=joined["doc"], mode="read"))
    assert rust.key is None
    async with Node.open(None, bind=LOOPBACK) as other:
        doc = await other.docs.join(rust, timeout=20)
        assert not doc.is_encrypted
        (entry,) = await doc.entries().list()
        assert entry.key == (await ours.get("k")).signed.id.key
