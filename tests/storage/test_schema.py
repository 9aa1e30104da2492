"""A database made at once and one made by the migrations are the same, and opening needs no Alembic."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from tidings.storage import schema
from tidings.storage.engine import writer_engine
from tidings.storage.tables import metadata


@contextmanager
def in_memory() -> Iterator[sa.Connection]:
    engine = writer_engine(None)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def shape(connection: sa.Connection) -> dict[str, object]:
    """Columns and indexes; the text of CREATE differs where a column was added later."""
    shapes: dict[str, object] = {}
    for name, _ in statements(connection):
        shapes[name] = (
            connection.exec_driver_sql(f"PRAGMA table_xinfo({name})").all(),
            sorted(row[1:] for row in connection.exec_driver_sql(f"PRAGMA index_list({name})")),
            connection.exec_driver_sql(f"PRAGMA index_xinfo({name})").all(),
            "WITHOUT ROWID" in dict(statements(connection))[name],
        )
    return shapes


def statements(connection: sa.Connection) -> list[tuple[str, str]]:
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    return [(name, " ".join(sql.split())) for name, sql in rows if name != "alembic_version"]


def test_the_migrations_make_what_the_tables_say() -> None:
    with in_memory() as at_once, in_memory() as migrated:
        schema.create(at_once)
        with migrated.begin():
            schema.migrate(migrated)
            assert compare_metadata(MigrationContext.configure(migrated), metadata) == []
            revision = migrated.execute(sa.select(schema.version.c.version_num)).scalar()
        assert revision == schema.REVISIONS[-1]
        with at_once.begin(), migrated.begin():
            assert shape(at_once) == shape(migrated)


def test_the_list_of_revisions_is_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert tuple(step.revision for step in script.walk_revisions())[::-1] == schema.REVISIONS


def test_a_failed_migration_leaves_nothing() -> None:
    with in_memory() as connection:
        with connection.begin():
            connection.exec_driver_sql("CREATE TABLE tags (x)")  # in the way of the first migration
        try:
            with connection.begin():
                schema.migrate(connection)
        except sa.exc.OperationalError:
            pass
        with connection.begin():
            assert [name for name, _ in statements(connection)] == ["tags"]


def test_opening_imports_no_alembic(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from tidings.storage import Database

async def main():
    for _ in range(2):
        await (await Database.open(Path(sys.argv[1]))).aclose()

asyncio.run(main())
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "db")], check=True)
