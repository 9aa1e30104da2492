"""The promises of `Database`: acknowledged is durable, one job's failure is its own, damage is seen and left alone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tidings.errors import StoreError, UsageError
from tidings.storage import Damaged, Database, DatabaseClosed, DiskFailed, DiskFull, Locked, NotWritable, TooNew
from tidings.storage import sqlite as sqlite_store
from tidings.storage.tables import tags


def put(name: bytes, format: int = 0) -> sa.Insert:
    return sa.insert(tags).values(name=name, hash=bytes(32), format=format)


def add(connection: sa.Connection, name: bytes) -> int:
    connection.execute(put(name))
    return 1


async def names(database: Database) -> set[bytes]:
    return set(await database.read(lambda connection: connection.execute(sa.select(tags.c.name)).scalars().all()))


@pytest.fixture(params=["file", "memory", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    places: dict[str, Path | None] = {"file": tmp_path / "node" / "tidings.db", "memory": None}
    kind = request.param
    opened = await Database.open(request.getfixturevalue("postgres_url") if kind == "postgres" else places[kind])
    yield opened
    await opened.aclose()


class TestWrites:
    async def test_a_read_sees_what_a_write_returned_from(self, database: Database) -> None:
        for i in range(20):
            await database.write(lambda connection, i=i: connection.execute(put(b"%d" % i)))
            assert len(await names(database)) == i + 1

    async def test_the_result_comes_back(self, database: Database) -> None:
        assert await database.write(lambda connection: add(connection, b"a")) == 1

    async def test_many_writes_share_few_commits(self, database: Database) -> None:
        before = database.commits
        writes = [database.write(lambda connection, i=i: add(connection, b"%d" % i)) for i in range(1500)]
        assert await asyncio.gather(*writes) == [1] * 1500
        assert database.commits - before < 100
        assert len(await names(database)) == 1500

    async def test_callers_hear_in_the_order_of_the_queue(self, database: Database) -> None:
        heard: list[int] = []

        async def one(i: int) -> None:
            await database.write(lambda connection: add(connection, b"%d" % i))
            heard.append(i)

        async with asyncio.TaskGroup() as group:
            for i in range(600):
                group.create_task(one(i))
        assert heard == list(range(600))

    async def test_a_write_that_raises_is_undone_alone(self, database: Database) -> None:
        def bad(connection: sa.Connection) -> None:
            connection.execute(put(b"half"))
            raise ValueError("mine")

        results = await asyncio.gather(
            database.write(lambda connection: add(connection, b"a")),
            database.write(bad),
            database.write(lambda connection: add(connection, b"a")),
            database.write(lambda connection: add(connection, b"b")),
            database.write(lambda connection: next(iter(()))),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [int, ValueError, sa.exc.IntegrityError, int, RuntimeError]
        assert await names(database) == {b"a", b"b"}

    async def test_a_write_may_nest_a_savepoint(self, database: Database) -> None:
        def nested(connection: sa.Connection) -> None:
            connection.execute(put(b"outer"))
            with pytest.raises(KeyError), connection.begin_nested():
                connection.execute(put(b"inner"))
                raise KeyError

        await database.write(nested)
        assert await names(database) == {b"outer"}

    async def test_a_read_cannot_write(self, database: Database) -> None:
        with pytest.raises(NotWritable):
            await database.read(lambda connection: connection.execute(put(b"a")))
        await database.write(lambda connection: connection.execute(put(b"b")))
        assert await names(database) == {b"b"}

    async def test_cancelled_writes_happen_whole_or_not_at_all(self, database: Database) -> None:
        def pair(connection: sa.Connection, i: int) -> None:
            connection.execute(put(b"%d/1" % i))
            connection.execute(put(b"%d/2" % i))

        rng = random.Random(5)
        tasks = [asyncio.ensure_future(database.write(lambda c, i=i: pair(c, i))) for i in range(300)]
        for _ in range(6):
            await asyncio.sleep(0.001)
            for task in rng.sample(tasks, 30):
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        there = await names(database)
        for i, outcome in enumerate(outcomes):
            assert (b"%d/1" % i in there) == (b"%d/2" % i in there)
            assert outcome is not None or b"%d/1" % i in there

    async def test_a_full_disk_fails_the_group_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        database = await Database.open(tmp_path / "db")
        pages = await database.read(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar())
        await database.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}").scalar())

        def big(connection: sa.Connection) -> None:
            connection.execute(put(bytes(1_000_000)))

        results = await asyncio.gather(
            database.write(lambda connection: add(connection, b"a")),
            database.write(big),
            database.write(lambda connection: add(connection, b"b")),
            return_exceptions=True,
        )
        assert isinstance(results[1], DiskFull)
        assert results[2] == 1
        there = await names(database)
        assert b"b" in there and (b"a" in there) == (results[0] == 1)
        await database.aclose()

    async def test_a_failed_commit_fails_the_whole_group(self, database: Database) -> None:
        def poison(connection: sa.Connection) -> None:  # a broken deferred constraint shows at COMMIT
            connection.exec_driver_sql("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
            connection.exec_driver_sql(
                "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
            )
            connection.exec_driver_sql("INSERT INTO child VALUES (1)")

        results = await asyncio.gather(
            database.write(poison),
            database.write(lambda connection: add(connection, b"a")),
            return_exceptions=True,
        )
        assert isinstance(results[0], StoreError)
        assert (b"a" in await names(database)) == (results[1] == 1)
        await database.write(lambda connection: connection.execute(put(b"b")))
        assert b"b" in await names(database)

    async def test_reads_go_on_beside_a_write(self, tmp_path: Path) -> None:
        database = await Database.open(tmp_path / "db")
        await database.write(lambda connection: connection.execute(put(b"a")))
        read_done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(connection: sa.Connection) -> None:
            connection.execute(put(b"b"))
            asyncio.run_coroutine_threadsafe(read_done.wait(), loop).result(10)

        async with asyncio.TaskGroup() as group:
            group.create_task(database.write(slow))
            await asyncio.sleep(0.01)
            assert await names(database) == {b"a"}
            read_done.set()
        assert await names(database) == {b"a", b"b"}
        await database.aclose()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were synced, in their order."""
    files: list[str] = []

    def sync_file(file: int) -> None:
        os.fsync(file)
        files.append(str(Path(f"/proc/self/fd/{file}").readlink()))

    monkeypatch.setattr(sqlite_store, "_sync_file", sync_file)
    return files


