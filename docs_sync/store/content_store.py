"""Which contents a node wants and has had, in the database: what outlives a restart, and what may be millions.

A content is *wanted* from the transaction that stores an entry naming it (`note_wanted`), where it is not here and
the document's policy wants it; it *failed* where it is wanted and attempts are counted; it was *had* when it came, for
a day, to say from whom. One row stands for a content of a document however many entries name it. It remembers the key
of one of them: where that entry is superseded the content is not fetched, and `prune` looks, seldom and for many at a
time, for another entry that names it. So neither an index over hashes nor a count of names is needed.

Entries that were stored before this table was, and all of them after a change of policy, are gone through once, in
pages, by `catch_up`; ``namespaces.contents_from`` says how far that is.

Outcomes are written without waiting for the disk: what a power cut takes back is tried again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from ...blobs import Hash
from ...storage import Database, lock, tables
from ...storage.prepared import Prepared
from ...transport import EndpointId
from ..errors import UnknownDocument
from ..model.entry import SignedEntry
from ..model.keys import NamespaceId
from ..model.policy import DownloadPolicy
from .rows import missing

__all__ = ["Content", "ContentCounts", "ContentState", "ContentStore", "Due", "Outcome", "note_wanted"]

UNANNOUNCED_US = 2_000_000  # for the content's announcement to come before others are asked
KEEP_HAD_US = 86_400_000_000  # a day
PAGE = 500  # rows in one job
SUSPECTS = 5000  # contents that one pass over a document's entries looks for
UNNAMED_US = 600_000_000  # until a content whose known entry was superseded is looked at again
MAX_ERROR = 200  # characters kept of an error

_WANTED, _HAD = 0, 1
_FIRST_CLEAR = -1  # namespaces.contents_from

_n, _e, _c, _b = (table.c for table in (tables.namespaces, tables.entries, tables.contents, tables.blobs))
_namespace: sa.BindParameter[bytes] = sa.bindparam("namespace")
_this = (_c.namespace == _namespace, _c.hash == sa.bindparam("this"))
# A range of one key: for an equality SQLite walks the document, of which it believes that it has ten entries.
_named = sa.exists().where(_e.namespace == _c.namespace, _e.key >= _c.key, _e.key <= _c.key, _e.hash == _c.hash)
_here = sa.exists().where(_b.hash == _c.hash, _b.state == 1)
_DUE = (_c.hash, _c.size, _c.attempts, _c.due_us, _c.changed_us, _here, _named)

_POLICY = Prepared(sa.select(_n.policy, _n.contents_from).where(_n.namespace == _namespace))
# A row that is there is wanted once more, and stands for the newest entry.
_NOTE = Prepared(
    sa.text(
        """
        INSERT INTO contents (namespace, hash, key, size, state, attempts, due_us, changed_us)
        VALUES (:namespace, :hash, :key, :size, 0, 0, :due, :now)
        ON CONFLICT (namespace, hash) DO UPDATE SET
            key = excluded.key,
            size = CASE WHEN excluded.size > contents.size THEN excluded.size ELSE contents.size END,
            due_us = CASE WHEN contents.state = 1 OR contents.key IS NULL THEN excluded.due_us ELSE contents.due_us END,
            attempts = CASE WHEN contents.state = 1 THEN 0 ELSE contents.attempts END,
            state = 0
        """
    ).bindparams(
        sa.bindparam("namespace", type_=sa.LargeBinary),
        sa.bindparam("hash", type_=sa.LargeBinary),
        sa.bindparam("key", type_=sa.LargeBinary),
        sa.bindparam("size", type_=sa.BigInteger),
        sa.bindparam("due", type_=sa.BigInteger),
        sa.bindparam("now", type_=sa.BigInteger),
    )
)
_CAME = Prepared(
    sa.update(tables.contents)
    .where(*_this)
    .values(
        state=_HAD,
        error=sa.null(),
        peer=sa.bindparam("by"),
        due_us=sa.bindparam("next"),
        changed_us=sa.bindparam("now"),
    )
)
_FAILED = Prepared(
    sa.update(tables.contents)
    .where(*_this, _c.state == _WANTED)
    .values(
        attempts=sa.bindparam("tries"),
        error=sa.bindparam("why"),
        peer=sa.bindparam("by"),
        due_us=sa.bindparam("next"),
        changed_us=sa.bindparam("now"),
    )
)
_SUSPECT = Prepared(
    sa.update(tables.contents)
    .where(*_this, _c.state == _WANTED, sa.not_(_named))
    .values(key=sa.null(), due_us=sa.bindparam("next"), changed_us=sa.bindparam("now"))
)
_forgotten = tables.contents.alias("old")
_FORGET = Prepared(
    sa.delete(tables.contents).where(
        _c.namespace == _namespace,
        _c.hash.in_(
            sa.select(_forgotten.c.hash)
            .where(
                _forgotten.c.namespace == _namespace,
                _forgotten.c.state == _HAD,
                _forgotten.c.due_us < sa.bindparam("now"),
            )
            .limit(sa.bindparam("most"))
        ),
    )
)
_PAGE_OF_DUE = Prepared(
    sa.select(*_DUE)
    .where(
        _c.namespace == _namespace,
        _c.state == _WANTED,
        sa.tuple_(_c.due_us, _c.hash) > sa.tuple_(sa.bindparam("after_due"), sa.bindparam("after_hash")),
    )
    .order_by(_c.due_us, _c.hash)
    .limit(sa.bindparam("most"))
)
_ONE_DUE = Prepared(sa.select(*_DUE).where(*_this, _c.state == _WANTED))
_UNSEEN = Prepared(
    sa.select(_e.seq, _e.hash, _e.size, _e.key)
    .where(_e.namespace == _namespace, _e.seq > sa.bindparam("after"))
    .order_by(_e.seq)
    .limit(sa.bindparam("most"))
)
_SEEN = Prepared(
    sa.update(tables.namespaces)
    .where(_n.namespace == sa.bindparam("id"))
    .values(contents_from=sa.bindparam("position"))
)

ContentState = Literal["wanted", "failed", "had"]


class Due(NamedTuple):
    """A wanted content. ``here``: it came by another way. ``named``: whether its known entry still names it."""

    hash: bytes
    size: int
    attempts: int
    due_us: int
    changed_us: int
    here: bool
    named: bool


class Outcome(NamedTuple):
    """Of an attempt, for one document: ``error`` is None where the content is here. ``peer``: who gave or failed."""

    namespace: bytes
    hash: bytes
    attempts: int
    error: str | None = None
    peer: bytes | None = None
    due_us: int = 0


@dataclass(frozen=True, slots=True)
class ContentCounts:
    """Of a document's contents: not tried yet, tried in vain so far, come within the last day."""

    wanted: int = 0
    failed: int = 0
    had: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """What is known of a document's content; ``next_try`` is in seconds since 1970, of one that is not here."""

    hash: Hash
    size: int
    state: ContentState
    key: bytes | None
    attempts: int
    peer: EndpointId | None
    error: str | None
    next_try: float | None


