"""Sessions over streams in memory: every way to begin, break off and end."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from docs_model import AUTHORS, NAMESPACE
from tidings.docs_sync.errors import SyncRefused, SyncViolation
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.entry import Record, sign_entry
from tidings.docs_sync.model.messages import Abort, AbortReason, Init, Sync, encode_sync
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, Limits, RangeFingerprint, RangeItems, Value
from tidings.docs_sync.store.documents import DocsStore
from tidings.docs_sync.store.query import Query
from tidings.docs_sync.sync import session as sync
from tidings.docs_sync.sync.session import FrameReader, Pace, SyncSession, refuse
from tidings.storage import Database
from tidings.transport import BiStream, frame
from tidings.transport.errors import DecodeError, StreamReset

ID = NAMESPACE.id


class Pipe:
    """One direction: what a SendStream and a RecvStream do, as far as sessions use it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.code: int | None = None
        self.changed = asyncio.Condition()

    async def _change(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def write(self, data: bytes) -> None:
        self.data += data
        await self._change()

    async def finish(self) -> None:
        self.ended = True
        await self._change()

    async def stopped(self) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.ended and not self.data)

    async def read(self, n: int = 65536) -> bytes:
        async with self.changed:
            await self.changed.wait_for(lambda: self.data or self.ended or self.code is not None)
            if self.code is not None:
                raise StreamReset(self.code)
            out = bytes(self.data[:n])
            del self.data[:n]
            self.changed.notify_all()
            return out

    async def read_exactly(self, n: int) -> bytes:
        out = b""
        while len(out) < n:
            piece = await self.read(n - len(out))
            if not piece:
                raise DecodeError("ended early")
            out += piece
        return out

    async def read_to_end(self, limit: int) -> bytes:
        out = b""
        while piece := await self.read():
            out += piece
            if len(out) > limit:
                raise DecodeError("too long")
        return out


def stream_pair() -> tuple[BiStream, BiStream]:
    there, back = Pipe(), Pipe()
    return BiStream(there, back), BiStream(back, there)  # type: ignore[arg-type]


@asynccontextmanager
async def side(count: int = 0, first: int = 0, limits: Limits | None = None):
    database = await Database.open(None)
    store = DocsStore(database, limits=limits)
    await store.add_namespace(Capability(ID, NAMESPACE))
    record = Record(1, b"\1" * 32, 0)
    made = [
        sign_entry(NAMESPACE, AUTHORS[0], b"%04d" % n, record._replace(timestamp=n + 1))
        for n in range(first, first + count)
    ]
    await store.insert(ID, made)
    yield store
    await store.aclose()
    await database.aclose()


def session(store: DocsStore, stream: BiStream) -> SyncSession:
    async def on_stored(values: list, missing: set) -> None:
        assert values

    return SyncSession(store, FrameReader(store), ID, stream, on_stored)


async def read(frames: FrameReader, stream: BiStream, pace: Pace | None = None):
    async with frames.next(stream, pace or Pace(), sync.MAX_FRAME) as message:
        return message


async def serve(store: DocsStore, stream: BiStream) -> SyncSession:
    init = await read(FrameReader(store), stream)
    assert isinstance(init, Init)
    serving = session(store, stream)
    await serving.accept(init)
    return serving


@pytest.mark.parametrize(("mine", "theirs"), [(0, 0), (1, 0), (0, 1), (30, 30), (120, 0), (0, 120)])
async def test_a_session(mine: int, theirs: int) -> None:
    limits = Limits(max_values=20)
    async with side(mine, 0, limits) as a, side(theirs, mine // 2, limits) as b:
        ours, remote = stream_pair()
        dialling = session(a, ours)
        _, accepted = await asyncio.wait_for(asyncio.gather(dialling.dial(), serve(b, remote)), 20)
        assert await a.initial_message(ID) == await b.initial_message(ID)
        assert dialling.tally.received == accepted.tally.sent
        assert dialling.tally.sent == accepted.tally.received
        assert dialling.tally.heads == ({} if not dialling.tally.stored else accepted_heads(mine, theirs))


def accepted_heads(mine: int, theirs: int) -> dict:
    return {bytes(AUTHORS[0].id): mine // 2 + theirs}


async def test_a_refused_dial() -> None:
    async with side() as a, side() as b:
        ours, remote = stream_pair()

        async def acceptor() -> None:
            await read(FrameReader(b), remote)
            await refuse(b, remote, AbortReason.ALREADY_SYNCING)

        serving = asyncio.ensure_future(acceptor())
        with pytest.raises(SyncRefused, match="already syncing") as caught:
            await session(a, ours).dial()
        assert caught.value.reason is AbortReason.ALREADY_SYNCING
        await ours.send.finish()
        await serving


async def peer_says(stream: BiStream, *payloads: bytes) -> None:
    for payload in payloads:
        await stream.send.write(payload)
    await stream.send.finish()


WHOLE = IdRange(bytes(64), bytes(64))


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (frame(b"\xff"), DecodeError),
        (frame(encode_sync(Sync([])))[:-1], DecodeError),
        ((sync.MAX_FRAME + 1).to_bytes(4, "big"), DecodeError),
        (b"\0\0", DecodeError),
        (frame(encode_sync(Init(bytes(ID), []))), SyncViolation),
        (frame(encode_sync(Abort(AbortReason.NOT_FOUND))), SyncRefused),
        (frame(encode_sync(Sync([]))) + b"more", DecodeError),
    ],
)
async def test_what_a_dialler_may_be_told(payload: bytes, error: type) -> None:
    async with side(3) as a:
        ours, remote = stream_pair()
        await peer_says(remote, payload)
        with pytest.raises(error):
            await session(a, ours).dial()
        assert len([e async for e in a.query(ID, Query())]) == 3