class TestRelaxedDurability:
    async def test_only_a_durable_write_waits_for_the_disk(self, tmp_path: Path, synced: list[str]) -> None:
        database = await Database.open(tmp_path / "db")
        expected = []
        for name, durable in ((b"a", True), (b"b", False), (b"c", False), (b"d", True), (b"e", False)):
            await database.write(lambda connection: connection.execute(put(name)), durable=durable)  # noqa: B023
            expected += [str(tmp_path / "db-wal")] * durable
            assert synced == expected
        await database.aclose()

    @pytest.mark.parametrize("durable", [[False] * 5, [False, True, False], [True, False], [True]])
    async def test_one_durable_write_makes_its_group_durable(
        self, tmp_path: Path, durable: list[bool], synced: list[str]
    ) -> None:
        database = await Database.open(tmp_path / "db")
        gate = threading.Event()
        first = asyncio.ensure_future(database.write(lambda connection: gate.wait(10), durable=False))
        while database.commits == 0:
            await asyncio.sleep(0.001)
        group = asyncio.gather(*(database.write(lambda connection: None, durable=each) for each in durable))
        await asyncio.sleep(0)
        gate.set()
        await group
        assert await first
        assert len(synced) == any(durable)
        assert database.commits == 2
        await database.aclose()

    async def test_a_failed_sync_is_told_and_made_good(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(file: int) -> None:
            raise OSError(errno.EIO, "I/O error")

        database = await Database.open(tmp_path / "db")
        await database.write(lambda connection: connection.execute(put(b"a")))
        monkeypatch.setattr(sqlite_store, "_sync_file", broken)
        with pytest.raises(DiskFailed):
            await database.write(lambda connection: connection.execute(put(b"b")))
        await database.write(lambda connection: connection.execute(put(b"c")))  # the log was folded into the file
        assert (tmp_path / "db-wal").stat().st_size == 0
        with pytest.raises(DiskFailed):
            await database.write(lambda connection: connection.execute(put(b"d")))
        monkeypatch.undo()
        await database.write(lambda connection: connection.execute(put(b"e")))
        assert await names(database) >= {b"a", b"c", b"e"}
        await database.aclose()

    async def test_what_raises_is_undone_and_the_setting_follows(self, database: Database) -> None:
        def bad(connection: sa.Connection) -> None:
            connection.execute(put(b"half"))
            raise KeyError

        for durable in (False, True, False):
            with pytest.raises(KeyError):
                await database.write(bad, durable=durable)
        await database.write(lambda connection: connection.execute(put(b"a")), durable=False)
        assert await names(database) == {b"a"}


class TestClosing:
    async def test_close_finishes_what_was_queued(self, tmp_path: Path) -> None:
        database = await Database.open(tmp_path / "db")
        writes = [asyncio.ensure_future(database.write(lambda c, i=i: c.execute(put(b"%d" % i)))) for i in range(1200)]
        await asyncio.sleep(0)
        writes[7].cancel()
        await asyncio.gather(database.aclose(), database.aclose())
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert sum(isinstance(result, BaseException) for result in results) == 1
        with pytest.raises(DatabaseClosed):
            await database.write(lambda connection: None)
        with pytest.raises(UsageError):
            await database.read(lambda connection: None)
        again = await Database.open(tmp_path / "db")
        assert len(await names(again)) >= 1199
        await again.aclose()
        assert not (tmp_path / "db-wal").exists()

    async def test_close_behind_cancelled_writes_only(self, database: Database) -> None:
        write = asyncio.ensure_future(database.write(lambda connection: connection.execute(put(b"a"))))
        await asyncio.sleep(0)
        write.cancel()
        async with asyncio.timeout(10):
            await database.aclose()

    async def test_a_cancelled_open_gives_up_the_lock(self, tmp_path: Path) -> None:
        opening = asyncio.ensure_future(Database.open(tmp_path / "db"))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await (await Database.open(tmp_path / "db")).aclose()


WRITER = """
import asyncio, sys
from pathlib import Path
import sqlalchemy as sa
from tidings.storage import Database
from tidings.storage.tables import tags

async def main():
    database = await Database.open(Path(sys.argv[1]))
    first = int(sys.argv[2])
    async def write(i):
        row = {"name": b"%d" % i, "hash": bytes(32), "format": 0}
        await database.write(lambda c: c.execute(sa.insert(tags), row).rowcount, durable=sys.argv[3] == "durable")
        sys.stdout.write(f"{i}\\n"); sys.stdout.flush()
    print("open", flush=True)
    for start in range(first, first + 1_000_000, 5):
        await asyncio.gather(*(write(i) for i in range(start, start + 5)))
asyncio.run(main())
"""


def start_writer(path: Path, first: int = 0, durability: str = "durable") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), durability]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


