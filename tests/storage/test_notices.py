"""Notices: heard at commits, by every process; a gap is told by None."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgres_server import PostgresServer
from tidings.errors import UsageError
from tidings.storage import Database, DatabaseClosed, Notices, notify
from tidings.storage.notices import NOTICE_SIZE, WAITING


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(postgres_url)
    yield opened
    await opened.aclose()


async def hear(notices: Notices, count: int = 1) -> list[bytes | None]:
    async with asyncio.timeout(15):
        return [await anext(notices) for _ in range(count)]


async def test_every_process_hears_what_is_committed(database: Database, postgres_url: str) -> None:
    other = await Database.open(postgres_url)
    heard = [database.listen("docs"), other.listen("docs"), other.listen("else")]
    for notices in heard:
        assert await hear(notices) == [None]

    def undone(connection: sa.Connection) -> None:
        notify(connection, "docs", b"undone")
        raise KeyError

    for payload in (b"", b"\x00\xff", bytes(NOTICE_SIZE)):
        await other.write(lambda connection, payload=payload: notify(connection, "docs", payload))
        with pytest.raises(KeyError):
            await other.write(undone)
    await other.write(lambda connection: notify(connection, "else", b"else"))
    for notices in heard[:2]:
        assert await hear(notices, 3) == [b"", b"\x00\xff", bytes(NOTICE_SIZE)]
    assert await hear(heard[2]) == [b"else"]
    with pytest.raises(UsageError, match=f"at most {NOTICE_SIZE}"):
        await other.write(lambda connection: notify(connection, "docs", bytes(NOTICE_SIZE + 1)))
    await other.aclose()


async def test_a_slow_listener_is_told_to_look(database: Database) -> None:
    notices = database.listen("docs")
    assert await hear(notices) == [None]

    def many(connection: sa.Connection) -> None:
        for i in range(WAITING + 10):
            notify(connection, "docs", b"%d" % i)

    await database.write(many)
    async with asyncio.timeout(20):
        while not notices._waiting or notices._waiting[-1] != b"%d" % (WAITING + 9):
            await asyncio.sleep(0.01)
    assert (await hear(notices))[0] is None
    await notices.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(notices)


async def test_after_an_outage_comes_none(database: Database, postgres: PostgresServer) -> None:
    notices = database.listen("docs")
    assert await hear(notices) == [None]
    postgres.stop()
    postgres.start()
    assert await hear(notices) == [None]
    await database.write(lambda connection: notify(connection, "docs", b"a"))
    assert await hear(notices) == [b"a"]


async def test_iteration_ends_with_the_database(database: Database) -> None:
    notices = database.listen("docs")

    async def everything() -> list[bytes | None]:
        return [notice async for notice in notices]

    listening = asyncio.ensure_future(everything())
    await asyncio.sleep(0)
    await database.aclose()
    assert await asyncio.wait_for(listening, 15) in ([], [None])
    with pytest.raises(DatabaseClosed):
        database.listen("docs")


@pytest.mark.parametrize("where", ["file", "memory"])
async def test_one_process_alone_hears_nothing(tmp_path: Path, where: str) -> None:
    database = await Database.open(tmp_path / "db" if where == "file" else None)
    notices = database.listen("docs")
    await database.write(lambda connection: notify(connection, "docs", b"a"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(notices)
    await database.aclose()
    assert [notice async for notice in notices] == []
