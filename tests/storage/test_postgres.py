"""PostgreSQL behind `Database`: opening, losing the server, many processes at one store, what is never shown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres_server import PostgresServer
from tidings.errors import StoreError, UsageError
from tidings.storage import BadDatabaseURL, Database, DatabaseUnreachable, Locked, NotWritable, TooNew, lock, schema
from tidings.storage.tables import authors, metadata, tags


def put(name: bytes, format: int = 0) -> sa.Insert:
    return sa.insert(tags).values(name=name, hash=bytes(32), format=format)


async def names(database: Database) -> set[bytes]:
    return set(await database.read(lambda connection: connection.execute(sa.select(tags.c.name)).scalars().all()))


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(postgres_url)
    yield opened
    await opened.aclose()


def database_name(url: str) -> str:
    return url.rpartition("/")[2]


class TestOpening:
    async def test_many_open_a_new_database_at_once(self, postgres_url: str) -> None:
        opened = await asyncio.gather(*(Database.open(postgres_url) for _ in range(5)))
        for i, database in enumerate(opened):
            assert database.is_shared
            await database.write(lambda connection, i=i: connection.execute(put(b"%d" % i)))
        for database in opened:
            assert await names(database) == {b"%d" % i for i in range(5)}
            await database.aclose()

    async def test_the_tables_lie_in_a_schema_of_their_own(self, postgres: PostgresServer, postgres_url: str) -> None:
        postgres.execute("CREATE TABLE public.tags (theirs text)", database_name(postgres_url))
        database = await Database.open(postgres_url)
        await database.write(lambda connection: connection.execute(put(b"a")))
        await database.aclose()
        assert postgres.execute("SELECT * FROM public.tags", database_name(postgres_url)) == []
        assert len(postgres.execute("SELECT * FROM tidings.tags", database_name(postgres_url))) == 1

    async def test_the_migrations_make_what_the_tables_say(self, database: Database, postgres: PostgresServer) -> None:
        def differences(connection: sa.Connection) -> list[object]:
            return list(compare_metadata(MigrationContext.configure(connection), metadata))

        assert await database.read(differences) == []
        url = postgres.new_database()
        await make_old(postgres, url)
        migrated = await Database.open(url)
        assert await migrated.read(differences) == []
        assert await names(migrated) == {b"old"}
        await migrated.aclose()

    async def test_many_open_an_old_database_at_once(self, postgres: PostgresServer, postgres_url: str) -> None:
        await make_old(postgres, postgres_url)
        for database in await asyncio.gather(*(Database.open(postgres_url) for _ in range(3))):
            assert await names(database) == {b"old"}
            await database.aclose()

    async def test_a_newer_version(self, postgres: PostgresServer, postgres_url: str) -> None:
        await (await Database.open(postgres_url)).aclose()
        postgres.execute("UPDATE tidings.alembic_version SET version_num = '9999'", database_name(postgres_url))
        with pytest.raises(TooNew, match=r"9999.*upgrade tidings"):
            await Database.open(postgres_url)

    async def test_no_server(self) -> None:
        with pytest.raises(
            DatabaseUnreachable, match=r"postgresql://me@127.0.0.1:1/x .*server runs.*try again"
        ) as raised:
            await Database.open("postgresql+psycopg://me:hunter2@127.0.0.1:1/x")
        assert "hunter2" not in str(raised.value)

    async def test_no_such_database(self, postgres: PostgresServer) -> None:
        with pytest.raises(DatabaseUnreachable, match="does not exist"):
            await Database.open(postgres.url("nowhere"))

    @pytest.mark.parametrize(
        "url",
        ["here.db", "", "postgresql+psycopg2://h/x", "mysql://h/x", "sqlite:///x", "postgresql+psycopg://h:port/x"],
    )
    async def test_not_a_url_of_ours(self, url: str) -> None:
        with pytest.raises(BadDatabaseURL, match=r"write postgresql\+psycopg://"):
            await Database.open(url)

    async def test_without_psycopg(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        monkeypatch.delitem(sys.modules, "tidings.storage.postgres", raising=False)
        with pytest.raises(UsageError, match=r"pip install 'tidings\[postgres\]'"):
            await Database.open("postgresql+psycopg://h/x")

    async def test_a_user_without_rights(self, postgres: PostgresServer, postgres_url: str) -> None:
        postgres.execute("DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        with pytest.raises(NotWritable, match="permission denied"):
            await Database.open(postgres_url.replace("tidings@", "reader@"))

    async def test_no_secret_is_shown(self, postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
        url = postgres_url.replace("tidings@", "tidings:hunter2@") + "?options=-cgeqo%3Doff"
        database = await Database.open(url)
        row = {"author": bytes(32), "secret": b"\xabsecret!", "is_default": False}
        with caplog.at_level(logging.DEBUG), pytest.raises(sa.exc.IntegrityError) as raised:
            for _ in range(2):
                await database.write(lambda connection: connection.execute(sa.insert(authors), row))
        shown = f"{database!r} {raised.value} {caplog.text}"
        assert "hunter2" not in shown
        assert "secret!" not in shown and row["secret"].hex() not in shown
        await database.aclose()


async def make_old(postgres: PostgresServer, url: str) -> None:
    """A database of the first revision, with a row."""
    postgres.execute("CREATE SCHEMA tidings", database_name(url))
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET search_path TO tidings")
        schema.migrate(connection, "0001")
        connection.execute(put(b"old"))
    engine.dispose()


class TestDurability:
    async def test_only_a_durable_write_waits_for_the_servers_disk(self, database: Database) -> None:
        def setting(connection: sa.Connection) -> str:
            return str(connection.exec_driver_sql("SHOW synchronous_commit").scalar_one())

        for durable in (True, False, False, True):
            assert await database.write(setting, durable=durable) == ("on" if durable else "off")


class TestLosingTheServer:
    async def test_calls_fail_with_a_sentence_and_go_on_once_it_is_back(
        self, postgres: PostgresServer, database: Database
    ) -> None:
        await database.write(lambda connection: connection.execute(put(b"a")), durable=False)
        postgres.stop()
        try:
            for _ in range(2):
                with pytest.raises(DatabaseUnreachable, match="try again"):
                    await database.write(lambda connection: connection.execute(put(b"b")))
                with pytest.raises(DatabaseUnreachable, match="try again"):
                    await names(database)
        finally:
            postgres.start()
        await database.write(lambda connection: connection.execute(put(b"c")))
        assert await names(database) == {b"a", b"c"}

    async def test_a_restart_that_nobody_was_there_for(self, postgres: PostgresServer, database: Database) -> None:
        await asyncio.gather(*(names(database) for _ in range(9)))
        postgres.stop()
        postgres.start()
        durable = await database.write(lambda c: c.exec_driver_sql("SHOW synchronous_commit").scalar(), durable=False)
        assert durable == "off"
        await asyncio.gather(*(names(database) for _ in range(9)))
        await database.write(lambda connection: connection.execute(put(b"a")))
        assert await names(database) == {b"a"}

    async def test_a_transaction_that_is_cut_off_fails_its_jobs(
        self, postgres: PostgresServer, database: Database
    ) -> None:
        def cut(connection: sa.Connection) -> None:
            connection.execute(put(b"a"))
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            postgres.execute(f"SELECT pg_terminate_backend({pid})")
            connection.execute(put(b"b"))

        results = await asyncio.gather(
            *(database.write(lambda c, i=i: c.execute(put(b"%d" % i)) and None) for i in range(3)),
            database.write(cut),
            *(database.write(lambda c, i=i: c.execute(put(b"%d" % i)) and None) for i in range(3, 6)),
            return_exceptions=True,
        )
        assert isinstance(results[3], DatabaseUnreachable)
        there = await names(database)
        for i, result in zip(range(6), results[:3] + results[4:], strict=True):
            assert (b"%d" % i in there) == (result is None)
            assert result is None or isinstance(result, DatabaseUnreachable)
        assert results[4:] == [None] * 3


class TestManyProcesses:
    """Each `Database` here is as far from the other as two processes are: they share the server alone."""

    @contextlib.asynccontextmanager
    async def two(self, url: str) -> AsyncIterator[tuple[Database, Database]]:
        first, second = await Database.open(url), await Database.open(url)
        try:
            yield first, second
        finally:
            await first.aclose()
            await second.aclose()

    async def test_a_lock_makes_reading_and_writing_one_step(self, postgres_url: str) -> None:
        def count(connection: sa.Connection, name: bytes) -> None:
            lock(connection, name)
            value = connection.execute(sa.select(tags.c.format).where(tags.c.name == name)).scalar_one()
            connection.execute(sa.update(tags).where(tags.c.name == name).values(format=value + 1))

        async with self.two(postgres_url) as databases:
            keys = [b"a", b"b", b"c"]
            for key in keys:
                await databases[0].write(lambda connection, key=key: connection.execute(put(key)))
            # In each order, so that groups of jobs would wait for each other if they could.
            await asyncio.gather(
                *(
                    database.write(lambda connection, key=key: count(connection, key))
                    for _ in range(20)
                    for database, order in zip(databases, (keys, keys[::-1]), strict=True)
                    for key in order
                )
            )
            counted = await databases[1].read(lambda c: c.execute(sa.select(tags.c.format)).scalars().all())
            assert counted == [40] * 3

    async def test_rows_that_both_insert_after_looking(self, postgres_url: str) -> None:
        def once(connection: sa.Connection, name: bytes) -> bool:
            if connection.execute(sa.select(tags.c.name).where(tags.c.name == name)).first() is not None:
                return False
            connection.execute(put(name))
            return True

        async with self.two(postgres_url) as databases:
            made = await asyncio.gather(
                *(
                    database.write(lambda connection, i=i: once(connection, b"%d" % i))
                    for i in range(100)
                    for database in databases
                )
            )
            assert sum(made) == 100
            with pytest.raises(sa.exc.IntegrityError):
                await databases[0].write(lambda connection: connection.execute(put(b"1")))

    async def test_a_deadlock_is_run_again(self, postgres_url: str) -> None:
        """Both hold a row that the other wants next, without any lock of ours."""
        async with self.two(postgres_url) as databases:
            await databases[0].write(lambda c: (c.execute(put(b"a")), c.execute(put(b"b")))[0] and None)
            loop = asyncio.get_running_loop()
            meeting = asyncio.Barrier(2)
            met: set[int] = set()

            def both(connection: sa.Connection, who: int, order: list[bytes]) -> None:
                def touch(name: bytes) -> None:
                    connection.execute(sa.update(tags).where(tags.c.name == name).values(format=tags.c.format + 1))

                touch(order[0])
                if who not in met:
                    met.add(who)
                    asyncio.run_coroutine_threadsafe(meeting.wait(), loop).result(10)
                touch(order[1])

            await asyncio.gather(
                databases[0].write(lambda connection: both(connection, 0, [b"a", b"b"])),
                databases[1].write(lambda connection: both(connection, 1, [b"b", b"a"])),
            )
            counted = await databases[1].read(lambda c: c.execute(sa.select(tags.c.format)).scalars().all())
            assert counted == [2, 2]

    async def test_a_read_is_one_snapshot(self, postgres_url: str) -> None:
        async with self.two(postgres_url) as (first, second):
            loop = asyncio.get_running_loop()

            def look_twice(connection: sa.Connection) -> list[int]:
                query = sa.select(sa.func.count()).select_from(tags)
                before = connection.execute(query).scalar_one()
                write = second.write(lambda c: c.execute(put(b"new")) and None)
                asyncio.run_coroutine_threadsafe(write, loop).result(10)
                return [before, connection.execute(query).scalar_one()]

            assert await first.read(look_twice) == [0, 0]
            assert await names(first) == {b"new"}


class TestErrors:
    async def test_another_process_that_holds_a_lock_for_long(
        self, postgres: PostgresServer, postgres_url: str, database: Database
    ) -> None:
        other = await Database.open(postgres_url)
        release = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold(connection: sa.Connection) -> None:
            lock(connection, b"a")
            loop.call_soon_threadsafe(held.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)

        def want(connection: sa.Connection) -> None:
            connection.exec_driver_sql("SET LOCAL lock_timeout TO '50ms'")
            lock(connection, b"a")

        held = asyncio.Event()
        holding = asyncio.ensure_future(other.write(hold))
        await held.wait()
        with pytest.raises(Locked, match="another process holds"):
            await database.write(want)
        release.set()
        await holding
        await database.write(want)
        await other.aclose()

    async def test_a_statement_that_is_wrong_is_the_callers(self, database: Database) -> None:
        with pytest.raises(sa.exc.ProgrammingError):
            await database.write(lambda connection: connection.exec_driver_sql("SELECT nothing"))
        with pytest.raises(sa.exc.ProgrammingError):
            await database.read(lambda connection: connection.exec_driver_sql("SELECT nothing"))
        assert not issubclass(sa.exc.ProgrammingError, StoreError)
        await database.write(lambda connection: connection.execute(put(b"a")))
