"""A node as a whole: opening, identity, and two that edited apart."""

import contextlib
import os
import random
import sqlite3
from pathlib import Path

import pytest
from nodes import LOOPBACK, until
from tidings import Doc, Entry, Node, StoreError
from tidings.storage import Damaged, TooNew
from tidings.storage.errors import Locked


def snapshot(directory: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in directory.iterdir() if path.name in ("node.db", "identity", "ports")
    }


class TestOpen:
    async def test_the_identity_stays_and_nobody_else_may_read_it(self, tmp_path: Path) -> None:
        async with Node.open(tmp_path / "n", bind=LOOPBACK) as node:
            id, ports = node.id, node.endpoint.bound()
        async with Node.open(tmp_path / "n", bind=LOOPBACK) as node:
            assert (node.id, node.endpoint.bound()) == (id, ports)
        assert (tmp_path / "n").stat().st_mode & 0o777 == 0o700
        for path in (tmp_path / "n").iterdir():
            assert path.stat().st_mode & 0o077 == 0, path

    async def test_in_memory_nothing_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        async with Node.open(None, bind=LOOPBACK) as node:
            blob = await node.blobs.add_bytes(bytes(100_000))
            assert await node.blobs.read(blob.hash) == bytes(100_000)
            assert [*os.scandir(tmp_path)]
        assert not [*os.scandir(tmp_path)]

    async def test_twice(self, tmp_path: Path) -> None:
        async with Node.open(tmp_path, bind=LOOPBACK) as node:
            with pytest.raises(Locked, match="another directory"):
                await Node.open(tmp_path, bind=LOOPBACK)
            await (await node.docs.create()).set("still", b"usable")
        await (await Node.open(tmp_path, bind=LOOPBACK)).aclose()

    async def test_a_database_that_is_cut_or_from_a_newer_version(self, tmp_path: Path) -> None:
        async with Node.open(tmp_path, bind=LOOPBACK) as node:
            doc = await node.docs.create()
            await doc.set("k", b"v")
            id = node.id
        whole = snapshot(tmp_path)
        database = tmp_path / "node.db"
        for size in (0, 50, 4096, len(whole["node.db"]) - 1):
            database.write_bytes(whole["node.db"][:size])
            with pytest.raises(Damaged, match="restore it from a backup"):
                await Node.open(tmp_path, bind=LOOPBACK)
            assert snapshot(tmp_path) == {**whole, "node.db": whole["node.db"][:size]}
        database.write_bytes(whole["node.db"])
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        newer = snapshot(tmp_path)
        with pytest.raises(TooNew, match="upgrade tidings"):
            await Node.open(tmp_path, bind=LOOPBACK)
        assert snapshot(tmp_path) == newer
        database.write_bytes(whole["node.db"])
        async with Node.open(tmp_path, bind=LOOPBACK) as node:
            assert node.id == id
            [again] = [doc async for doc in node.docs.list()]
            assert again.id == doc.id

    async def test_a_damaged_identity_is_kept(self, tmp_path: Path) -> None:
        await (await Node.open(tmp_path, bind=LOOPBACK)).aclose()
        (tmp_path / "identity").write_bytes(b"short")
        with pytest.raises(Damaged, match="identity"):
            await Node.open(tmp_path, bind=LOOPBACK)
        assert (tmp_path / "identity").read_bytes() == b"short"

    async def test_ports_that_cannot_be_used_are_given_up(self, tmp_path: Path) -> None:
        async with Node.open(tmp_path / "a", bind=LOOPBACK) as a:
            (tmp_path / "b").mkdir()
            for text in (f'{{"4": {a.endpoint.bound()[0].port}}}', '{"4": 70000}', "[]", "\0", '{"4": []}'):
                (tmp_path / "b" / "ports").write_text(text)
                async with Node.open(tmp_path / "b", bind=LOOPBACK) as b:
                    assert b.endpoint.bound() != a.endpoint.bound()

    async def test_places_where_no_node_can_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x")
        for place in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(StoreError):
                await Node.open(place, bind=LOOPBACK)
        assert (tmp_path / "file").read_bytes() == b"x"


KEYS = [b"a", b"a/b", b"a/b/c", b"ab", b"b", b"b/c", b"\xff"]


async def history(rng: random.Random, node: Node, doc: Doc) -> None:
    """Some edits of a document that is not live, by two authors."""
    authors = [await node.docs.default_author(), await node.docs.create_author()]
    for number in range(rng.randint(5, 25)):
        key, author = rng.choice(KEYS), rng.choice(authors)
        if rng.random() < 0.35:
            await doc.delete(key, author=author)
        else:
            value = b"%d by %s" % (number, str(author).encode())
            await doc.set(key, value * rng.choice([1, 1, 400]), author=author)


async def everything(doc: Doc) -> dict[tuple[bytes, bytes], Entry]:
    return {(bytes(entry.author), entry.key): entry async for entry in doc.entries(tombstones=True)}


def merged(entries: list[Entry]) -> set[Entry]:
    """The put rule as a definition: who is not superseded by an entry of the same author at or above its key stays."""
    return {
        entry
        for entry in entries
        if not any(
            other != entry
            and other.author == entry.author
            and entry.key.startswith(other.key)
            and (other.timestamp, other.hash) >= (entry.timestamp, entry.hash)
            for other in entries
        )
    }


@pytest.mark.parametrize("seed", range(4))
async def test_edits_apart_meet(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with Node.open(tmp_path / "a", bind=LOOPBACK) as a, Node.open(tmp_path / "b", bind=LOOPBACK) as b:
        mine = await a.docs.create()
        await history(rng, a, mine)
        theirs = await b.docs.join(mine.ticket(write=True))
        shared = await everything(theirs)
        assert shared == await everything(mine)
        await mine.close()
        await theirs.close()
        for node, doc in ((a, mine), (b, theirs)):
            await history(rng, node, doc)
        alone = [await everything(mine), await everything(theirs)]
        expected = merged([*alone[0].values(), *alone[1].values()])
        mine, theirs = await a.docs.open(mine.id), await b.docs.open(mine.id)

        async def same() -> bool:
            return set((await everything(mine)).values()) == set((await everything(theirs)).values()) == expected

        await until(same)
        for doc in (mine, theirs):
            async for entry in doc.entries():
                assert len(await entry.content(20)) == entry.size
