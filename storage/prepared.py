"""Statements of the hot paths: compiled once for each dialect, run on the driver's own cursor.

SQLAlchemy's execution of a statement costs 25 to 40 microseconds beside the 5 that SQLite needs for it. Where a job
runs many small statements that is nearly all of its time. A `Prepared` is written as any statement of SQLAlchemy
Core, and stays one transaction with the others of its connection; what it gives up is SQLAlchemy's conversion of
values: parameters and columns are what the driver takes and gives (bytes, int, None), and errors are the driver's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

__all__ = ["Prepared"]

_sqlite: Any = sqlite.dialect  # not typed in every version of SQLAlchemy that will do
_NAMED_SQLITE = _sqlite(paramstyle="named")


class Prepared:
    """``all``, ``first`` and ``run`` take the parameters of ``statement`` by name."""

    __slots__ = ("_statement", "_texts")

    def __init__(self, statement: sa.ClauseElement) -> None:
        self._statement = statement
        self._texts: dict[str, tuple[str, dict[str, object]]] = {}

    def all(self, connection: sa.Connection, parameters: Mapping[str, object]) -> list[Any]:
        """The rows, as tuples."""
        return self._cursor(connection, parameters).fetchall()  # type: ignore[no-any-return]

    def first(self, connection: sa.Connection, parameters: Mapping[str, object]) -> Any:
        """The first row, or None. The statement should not find more."""
        return self._cursor(connection, parameters).fetchone()

    def run(self, connection: sa.Connection, parameters: Mapping[str, object]) -> int:
        """How many rows it touched."""
        return self._cursor(connection, parameters).rowcount  # type: ignore[no-any-return]

    def run_many(self, connection: sa.Connection, parameters: Iterable[Mapping[str, object]]) -> None:
        text, constants = self._text(connection)
        rows: Any = [{**constants, **each} for each in parameters] if constants else list(parameters)
        if rows:
            connection.connection.cursor().executemany(text, rows)

    def _cursor(self, connection: sa.Connection, parameters: Mapping[str, object]) -> Any:
        text, constants = self._text(connection)
        cursor: Any = connection.connection.cursor()
        cursor.execute(text, {**constants, **parameters} if constants else parameters)
        return cursor

    def _text(self, connection: sa.Connection) -> tuple[str, dict[str, object]]:
        """The statement in the dialect's words, and the values that it was written with (such as a limit)."""
        dialect = connection.dialect
        known = self._texts.get(dialect.name)
        if known is None:
            compiled = self._statement.compile(dialect=_NAMED_SQLITE if dialect.name == "sqlite" else dialect)
            constants = {name: value for name, value in compiled.params.items() if value is not None}
            known = self._texts[dialect.name] = (str(compiled), constants)
        return known
