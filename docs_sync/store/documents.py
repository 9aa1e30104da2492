"""The documents of a node in its database: capabilities, authors, entries, peers to remember.

Every change is one job of the writer, durable when it returns. Signatures of others are checked in threads before,
never in the writer and never on the event loop. Local timestamps only go forward: the later of the clock and the
author's newest entry plus a microsecond, so that neither fast writes nor a clock that was set back lose an entry.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from ...blobs.store import Write
from ...storage import Database, lock, tables
from ...storage.prepared import Prepared
from ...transport import EndpointAddr, EndpointId
from ...transport.postcard import Reader, Writer
from ..errors import BadKey, ClockBehind, InvalidEntry, KeyTooLarge, UnknownAuthor, UnknownDocument
from ..model import reconcile
from ..model.capability import Capability
from ..model.entry import Record, SignedEntry, sign_entry
from ..model.keyed import CheckTooLarge, KeyedSource
from ..model.keys import Author, AuthorId, NamespaceId, NamespaceSecret
from ..model.messages import Abort, SyncMessage, decode_sync, encode_sync
from ..model.put import Put
from ..model.ranges import IdRange
from ..model.reconcile import EMPTY_ID, Limits, Message, RangeItems, Summary, Value, limits_for
from ..model.validity import MAX_KEY_SIZE, check_entry, judge_all
from . import aggregate
from .agreed import agree, recent
from .changes import Changes, Own, announce
from .content_store import note_wanted
from .put_rows import put_entries
from .query import Query, Walk, count_entries, newest_of_key
from .rows import COLUMNS, EntryRows, arrivals, from_row, is_here, known
from .views import View

__all__ = ["DocsStore", "Inserted", "OnStored", "Processed"]

REMEMBERED_PEERS = 5  # useful peers of a document, to dial first after a restart
VERIFY_BATCH = 64  # entries one thread verifies before the next takes over: about 7 ms
FEW_TO_VERIFY = 4  # for which no other thread is worth waking
VERIFY_THREADS = 4
PUT_BATCH = 250  # received entries in one job of the writer, about 10 ms: other writes wait behind it
SIGN_AHEAD = 16  # entries that are worth a way through the threads: signing takes 50 us each
SHORT_MESSAGE = 16_384  # bytes that are decoded on the event loop: under a millisecond

_WRITE, _READ = 1, 2  # namespaces.kind
WHOLE = IdRange(EMPTY_ID, EMPTY_ID)
WHOLE_DOCUMENT = View()
OF_DOCUMENTS = [table for table in tables.metadata.sorted_tables if "namespace" in table.c]
_n, _a, _e, _h, _p = (
    table.c for table in (tables.namespaces, tables.authors, tables.entries, tables.heads, tables.sync_peers)
)
_c = tables.contents.c

_document = tables.namespaces.c.namespace == sa.bindparam("namespace")
_author: sa.BindParameter[bytes] = sa.bindparam("author")
_clock = sa.select(_a.clock_us).where(_a.author == _author).scalar_subquery()
_head = sa.select(_h.timestamp).where(_h.namespace == _n.namespace, _h.author == _author).scalar_subquery()
_last = sa.select(sa.func.max(_e.seq)).where(_e.namespace == _n.namespace).scalar_subquery()
_DOCUMENT = Prepared(sa.select(_n.aggregated, _n.history_us, _clock, _head, _last).where(_document))
_AGGREGATED = Prepared(sa.update(tables.namespaces).where(_n.namespace == sa.bindparam("id")).values(aggregated=True))
_SET_CLOCK = Prepared(
    sa.update(tables.authors).where(_a.author == sa.bindparam("id")).values(clock_us=sa.bindparam("time"))
)
_CHANGES = Prepared(
    sa.select(*COLUMNS, _e.seq)
    .where(_e.namespace == sa.bindparam("namespace"), _e.seq > sa.bindparam("after"))
    .order_by(_e.seq)
    .limit(sa.bindparam("most"))
)
_LAST_SEQ = Prepared(sa.select(sa.func.max(_e.seq)).where(_e.namespace == sa.bindparam("namespace")))


T = TypeVar("T")

OnStored = Callable[[Sequence[Value], Set[bytes]], Awaitable[None]]
"""What a message brought, once it is durable, and the hashes of its contents that are not here."""


def now_us() -> int:
    return time.time_ns() // 1000


class NewEntry(NamedTuple):
    """A local write to be: size 0 with the hash of nothing is a delete. ``content`` stores what it points at."""

    key: bytes
    hash: bytes
    size: int
    content: Write | None = None


class Inserted(NamedTuple):
    """A local write: the entry and how many entries with content it replaced."""

    entry: SignedEntry
    removed: int


class Received(NamedTuple):
    """What became of each entry of others, and the contents of the stored ones that are not here."""

    outcomes: Sequence[Put | InvalidEntry]
    missing: Set[bytes]


class _Standing(NamedTuple):
    """Of a document before it is changed: whether it keeps its history, the latest times of an author, here (``clock``)
    and in this document (``head``), and the latest arrival number."""

    history: bool
    clock: int
    head: int | None
    last_seq: int


class Processed(NamedTuple):
    """Of one sync message: what to send back (nothing: done), what was stored, how many came, what was refused."""

    reply: Message
    stored: Sequence[Value]
    received: int
    rejected: Sequence[InvalidEntry]


class DocsStore:
    """Close it with `aclose`; the database stays open."""

    def __init__(self, database: Database, *, limits: Limits | None = None, clock: Callable[[], int] = now_us) -> None:
        """``clock`` gives microseconds since 1970."""
        self.changed = Changes(database)
        self.own = Own()
        self._longest_key = min(database.longest_key or MAX_KEY_SIZE, MAX_KEY_SIZE)
        self._database = database
        self._limits = limits
        self._clock = clock
        self._times: dict[AuthorId, int] = {}  # the latest that a batch was signed with
        self._aggregated: set[bytes] = set()
        self._summaries: dict[bytes, Summary] = {}  # of documents that did not change since
        self._changes = 0
        self._threads = ThreadPoolExecutor(VERIFY_THREADS, thread_name_prefix="tidings-verify")

    @property
    def is_shared(self) -> bool:
        """Whether other processes write the same documents."""
        return self._database.is_shared

    async def aclose(self) -> None:
        await self.changed.aclose()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    # Capabilities.

    async def add_namespace(self, capability: Capability, prefix: bytes | None = None) -> None:
        """Keep the right to read or write; what is there is only ever widened. Of a document that was not here yet only
        the part below ``prefix`` is held."""
        secret = None if capability.secret is None else capability.secret.to_bytes()
        row = {"namespace": bytes(capability.id), "created_us": self._clock()}
        row |= {"kind": _READ if secret is None else _WRITE, "secret": secret, "aggregated": True}
        row |= {"contents_from": None, "prefix": prefix}  # no entry is older than this

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

    async def prefix(self, namespace: NamespaceId) -> bytes | None:
        """Of the part that is held, None where it is the whole document. Raises UnknownDocument."""
        query = sa.select(_n.prefix).where(_n.namespace == bytes(namespace))
        row = await self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise UnknownDocument(f"there is no document {namespace} here: join it with a ticket")
        return None if row[0] is None else bytes(row[0])

    async def widen(self, namespace: NamespaceId) -> None:
        """Hold the whole document from now on."""
        whole = sa.update(tables.namespaces).where(_n.namespace == bytes(namespace)).values(prefix=None)
        await self._database.write(lambda connection: connection.execute(whole))

    async def namespaces(self) -> list[NamespaceId]:
        """In the order of their creation here."""
        query = sa.select(_n.namespace).order_by(_n.created_us, _n.namespace)
        ids = await self._database.read(lambda connection: connection.execute(query).scalars().all())
        return [NamespaceId(id) for id in ids]

    async def drop(self, namespace: NamespaceId) -> None:
        """Forget the document: its entries, peers and keys. Contents stay with the blobs."""

        def job(connection: sa.Connection) -> None:
            lock(connection, bytes(namespace))
            announce(connection, bytes(namespace))
            for table in OF_DOCUMENTS:
                connection.execute(sa.delete(table).where(table.c.namespace == bytes(namespace)))

        await self._change(bytes(namespace), job, durable=True)

    # Authors.

    async def default_author(self) -> Author:
        """Made at the first call."""

        def job(connection: sa.Connection) -> bytes:
            lock(connection, b"authors")
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
        """`write_batch` of one entry."""
        (inserted,) = await self.write_batch(capability, author, [NewEntry(key, hash, size, content)])
        return inserted

    def check_key(self, key: bytes) -> None:
        """Raises BadKey where it is too long for this database."""
        if len(key) > self._longest_key:
            raise BadKey(f"a key has {len(key)} bytes, at most {self._longest_key} are kept: use a shorter one")

    async def write_batch(self, capability: Capability, author: Author, entries: Sequence[NewEntry]) -> list[Inserted]:
        """Sign and put entries of our own, in their order and in one transaction, contents included.

        Raises ReadOnly, BadKey, ClockBehind, UnknownDocument (dropped meanwhile).
        """
        for entry in entries:
            self.check_key(entry.key)
        secret, namespace = capability.check_writable(), bytes(capability.id)
        signed = await self._sign_ahead(secret, author, entries)

        def job(connection: sa.Connection) -> list[Inserted]:
            history, clock, head, last_seq = self._prepare(connection, namespace, bytes(author.id))
            last = max(clock, head or 0)
            now = self._clock()
            batch = signed
            if not batch or batch[0].record.timestamp <= last:
                batch = _sign(secret, author, entries, max(now, last + 1))
            final = batch[-1]
            if check_entry(final.id, final.record, namespace, now) is not None:
                raise ClockBehind(
                    f"author {author.id.short()} has entries {(final.record.timestamp - now) / 6e7:.0f} minutes ahead "
                    "of this machine's clock: set the clock, or write as another author"
                )
            for entry in entries:
                if entry.content is not None:
                    entry.content(connection)
            outcomes = put_entries(
                connection, namespace, batch, now_us=now, history=history, newest=True, last=(last_seq, head)
            )
            if self.is_shared:
                self.own.add(batch)
            bare = [each for each, entry in zip(batch, entries, strict=True) if entry.size and entry.content is None]
            note_wanted(connection, namespace, bare, now)
            _SET_CLOCK.run(connection, {"id": bytes(author.id), "time": final.record.timestamp})
            return [Inserted(entry, outcome.removed) for entry, outcome in zip(batch, outcomes, strict=True)]

        return await self._change(namespace, job, durable=True) if entries else []

    async def keep(self, contents: Sequence[Write]) -> None:
        """Contents of entries that are to come."""

        def job(connection: sa.Connection) -> None:
            for content in contents:
                content(connection)

        await self._database.write(job)

    async def _sign_ahead(
        self, secret: NamespaceSecret, author: Author, entries: Sequence[NewEntry]
    ) -> list[SignedEntry]:
        """Sign many entries in threads, with times that are very likely right; few are left to the writer's job."""
        if len(entries) < SIGN_AHEAD:
            return []
        first = max(self._clock(), self._times.get(author.id, 0) + 1)
        self._times[author.id] = first + len(entries) - 1
        loop = asyncio.get_running_loop()
        batches = [
            loop.run_in_executor(
                self._threads, _sign, secret, author, entries[start : start + VERIFY_BATCH], first + start
            )
            for start in range(0, len(entries), VERIFY_BATCH)
        ]
        return [entry for batch in await asyncio.gather(*batches) for entry in batch]

    async def _change(self, namespace: bytes, job: Callable[[sa.Connection], T], *, durable: bool = False) -> T:
        """Write, and wake who waits for changes of the document."""
        try:
            return await self._database.write(job, durable)
        finally:
            self._changes += 1
            self._summaries.pop(namespace, None)
            self.changed.tell(namespace)

    def _prepare(self, connection: sa.Connection, namespace: bytes, author: bytes = b"") -> _Standing:
        """Before a document is changed.

        Raises UnknownDocument.
        """
        lock(connection, namespace)
        announce(connection, namespace)
        document = _DOCUMENT.first(connection, {"namespace": namespace, "author": author})
        if document is None:
            raise UnknownDocument(f"document {NamespaceId(namespace).short()} was dropped here")
        aggregated, history_us, clock, head, last_seq = document
        if not aggregated:
            aggregate.build(connection, namespace)
            _AGGREGATED.run(connection, {"id": namespace})
        return _Standing(history_us is not None, clock or 0, head, last_seq or 0)

    async def _ready(self, namespace: NamespaceId) -> bytes:
        """The document's bytes, once its aggregate is there: an older version of tidings wrote none."""
        id = bytes(namespace)
        if id not in self._aggregated:
            where = {"namespace": id, "author": b""}
            document = await self._database.read(lambda connection: _DOCUMENT.first(connection, where))
            if document is None or not document[0]:
                await self._database.write(lambda connection: self._prepare(connection, id))
            self._aggregated.add(id)
        return id

    async def summary(self, namespace: NamespaceId) -> Summary:
        """How many entries there are, tombstones included, and their fingerprint; from the aggregate."""
        id = await self._ready(namespace)
        return await self._database.read(lambda connection: EntryRows(connection, id).summary(WHOLE))

    async def summaries(self, namespaces: Sequence[NamespaceId]) -> dict[NamespaceId, Summary]:
        """`summary` of each that is here. Where nobody else writes the store, what did not change is not read again."""
        known = {id: self._summaries[bytes(id)] for id in namespaces if bytes(id) in self._summaries}
        asked = [bytes(id) for id in namespaces if id not in known]
        if not asked:
            return known
        query = sa.select(_n.namespace, _n.aggregated).where(_n.namespace.in_(asked))

        def read(connection: sa.Connection) -> tuple[dict[bytes, Summary], list[bytes]]:
            rows = connection.execute(query).all()
            found = {id: EntryRows(connection, id).summary(WHOLE) for id, aggregated in rows if aggregated}
            return found, [id for id, aggregated in rows if not aggregated]

        changes = self._changes
        found, unready = await self._database.read(read)
        if changes == self._changes and not self._database.is_shared:
            self._summaries |= found
        for id in unready:
            found[id] = await self.summary(NamespaceId(id))
        return known | {NamespaceId(id): summary for id, summary in found.items()}

    async def changes(self, namespace: NamespaceId, after: int, limit: int) -> list[tuple[int, SignedEntry]]:
        """What arrived after arrival number ``after`` and was not superseded since, in that order."""
        where = {"namespace": bytes(namespace), "after": after, "most": limit}
        rows = await self._database.read(lambda connection: _CHANGES.all(connection, where))
        return [(row[-1], from_row(row)) for row in rows]

    async def arrivals(self, namespace: NamespaceId, after: int, limit: int) -> list[tuple[int, Value]]:
        """`changes`, and whether their contents are here."""
        return await self._database.read(lambda connection: arrivals(connection, bytes(namespace), after, limit))

    async def keys_of_contents(self, namespace: NamespaceId, hashes: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """For each of few contents the key of an entry that names it, where one is known."""
        query = sa.select(_c.hash, _c.key).where(_c.namespace == bytes(namespace), _c.hash.in_(hashes))
        found = await self._database.read(lambda connection: {row[0]: row[1] for row in connection.execute(query)})
        return {hash: found.get(hash) for hash in hashes}

    async def last_seq(self, namespace: NamespaceId) -> int:
        """The number of the latest arrival; 0 where there was none. It only grows."""
        where = {"namespace": bytes(namespace)}
        (last,) = await self._database.read(lambda connection: _LAST_SEQ.first(connection, where))
        return last or 0

    async def judge(self, namespace: NamespaceId, entries: Sequence[SignedEntry]) -> list[InvalidEntry | None]:
        """`validity.judge_all` in threads; of a single entry at once, for the way to a thread takes longer."""
        loop = asyncio.get_running_loop()
        now, id = self._clock(), bytes(namespace)
        if len(entries) == 1:
            judged = judge_all(entries, id, now)
        else:
            size = min(VERIFY_BATCH, max(FEW_TO_VERIFY, -(-len(entries) // VERIFY_THREADS)))
            batches = [entries[start : start + size] for start in range(0, len(entries), size)]
            verdicts = await asyncio.gather(
                *(loop.run_in_executor(self._threads, judge_all, batch, id, now) for batch in batches)
            )
            judged = [verdict for batch in verdicts for verdict in batch]
        if self._longest_key < MAX_KEY_SIZE:
            for index, entry in enumerate(entries):
                if len(entry.id.key) > self._longest_key:
                    judged[index] = judged[index] or KeyTooLarge(
                        f"a key has {len(entry.id.key)} bytes, at most {self._longest_key} fit this node's database"
                    )
        return judged

    async def unknown(self, values: Sequence[Value]) -> list[Value]:
        """Those whose entries are not here: the others need no check of their signatures."""
        return await self._database.read(
            lambda connection: [value for value in values if not is_here(connection, value.entry)]
        )

    async def insert(
        self,
        namespace: NamespaceId,
        entries: Sequence[SignedEntry],
        *,
        durable: bool = False,
        to_first_bad: bool = False,
    ) -> Received:
        """Put entries of others in one transaction. ``durable``: they cannot be had again from where they came.

        ``to_first_bad``: none of those behind one that is not acceptable, which is the last outcome then.
        """
        verdicts = await self.judge(namespace, entries)
        if to_first_bad:
            end = next((index for index, verdict in enumerate(verdicts, 1) if verdict is not None), len(verdicts))
            entries, verdicts = entries[:end], verdicts[:end]
        good = [entry for entry, verdict in zip(entries, verdicts, strict=True) if verdict is None]

        def job(connection: sa.Connection) -> tuple[list[Put], set[bytes]]:
            outcomes = self._put(connection, bytes(namespace), good)
            stored = (entry for entry, outcome in zip(good, outcomes, strict=True) if outcome.stored)
            return outcomes, note_wanted(connection, bytes(namespace), stored, self._clock())

        outcomes, absent = await self._change(bytes(namespace), job, durable=durable) if good else ([], set())
        each = iter(outcomes)
        return Received([next(each) if verdict is None else verdict for verdict in verdicts], absent)

    def _put(self, connection: sa.Connection, namespace: bytes, entries: Sequence[SignedEntry]) -> list[Put]:
        history = self._prepare(connection, namespace).history
        outcomes = put_entries(connection, namespace, entries, now_us=self._clock(), history=history)
        if self.is_shared:
            self.own.add(entry for entry, outcome in zip(entries, outcomes, strict=True) if outcome.stored)
        return outcomes

    async def get(self, namespace: NamespaceId, key: bytes, author: bytes | None = None) -> SignedEntry | None:
        """The newest entry at exactly ``key``, of any author or of ``author``; None where that is a tombstone."""
        id = bytes(namespace)
        entry = await self._database.read(lambda connection: newest_of_key(connection, id, key, author))
        return None if entry is None or entry.record.is_tombstone else entry

    async def query(self, namespace: NamespaceId, query: Query) -> AsyncIterator[SignedEntry]:
        """The entries that ``query`` describes, in pages of constant size."""
        walk = Walk(bytes(namespace), query)
        while not walk.done:
            for entry in await walk.next(self._database):
                yield entry

    async def count(self, namespace: NamespaceId, query: Query) -> int:
        """How many `query` gives."""
        if not query.is_plain:
            walk, count = Walk(bytes(namespace), query), 0
            while not walk.done:
                count += len(await walk.next(self._database))
            return count
        return await self._database.read(lambda connection: count_entries(connection, bytes(namespace), query))

    async def heads(self, namespace: NamespaceId) -> dict[bytes, int]:
        """The time of each author's newest entry, in microseconds."""
        query = sa.select(_h.author, _h.timestamp).where(_h.namespace == bytes(namespace))
        return await self._database.read(lambda connection: {row[0]: row[1] for row in connection.execute(query)})

    # Sync.

    async def limits(self, namespace: NamespaceId, round_trip: float, *, native: bool) -> Limits:
        """For a session with a peer ``round_trip`` seconds away; ``native``: that speaks ``tidings/docs/1``."""
        if self._limits is not None:
            return self._limits
        if native or round_trip < reconcile.FAR:  # the size plays no part, and reading it would be half of the way
            return limits_for(round_trip, 0, lists=native)
        return limits_for(round_trip, (await self.summary(namespace)).size)

    async def initial_message(
        self,
        namespace: NamespaceId,
        view: View = WHOLE_DOCUMENT,
        split: Limits | None = None,
        peer: EndpointId | None = None,
    ) -> Message:
        """See `reconcile.initial_message`; with what arrived since `agree` with ``peer``."""
        id = await self._ready(namespace)

        def read(connection: sa.Connection) -> Message:
            new = None if peer is None else recent(connection, id, bytes(peer))
            return reconcile.initial_message(view.rows(connection, id), split, new)

        return await self._database.read(read)

    async def look(self, namespace: NamespaceId, view: View, read: Callable[[KeyedSource], T]) -> T:
        """What ``read`` makes of the document, or of its part, in one snapshot."""
        id = await self._ready(namespace)
        return await self._database.read(lambda connection: read(view.rows(connection, id)))

    async def decode(self, payload: bytes) -> SyncMessage:
        """In a thread where it is long. Raises DecodeError."""
        if len(payload) < SHORT_MESSAGE:
            return decode_sync(payload)
        return await asyncio.get_running_loop().run_in_executor(self._threads, decode_sync, payload)

    async def encode(self, message: SyncMessage) -> bytes:
        if not isinstance(message, Abort) and sum(1 for _ in reconcile.entries_of(message.message)) > 100:
            return await asyncio.get_running_loop().run_in_executor(self._threads, encode_sync, message)
        return encode_sync(message)

    async def process(
        self,
        namespace: NamespaceId,
        message: Message,
        view: View = WHOLE_DOCUMENT,
        on_stored: OnStored | None = None,
        peer: EndpointId | None = None,
    ) -> Processed:
        """Take what a message brings, tell ``on_stored``, and work out the reply from a snapshot after it.

        ``peer`` is whose first message it is: what arrived since `agree` with it is the reply, where it explains that
        the two differ.

        A message of the second check that asks for more than an honest one would is not answered.

        What is stored survives ``kill -9`` at once, and a power cut from the next durable write on. Cut off at any
        moment, what was stored stays: a document is right whichever part of a message it has.
        """
        id = await self._ready(namespace)
        limits = view.limits or self._limits or Limits()

        def look(connection: sa.Connection) -> tuple[set[SignedEntry], Message | None]:
            here = known(connection, id, message)
            return here, respond(connection, message, []) if here.issuperset(entries) else None

        def job(connection: sa.Connection, piece: Message) -> tuple[reconcile.Taken, set[bytes]]:
            taken = reconcile.take_values(lambda entries: self._put(connection, id, entries), piece)
            return taken, note_wanted(connection, id, (value.entry for value in taken.stored), self._clock())

        def respond(connection: sa.Connection, good: Message, owed: Sequence[bytes]) -> Message:
            new = None if peer is None else recent(connection, id, bytes(peer))
            beside = [value for value in new or () if value.entry not in brought]
            try:
                return reconcile.answer(view.open(connection, id), good, limits, owed, beside)
            except CheckTooLarge:
                return []

        entries, here = reconcile.entries_of(message), set[SignedEntry]()
        brought = set(entries)
        if not entries or any(isinstance(part, RangeItems) and not part.have_local for part in message):
            here, reply = await self._database.read(look)
            if reply is not None:
                return Processed(reply, [], len(entries), [])
        stored: list[Value] = []
        owed: dict[bytes, None] = {}
        absent: set[bytes] = set()
        verdicts: list[InvalidEntry | None] = []
        pieces = list(reconcile.pieces(message, PUT_BATCH, but=here))
        # Signatures of later pieces are checked while an earlier one is written.
        judged = [asyncio.ensure_future(self._judge(namespace, piece, view)) for piece in pieces]
        try:
            for piece, verdict in zip(pieces, judged, strict=True):
                verdicts += await verdict
                good = reconcile.screen(piece, await verdict).message
                taken, gone = await self._change(id, functools.partial(job, piece=good))
                stored += taken.stored
                owed |= dict.fromkeys(taken.owed)
                absent |= gone
        finally:
            for verdict in judged:
                verdict.cancel()
            await asyncio.gather(*judged, return_exceptions=True)
        if stored and on_stored is not None:
            await on_stored(stored, absent)
        judgement = iter(verdicts)
        screened = reconcile.screen(message, [None if entry in here else next(judgement) for entry in entries])
        reply = await self._database.read(lambda connection: respond(connection, screened.message, list(owed)))
        return Processed(reply, stored, len(entries), screened.rejected)

    async def _judge(self, namespace: NamespaceId, piece: Message, view: View) -> list[InvalidEntry | None]:
        entries = reconcile.entries_of(piece)
        objections = [view.objection(entry) for entry in entries]
        if None not in objections:
            return objections
        verdicts = await self.judge(namespace, entries)
        return [objection or verdict for objection, verdict in zip(objections, verdicts, strict=True)]

    async def agree(self, namespace: NamespaceId, peer: EndpointId) -> None:
        """A sync of the whole document with ``peer`` ended, so that both have what is here now."""
        await self._database.write(lambda connection: agree(connection, bytes(namespace), bytes(peer)), durable=False)

    # Peers.

    async def remember_peer(self, namespace: NamespaceId, addr: EndpointAddr) -> None:
        """Keep the peer, with its address of today, among the `REMEMBERED_PEERS` that were useful last."""
        id, peer = bytes(namespace), bytes(addr.id)
        encoded = Writer()
        addr.write(encoded)
        newest = sa.select(_p.peer).where(_p.namespace == id).order_by(_p.last_us.desc()).limit(REMEMBERED_PEERS)

        def job(connection: sa.Connection) -> None:
            gone = sa.delete(tables.sync_peers).where(_p.namespace == id, _p.peer == peer)
            row = {"namespace": id, "peer": peer, "last_us": self._clock(), "addr": encoded.finish()}
            connection.execute(gone)
            connection.execute(sa.insert(tables.sync_peers), row)
            connection.execute(sa.delete(tables.sync_peers).where(_p.namespace == id, _p.peer.not_in(newest)))

        await self._database.write(job)

    async def remembered_peers(self, namespace: NamespaceId) -> list[EndpointAddr]:
        """The most useful first."""
        query = sa.select(_p.addr).where(_p.namespace == bytes(namespace)).order_by(_p.last_us.desc())
        rows = await self._database.read(lambda connection: list(connection.execute(query).scalars()))
        return [EndpointAddr.read(Reader(row)) for row in rows]

    async def all_remembered_peers(self) -> dict[NamespaceId, list[EndpointAddr]]:
        """Of every document, as `remembered_peers`."""
        query = sa.select(_p.namespace, _p.addr).order_by(_p.namespace, _p.last_us.desc())
        found: dict[NamespaceId, list[EndpointAddr]] = {}
        for namespace, addr in await self._database.read(lambda connection: connection.execute(query).all()):
            found.setdefault(NamespaceId(namespace), []).append(EndpointAddr.read(Reader(addr)))
        return found


def _sign(secret: NamespaceSecret, author: Author, entries: Sequence[NewEntry], first: int) -> list[SignedEntry]:
    """With times that begin at ``first`` and grow by a microsecond."""
    return [
        sign_entry(secret, author, entry.key, Record(entry.size, entry.hash, first + index))
        for index, entry in enumerate(entries)
    ]
