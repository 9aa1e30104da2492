"""Many small blobs by one request, over real endpoints on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.blobs import (
    ALPN,
    Blobs,
    BlobSettings,
    Delivery,
    Hash,
    HashMismatch,
    NotProvided,
    Refused,
    Stalled,
    TooLarge,
    Truncated,
)
from tidings.blobs import small as module
from tidings.blobs.bao import HEADER
from tidings.errors import PeerError, UsageError
from tidings.storage import Database
from tidings.transport import BiStream, Connection, Endpoint, EndpointAddr, Router
from tidings.transport.errors import Unreachable

Answer = Callable[[BiStream], Awaitable[None]]


class Peer:
    def __init__(self, endpoint: Endpoint, database: Database, blobs: Blobs) -> None:
        self.endpoint, self.database, self.blobs = endpoint, database, blobs


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Peer]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def make(**options: Any) -> Peer:
            database = await Database.open(None)
            stack.push_async_callback(database.aclose)
            endpoint = await stack.enter_async_context(Endpoint.bind(bind=["127.0.0.1:0"]))
            blobs = Blobs(endpoint, database, tmp_path / endpoint.id.short(), BlobSettings(**options))
            stack.push_async_callback(blobs.aclose)
            await stack.enter_async_context(Router(endpoint, {ALPN: blobs.handle}))
            return Peer(endpoint, database, blobs)

        yield make


@pytest.fixture
async def liar() -> AsyncIterator[Callable[[Answer], Awaitable[EndpointAddr]]]:
    """Makes providers that read the request and then do as they like."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(answer: Answer) -> EndpointAddr:
            async def handle(connection: Connection) -> None:
                while True:
                    stream = await connection.accept_bi()
                    await stream.recv.read_to_end(1 << 20)
                    await answer(stream)

            endpoint = await stack.enter_async_context(Endpoint.bind(bind=["127.0.0.1:0"]))
            await stack.enter_async_context(Router(endpoint, {ALPN: handle}))
            return endpoint.addr()

        yield make


CONTENTS = [b"content %d" % n for n in range(40)] + [b"x" * 16384, b""]
WANTED = [(Hash.of(content), len(content)) for content in CONTENTS]


async def test_many_come_in_one_transaction(peers) -> None:
    a, b = await peers(), await peers()
    for content in CONTENTS:
        await a.blobs.add_bytes(content)
    before = b.database.commits
    delivery = await b.blobs.fetch_small(WANTED, a.endpoint.addr())
    assert delivery == Delivery([hash for hash, _ in WANTED])
    assert b.database.commits <= before + 1
    assert [await b.blobs.read(hash) for hash, _ in WANTED] == CONTENTS
    assert (await b.blobs.fetch_small(WANTED[:1], a.endpoint.addr())).came == [WANTED[0][0]]


async def test_what_is_before_a_missing_one_comes(peers) -> None:
    a, b = await peers(), await peers()
    for content in CONTENTS[:10] + CONTENTS[11:]:
        await a.blobs.add_bytes(content)
    delivery = await b.blobs.fetch_small(WANTED, a.endpoint.addr())
    assert isinstance(delivery.error, NotProvided)
    assert delivery.at_fault == WANTED[10][0]
    assert len(delivery.came) == 10
    assert await b.blobs.has(WANTED[9][0])
    alone = await b.blobs.fetch_small(WANTED[10:11], a.endpoint.addr())
    assert isinstance(alone.error, NotProvided)
    assert alone.at_fault == WANTED[10][0]


async def test_one_that_is_refused_refuses_all(peers) -> None:
    a, b = await peers(allow=lambda peer, blob: blob != WANTED[3][0]), await peers()
    for content in CONTENTS:
        await a.blobs.add_bytes(content)
    delivery = await b.blobs.fetch_small(WANTED, a.endpoint.addr())
    assert isinstance(delivery.error, Refused)
    assert (delivery.came, delivery.at_fault) == ([], None)


