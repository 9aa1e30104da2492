"""Links between real endpoints (native, calls, exchange): syncs, digests, refusals, and peers that mean harm."""

import asyncio
from contextlib import suppress

import msgpack
import pytest
from native_net import ID, WRITER, pair, peer, run, signed, until
from tidings.docs_sync.errors import NotAllowed, SyncRefused, SyncViolation
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.messages import AbortReason, Check, Init, Sync, encode_sync
from tidings.docs_sync.model.native_messages import (
    MAX_DIGESTS,
    MAX_REQUEST,
    Accepted,
    Differ,
    Digest,
    DigestRequest,
    FollowRequest,
    News,
    Refused,
    RefusedReason,
    SyncAgain,
    SyncRequest,
    decode_answer,
    encode_answer,
    encode_news,
    encode_request,
)
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, RangeFingerprint, RangeItems, Value
from tidings.docs_sync.sync import exchange, native
from tidings.docs_sync.sync.native import Links
from tidings.transport import frame
from tidings.transport.errors import ConnectionClosed, DecodeError, StreamReset, StreamStopped
from tidings.transport.framing import read_frame

WHOLE = IdRange(bytes(64), bytes(64))
INIT = frame(encode_sync(Init(bytes(ID), [RangeFingerprint(WHOLE, bytes(32))])))
REQUEST = frame(encode_request(SyncRequest(bytes(ID), bytes(32))))


