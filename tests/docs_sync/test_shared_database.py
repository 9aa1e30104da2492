"""Several nodes, each with an identity of its own, over one PostgreSQL database."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from docs_checker import verify_document
from postgres_server import PostgresServer
from tidings import Node
from tidings.docs_sync import CaughtUp, Changed, Doc, InsertLocal, InsertShared
from tidings.errors import StoreError

PROMPT = 10.0  # seconds: without notices, changes are looked for every five; most come in milliseconds
LOCAL = ["127.0.0.1:0"]


@asynccontextmanager
async def nodes(url: str, directory: Path, count: int = 2) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        places = [directory / str(number) for number in range(count)]
        opened = [Node.open(place, bind=LOCAL, database=url, blobs=directory / "blobs") for place in places]
        yield [await stack.enter_async_context(each) for each in opened]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def verify(node: Node, doc: Doc) -> int:
    return len(await node.database.read(lambda connection: verify_document(connection, bytes(doc.id))))


async def test_one_store_many_identities(postgres_url: str, tmp_path: Path) -> None:
    async with nodes(postgres_url, tmp_path) as (a, b):
        assert a.id != b.id
        doc = await a.docs.create()
        same = await b.docs.open(doc.id)
        assert same.can_write
        assert await a.docs.default_author() == await b.docs.default_author()
        large = os.urandom(200_000)
        await doc.set("small", b"1")
        await doc.set("large", large)
        for key, value in (("small", b"1"), ("large", large)):
            entry = await same.get(key)
            assert entry is not None
            assert await entry.content() == value
        await same.delete("small")
        assert await doc.get("small") is None
    async with nodes(postgres_url, tmp_path, 1) as (a,):
        assert [each.id async for each in a.docs.list()] == [doc.id]


async def test_default_authors_are_one(postgres_url: str, tmp_path: Path) -> None:
    async with nodes(postgres_url, tmp_path, 3) as opened:
        assert len(set(await asyncio.gather(*(node.docs.default_author() for node in opened)))) == 1


async def test_watch_and_events_tell_of_the_others(postgres_url: str, tmp_path: Path) -> None:
    async with nodes(postgres_url, tmp_path) as (a, b):
        doc = await a.docs.create()
        same = await b.docs.open(doc.id)
        changed: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        ready = asyncio.Event()

        async def watch() -> None:
            async for event in same.watch():
                if isinstance(event, CaughtUp):
                    ready.set()
                elif isinstance(event, Changed):
                    changed.put_nowait((event.entry.key, event.entry.is_tombstone))

        told: list[object] = []

        async def listen(document: Doc) -> None:
            async for event in document.events():
                if isinstance(event, InsertShared | InsertLocal):
                    told.append((document is doc, type(event), event.entry.key))  # noqa: PERF401 - it never ends

        async def is_told(what: object) -> bool:
            return what in told

        tasks = [asyncio.ensure_future(work) for work in (watch(), listen(doc), listen(same))]
        await ready.wait()
        await asyncio.sleep(0.2)  # an event stream begins about when it was asked for
        loop = asyncio.get_running_loop()
        delays = []
        for number in range(20):
            began = loop.time()
            await doc.set(f"a/{number}", b"x")
            async with asyncio.timeout(PROMPT):
                assert await changed.get() == (b"a/%d" % number, False)
            delays.append(loop.time() - began)
        assert sorted(delays)[10] < 1.0
        await doc.delete("a/0")
        async with asyncio.timeout(PROMPT):
            assert await changed.get() == (b"a/0", True)
        await same.set("b", b"y")
        await eventually(lambda: is_told((True, InsertShared, b"b")))
        await eventually(lambda: is_told((False, InsertShared, b"a/19")))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for number in range(20):
            mine, theirs = (True, InsertLocal, b"a/%d" % number), (False, InsertShared, b"a/%d" % number)
            assert told.count(mine) == told.count(theirs) == 1 + (number == 0)  # it was deleted, too
        assert not [each for each in told if each in ((True, InsertShared, b"a/1"), (False, InsertShared, b"b"))]


async def test_batches_at_the_same_time(postgres_url: str, tmp_path: Path) -> None:
    """The put rule, the aggregate, arrival numbers and the clock hold over processes."""
    async with nodes(postgres_url, tmp_path, 3) as opened:
        doc = await opened[0].docs.create()
        docs = [doc, *[await node.docs.open(doc.id) for node in opened[1:]]]

        async def write(number: int, its: Doc) -> None:
            for turn in range(8):
                async with its.batch() as batch:
                    for n in range(40):
                        await batch.set(f"{turn}/{number if n % 2 else 'all'}/{n}", b"%d %d" % (number, n))
                if turn % 3 == 2:
                    await its.delete(f"{turn - 1}/all")

        await asyncio.gather(*(write(number, its) for number, its in enumerate(docs) for _ in range(2)))
        assert await verify(opened[0], doc) > 300
        statuses = [await its.status() for its in docs]
        assert len({(status.entries, status.fingerprint) for status in statuses}) == 1


async def test_a_peer_of_one_is_a_peer_of_all(postgres_url: str, tmp_path: Path) -> None:
    """Each process is a peer of its own; what came to one, the others have."""
    async with nodes(postgres_url, tmp_path) as (a, b), Node.open(None, bind=LOCAL) as peer:
        doc = await a.docs.create()
        same = await b.docs.open(doc.id)
        theirs = await peer.docs.join(doc.ticket(write=True))
        await theirs.set("from", b"outside")
        await eventually(lambda: has(same, "from"))
        await same.set("to", b"outside")

        async def heard() -> bool:  # by gossip where b is in the swarm, else when a's neighbours are compared
            await theirs.synced()
            return await has(theirs, "to")

        await eventually(heard)
        entry = await theirs.get("to")
        assert entry is not None
        assert await entry.content(20) == b"outside"


async def has(doc: Doc, key: str) -> bool:
    return await doc.get(key) is not None


async def test_the_server_goes_and_comes(postgres: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    async with nodes(postgres_url, tmp_path) as (a, b):
        doc = await a.docs.create()
        same = await b.docs.open(doc.id)
        await doc.set("k", b"before")
        postgres.stop()
        try:
            with pytest.raises(StoreError, match="try again"):
                await doc.set("k", b"lost")
        finally:
            postgres.start()
        await doc.set("k", b"after")
        entry = await same.get("k")
        assert entry is not None
        assert await entry.content() == b"after"


WRITER = """
import asyncio, sys
from tidings import Node