class TestKill:
    @pytest.mark.parametrize("durability", ["durable", "relaxed"])
    async def test_what_was_acknowledged_survives_kill(self, tmp_path: Path, durability: str) -> None:
        path = tmp_path / "node" / "db"
        rng = random.Random(11)
        printed: set[bytes] = set()
        for round in range(5):
            process = start_writer(path, round * 1_000_000, durability)
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            await asyncio.sleep(rng.uniform(0, 0.1))
            process.kill()
            # The last line may be cut by the kill.
            printed |= {line[:-1].encode() for line in process.stdout if line.endswith("\n")}
            process.stdout.close()
            process.wait()
            database = await Database.open(path)
            assert printed <= await names(database)
            await database.aclose()
        assert len(printed) > 50


class TestOpening:
    async def test_twice_in_one_process(self, tmp_path: Path) -> None:
        database = await Database.open(tmp_path / "db")
        with pytest.raises(Locked, match=r"this process.*another directory"):
            await Database.open(tmp_path / "db")
        await database.aclose()
        await (await Database.open(tmp_path / "db")).aclose()

    async def test_twice_in_two_processes(self, tmp_path: Path) -> None:
        process = start_writer(tmp_path / "db")
        assert process.stdout is not None
        process.stdout.readline()
        try:
            with pytest.raises(Locked, match=f"process {process.pid}"):
                await Database.open(tmp_path / "db")
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
        await (await Database.open(tmp_path / "db")).aclose()

    async def test_files_are_their_owners_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "node" / "db"
        database = await Database.open(path)
        await database.write(lambda connection: connection.execute(put(b"a")))
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == dict.fromkeys(
            ["db", "db-wal", "db-shm", "db.lock"], 0o600
        )
        await database.aclose()
        path.chmod(0o644)
        await (await Database.open(path)).aclose()
        assert path.stat().st_mode & 0o777 == 0o600

    async def test_a_newer_version(self, tmp_path: Path) -> None:
        await (await Database.open(tmp_path / "db")).aclose()
        with contextlib.closing(sqlite3.connect(tmp_path / "db")) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        before = (tmp_path / "db").read_bytes()
        with pytest.raises(TooNew, match=r"9999.*upgrade tidings"):
            await Database.open(tmp_path / "db")
        assert (tmp_path / "db").read_bytes() == before

    async def test_another_programs_database(self, tmp_path: Path) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "db")) as connection, connection:
            connection.execute("CREATE TABLE theirs (x)")
        connection.close()
        with pytest.raises(Damaged, match="another program"):
            await Database.open(tmp_path / "db")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    async def test_a_read_only_directory(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)  # noqa: ASYNC240
        with pytest.raises(NotWritable):
            await Database.open(tmp_path / "db")

    async def test_a_directory_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "db").mkdir()
        with pytest.raises(StoreError):
            await Database.open(tmp_path / "db")
        (tmp_path / "file").touch()
        with pytest.raises(StoreError):
            await Database.open(tmp_path / "file" / "db")


