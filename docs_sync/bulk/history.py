"""History: what entries said before they gave way, kept for a time. Our own extension, each node's own choice.

A document's history is off unless `History.keep` gives it a period. From then on every entry that this node held and
that gives way, tombstones included, is moved to the table ``history`` in the transaction that removes it (`put_rows`).
What was never held here is not in it: what a sync or a batch brought superseded already, and what came before.

An entry that gave way longer ago than the period is not shown any more. `History.look_after` deletes such rows, and
those of documents whose history was switched off, now and then and in small transactions. While they are there their
contents are protected (`content_store.ContentStore.protected_hashes`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from ...errors import TidingsError
from ...storage import Database, tables
from ...storage.prepared import Prepared
from ..doc_entry import Entry
from ..errors import BadPeriod, UnknownDocument
from ..model.entry import SignedEntry
from ..model.keys import NamespaceId
from ..model.validity import MAX_STORED
from ..store.rows import from_row

__all__ = ["History", "Superseded"]

logger = logging.getLogger(__name__)

PAGE = 100  # rows read at once
STEP = 500  # rows deleted in one transaction: other writes wait behind it
FIRST_LOOK = 10.0  # seconds after the start, until rows are looked for that are too old
LOOK_EVERY = 600.0  # seconds between two looks

_n, _t = tables.namespaces.c, tables.history.c
_key = tuple(tables.history.primary_key)
_PERIOD = Prepared(sa.select(_n.history_us).where(_n.namespace == sa.bindparam("namespace")))
_AT_KEY = (
    sa.select(
        *(_t.namespace, _t.author, _t.key, _t.size, _t.hash, _t.timestamp, _t.author_sig, _t.namespace_sig),
        _t.superseded_us,
    )
    .where(
        _t.namespace == sa.bindparam("namespace"),
        _t.key == sa.bindparam("key"),
        _t.superseded_us >= sa.bindparam("since"),
    )
    .order_by(_t.timestamp.desc(), _t.author.desc(), _t.hash.desc())
    .limit(PAGE)
)
_place = sa.tuple_(_t.timestamp, _t.author, _t.hash)
_NEWEST = Prepared(_AT_KEY)
_FURTHER = Prepared(
    _AT_KEY.where(_place < sa.tuple_(sa.bindparam("time"), sa.bindparam("author"), sa.bindparam("hash")))
)
_OLD = Prepared(
    sa.select(*_key)
    .where(_t.namespace == sa.bindparam("namespace"), _t.superseded_us < sa.bindparam("since"))
    .order_by(_t.superseded_us)
    .limit(STEP)
)
_DELETE = Prepared(sa.delete(tables.history).where(*(column == sa.bindparam(column.name) for column in _key)))
# One look into the index for each document.
_WITH_OLD = Prepared(
    sa.select(_n.namespace).where(
        sa.exists().where(
            _t.namespace == _n.namespace,
            _t.superseded_us < sa.func.coalesce(sa.bindparam("now", type_=sa.BigInteger) - _n.history_us, MAX_STORED),
        )
    )
)


@dataclass(frozen=True, slots=True)
class Superseded:
    """An entry that was there ``until`` (microseconds since 1970, by this machine's clock) something newer came."""

    entry: Entry
    until: int


class History:
    """The history of a node's documents. ``clock`` gives microseconds since 1970."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    async def keep(self, namespace: NamespaceId, period: timedelta | None) -> None:
        """Keep what gives way from now on for ``period``; None: nothing, and delete what is kept.

        Raises BadPeriod, UnknownDocument.
        """
        period_us = None if period is None else period // timedelta(microseconds=1)
        if period_us is not None and not 0 < period_us <= MAX_STORED // 2:
            raise BadPeriod(f"history is kept for a time from a microsecond to {MAX_STORED // 2} of them, or None")
        change = sa.update(tables.namespaces).where(_n.namespace == bytes(namespace)).values(history_us=period_us)
        if not await self._database.write(lambda connection: connection.execute(change).rowcount):
            raise UnknownDocument(f"there is no document {namespace} here: join it with a ticket")
        await self.prune(namespace)

    async def period(self, namespace: NamespaceId) -> timedelta | None:
        """Raises UnknownDocument."""
        row = await self._database.read(lambda connection: _PERIOD.first(connection, {"namespace": bytes(namespace)}))
        if row is None:
            raise UnknownDocument(f"there is no document {namespace} here: join it with a ticket")
        return None if row[0] is None else timedelta(microseconds=row[0])

    async def read(
        self, namespace: NamespaceId, key: bytes, entry: Callable[[SignedEntry], Entry]
    ) -> AsyncIterator[Superseded]:
        """What was at ``key``, the newest first, in pages of constant size."""
        where: dict[str, object] = {"namespace": bytes(namespace), "key": key}
        page = _NEWEST
        while True:
            period = await self.period(namespace)
            if period is None:
                return
            where["since"] = self._clock() - period // timedelta(microseconds=1)
            rows = await self._database.read(lambda connection: page.all(connection, where))  # noqa: B023
            for row in rows:
                yield Superseded(entry(from_row(row)), row[8])
            if len(rows) < PAGE:
                return
            _, where["author"], _, _, where["hash"], where["time"] = rows[-1][:6]
            page = _FURTHER

    async def prune(self, namespace: NamespaceId) -> int:
        """Delete what is older than the document's period, in steps. How many rows that were."""
        where = {"namespace": bytes(namespace)}

        def step(connection: sa.Connection) -> int:
            row = _PERIOD.first(connection, where)
            if row is None:
                return 0
            since = MAX_STORED if row[0] is None else self._clock() - row[0]
            old = _OLD.all(connection, where | {"since": since})
            names = [column.name for column in _key]
            _DELETE.run_many(connection, [dict(zip(names, each, strict=True)) for each in old])
            return len(old)

        total = 0
        while count := await self._database.write(step, durable=False):
            total += count
        return total

    async def look_after(self) -> None:
        """Prune all documents, again and again; runs until it is cancelled."""
        pause = FIRST_LOOK
        while True:
            await asyncio.sleep(pause)
            pause = LOOK_EVERY
            try:
                now = {"now": self._clock()}
                found = await self._database.read(lambda connection: _WITH_OLD.all(connection, now))  # noqa: B023
                for (namespace,) in found:
                    await self.prune(NamespaceId(namespace))
            except TidingsError as error:
                logger.warning("old history could not be deleted, it is tried again later: %s", error)