async def test_a_large_blob_among_them_is_too_large(peers) -> None:
    a, b = await peers(), await peers()
    info = await a.blobs.add_bytes(b"y" * 20_000)
    delivery = await b.blobs.fetch_small([(info.hash, 20_000)], a.endpoint.addr())
    assert isinstance(delivery.error, TooLarge)
    assert not await b.blobs.has(info.hash)


def packed(*contents: bytes) -> bytes:
    return b"".join(HEADER.pack(len(content)) + content for content in contents)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (packed(CONTENTS[0], b"content X"), HashMismatch),
        (packed(CONTENTS[0]) + HEADER.pack(1 << 60), TooLarge),
        (packed(CONTENTS[0]) + HEADER.pack(9)[:3], Truncated),
        (packed(CONTENTS[0]), NotProvided),
        (packed(CONTENTS[0], CONTENTS[1]) + b"more", HashMismatch),
    ],
)
async def test_wrong_answers(peers, liar, sent: bytes, error: type[PeerError]) -> None:
    async def answer(stream: BiStream) -> None:
        await stream.send.write(sent)
        await stream.send.finish()

    b = await peers()
    delivery = await b.blobs.fetch_small(WANTED[:2], await liar(answer))
    assert isinstance(delivery.error, error)
    assert WANTED[0][0] in delivery.came
    assert await b.blobs.has(WANTED[0][0])


async def test_a_reset_says_nothing_of_one_of_many(peers, liar) -> None:
    async def answer(stream: BiStream) -> None:
        stream.send.reset(3)

    b, addr = await peers(), await liar(answer)
    delivery = await b.blobs.fetch_small(WANTED, addr)
    assert isinstance(delivery.error, NotProvided)
    assert delivery.at_fault is None
    assert (await b.blobs.fetch_small(WANTED[:1], addr)).at_fault == WANTED[0][0]


async def test_a_stall_keeps_what_came(peers, liar) -> None:
    async def answer(stream: BiStream) -> None:
        await stream.send.write(packed(CONTENTS[0]) + b"\0")

    b = await peers()
    delivery = await b.blobs.fetch_small(WANTED, await liar(answer), stall_timeout=0.3)
    assert isinstance(delivery.error, Stalled)
    assert delivery.came == [WANTED[0][0]]


async def test_nobody_there(peers, monkeypatch: pytest.MonkeyPatch) -> None:
    b = await peers()
    async with Endpoint.bind(bind=["127.0.0.1:0"]) as gone:
        addr = gone.addr()
    monkeypatch.setattr("tidings.blobs.pool.CONNECT_TIMEOUT", 0.3)
    delivery = await b.blobs.fetch_small(WANTED, addr)
    assert isinstance(delivery.error, Unreachable)
    assert delivery.at_fault is None


async def test_requests_are_bounded(peers) -> None:
    b = await peers()
    for wanted in ([], WANTED[:1] * (module.MAX_BLOBS + 1), [(Hash.of(b"%d" % n), 16384) for n in range(33)]):
        with pytest.raises(UsageError):
            await b.blobs.fetch_small(wanted, b.endpoint.addr())


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.data())
def test_answers_in_any_pieces(contents: list[bytes], data: st.DataObject) -> None:
    answer = module._Answer([(Hash.of(content), len(content)) for content in contents])
    rest = packed(*contents)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        answer.feed(rest[:size], None)
        rest = rest[size:]
    assert [content for _, content in answer.came] == contents
    assert answer.next is None


@given(st.binary(max_size=60))
def test_any_bytes_give_blobs_or_the_documented_errors(sent: bytes) -> None:
    answer = module._Answer(WANTED[:3])
    try:
        answer.feed(sent, None)
        answer.end(None)
    except (TooLarge, HashMismatch, Truncated, NotProvided):
        pass
    assert all(Hash.of(content) == hash for hash, content in answer.came)