class TestDamage:
    async def make(self, path: Path) -> bytes:
        database = await Database.open(path)
        for i in range(50):
            await database.write(lambda connection, i=i: connection.execute(put(b"%03d" % i * 300)))
        await database.aclose()
        return path.read_bytes()  # noqa: ASYNC240

    async def test_cut_short(self, tmp_path: Path) -> None:
        path = tmp_path / "db"
        whole = await self.make(path)
        for length in [0, 1, 15, 16, 50, 99, 100, 511, 512, 4095, 4096, 4097, 8192, len(whole) // 2, len(whole) - 1]:
            path.write_bytes(whole[:length])
            with pytest.raises(Damaged, match=r"restore it from a backup"):
                await Database.open(path)
            assert path.read_bytes() == whole[:length]
        path.write_bytes(whole)
        await (await Database.open(path)).aclose()

    async def test_random_bytes(self, tmp_path: Path) -> None:
        rng = random.Random(3)
        for length in [1, 100, 5000]:
            noise = rng.randbytes(length)
            (tmp_path / "db").write_bytes(noise)
            with pytest.raises(Damaged):
                await Database.open(tmp_path / "db")
            assert (tmp_path / "db").read_bytes() == noise

    async def test_a_page_overwritten(self, tmp_path: Path) -> None:
        path = tmp_path / "db"
        whole = await self.make(path)
        rng = random.Random(4)
        for page in range(0, len(whole) // 4096):
            noise = whole[: page * 4096 + 100] + rng.randbytes(3996) + whole[(page + 1) * 4096 :]
            path.write_bytes(noise)
            try:
                database = await Database.open(path)
            except Damaged:
                assert path.read_bytes() == noise
            else:  # the noise fell on what no check can tell from data
                await database.aclose()

    async def test_cut_short_beside_a_log(self, tmp_path: Path) -> None:
        path = tmp_path / "db"
        process = start_writer(path)
        assert process.stdout is not None
        for _ in range(200):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
        log = (tmp_path / "db-wal").read_bytes()
        whole = path.read_bytes()
        assert log
        for length in (0, 50, 4096):
            path.write_bytes(whole[:length])
            (tmp_path / "db-wal").write_bytes(log)
            (tmp_path / "db-shm").unlink(missing_ok=True)
            try:
                database = await Database.open(path)
            except Damaged:
                assert path.read_bytes() == whole[:length]
            else:  # the log held every page that was cut
                assert len(await names(database)) >= 199
                await database.aclose()

    async def test_damage_found_at_work(self, tmp_path: Path) -> None:
        path = tmp_path / "db"
        whole = await self.make(path)
        database = await Database.open(path)
        path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
        with pytest.raises(Damaged):
            await names(database)
        with pytest.raises(Damaged):
            await database.write(lambda connection: connection.execute(put(b"a")))
        await database.aclose()