async def main(directory, url, blobs, doc):
    async with Node.open(directory, bind=["127.0.0.1:0"], database=url, blobs=blobs) as node:
        document = await node.docs.open(doc)
        number = 0
        while True:
            async with document.batch() as batch:
                for n in range(60):
                    await batch.set(f"{directory}/{number}/{n}", b"x" * 50)
                if number % 5 == 4:
                    await batch.delete(f"{directory}/{number - 2}/")
            print(number, flush=True)
            number += 1

asyncio.run(main(*sys.argv[1:]))
"""


async def test_one_is_killed_in_the_middle(postgres_url: str, tmp_path: Path) -> None:
    """Again and again, while another process writes: whole batches only, each that was acknowledged, and no lock."""
    async with nodes(postgres_url, tmp_path, 1) as (a,):
        doc = await a.docs.create()
        for turn in range(3):
            call = [sys.executable, "-c", WRITER, f"{tmp_path}/w{turn}", postgres_url, f"{tmp_path}/blobs", str(doc.id)]
            process = await asyncio.create_subprocess_exec(*call, stdout=-1)
            assert process.stdout is not None
            last = -1
            while last < 3 + turn:
                line = await process.stdout.readline()
                assert line
                last = int(line)
                await doc.set(f"mine/{turn}", b"%d" % last)
            process.send_signal(signal.SIGKILL)
            for line in (await process.stdout.read()).split():
                last = int(line)
            await process.wait()
            process._transport.close()  # type: ignore[attr-defined]
            await doc.set(f"mine/{turn}", b"goes on")
            counts: dict[int, int] = {}
            prefix = f"{tmp_path}/w{turn}/"
            async for entry in doc.entries(prefix=prefix):
                number = int(entry.key.decode().removeprefix(prefix).split("/")[0])
                counts[number] = counts.get(number, 0) + 1
            deleted = {number - 2 for number in range(last + 2) if number % 5 == 4}
            assert {*range(last + 1)} - deleted <= counts.keys() <= {*range(last + 2)}
            assert set(counts.values()) == {60}
            await verify(a, doc)


async def test_the_command_line(postgres_url: str, tmp_path: Path) -> None:
    async def tidings(node: str, *words: str) -> dict[str, object]:
        call = [sys.executable, "-m", "tidings", "--node", str(tmp_path / node), "--json", "--database", postgres_url]
        process = await asyncio.create_subprocess_exec(*call, "--bind", LOCAL[0], *words, stdout=-1, stderr=-1)
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out.splitlines()[-1])  # type: ignore[no-any-return]

    made = await tidings("a", "doc", "new")
    assert (await tidings("b", "doc", "list"))["id"] == made["id"]
