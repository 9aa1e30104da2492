"""Partial replicas with peers that mean harm: it costs them their link, and nobody else anything."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from docs_net import eventually, node
from native_net import ID, WRITER, peer, signed, until
from tidings.docs_sync import DocTicket, errors
from tidings.docs_sync.live import following, providers
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.keys import NamespaceSecret
from tidings.docs_sync.model.messages import Abort, AbortReason, Init, decode_sync, encode_sync
from tidings.docs_sync.model.native_messages import Accepted, News, SyncAgain, encode_news
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, RangeFingerprint, Value
from tidings.docs_sync.store.query import Query
from tidings.docs_sync.sync import native
from tidings.docs_sync.sync.exchange import write_answer
from tidings.docs_sync.sync.session import ALPN as IROH_ALPN
from tidings.transport import frame, read_frame
from tidings.transport.errors import StreamReset


def told(*entries):
    return encode_news(News([Value(entry, ContentStatus.MISSING) for entry in entries], []))


def forged(key):
    return signed(key, 5)._replace(author_signature=bytes(64))


@asynccontextmanager
async def follower_of(tmp_path, script):
    """A node with a part of a document whose only provider plays ``script``, a list of frames for each link."""
    links = []

    async with node(tmp_path) as mine, peer() as theirs:

        async def follow(who, request, stream):
            number = len(links)
            links.append(request.prefix)
            await write_answer(stream, Accepted())
            for payload in [encode_news(SyncAgain()), *(script[number] if number < len(script) else [])]:
                await stream.send.write(payload if isinstance(payload, bytearray) else frame(payload))
            await stream.send.stopped()

        theirs.follow = follow
        await theirs.store.insert(ID, [signed(b"p/first", 1), signed(b"q", 1)])
        theirs.endpoint.lookup.add(mine.endpoint.addr())
        doc = await mine.docs.join(DocTicket(WRITER, (theirs.endpoint.addr(),)), prefix="p/")
        yield mine, theirs, doc, links


async def keys(mine):
    return {entry.id.key async for entry in mine.docs._store.query(ID, Query(tombstones=True))}


@pytest.mark.parametrize(
    "bad",
    [
        told(signed(b"p/good", 5), signed(b"q/outside", 5)),
        told(signed(b"p/good", 5), forged(b"p/forged")),
        told(signed(b"p/good", 5)) + b"\0",
        b"\xc1",
        b"",
        bytearray(b"\xff\xff\xff\xff"),
        bytearray(b"\0\0\1\0half"),
    ],
)
async def test_bad_news_cost_the_link(tmp_path, monkeypatch, bad):
    monkeypatch.setattr(providers, "backoff", lambda failures, rng: 0.05)
    monkeypatch.setattr(native, "NEWS_TIMEOUT", 1.0)
    good = told(signed(b"p/after", 6))
    script = [[bad], [good]]
    async with follower_of(tmp_path, script) as (mine, _, doc, links):
        await until(lambda: len(links) >= 2)
        await eventually(lambda: doc.get("p/after"))
        have = await keys(mine)
        assert have - {b"p/good"} == {b"p/first", b"p/after"}


async def test_entries_from_the_future_are_dropped_alone(tmp_path):
    script = [[told(signed(b"p/ahead", 2**62), signed(b"p/good", 5)), told(signed(b"p/after", 6))]]
    async with follower_of(tmp_path, script) as (mine, _, doc, links):
        await eventually(lambda: doc.get("p/after"))
        assert await keys(mine) == {b"p/first", b"p/good", b"p/after"}
        assert len(links) == 1


async def test_a_provider_that_asks_for_syncs_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "SYNC_EVERY", 0.1)
    script = [[encode_news(SyncAgain())] * 1000 + [told(signed(b"p/never", 6))]]
    async with follower_of(tmp_path, script) as (_, theirs, doc, _):
        before = theirs.calls
        await asyncio.sleep(0.5)
        assert theirs.calls - before <= 8
        await doc.set("p/mine", b"v")  # nothing hangs


async def test_hostile_requests_to_tell_and_to_follow(tmp_path):
    async with node(tmp_path) as mine, peer() as theirs:
        await mine.docs._store.add_namespace(WRITER)
        doc = await mine.docs.open(ID)
        theirs.endpoint.lookup.add(mine.endpoint.addr())

        async def tell(*entries):
            await theirs.links.tell(mine.id, ID, [Value(entry, ContentStatus.MISSING) for entry in entries])

        await tell(signed(b"p/1", 5))
        with pytest.raises(StreamReset):
            await tell(signed(b"p/2", 5), forged(b"p/3"))
        await tell(signed(b"p/ahead", 2**62), signed(b"p/4", 5))
        assert await keys(mine) == {b"p/1", b"p/2", b"p/4"}
        unknown = NamespaceSecret.generate()
        await theirs.store.add_namespace(Capability(unknown.id, unknown))
        with pytest.raises(errors.SyncRefused):
            await theirs.links.tell(mine.id, unknown.id, [])
        with pytest.raises(errors.SyncRefused):
            async for _ in theirs.links.follow(mine.id, unknown.id, b"p/"):
                pass
        assert await doc.get("p/4") is not None


async def test_a_peer_whose_entries_are_not_taken(tmp_path):
    def hook(peer, document, kind):
        return kind == "read"

    async with node(tmp_path / "a", access=hook) as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        await mine.set("p/1", b"v")
        theirs = await b.docs.join(mine.ticket(write=True), prefix="p/")
        await until(lambda: theirs.neighbors)
        await theirs.set("p/2", b"v")
        await mine.set("p/3", b"v")
        await eventually(lambda: theirs.get("p/3"))
        assert await mine.get("p/2") is None


async def test_a_part_is_not_found_by_who_wants_all(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, peer(native=False) as iroh:
        mine = await a.docs.create()
        await mine.set("p/1", b"v")
        await b.docs.join(mine.ticket(), prefix="p/")
        iroh.endpoint.lookup.add(b.endpoint.addr())
        connection = await iroh.endpoint.connect(b.id, IROH_ALPN)
        stream = await connection.open_bi()
        whole = [RangeFingerprint(IdRange(bytes(64), bytes(64)), bytes(32))]
        await stream.send.write(frame(encode_sync(Init(bytes(mine.id), whole))))
        async with asyncio.timeout(10):
            answer = decode_sync(await read_frame(stream.recv, 1 << 20))
        assert answer == Abort(AbortReason.NOT_FOUND)


async def test_a_peer_that_speaks_iroh_only_has_no_parts(tmp_path):
    async with node(tmp_path) as mine, peer(native=False) as iroh:
        with pytest.raises(errors.SyncTimeout, match="knows no parts"):
            await mine.docs.join(DocTicket(WRITER, (iroh.endpoint.addr(),)), prefix="p/", timeout=1)