@pytest.mark.parametrize(("mine", "theirs"), [(0, 0), (1, 0), (0, 1), (30, 30), (1200, 3), (3, 1200)])
async def test_a_sync(mine, theirs):
    async with pair() as (a, b):
        await a.store.insert(ID, run(0, mine))
        await b.store.insert(ID, run(mine // 2, theirs))
        tally = await a.sync_with(b)
        assert await a.store.summary(ID) == await b.store.summary(ID)
        assert len(await a.keys()) == max(mine, mine // 2 + theirs)
        await until(lambda: b.served)
        assert (tally.received, tally.sent) == (b.served[0].sent, b.served[0].received)
        assert len(a.stored) == tally.stored


# Parts and digests.


async def test_a_part_of_a_document():
    async with pair() as (a, b):
        await b.store.insert(ID, [*run(0, 300), signed(b"other", 7)])
        tally = await a.sync_with(b, prefix=b"key/0001")
        assert set(await a.keys()) == {b"key/%05d" % n for n in range(10, 20)}
        assert tally.received == 10


async def test_a_digest_of_many_documents():
    async with pair() as (a, b):
        size, fingerprint = await b.store.summary(ID)
        unknown = Digest(b"\7" * 32, bytes(32), 1)
        same, other = Digest(bytes(ID), fingerprint, size), Digest(bytes(ID), fingerprint, size + 1)
        await a.store.add_namespace(Capability.of(type(ID)(b"\7" * 32), None))
        assert await a.links.digest(b.id, []) == set()
        assert await a.links.digest(b.id, [same]) == set()
        assert await a.links.digest(b.id, [unknown] * MAX_DIGESTS + [same, other]) == {bytes(ID)}
        b.live.clear()
        assert await a.links.digest(b.id, [other]) == set()


async def test_digests_are_between_those_who_may_read():
    asked = []

    def hook(who, namespace, kind):
        asked.append(kind)
        return False

    async with pair(hook=hook) as (a, b):
        different = Digest(bytes(ID), bytes(32), 9)
        assert await a.links.digest(b.id, [different]) == set()
        assert asked == ["read"]
        assert await b.links.digest(a.id, [different]) == set()
        assert a.calls == 0


# Access.


async def test_who_may_not_read_is_told_that_nothing_is_there():
    async with pair(hook=lambda *_: False) as (a, b):
        await b.store.insert(ID, run(0, 5))
        with pytest.raises(SyncRefused, match="not found"):
            await a.sync_with(b)
        with pytest.raises(NotAllowed):
            await b.sync_with(a)
        assert a.calls == 0
        assert await a.keys() == {}


async def test_entries_of_who_may_not_write_are_dropped():
    async with pair(hook=lambda who, namespace, kind: kind == "read") as (a, b):
        await a.store.insert(ID, run(0, 5))
        await b.store.insert(ID, run(3, 5))
        await a.sync_with(b)
        assert (len(await a.keys()), len(await b.keys())) == (8, 5)
        await b.sync_with(a)
        assert (len(await a.keys()), len(await b.keys())) == (8, 5)


@pytest.fixture
def reader():
    return Capability.of(ID, None)


async def test_a_restricted_document_goes_to_those_who_show_a_share(reader):
    async with pair(capability=reader) as (a, b):
        await a.store.insert(ID, run(0, 5))
        await a.access.restrict(WRITER, True)
        with pytest.raises(SyncRefused, match="not found"):
            await b.sync_with(a)
        with pytest.raises(NotAllowed):
            await a.sync_with(b)
        assert await b.keys() == {}
        grant = await a.access.share(WRITER, b.id, None)
        await b.access.adopt(ID, restricted=True, cipher_key=None, grant=grant)
        await b.sync_with(a)
        assert len(await b.keys()) == 5
        await a.store.insert(ID, run(5, 5))
        await a.sync_with(b)
        assert len(await b.keys()) == 10
        assert await a.links.digest(b.id, [Digest(bytes(ID), bytes(32), 9)]) == {bytes(ID)}
        await a.access.revoke(WRITER, grant.share.id)
        with pytest.raises(SyncRefused):
            await b.sync_with(a)
        assert await a.links.digest(b.id, [Digest(bytes(ID), bytes(32), 9)]) == set()


async def test_who_learns_of_the_restriction_by_the_answer_sends_nothing_more(reader):
    """A revoked reader dials one who has not heard of it; the statement comes with the request."""
    async with pair(capability=reader) as (a, b), peer(capability=reader) as c:
        await a.access.restrict(WRITER, True)
        grant = await a.access.share(WRITER, b.id, None)
        await b.access.adopt(ID, restricted=True, cipher_key=None, grant=grant)
        await b.sync_with(a)
        assert await b.access.is_restricted(ID)
        c.endpoint.lookup.add(b.endpoint.addr())
        await b.store.insert(ID, run(0, 5))
        with pytest.raises(SyncRefused):
            await c.sync_with(b)
        assert await c.keys() == {}


async def test_a_restricted_document_is_not_for_iroh():
    async with pair(native=False) as (a, b):
        await a.store.insert(ID, run(0, 5))
        await a.access.restrict(WRITER, True)
        with pytest.raises(NotAllowed):
            await a.sync_with(b)
        await a.speak(native=False, iroh=True)
        with pytest.raises(SyncRefused, match="not found"):
            await b.sync_with(a)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (AbortReason.NOT_FOUND, "not found"),
        (AbortReason.ALREADY_SYNCING, "already syncing"),
        (AbortReason.INTERNAL_ERROR, "busy"),
    ],
)
async def test_refusals_come_with_their_reason(reason, text):
    async with pair() as (a, b):
        b.refuses = reason
        with pytest.raises(SyncRefused, match=text) as caught:
            await a.sync_with(b)
        assert caught.value.reason is reason
        with pytest.raises(SyncRefused, match="busy"):
            await anext(a.links.follow(b.id, ID, b"p"))
        assert len(a.connections()) == 1
        b.refuses = None
        await a.sync_with(b)


async def test_a_long_session_is_asked_about_again(monkeypatch):
    monkeypatch.setattr("tidings.docs_sync.sync.session.RECHECK", 0.0)
    answers = [True, True, False]

    def hook(who, namespace, kind):
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async with pair(hook=hook) as (a, b):
        await b.store.insert(ID, run(0, 50))
        with pytest.raises(StreamReset):
            await a.sync_with(b)
        assert isinstance(b.served[0], NotAllowed)
        assert await a.keys() == {}


# Peers that mean harm.


async def hostile(a, b):
    """A stream to ``b`` on a connection that is not of its links."""
    connection = await a.endpoint.connect(b.id, Links.ALPN)
    return connection, await connection.open_bi()


async def said(stream):
    """What comes back, frame by frame."""
    frames = []
    async with asyncio.timeout(15):
        while (payload := await read_frame(stream.recv, 1 << 20)) is not None:
            frames.append(payload)
    return frames


@pytest.mark.parametrize(
    "data",
    [
        frame(b"garbage"),
        frame(msgpack.packb({"do": "dance"})),
        frame(encode_answer(Accepted())),
        (MAX_REQUEST + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"\0\0",
        b"",
        REQUEST[:-1],
    ],
)
async def test_what_is_no_request_costs_its_connection(data):
    async with pair() as (a, b):
        connection, stream = await hostile(a, b)
        await stream.send.write(data)
        await stream.send.finish()
        async with asyncio.timeout(15):
            closed = await connection.wait_closed()
        assert (closed.by, closed.code) == ("peer", native.BAD_REQUEST)
        assert not b.calls
        await a.sync_with(b)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (frame(b"\xff"), DecodeError),
        (frame(encode_sync(Sync([]))), SyncViolation),
        (frame(encode_sync(Init(bytes(32), []))), SyncViolation),
        (frame(encode_sync(Check([RangeFingerprint(WHOLE, bytes(32))]))), SyncViolation),
        (b"\x7f\xff\xff\xff", DecodeError),
        (frame(b"\0" + bytes(ID) + b"\xc0\x84\x3d"), DecodeError),  # a million parts
        (frame(encode_sync(Init(bytes(ID), [RangeFingerprint(WHOLE, bytes(32))] * 70_000))), DecodeError),
        (INIT + INIT, SyncViolation),
        (INIT + frame(encode_sync(Check([]))), SyncViolation),
        (INIT + 2 * frame(encode_sync(Check([RangeFingerprint(WHOLE, bytes(32))]))), SyncViolation),
        (b"", Exception),
    ],
)
async def test_a_sync_that_goes_wrong_costs_its_stream(data, error):
    async with pair() as (a, b):
        await b.store.insert(ID, run(0, 20))
        connection, stream = await hostile(a, b)
        with suppress(StreamStopped):
            await stream.send.write(REQUEST + data)
            await stream.send.finish()
        with pytest.raises(StreamReset):
            await said(stream)
        await until(lambda: b.served)
        assert isinstance(b.served[0], error)
        assert connection.closed is None
        assert len(await b.keys()) == 20
        await a.sync_with(b)
        assert len(await a.keys()) == 20


