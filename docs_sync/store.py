"""The documents of a node in its database: capabilities, authors, entries, peers to remember.

Every change is one job of the writer, durable when it returns. Signatures of others are checked in threads before,
never in the writer and never on the event loop. Local timestamps only go forward: the later of the clock and the
author's newest entry plus a microsecond, so that neither fast writes nor a clock that was set back lose an entry.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import sqlalchemy as sa

from ..blobs.store import Write
from ..storage import Database, tables
from ..transport import EndpointAddr
from ..transport.postcard import Reader, Writer
from . import reconcile
from .capability import Capability
from .entry import Record, SignedEntry, sign_entry
from .errors import BadKey, ClockBehind, InvalidEntry, UnknownAuthor, UnknownDocument
from .keys import Author, AuthorId, NamespaceId
from .messages import Abort, SyncMessage, decode_sync, encode_sync
from .put import Put, put
from .query import Query, Walk, count_entries, newest_of_key
from .reconcile import Limits, Message, Value
from .rows import EntryRows
from .validity import MAX_KEY_SIZE, check_entry, judge_all

__all__ = ["DocsStore", "Inserted", "Processed"]

REMEMBERED_PEERS = 5  # useful peers of a document, to dial first after a restart
VERIFY_BATCH = 64  # entries one thread verifies before the next takes over: about 20 ms
VERIFY_THREADS = 4
PUT_BATCH = 500  # received entries in one job of the writer, about 0.1 s: other writes wait behind it
SHORT_MESSAGE = 16_384  # bytes that are decoded on the event loop: under a millisecond

_WRITE, _READ = 1, 2  # namespaces.kind
_n, _a, _e, _p, _b = (
    table.c for table in (tables.namespaces, tables.authors, tables.entries, tables.sync_peers, tables.blobs)
)

_NEWEST = sa.select(
    sa.select(sa.func.max(_e.timestamp))
    .where(_e.namespace == sa.bindparam("namespace"), _e.author == sa.bindparam("author"))
    .scalar_subquery(),
    sa.exists().where(_n.namespace == sa.bindparam("namespace")),
)


class Inserted(NamedTuple):
    """A local write: the entry and how many entries with content it replaced."""

    entry: SignedEntry
    removed: int


class Received(NamedTuple):
    """What became of each entry of others, and the contents of the stored ones that are not here."""

    outcomes: Sequence[Put | InvalidEntry]
    missing: Set[bytes]


class Processed(NamedTuple):
    """One sync message: what to send back (nothing: done), what was stored, what was refused.

    ``missing`` are the contents of what was stored that are not here.
    """

    reply: Message
    stored: Sequence[Value]
    missing: Set[bytes]
    received: int
    rejected: Sequence[InvalidEntry]


class DocsStore:
    """Close it with `aclose`; the database stays open."""

    def __init__(self, database: Database, *, limits: Limits | None = None) -> None:
        self._database = database
        self._limits = limits or Limits()
        self._threads = ThreadPoolExecutor(VERIFY_THREADS, thread_name_prefix="tidings-verify")

    async def aclose(self) -> None:
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    # Capabilities.

    async def add_namespace(self, capability: Capability) -> None:
        """Keep the right to read or write; what is there is only ever widened."""
        secret = None if capability.secret is None else capability.secret.to_bytes()
        row = {"namespace": bytes(capability.id), "created_us": _now_us()}
        row |= {"kind": _READ if secret is None else _WRITE, "secret": secret}

        def job(connection: sa.Connection) -> None:
            known = connection.execute(sa.select(_n.kind).where(_n.namespace == row["namespace"])).scalar()
            if known is None:
                connection.execute(sa.insert(tables.namespaces), row)
            elif known == _READ and secret is not None:
                upgrade = sa.update(tables.namespaces).where(_n.namespace == row["namespace"])
                connection.execute(upgrade.values(kind=_WRITE, secret=secret))

        await self._database.write(job)

    async def capability(self, namespace: NamespaceId) -> Capability:
        """Raises UnknownDocument."""
        query = sa.select(_n.secret).where(_n.namespace == bytes(namespace))
        row = await self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise UnknownDocument(f"there is no document {namespace} here: join it with a ticket")
        return Capability.of(namespace, row[0])

    async def namespaces(self) -> list[NamespaceId]:
        """In the order of their creation here."""
        query = sa.select(_n.namespace).order_by(_n.created_us, _n.namespace)
        ids = await self._database.read(lambda connection: connection.execute(query).scalars().all())
        return [NamespaceId(id) for id in ids]

    async def drop(self, namespace: NamespaceId) -> None:
        """Forget the document: its entries, peers and keys. Contents stay with the blobs."""

        def job(connection: sa.Connection) -> None:
            for table in (tables.entries, tables.sync_peers, tables.namespaces):
                connection.execute(sa.delete(table).where(table.c.namespace == bytes(namespace)))

        await self._database.write(job)

    # Authors.

    async def default_author(self) -> Author:
        """Made at the first call."""

        def job(connection: sa.Connection) -> bytes:
            secret: bytes | None = connection.execute(sa.select(_a.secret).where(_a.is_default)).scalar()
            if secret is None:
                author = Author.generate()
                secret = author.to_bytes()
                row = {"author": bytes(author.id), "secret": secret, "is_default": True}
                connection.execute(sa.insert(tables.authors), row)
            return secret

        return Author(await self._database.write(job))

    async def add_author(self, author: Author) -> None:
        def job(connection: sa.Connection) -> None:
            if connection.execute(sa.select(_a.author).where(_a.author == bytes(author.id))).first() is None:
                row = {"author": bytes(author.id), "secret": author.to_bytes(), "is_default": False}
                connection.execute(sa.insert(tables.authors), row)

        await self._database.write(job)

    async def author(self, id: AuthorId) -> Author:
        """Raises UnknownAuthor."""
        query = sa.select(_a.secret).where(_a.author == bytes(id))
        secret = await self._database.read(lambda connection: connection.execute(query).scalar())
        if secret is None:
            raise UnknownAuthor(f"this node does not hold the secret of author {id}")
        return Author(secret)

    async def authors(self) -> list[AuthorId]:
        query = sa.select(_a.author).order_by(_a.is_default.desc(), _a.author)
        return [AuthorId(id) for id in await self._database.read(lambda c: c.execute(query).scalars().all())]

    # Entries.

    async def write(
        self,
        capability: Capability,
        author: Author,
        key: bytes,
        hash: bytes,
        size: int,
        content: Write | None = None,
    ) -> Inserted:
        """Sign and put an entry of our own; size 0 with the hash of nothing is a delete.

        ``content`` stores what the entry points at, in the same transaction.

        Raises ReadOnly, BadKey, ClockBehind, UnknownDocument (dropped meanwhile).
        """
        if len(key) > MAX_KEY_SIZE:
            raise BadKey(f"a key has {len(key)} bytes, at most {MAX_KEY_SIZE} are kept: use a shorter one")
        secret, namespace = capability.check_writable(), bytes(capability.id)
        place = {"namespace": namespace, "author": bytes(author.id)}

        def job(connection: sa.Connection) -> Inserted:
            now = _now_us()
            last, exists = connection.execute(_NEWEST, place).one()
            if not exists:
                raise UnknownDocument(f"document {capability.id.short()} was dropped here")
            record = Record(size, hash, now if last is None else max(now, last + 1))
            entry = sign_entry(secret, author, key, record)
            if check_entry(entry.id, record, namespace, now) is not None:
                raise ClockBehind(
                    f"author {author.id.short()} has entries {(record.timestamp - now) / 6e7:.0f} minutes ahead of "
                    "this machine's clock: set the clock, or write as another author"
                )
            if content is not None:
                content(connection)
            outcome = put(EntryRows(connection, namespace), entry)
            assert outcome.stored, "nothing of the author is newer than its newest entry"
            return Inserted(entry, outcome.removed)

        return await self._database.write(job)

    async def judge(self, namespace: NamespaceId, entries: Sequence[SignedEntry]) -> list[InvalidEntry | None]:
        """`validity.judge_all` in threads."""
        loop = asyncio.get_running_loop()
        batches = [entries[start : start + VERIFY_BATCH] for start in range(0, len(entries), VERIFY_BATCH)]
        now, id = _now_us(), bytes(namespace)
        verdicts = await asyncio.gather(
            *(loop.run_in_executor(self._threads, judge_all, batch, id, now) for batch in batches)
        )
        return [verdict for batch in verdicts for verdict in batch]

    async def insert(self, namespace: NamespaceId, entries: Sequence[SignedEntry]) -> Received:
        """Put entries of others in one transaction."""
        verdicts = await self.judge(namespace, entries)
        good = [entry for entry, verdict in zip(entries, verdicts, strict=True) if verdict is None]

        def job(connection: sa.Connection) -> tuple[list[Put], set[bytes]]:
            rows = EntryRows(connection, bytes(namespace))
            outcomes = [put(rows, entry) for entry in good]
            stored = (entry for entry, outcome in zip(good, outcomes, strict=True) if outcome.stored)
            return outcomes, rows.missing({entry.record.hash for entry in stored})

        outcomes, missing = await self._database.write(job) if good else ([], set())
        each = iter(outcomes)
        return Received([next(each) if verdict is None else verdict for verdict in verdicts], missing)

    async def get(self, namespace: NamespaceId, key: bytes, author: bytes | None = None) -> SignedEntry | None:
        """The newest entry at exactly ``key``, of any author or of ``author``; None where that is a tombstone."""
        id = bytes(namespace)
        entry = await self._database.read(lambda connection: newest_of_key(connection, id, key, author))
        return None if entry is None or entry.record.is_tombstone else entry

    async def query(self, namespace: NamespaceId, query: Query) -> AsyncIterator[SignedEntry]:
        """The entries that ``query`` describes, in pages of constant size."""
        walk = Walk(bytes(namespace), query)
        while not walk.done:
            for entry in await self._database.read(walk.read):
                yield entry

    async def count(self, namespace: NamespaceId, query: Query) -> int:
        """How many `query` gives."""
        if query.newest and query.author is None:
            walk, count = Walk(bytes(namespace), query), 0
            while not walk.done:
                count += len(await self._database.read(walk.read))
            return count
        return await self._database.read(lambda connection: count_entries(connection, bytes(namespace), query))

    async def heads(self, namespace: NamespaceId) -> dict[bytes, int]:
        """The time of each author's newest entry, in microseconds."""
        query = sa.select(_e.author, sa.func.max(_e.timestamp)).where(_e.namespace == bytes(namespace))
        return await self._database.read(lambda c: {row[0]: row[1] for row in c.execute(query.group_by(_e.author))})

    async def missing_content(self, namespace: NamespaceId, limit: int) -> dict[bytes, int]:
        """Contents that entries name and that are not here, at most ``limit``: hash and size, the largest claimed."""
        here = sa.exists().where(_b.hash == _e.hash, _b.state == 1)
        wanted = sa.select(_e.hash, sa.func.max(_e.size)).where(_e.namespace == bytes(namespace), _e.size > 0, ~here)
        return await self._database.read(
            lambda connection: {row[0]: row[1] for row in connection.execute(wanted.group_by(_e.hash).limit(limit))}
        )

    # Sync.

    async def initial_message(self, namespace: NamespaceId) -> Message:
        id = bytes(namespace)
        return await self._database.read(lambda connection: reconcile.initial_message(EntryRows(connection, id)))

    async def decode(self, payload: bytes) -> SyncMessage:
        """In a thread where it is long. Raises DecodeError."""
        if len(payload) < SHORT_MESSAGE:
            return decode_sync(payload)
        return await asyncio.get_running_loop().run_in_executor(self._threads, decode_sync, payload)

    async def encode(self, message: SyncMessage) -> bytes:
        if not isinstance(message, Abort) and sum(1 for _ in reconcile.entries_of(message.message)) > 100:
            return await asyncio.get_running_loop().run_in_executor(self._threads, encode_sync, message)
        return encode_sync(message)

    async def process(self, namespace: NamespaceId, message: Message) -> Processed:
        """Take what a message brings and work out the reply from a snapshot after it.

        Cut off at any moment, what was stored stays: a document is right whichever part of a message it has.
        """
        entries, id = reconcile.entries_of(message), bytes(namespace)
        screened = reconcile.screen(message, await self.judge(namespace, entries))

        def job(connection: sa.Connection, piece: Message) -> tuple[reconcile.Taken, set[bytes]]:
            rows = EntryRows(connection, id)
            taken = reconcile.take_values(rows, piece)
            return taken, rows.missing({value.entry.record.hash for value in taken.stored})

        stored: list[Value] = []
        owed: dict[bytes, None] = {}
        missing: set[bytes] = set()
        for piece in reconcile.pieces(screened.message, PUT_BATCH):
            taken, absent = await self._database.write(functools.partial(job, piece=piece))
            stored += taken.stored
            owed |= dict.fromkeys(taken.owed)
            missing |= absent
        reply = await self._database.read(
            lambda connection: reconcile.answer(EntryRows(connection, id), screened.message, self._limits, list(owed))
        )
        return Processed(reply, stored, missing, len(entries), screened.rejected)

    # Peers.

    async def remember_peer(self, namespace: NamespaceId, addr: EndpointAddr) -> None:
        """Keep the peer, with its address of today, among the `REMEMBERED_PEERS` that were useful last."""
        id, peer = bytes(namespace), bytes(addr.id)
        encoded = Writer()
        addr.write(encoded)
        newest = sa.select(_p.peer).where(_p.namespace == id).order_by(_p.last_us.desc()).limit(REMEMBERED_PEERS)

        def job(connection: sa.Connection) -> None:
            connection.execute(sa.delete(tables.sync_peers).where(_p.namespace == id, _p.peer == peer))
            row = {"namespace": id, "peer": peer, "last_us": _now_us(), "addr": encoded.finish()}
            connection.execute(sa.insert(tables.sync_peers), row)
            connection.execute(sa.delete(tables.sync_peers).where(_p.namespace == id, _p.peer.not_in(newest)))

        await self._database.write(job)

    async def remembered_peers(self, namespace: NamespaceId) -> list[EndpointAddr]:
        """The most useful first."""
        query = sa.select(_p.addr).where(_p.namespace == bytes(namespace)).order_by(_p.last_us.desc())
        rows = await self._database.read(lambda connection: list(connection.execute(query).scalars()))
        return [EndpointAddr.read(Reader(row)) for row in rows]


def _now_us() -> int:
    return time.time_ns() // 1000
