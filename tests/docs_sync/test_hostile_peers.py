"""Peers on ``/iroh-sync/1`` that stall, dawdle and break off, over real connections.

Each costs its own connection, for a bounded time, while a good peer syncs and hears of changes; and when one behaves
at last it is served like any other: nothing is left behind of what it did.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from docs_checker import verify_document
from docs_net import Node, contents, eventually, node
from tidings.docs_sync import Doc
from tidings.docs_sync.model.entry import Record, sign_entry
from tidings.docs_sync.model.keys import Author
from tidings.docs_sync.model.messages import Abort, AbortReason, Init, Sync, decode_sync, encode_sync
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import ContentStatus, RangeFingerprint, RangeItems, Value
from tidings.docs_sync.sync import native
from tidings.docs_sync.sync import session as sync
from tidings.docs_sync.sync.session import ALPN
from tidings.transport import BiStream, Connection, Endpoint, Router, frame
from tidings.transport.framing import read_frame

pytestmark = pytest.mark.timeout(180)  # they wait for the node's own patience to end, on a busy machine for long

WHOLE = IdRange(bytes(64), bytes(64))
PATIENCE = 25.0  # seconds for the node to be rid of a bad peer, on a busy machine
BIG = 1 << 22


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, seconds in (
        (sync, "FRAME_TIMEOUT", 2.0),
        (sync, "STALL_TIMEOUT", 2.0),
        (sync, "WRITE_TIMEOUT", 2.0),
        (sync, "CLOSE_TIMEOUT", 2.0),
        (sync, "PATIENCE", 3.0),
        (native, "INIT_TIMEOUT", 2.0),
        (native, "LINGER", 1.0),
    ):
        monkeypatch.setattr(module, name, seconds)


def init_of(doc: Doc) -> bytes:
    """Begins a sync in which everything of the document is asked for."""
    return frame(encode_sync(Init(bytes(doc.id), [RangeItems(WHOLE, [], have_local=False)])))


async def drain(stream: BiStream) -> None:
    while await stream.recv.read(65536):
        pass


class BadDialler:
    """What it does with a stream to the node, one method each; most never come back by themselves."""

    def __init__(self, doc: Doc) -> None:
        self._init = init_of(doc)

    async def says_nothing(self, stream: BiStream) -> None:
        await asyncio.Event().wait()

    async def stops_within_a_length(self, stream: BiStream) -> None:
        await stream.send.write(self._init[:2])
        await asyncio.Event().wait()

    async def stops_within_a_message(self, stream: BiStream) -> None:
        await stream.send.write(self._init[:-1])
        await asyncio.Event().wait()

    async def stops_after_the_first_message(self, stream: BiStream) -> None:
        await stream.send.write(self._init)
        await asyncio.Event().wait()

    async def reads_and_says_no_more(self, stream: BiStream) -> None:
        await stream.send.write(self._init)
        await drain(stream)

    async def never_closes(self, stream: BiStream) -> None:
        await stream.send.write(frame(encode_sync(Init(bytes(32), []))))
        await stream.send.finish()
        await asyncio.Event().wait()

    async def sends_slowly_for_ever(self, stream: BiStream) -> None:
        await stream.send.write(BIG.to_bytes(4, "big"))
        while True:
            await stream.send.write(b"\0")
            await asyncio.sleep(0.1)

    async def sends_slowly_in_a_session(self, stream: BiStream) -> None:
        await stream.send.write(self._init)
        await read_frame(stream.recv, BIG)
        await self.sends_slowly_for_ever(stream)

    async def asks_the_same_for_ever(self, stream: BiStream) -> None:
        await stream.send.write(self._init)
        again = frame(encode_sync(Sync([RangeFingerprint(WHOLE, bytes(32))])))
        while True:
            await read_frame(stream.recv, BIG)
            await stream.send.write(again)

    async def talks_without_listening(self, stream: BiStream) -> None:
        await stream.send.write(self._init)
        while True:
            await stream.send.write(frame(encode_sync(Sync([RangeItems(WHOLE, [], have_local=False)]))))

    @classmethod
    def ways(cls) -> list[str]:
        return [name for name in vars(cls) if not name.startswith("_") and name != "ways"]


async def serve_well(doc: Doc, stream: BiStream) -> None:
    """A whole session in which the node is asked for everything."""
    await stream.send.write(init_of(doc))
    reply = decode_sync(await read_frame(stream.recv, BIG))
    assert isinstance(reply, Sync), reply
    await stream.send.finish()
    await stream.recv.read_to_end(BIG)


@asynccontextmanager
async def endpoints(target: Node, count: int) -> AsyncIterator[list[Endpoint]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(await stack.enter_async_context(Endpoint.bind(bind=["127.0.0.1:0"])))
            made[-1].lookup.add(target.endpoint.addr())
        yield made


async def write_much(doc: Doc, count: int) -> None:
    async with doc.batch() as batch:
        for number in range(count):
            await batch.set(f"key/{number}", b"%d" % number)


async def good_peer_works(doc: Doc, its: Doc, number: int) -> None:
    """Live, both ways."""
    await doc.set(f"from/{number}", b"a")
    await its.set(f"to/{number}", b"b")

    async def both() -> bool:
        return await doc.get(f"to/{number}") is not None and await its.get(f"from/{number}") is not None

    await eventually(both, 20)


async def test_diallers_that_stall(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create()
        await write_much(doc, 3_000)
        bad = BadDialler(doc)
        ways = bad.ways()
        async with endpoints(a, len(ways)) as diallers, asyncio.TaskGroup() as tasks:
            ended = []

            async def misbehave(connection: Connection, way: str) -> None:
                try:
                    stream = await connection.open_bi()
                    await getattr(bad, way)(stream)
                except Exception:  # the node ended it
                    pass
                await connection.wait_closed()

            async def watch(endpoint: Endpoint, way: str) -> None:
                connection = await endpoint.connect(a.id, ALPN)
                work = asyncio.ensure_future(misbehave(connection, way))
                try:
                    async with asyncio.timeout(PATIENCE):
                        await connection.wait_closed()
                except TimeoutError:
                    raise AssertionError(f"a peer that {way.replace('_', ' ')} is still connected") from None
                finally:
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                ended.append(way)

            for endpoint, way in zip(diallers, ways, strict=True):
                tasks.create_task(watch(endpoint, way))
            theirs = await b.docs.join(doc.ticket(write=True))
            assert len(await contents(theirs)) == 3_000
            for number in range(5):
                await good_peer_works(doc, theirs, number)
            while len(ended) < len(ways):
                await asyncio.sleep(0.05)
            for endpoint in diallers:  # the same peers, now as they should be
                connection = await endpoint.connect(a.id, ALPN)
                async with asyncio.timeout(PATIENCE):
                    await serve_well(doc, await connection.open_bi())
                connection.close()
        await a.database.read(lambda connection: verify_document(connection, bytes(doc.id)))


async def test_diallers_that_break_off_at_each_byte(tmp_path: Path) -> None:
    """By closing the connection, by resetting the stream, and by an early end, in turns."""
    rng = random.Random(4)
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create()
        await doc.set("k", b"v")
        theirs = await b.docs.join(doc.ticket(write=True))
        secret = doc._capability.secret
        assert secret is not None
        entry = sign_entry(secret, Author.generate(), b"their", Record(1, b"\1" * 32, 1))
        second = frame(encode_sync(Sync([RangeItems(WHOLE, [Value(entry, ContentStatus.MISSING)], have_local=True)])))
        init = init_of(doc)
        cuts = [*range(0, len(init)), *range(len(init), len(init) + len(second), 4)]
        async with endpoints(a, 1) as (dialler,):

            async def break_off(cut: int) -> None:
                connection = await dialler.connect(a.id, ALPN)
                stream = await connection.open_bi()
                try:
                    await stream.send.write(init[:cut])
                    if cut >= len(init):
                        await read_frame(stream.recv, BIG)
                        await stream.send.write(second[: cut - len(init)])
                    match rng.randrange(3):
                        case 0:
                            stream.send.reset(7)
                            stream.recv.stop(7)
                        case 1:
                            await stream.send.finish()
                            await drain(stream)
                except Exception as error:
                    assert not isinstance(error, TimeoutError)
                finally:
                    connection.close(9, "enough")

            for start in range(0, len(cuts), 4):
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*(break_off(cut) for cut in cuts[start : start + 4]))
                if start % 40 == 0:
                    await good_peer_works(doc, theirs, start)
            connection = await dialler.connect(a.id, ALPN)
            async with asyncio.timeout(PATIENCE):
                await serve_well(doc, await connection.open_bi())
        assert await doc.get("their") is None
        await a.database.read(lambda connection: verify_document(connection, bytes(doc.id)))


Serve = Callable[[BiStream, int], Awaitable[None]]


async def says_nothing(stream: BiStream, call: int) -> None:
    await asyncio.Event().wait()


async def answers_slowly(stream: BiStream, call: int) -> None:
    await read_frame(stream.recv, BIG)
    await stream.send.write(BIG.to_bytes(4, "big"))
    while True:
        await stream.send.write(b"\0")
        await asyncio.sleep(0.1)


async def answers_noise(stream: BiStream, call: int) -> None:
    await read_frame(stream.recv, BIG)
    await stream.send.write(frame(random.Random(call).randbytes(50)))
    await stream.send.finish()
    await drain(stream)


async def breaks_off(stream: BiStream, call: int) -> None:
    """At another byte of an answer with each call."""
    await read_frame(stream.recv, BIG)
    answer = frame(encode_sync(Sync([RangeItems(WHOLE, [], have_local=False)])))
    await stream.send.write(answer[: call * 37 % len(answer)])


async def is_always_busy(stream: BiStream, call: int) -> None:
    await read_frame(stream.recv, BIG)
    await stream.send.write(frame(encode_sync(Abort(AbortReason.ALREADY_SYNCING))))
    await stream.send.finish()
    await drain(stream)


async def never_converges(stream: BiStream, call: int) -> None:
    while True:
        await read_frame(stream.recv, BIG)
        await stream.send.write(frame(encode_sync(Sync([RangeFingerprint(WHOLE, bytes(32))]))))


async def test_acceptors_of_every_kind(tmp_path: Path) -> None:
    """The ticket names bad peers beside the good one. They are called again, later, and are well treated then."""
    ways: list[Serve] = [says_nothing, answers_slowly, answers_noise, breaks_off, is_always_busy, never_converges]
    calls: dict[str, int] = {way.__name__: 0 for way in ways}
    good = False
    served: set[str] = set()
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, AsyncExitStack() as stack:
        doc = await a.docs.create()
        await write_much(doc, 500)
        bad = []

        def handler(way: Serve) -> Callable[[Connection], Awaitable[None]]:
            async def handle(connection: Connection) -> None:
                calls[way.__name__] += 1
                stream = await connection.accept_bi()
                if good:  # nothing to say is a sync that went well
                    await read_frame(stream.recv, BIG)
                    await stream.send.finish()
                    await drain(stream)
                    served.add(way.__name__)
                    await connection.wait_closed()
                    return
                try:
                    await way(stream, calls[way.__name__])
                finally:
                    connection.close(5, "broken off")

            return handle

        for way in ways:
            endpoint = await stack.enter_async_context(Endpoint.bind(bind=["127.0.0.1:0"]))
            stack.push_async_callback(Router(endpoint, {ALPN: handler(way)}).aclose)
            bad.append(endpoint)
        ticket = doc.ticket(write=True)
        ticket = ticket.at(*(endpoint.addr() for endpoint in bad[:3]), *ticket.nodes, *(e.addr() for e in bad[3:]))
        theirs = await b.docs.join(ticket)

        async def synced() -> bool:
            return len(await contents(theirs)) == 500

        await eventually(synced, 20)
        for number in range(5):
            await good_peer_works(doc, theirs, number)

        async def called() -> bool:
            return min(calls.values()) >= 2

        await eventually(called, PATIENCE)
        good = True

        async def all_served() -> bool:
            return len(served) == len(ways)

        await eventually(all_served, 45)
        await good_peer_works(doc, theirs, 10)
        await b.database.read(lambda connection: verify_document(connection, bytes(doc.id)))