async def test_the_peer_resets() -> None:
    async with side(3) as a:
        ours, remote = stream_pair()
        remote.send.code = 7
        with pytest.raises(StreamReset):
            await session(a, ours).dial()


async def test_the_dialler_may_not_abort() -> None:
    async with side(3) as a:
        ours, remote = stream_pair()
        await peer_says(remote, frame(encode_sync(Abort(AbortReason.NOT_FOUND))))
        with pytest.raises(SyncViolation):
            await session(a, ours).accept(Init(bytes(ID), [RangeFingerprint(WHOLE, bytes(32))]))


async def test_a_silent_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "FRAME_TIMEOUT", 0.05)
    async with side(3) as a:
        ours, _ = stream_pair()
        with pytest.raises(TimeoutError):
            await session(a, ours).dial()


async def test_a_peer_that_never_converges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "FRUITLESS_ROUNDS", 5)
    async with side(40) as a:
        ours, remote = stream_pair()
        again = frame(encode_sync(Sync([RangeFingerprint(WHOLE, bytes(32))])))
        await peer_says(remote, *[again] * 50)
        with pytest.raises(SyncViolation, match="converge"):
            await session(a, ours).dial()


async def test_what_is_refused_is_counted_and_the_rest_kept() -> None:
    async with side() as a:
        ours, remote = stream_pair()
        good = sign_entry(NAMESPACE, AUTHORS[0], b"good", Record(1, b"\1" * 32, 1))
        forged = good._replace(author_signature=bytes(64))
        values = [Value(forged, ContentStatus.COMPLETE), Value(good, ContentStatus.COMPLETE)]
        await peer_says(remote, frame(encode_sync(Sync([RangeItems(WHOLE, values, True)]))))
        dialling = session(a, ours)
        reader = asyncio.ensure_future(remote.recv.read_to_end(10_000))
        await dialling.dial()
        await reader
        assert (dialling.tally.received, dialling.tally.stored, dialling.tally.rejected) == (2, 1, 1)
        assert await a.get(ID, b"good") == good


# A peer's pace.


async def trickle(stream: BiStream, payload: bytes, size: int, delay: float) -> None:
    for start in range(0, len(payload), size):
        await stream.send.write(payload[start : start + size])
        await asyncio.sleep(delay)


LONG = frame(encode_sync(Sync([RangeFingerprint(WHOLE, bytes(32))] * 40)))


@pytest.fixture
async def reader():
    async with side() as store:
        yield FrameReader(store)


async def test_a_peer_that_sends_slowly_for_ever_is_given_up(reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "PATIENCE", 0.2)
    ours, remote = stream_pair()
    sending = asyncio.ensure_future(trickle(remote, LONG, 1, 0.01))
    with pytest.raises(TimeoutError):
        await read(reader, ours)
    sending.cancel()


async def test_a_slow_peer_is_waited_for_as_long_as_bytes_come(reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "PATIENCE", 0.6)
    monkeypatch.setattr(sync, "MIN_RATE", len(LONG) / 4)
    ours, remote = stream_pair()
    sending = asyncio.ensure_future(trickle(remote, LONG, len(LONG) // 40, 0.03))  # 1.2 s in all
    assert isinstance(await read(reader, ours), Sync)
    await sending


async def test_short_waits_add_up(reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a peer that thinks for long before each message."""
    monkeypatch.setattr(sync, "PATIENCE", 0.5)
    ours, remote = stream_pair()
    short = frame(encode_sync(Sync([])))
    sending = asyncio.ensure_future(trickle(remote, short * 100, len(short), 0.03))
    pace, count = Pace(), 0
    with pytest.raises(TimeoutError):
        while await read(reader, ours, pace):
            count += 1
    assert 0 < count < 50
    sending.cancel()


async def test_a_slow_large_message_makes_room_for_others(reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "SMALL_FRAME", 100)
    monkeypatch.setattr(sync, "LARGE_TURN", 0.1)
    slow, slow_remote = stream_pair()
    sending = asyncio.ensure_future(trickle(slow_remote, LONG, 5, 0.005))
    holding = asyncio.ensure_future(read(reader, slow))
    await asyncio.sleep(0.3)
    assert not holding.done()  # nobody else wants it
    quick, quick_remote = stream_pair()
    await quick_remote.send.write(LONG)
    assert isinstance(await asyncio.wait_for(read(reader, quick), 10), Sync)
    with pytest.raises(TimeoutError, match="others waited"):
        await holding
    sending.cancel()


async def test_one_large_message_is_in_memory_at_a_time(reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "SMALL_FRAME", 100)
    (one, first), (other, second) = stream_pair(), stream_pair()
    await first.send.write(LONG)
    await second.send.write(LONG)
    async with reader.next(one, Pace(), sync.MAX_FRAME) as message:
        assert isinstance(message, Sync)
        waiting = asyncio.ensure_future(read(reader, other))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    assert isinstance(await asyncio.wait_for(waiting, 10), Sync)


async def test_bytes_that_bring_nothing_buy_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "PATIENCE", 0.1)
    pace, rounds = Pace(), 0
    with pytest.raises(TimeoutError, match="brought nothing"):
        while rounds < 100:
            await pace.wait(asyncio.sleep(0.02), 1.0)
            pace.moved(1 << 20)
            pace.count(fruitless=True)
            rounds += 1
    pace.count(fruitless=False)
    await pace.wait(asyncio.sleep(0.02), 1.0)
    pace.count(fruitless=True)