async def test_a_peer_that_stalls(monkeypatch):
    monkeypatch.setattr(exchange, "REQUEST_TIMEOUT", 0.1)
    monkeypatch.setattr("tidings.docs_sync.sync.session.STALL_TIMEOUT", 0.1)
    monkeypatch.setattr("tidings.docs_sync.sync.session.FRAME_TIMEOUT", 0.1)
    async with pair() as (a, b):
        connection, silent = await hostile(a, b)
        await silent.send.write(REQUEST[:7])
        with pytest.raises(StreamReset):
            await said(silent)
        for data in (REQUEST, REQUEST + INIT[:20]):
            stream = await connection.open_bi()
            await stream.send.write(data)
            with pytest.raises(StreamReset):
                await said(stream)
        assert [type(each) for each in b.served] == [TimeoutError, TimeoutError]
        assert connection.closed is None


async def test_a_peer_that_breaks_off_at_any_byte():
    """Each prefix of an honest dialler's bytes, as a stream that ends there and as one that is reset there."""
    honest = REQUEST + INIT
    async with pair() as (a, b):
        await b.store.insert(ID, run(0, 3))
        connection = None
        for end in range(0, len(honest), 3):
            for reset in (False, True):
                if connection is None or connection.closed is not None:
                    connection = await a.endpoint.connect(b.id, Links.ALPN)
                try:
                    stream = await connection.open_bi()
                    await stream.send.write(honest[:end])
                    if reset:
                        stream.send.reset(3)
                    else:
                        await stream.send.finish()
                    await said(stream)
                except (StreamReset, ConnectionClosed):
                    pass
        await a.sync_with(b)
        assert len(await a.keys()) == 3
        await until(lambda: not any(kept.users for kept in b.links._connections._open.values()))


async def test_many_streams_of_one_peer_wait_their_turn(monkeypatch):
    monkeypatch.setattr(native, "MAX_STREAMS", 3)
    async with pair() as (a, b):
        connection, _ = await hostile(a, b)
        streams = [await connection.open_bi() for _ in range(10)]
        for stream in streams:
            await stream.send.write(frame(encode_request(DigestRequest([Digest(bytes(ID), bytes(32), 9)])))[:-1])
        await until(lambda: len(b.links._tasks._tasks) >= 3)
        for stream in streams:
            await stream.send.write(frame(encode_request(DigestRequest([Digest(bytes(ID), bytes(32), 9)])))[-1:])
            assert len(b.links._tasks._tasks) <= 3
        for stream in streams:
            assert [decode_answer(payload) for payload in await said(stream)] == [Differ([0])]


class Acceptor:
    """Says what it is told to."""

    def __init__(self, *frames, end=True) -> None:
        self.frames = frames
        self.end = end
        self.heard = []

    async def handle(self, connection):
        while True:
            stream = await connection.accept_bi()
            self.heard.append(await read_frame(stream.recv, MAX_REQUEST))
            for each in self.frames:
                await stream.send.write(each)
            if self.end:
                await stream.send.finish()


async def answered_with(a, b, *frames, end=True):
    acceptor = Acceptor(*frames, end=end)
    b.links.handle = acceptor.handle
    await b.speak(native=True, iroh=False)
    return acceptor