def note_wanted(connection: sa.Connection, namespace: bytes, entries: Iterable[SignedEntry], now_us: int) -> set[bytes]:
    """In the transaction that stores ``entries``, all of this document: their contents that are not here, by hash.

    Those that the document's policy wants are wanted from now on.
    """
    named = [(entry.record.hash, entry.record.size, entry.id.key) for entry in entries if entry.record.size]
    return _note(connection, namespace, named, now_us)


def _note(
    connection: sa.Connection, namespace: bytes, named: Sequence[tuple[bytes, int, bytes]], now_us: int
) -> set[bytes]:
    absent = missing(connection, {hash for hash, _, _ in named}) if named else set()
    if not absent:
        return absent
    row = _POLICY.first(connection, {"namespace": namespace})
    policy = _policy(None if row is None else row[0])
    _NOTE.run_many(
        connection,
        [
            {"namespace": namespace, "hash": hash, "key": key, "size": size}
            | {"due": now_us + UNANNOUNCED_US, "now": now_us}
            for hash, size, key in named
            if hash in absent and policy.matches(key)
        ],
    )
    return absent


class ContentStore:
    """Times are in microseconds since 1970, and given."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def is_shared(self) -> bool:
        """Whether other processes want contents, too."""
        return self._database.is_shared

    # The policy.

    async def policy(self, namespace: NamespaceId) -> DownloadPolicy:
        """Raises UnknownDocument."""
        where = {"namespace": bytes(namespace)}
        row = await self._database.read(lambda connection: _POLICY.first(connection, where))
        if row is None:
            raise UnknownDocument(f"there is no document {namespace} here: join it with a ticket")
        return _policy(row[0])

    async def set_policy(self, namespace: NamespaceId, policy: DownloadPolicy) -> None:
        """Durable on return; `catch_up` applies it to what is there. Raises UnknownDocument."""
        change = sa.update(tables.namespaces).where(_n.namespace == bytes(namespace))
        change = change.values(policy=policy.encode(), contents_from=_FIRST_CLEAR)

        def job(connection: sa.Connection) -> int:
            lock(connection, bytes(namespace))
            return connection.execute(change).rowcount

        if not await self._database.write(job):
            raise UnknownDocument(f"there is no document {namespace} here: join it with a ticket")

    async def catch_up(self, namespace: NamespaceId, now_us: int) -> bool:
        """Look at the entries that were not looked at, a page in each job. Whether there were any.

        Cancelled, or beside another one, it loses nothing.
        """
        id = bytes(namespace)
        where = {"namespace": id}
        row = await self._database.read(lambda connection: _POLICY.first(connection, where))
        if row is None or row[1] is None:
            return False
        cursor: tuple[bytes | None, bytes] = (None, b"")

        def clear(connection: sa.Connection, policy: bytes | None) -> tuple[bytes | None, bytes]:
            """Forget the next contents that the policy does not want, by the key that is known. How far that is."""
            after = cursor[1] if cursor[0] == policy else b""
            query = sa.select(_c.hash, _c.key).where(_c.namespace == id, _c.hash > after, _c.state == _WANTED)
            rows = connection.execute(query.order_by(_c.hash).limit(PAGE)).all()
            decoded = _policy(policy)
            gone = [hash for hash, key in rows if key is None or not decoded.matches(key)]
            if gone:
                connection.execute(sa.delete(tables.contents).where(_c.namespace == id, _c.hash.in_(gone)))
            if len(rows) < PAGE:
                _SEEN.run(connection, {"id": id, "position": 0})
            return policy, rows[-1][0] if rows else b""

        def step(connection: sa.Connection) -> tuple[bool, tuple[bytes | None, bytes]]:
            lock(connection, id)
            row = _POLICY.first(connection, where)
            if row is None or row[1] is None:
                return False, cursor
            policy, position = row
            if position == _FIRST_CLEAR:
                return True, clear(connection, policy)
            rows = _UNSEEN.all(connection, where | {"after": position, "most": PAGE})
            _note(connection, id, [(hash, size, key) for _, hash, size, key in rows if size], now_us)
            _SEEN.run(connection, {"id": id, "position": rows[-1][0] if len(rows) == PAGE else None})
            return len(rows) == PAGE, cursor

        more = True
        while more:
            more, cursor = await self._database.write(step, durable=False)
        return True

    # What is due.

    async def pending(self, namespaces: Sequence[NamespaceId]) -> dict[bytes, tuple[bool, int | None]]:
        """Of each that is here: whether `catch_up` has work, and when its first content is due."""
        first = sa.select(sa.func.min(_c.due_us)).where(_c.namespace == _n.namespace, _c.state == _WANTED)
        columns = (_n.namespace, _n.contents_from.is_not(None), first.scalar_subquery())
        found: dict[bytes, tuple[bool, int | None]] = {}
        for start in range(0, len(namespaces), PAGE):
            some = [bytes(namespace) for namespace in namespaces[start : start + PAGE]]
            query = sa.select(*columns).where(_n.namespace.in_(some))
            rows = await self._database.read(lambda connection: connection.execute(query).all())  # noqa: B023
            found |= {namespace: (bool(behind), due) for namespace, behind, due in rows}
        return found

    async def due(self, namespace: NamespaceId, after: tuple[int, bytes], limit: int) -> list[Due]:
        """Wanted contents in the order of their time and hash, from behind ``after``."""
        where = {"namespace": bytes(namespace), "after_due": after[0], "after_hash": after[1], "most": limit}
        rows = await self._database.read(lambda connection: _PAGE_OF_DUE.all(connection, where))
        return [_due(row) for row in rows]

    async def wanted_of(self, wishes: Iterable[tuple[bytes, bytes]]) -> dict[tuple[bytes, bytes], Due]:
        """Those of the (namespace, hash) that are wanted."""
        asked = list(wishes)

        def job(connection: sa.Connection) -> dict[tuple[bytes, bytes], Due]:
            found = {}
            for namespace, hash in asked:
                row = _ONE_DUE.first(connection, {"namespace": namespace, "this": hash})
                if row is not None:
                    found[namespace, hash] = _due(row)
            return found

        return await self._database.read(job)

    async def settle(self, outcomes: Sequence[Outcome], now_us: int) -> set[bytes]:
        """Keep what became of attempts. The documents of which some contents may not be named any more."""
        came = [outcome for outcome in outcomes if outcome.error is None]
        failed = [outcome for outcome in outcomes if outcome.error is not None]

        def job(connection: sa.Connection) -> set[bytes]:
            next_us = now_us + KEEP_HAD_US
            _CAME.run_many(connection, [_place(each, now_us) | {"by": each.peer, "next": next_us} for each in came])
            changes = [
                _place(each, now_us)
                | {"by": each.peer, "next": each.due_us, "tries": each.attempts, "why": (each.error or "")[:MAX_ERROR]}
                for each in failed
            ]
            _FAILED.run_many(connection, changes)
            suspects = set()
            for each in failed:
                if _SUSPECT.run(connection, _place(each, now_us) | {"next": now_us + UNNAMED_US}):
                    suspects.add(each.namespace)
            for namespace in {each.namespace for each in outcomes}:
                _FORGET.run(connection, {"namespace": namespace, "now": now_us, "most": PAGE})
            return suspects

        return await self._database.write(job, durable=False) if outcomes else set()

    async def suspect(self, namespace: NamespaceId, hashes: Sequence[bytes], now_us: int) -> None:
        """Set aside contents whose known entry was superseded, until `prune`."""
        rest = {"now": now_us, "next": now_us + UNNAMED_US}
        rows = [{"namespace": bytes(namespace), "this": hash} | rest for hash in hashes]
        await self._database.write(lambda connection: _SUSPECT.run_many(connection, rows), durable=False)

    async def prune(self, namespace: NamespaceId, now_us: int) -> int:
        """Forget contents that were set aside and that no entry names; the others are due. How many were forgotten.

        One pass over the entries, which takes the time of reading them all.
        """
        id = bytes(namespace)
        suspects = sa.select(_c.hash).where(_c.namespace == id, _c.state == _WANTED, _c.key.is_(None)).limit(SUSPECTS)

        def look(connection: sa.Connection) -> tuple[set[bytes], dict[bytes, bytes]]:
            hashes = set(connection.execute(suspects).scalars())
            names = sa.select(_e.hash, _e.key).where(_e.namespace == id, _e.hash.in_(hashes))
            decoded = _policy((_POLICY.first(connection, {"namespace": id}) or (None,))[0])
            named = {hash: key for hash, key in connection.execute(names) if decoded.matches(key)} if hashes else {}
            return hashes, named

        hashes, named = await self._database.read(look)
        gone = sorted(hashes - set(named))

        def job(connection: sa.Connection) -> None:
            still = (_c.namespace == id, _c.state == _WANTED, _c.key.is_(None))  # or a new entry names it
            for start in range(0, len(gone), PAGE):
                connection.execute(sa.delete(tables.contents).where(*still, _c.hash.in_(gone[start : start + PAGE])))
            if named:
                kept = sa.update(tables.contents).where(*still, _c.hash == sa.bindparam("this"))
                kept = kept.values(key=sa.bindparam("its"), due_us=now_us)
                rows = [{"this": hash, "its": key} for hash, key in named.items()]
                connection.execute(kept, rows)

        if hashes:
            await self._database.write(job, durable=False)
        return len(gone)

    # What is told.

    async def counts(self, namespace: NamespaceId) -> ContentCounts:
        """Reads the document's rows of contents, not its entries."""
        tried = sa.case((_c.attempts > 0, 1), else_=0)
        query = sa.select(_c.state, tried, sa.func.count()).where(_c.namespace == bytes(namespace))
        query = query.group_by(_c.state, tried)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        counts = {"wanted": 0, "failed": 0, "had": 0}
        for state, failed, count in rows:
            counts[_state(state, failed)] += count
        return ContentCounts(**counts)

    async def contents(self, namespace: NamespaceId, state: ContentState | None = None) -> AsyncIterator[Content]:
        """By hash, in pages of constant size; of one state, or all."""
        columns = (_c.hash, _c.size, _c.state, _c.key, _c.attempts, _c.peer, _c.error, _c.due_us)
        query = sa.select(*columns).where(_c.namespace == bytes(namespace), _c.hash > sa.bindparam("after"))
        if state is not None:
            query = query.where(_c.state == (_HAD if state == "had" else _WANTED))
        if state in ("wanted", "failed"):
            query = query.where(_c.attempts == 0 if state == "wanted" else _c.attempts > 0)
        page = Prepared(query.order_by(_c.hash).limit(PAGE))
        after = b""
        while rows := await self._database.read(lambda connection: page.all(connection, {"after": after})):  # noqa: B023
            for hash, size, number, key, attempts, peer, error, due_us in rows:
                yield Content(
                    Hash(hash),
                    size,
                    _state(number, attempts),
                    key,
                    attempts,
                    None if peer is None else EndpointId(peer),
                    error,
                    None if number == _HAD else due_us / 1e6,
                )
            after = rows[-1][0]

    async def protected_hashes(self) -> AsyncIterator[Hash]:
        """Of every content that an entry of any document names, superseded ones that are kept included; some twice."""
        for table in (tables.entries, tables.history):
            order = tuple(table.primary_key)
            places = [sa.bindparam(column.name, type_=column.type) for column in order]
            query = sa.select(*order, table.c.hash.label("content")).order_by(*order).limit(PAGE)
            first, further = Prepared(query), Prepared(query.where(sa.tuple_(*order) > sa.tuple_(*places)))
            rows = await self._database.read(lambda connection: first.all(connection, {}))  # noqa: B023
            while rows:
                for row in rows:
                    yield Hash(row[-1])
                where = {column.name: value for column, value in zip(order, rows[-1][:-1], strict=True)}
                rows = await self._database.read(lambda connection: further.all(connection, where))  # noqa: B023


def _policy(data: bytes | None) -> DownloadPolicy:
    return DownloadPolicy() if data is None else DownloadPolicy.decode(data)


def _place(outcome: Outcome, now_us: int) -> dict[str, object]:
    return {"namespace": outcome.namespace, "this": outcome.hash, "now": now_us}


def _due(row: Sequence[Any]) -> Due:
    hash, size, attempts, due_us, changed_us, here, named = row
    return Due(hash, size, attempts, due_us, changed_us, bool(here), bool(named))


def _state(state: int, attempts: int) -> ContentState:
    if state == _HAD:
        return "had"
    return "failed" if attempts else "wanted"
