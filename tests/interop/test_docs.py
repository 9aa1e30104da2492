"""Documents between a Rust node (iroh-docs 0.97, ``aster``) and ours, both ways."""

import asyncio

import pytest
from tidings.docs_sync import ContentReady, InsertRemote
from tidings.docs_sync.errors import ReadOnly, SyncRefused
from tidings.docs_sync.model.native_messages import Digest

from .rust import needs

pytestmark = [pytest.mark.interop, needs("aster")]


async def until(events, kind, condition=lambda event: True, timeout=20):
    async with asyncio.timeout(timeout):
        return await anext(event async for event in events if isinstance(event, kind) and condition(event))


async def until_rust(aster, doc, kind, key, timeout=20):
    async with asyncio.timeout(timeout):
        while True:
            event = await aster.do("doc_event", doc=doc)
            if kind.lower() in event["kind"].lower() and event["key"] in (None, key.hex()):
                return event


async def rust_document(aster, entries=()):
    doc = (await aster.do("doc_create"))["doc"]
    author = await aster.do("doc_author")
    for key, value in entries:
        await aster.do("doc_set", doc=doc, author=author, key=key.hex(), value=value.hex())
    return doc, author


async def test_we_join_their_document_and_read_it(node, aster):
    theirs, author = await rust_document(aster, [(b"a", b"1"), (b"b", b"two"), (b"empty?", b" ")])
    doc = await node.docs.join(await aster.do("doc_share", doc=theirs, mode="write"), timeout=20)
    entries = {entry.key: entry async for entry in doc.entries()}
    assert set(entries) == {b"a", b"b", b"empty?"}
    assert str(entries[b"a"].author) == author
    assert await entries[b"b"].content() == b"two"


async def test_live_edits_go_both_ways(node, aster):
    theirs, author = await rust_document(aster, [(b"start", b"x")])
    doc = await node.docs.join(await aster.do("doc_share", doc=theirs, mode="write"), timeout=20)
    events = doc.events()
    reading = asyncio.create_task(until(events, InsertRemote, lambda event: event.entry.key == b"from rust"))
    await asyncio.sleep(0.5)
    await aster.do("doc_set", doc=theirs, author=author, key=b"from rust".hex(), value=b"live".hex())
    event = await reading
    assert await event.entry.content() == b"live"

    entry = await doc.set("from python", b"edit")
    await until_rust(aster, theirs, "insert", b"from python")
    async with asyncio.timeout(20):
        while True:
            rows = await aster.do("doc_entries", doc=theirs, keys=[b"from python".hex()])
            if rows and await try_content(aster, theirs, rows[0][2]) == b"edit":
                break
            await asyncio.sleep(0.1)
    assert rows[0] == [b"from python".hex(), str(entry.author), str(entry.hash), entry.size, entry.timestamp]


async def try_content(aster, doc, hash):
    try:
        return bytes.fromhex(await aster.do("doc_content", doc=doc, hash=hash))
    except Exception:
        return None


@pytest.mark.parametrize("write", [True, False])
async def test_they_join_ours_by_a_ticket_that_gives_what_it_says(node, aster, write):
    doc = await node.docs.create()
    await doc.set("ours", b"value")
    joined = await aster.do("doc_join", ticket=str(doc.ticket(write=write)))
    assert joined["id"] == str(doc.id)
    await aster.do("doc_wait", doc=joined["doc"], count=1)
    author = await aster.do("doc_author")
    setting = aster.do("doc_set", doc=joined["doc"], author=author, key=b"theirs".hex(), value=b"back".hex())
    if not write:
        with pytest.raises(Exception, match=r"(?i)read"):
            await setting
        return
    events = doc.events()
    reading = asyncio.create_task(until(events, ContentReady))
    await setting
    await reading
    entry = await doc.get("theirs")
    assert await entry.content() == b"back"


async def test_a_read_ticket_of_theirs_lets_us_read_only(node, aster):
    theirs, _ = await rust_document(aster, [(b"a", b"1")])
    doc = await node.docs.join(await aster.do("doc_share", doc=theirs, mode="read"), timeout=20)
    assert await (await doc.get("a")).content() == b"1"
    with pytest.raises(ReadOnly):
        await doc.set("a", b"2")


async def test_a_thousand_entries_each_way(node, aster):
    theirs, author = await rust_document(aster)
    await aster.do("doc_fill", doc=theirs, author=author, count=1000, prefix="rust/")
    doc = await node.docs.join(await aster.do("doc_share", doc=theirs, mode="write"), timeout=30)
    assert len([entry async for entry in doc.entries(prefix="rust/")]) == 1000

    ours = await node.docs.create()
    for n in range(1000):
        await ours.set(f"python/{n}", b"%d" % n)
    joined = await aster.do("doc_join", ticket=str(ours.ticket(write=True)))
    await aster.do("doc_wait", doc=joined["doc"], count=1000, timeout=60)
    rows = await aster.do("doc_entries", doc=joined["doc"], keys=[f"python/{n}".encode().hex() for n in range(1000)])
    assert len(rows) == 1000
    expected = {entry.key.hex(): (str(entry.hash), entry.timestamp) async for entry in ours.entries()}
    assert {row[0]: (row[2], row[4]) for row in rows} == expected


async def test_a_delete_of_ours_goes_there_and_stays(node, aster):
    ours = await node.docs.create()
    await ours.set("photos/1", b"one")
    await ours.set("photos/2", b"two")
    await ours.set("notes", b"kept")
    joined = await aster.do("doc_join", ticket=str(ours.ticket(write=True)))
    await aster.do("doc_wait", doc=joined["doc"], count=3)
    await asyncio.sleep(0.5)
    assert await ours.delete("photos/") == 2
    async with asyncio.timeout(20):
        keys = [key.encode().hex() for key in ("photos/1", "photos/2", "notes")]
        while [row[0] for row in await aster.do("doc_entries", doc=joined["doc"], keys=keys)] != keys[2:]:
            await asyncio.sleep(0.1)
    await aster.do("doc_sync", doc=joined["doc"], peers=[str(node.id)])
    await asyncio.sleep(1)
    assert [entry.key async for entry in ours.entries()] == [b"notes"]


async def test_a_rust_node_gets_a_connection_for_each_sync_and_no_digest(node, aster):
    """It takes the second of the two protocols that a dial offers."""
    theirs, _ = await rust_document(aster, [(b"a", b"1")])
    doc = await node.docs.join(await aster.do("doc_share", doc=theirs, mode="write"), timeout=20)
    (peer,) = [status.peer for status in (await doc.status()).peers]
    links = node.docs._links
    assert links._connections.speaks_iroh_only(peer)
    assert await links.digest(peer, [Digest(bytes(doc.id), bytes(32), 1)]) is None
    assert not links._connections._open
    with pytest.raises(SyncRefused, match="iroh"):
        await links.open_sync(peer, doc.id, None, b"prefix")
    await doc.set("b", b"2")
    assert (await doc.synced(peer)).peer == peer
