"""Larger documents, mixed swarms and syncs after edits on both sides, with a Rust node (iroh-docs 0.97, ``aster``)."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from tidings import Node
from tidings.docs_sync.sync import pull
from tidings.docs_sync.sync import session as sync

from .rust import Rust, needs

pytestmark = [pytest.mark.interop, needs("aster")]

MANY = 20_000


def in_hex(keys):
    return [key.hex() for key in keys]


async def keys_of(doc):
    return {entry.key async for entry in doc.entries()}


async def rust_keys(aster, doc, keys):
    """Those of ``keys`` at which the Rust document has an entry."""
    return {bytes.fromhex(row[0]) for row in await aster.do("doc_entries", doc=doc, keys=in_hex(keys), timeout=120)}


async def eventually(condition, timeout=30):
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.1)


@pytest.mark.timeout(240)
async def test_twenty_thousand_entries_of_theirs(node, aster):
    theirs = (await aster.do("doc_create"))["doc"]
    author = await aster.do("doc_author")
    await aster.do("doc_fill", doc=theirs, author=author, count=MANY, prefix="rust/", timeout=180)
    doc = await node.docs.join(await aster.do("doc_share", doc=theirs, mode="write"), timeout=120)
    assert (await doc.status()).entries == MANY
    assert await doc.entries(prefix="rust/").count() == MANY


@pytest.mark.timeout(120)
async def test_more_than_one_message_of_theirs_may_hold(node, aster, monkeypatch):
    count = 8000
    monkeypatch.setattr(sync, "MAX_FRAME", 512 << 10)  # the Rust peer would send all in one of 2 MB
    monkeypatch.setattr(sync, "SMALL_FRAME", 512 << 10)
    monkeypatch.setattr(pull, "PIECE", 128 << 10)
    theirs = (await aster.do("doc_create"))["doc"]
    author = await aster.do("doc_author")
    await aster.do("doc_fill", doc=theirs, author=author, count=count, prefix="rust/", timeout=90)
    doc = await node.docs.join(await aster.do("doc_share", doc=theirs, mode="write"), timeout=90)
    assert (await doc.status()).entries == count


@pytest.mark.timeout(240)
async def test_twenty_thousand_entries_of_ours(node, aster):
    doc = await node.docs.create()
    async with doc.batch() as batch:
        for n in range(MANY):
            await batch.set(f"python/{n}", b"%d" % n)
    joined = (await aster.do("doc_join", ticket=str(doc.ticket(write=True))))["doc"]
    await aster.do("doc_wait", doc=joined, count=MANY, timeout=180)
    keys = [b"python/%d" % n for n in range(0, MANY, 37)]
    assert await rust_keys(aster, joined, keys) == set(keys)


async def test_a_resync_after_edits_on_both_sides(node, aster):
    doc = await node.docs.create()
    async with doc.batch() as batch:
        for n in range(1000):
            await batch.set(f"start/{n:04d}", b"%d" % n)
    joined = (await aster.do("doc_join", ticket=str(doc.ticket(write=True))))["doc"]
    await aster.do("doc_wait", doc=joined, count=1000)
    author = await aster.do("doc_author")
    await aster.do("doc_leave", doc=joined)
    await doc.close()

    await aster.do("doc_fill", doc=joined, author=author, count=30, prefix="theirs/")
    async with doc.batch() as batch:
        for n in range(30):
            await batch.set(f"ours/{n}", b"%d" % n)
        await batch.delete("start/01")  # a hundred
    doc = await node.docs.open(doc.id)
    await aster.do("doc_sync", doc=joined, peers=[str(node.id)])
    theirs = {b"theirs/%08d" % n for n in range(30)}
    ours = {b"ours/%d" % n for n in range(30)}
    start = {b"start/%04d" % n for n in range(1000)}
    gone = {b"start/%04d" % n for n in range(100, 200)}
    wanted = theirs | ours | start - gone

    async def here():
        return await keys_of(doc) == wanted

    async def there():
        return await rust_keys(aster, joined, sorted(wanted | gone)) == wanted

    await eventually(here)
    await eventually(there)


async def test_three_nodes_of_two_kinds(node, aster):
    """Two of ours and a Rust one: edits of each reach the others, live; a delete holds everywhere."""
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(Node.open(None, bind=["127.0.0.1:0"]))
        second = await stack.enter_async_context(Rust("aster"))
        await second.do("start")
        doc = await node.docs.create()
        await doc.set("first", b"1")
        ticket = str(doc.ticket(write=True))
        rust_docs = [(each, (await each.do("doc_join", ticket=ticket))["doc"]) for each in (aster, second)]
        mirror = await other.docs.join(ticket, timeout=20)
        await doc.set("from a", b"1")
        await mirror.set("from b", b"2")
        for index, (each, rust_doc) in enumerate(rust_docs):
            author = await each.do("doc_author")
            key = b"from rust %d" % index
            await each.do("doc_set", doc=rust_doc, author=author, key=key.hex(), value=b"x".hex())
        wanted = {b"first", b"from a", b"from b", b"from rust 0", b"from rust 1"}

        async def everywhere():
            theirs = [await rust_keys(each, rust_doc, sorted(wanted | {b"from"})) for each, rust_doc in rust_docs]
            return all(keys == wanted for keys in (await keys_of(doc), await keys_of(mirror), *theirs))

        await eventually(everywhere)
        assert await mirror.delete("from b") == 1
        wanted.discard(b"from b")

        async def deleted():
            theirs = [await rust_keys(each, rust_doc, [*sorted(wanted), b"from b"]) for each, rust_doc in rust_docs]
            return all(keys == wanted for keys in (await keys_of(doc), await keys_of(mirror), *theirs))

        await eventually(deleted)