YES = frame(encode_answer(Accepted(bytes(32))))


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([], DecodeError),
        ([frame(b"garbage")], DecodeError),
        ([YES[:-1]], DecodeError),
        ([(MAX_REQUEST + 1).to_bytes(4, "big")], DecodeError),
        ([frame(encode_answer(Differ([0])))], SyncViolation),
        ([frame(encode_answer(Accepted()))], SyncViolation),
        ([frame(encode_answer(Refused(RefusedReason.UNKNOWN, "new moon")))], SyncRefused),
        ([YES, frame(b"\xff")], DecodeError),
        ([YES, INIT], SyncViolation),
        ([YES, frame(encode_sync(Check([])))], SyncViolation),
        ([YES, b"\x7f\xff\xff\xff"], DecodeError),
    ],
)
async def test_answers_that_go_wrong(frames, error):
    async with pair() as (a, b):
        await a.store.insert(ID, run(0, 20))
        await answered_with(a, b, *frames)
        with pytest.raises(error):
            await a.sync_with(b)
        assert len(await a.keys()) == 20
        assert a.connections()[0].closed is None


async def test_each_sync_has_a_nonce_of_its_own():
    """One who answers with our own, or always the same, nonce gets another key each time."""
    async with pair() as (a, b):
        acceptor = await answered_with(a, b, YES)
        for _ in range(2):
            await a.sync_with(b)
        first, second = (msgpack.unpackb(heard)["nonce"] for heard in acceptor.heard)
        assert len(first) == 32 and first != second


@pytest.mark.parametrize(
    "answer", [Accepted(), Refused(RefusedReason.BUSY, ""), Differ([0, 5]), b"garbage"], ids=lambda each: str(each)[:9]
)
async def test_answers_to_a_digest_that_go_wrong(answer):
    async with pair() as (a, b):
        await answered_with(a, b, frame(answer if isinstance(answer, bytes) else encode_answer(answer)))
        with pytest.raises((SyncViolation, DecodeError)):
            await a.links.digest(b.id, [Digest(bytes(ID), bytes(32), 3)] * 5)


# Followed documents, as far as the links go.


async def test_what_a_provider_says_comes_in_order():
    news = News([Value(signed(b"k", 5), ContentStatus.COMPLETE)], [bytes(32)])
    async with pair() as (a, b):
        heard = await answered_with(
            a, b, frame(encode_answer(Accepted())), frame(encode_news(news)), frame(encode_news(SyncAgain()))
        )
        got = [each async for each in a.links.follow(b.id, ID, b"p")]
        assert got == [news, SyncAgain()]
        assert heard.heard == [encode_request(FollowRequest(bytes(ID), b"p", await a.access.presentation(ID)))]


async def test_a_provider_that_says_nothing_for_long(monkeypatch):
    monkeypatch.setattr(native, "NEWS_TIMEOUT", 0.1)
    async with pair() as (a, b):
        await answered_with(a, b, frame(encode_answer(Accepted())), end=False)
        following = a.links.follow(b.id, ID, b"p")
        with pytest.raises(TimeoutError):
            await anext(following)


async def test_a_provider_that_sends_no_news():
    async with pair() as (a, b):
        await answered_with(a, b, frame(encode_answer(Accepted())), frame(b"garbage"))
        following = a.links.follow(b.id, ID, b"p")
        with pytest.raises(DecodeError):
            await anext(following)


async def test_an_acceptor_that_breaks_off_at_any_byte():
    """What was stored until then stays; nothing else happens."""
    entries = [Value(entry, ContentStatus.COMPLETE) for entry in run(0, 2)]
    honest = YES + frame(encode_sync(Sync([RangeItems(WHOLE, entries, True)])))
    async with pair() as (a, b):
        acceptor = await answered_with(a, b)
        for end in range(0, len(honest), 7):
            acceptor.frames = (honest[:end],)
            if end == len(YES):  # whole, and nothing more to say
                continue
            with pytest.raises(DecodeError):
                await a.sync_with(b)
            assert await a.keys() == {}
        acceptor.frames = (honest,)
        await a.sync_with(b)
        assert len(await a.keys()) == 2
        assert len(a.connections()) == 1


@pytest.mark.parametrize("native", [True, False])
async def test_limits_are_for_the_round_trip_that_was_measured(native, monkeypatch):
    async with pair(native=native) as (a, b):
        asked = []
        for side in (a, b):
            limits = side.store.limits

            async def noted(namespace, round_trip, *, native, limits=limits):
                asked.append(round_trip)
                return await limits(namespace, round_trip, native=native)

            monkeypatch.setattr(side.store, "limits", noted)
        await a.sync_with(b)
        assert len(asked) == 2 + native and all(0 < each < 5 for each in asked)
