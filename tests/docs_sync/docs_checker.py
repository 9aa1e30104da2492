"""What must hold of a document's rows at any moment, recomputed from the entries alone; and two stores that sync."""

import random
from bisect import bisect_left
from itertools import pairwise

import sqlalchemy as sa
from tidings.docs_sync.model.entry import EMPTY_HASH, EntryId, Record, SignedEntry, fingerprint_of
from tidings.docs_sync.model.messages import Init, Sync
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.validity import check_entry, verify_all
from tidings.docs_sync.store import aggregate
from tidings.docs_sync.store.rows import EntryRows
from tidings.docs_sync.store.summary_tree import END, START, Sum
from tidings.storage import tables

FAR_FUTURE = 1 << 62
_n, _e, _h, _s, _t = (
    table.c for table in (tables.namespaces, tables.entries, tables.heads, tables.summaries, tables.history)
)
SIGNED = ("namespace", "author", "key", "size", "hash", "timestamp", "author_sig", "namespace_sig")


class Model:
    """The put rule in ten lines: what a document must hold after all that was put, in any order."""

    def __init__(self) -> None:
        self._held: dict[bytes, dict[bytes, SignedEntry]] = {}

    def put(self, entry: SignedEntry) -> None:
        mine, key, order = self._held.setdefault(entry.id.author, {}), entry.id.key, entry.record.order
        prefixes = (mine.get(key[:size]) for size in range(len(key) + 1))
        if any(old is not None and old.record.order >= order for old in prefixes):
            return
        for below in [k for k, old in mine.items() if k.startswith(key) and old.record.order <= order]:
            del mine[below]
        mine[key] = entry

    @property
    def entries(self) -> list[SignedEntry]:
        """In the order of ids."""
        return [mine[key] for _, mine in sorted(self._held.items()) for key in sorted(mine)]


def entries_of(connection, namespace: bytes, table=tables.entries) -> list[SignedEntry]:
    """In the order of ids, or of history."""
    query = sa.select(*(table.c[name] for name in SIGNED)).where(table.c.namespace == namespace)
    rows = connection.execute(query.order_by(table.c.author, table.c.key, table.c.timestamp)).all()
    return [SignedEntry(EntryId(*row[:3]), Record(*row[3:6]), row[6], row[7]) for row in rows]


def verify_document(connection, namespace: bytes, *, signatures: int = 20) -> list[SignedEntry]:
    """Check every row of the document, ``signatures`` of them by chance. Returns the entries, in order."""
    entries = entries_of(connection, namespace)
    rng = random.Random(len(entries))
    stored = connection.execute(
        sa.select(_e.fingerprint, _e.seq).where(_e.namespace == namespace).order_by(_e.author, _e.key)
    ).all()
    assert [row[0] for row in stored] == [fingerprint_of(entry.id, entry.record) for entry in entries]
    assert len({row[1] for row in stored} - {0}) == len(stored), "an arrival number was given twice"
    assert all(check_entry(entry.id, entry.record, namespace, FAR_FUTURE) is None for entry in entries)
    assert all(verify_all(rng.sample(entries, min(len(entries), signatures))))
    _verify_put_rule(entries)
    _verify_heads(connection, namespace, entries)
    _verify_history(connection, namespace, entries)
    if connection.execute(sa.select(_n.aggregated).where(_n.namespace == namespace)).scalar():
        verify_aggregate(connection, namespace, entries, rng)
    return entries


def _verify_put_rule(entries) -> None:
    """Nothing that is there supersedes something that is there, too."""
    above: list[SignedEntry] = []  # the entries at prefixes of the key
    for entry in entries:
        while above and not (above[-1].id.author == entry.id.author and entry.id.key.startswith(above[-1].id.key)):
            above.pop()
        assert all(other.record.order < entry.record.order for other in above)
        above.append(entry)


def _verify_heads(connection, namespace: bytes, entries) -> None:
    """The newest entry of an author is never superseded, so heads are exactly the newest times."""
    newest: dict[bytes, int] = {}
    for entry in entries:
        newest[entry.id.author] = max(entry.record.timestamp, newest.get(entry.id.author, 0))
    heads = connection.execute(sa.select(_h.author, _h.timestamp).where(_h.namespace == namespace)).all()
    assert {row[0]: row[1] for row in heads} == newest


def _verify_history(connection, namespace: bytes, entries) -> None:
    """Every entry of the past is superseded by one of the present: a later one, or one as late at a proper prefix."""
    present = {(entry.id.author, entry.id.key): entry.record.order for entry in entries}
    for old in entries_of(connection, namespace, tables.history):
        author, key = old.id.author, old.id.key
        above = [present.get((author, key[:size]), (-1, b"")) for size in range(len(key))]
        assert any(order >= old.record.order for order in above) or present[author, key] > old.record.order


def verify_aggregate(connection, namespace: bytes, entries, rng: random.Random) -> None:
    ids = [(entry.id.author, entry.id.key) for entry in entries]
    sums = [Sum(0, 0)]
    for entry in entries:
        fingerprint = int.from_bytes(fingerprint_of(entry.id, entry.record))
        sums.append(Sum(sums[-1].size + 1, sums[-1].total ^ fingerprint))
    query = sa.select(_s.level, _s.author, _s.key, _s.count, _s.fingerprint).where(_s.namespace == namespace)
    levels: dict[int, list] = {}
    for level, *row in connection.execute(query.order_by(_s.level, _s.author, _s.key)).all():
        levels.setdefault(level, []).append(row)
    assert sorted(levels) == list(range(1, len(levels) + 1)), "a level is missing"
    below = ids
    for level in sorted(levels):
        starts = [(author, key) for author, key, _, _ in levels[level]]
        assert starts[0] == START
        assert set(starts[1:]) <= set(below), "a node begins where none begins below"
        for (low, high), (_, _, count, fingerprint) in zip(pairwise([*starts, END]), levels[level], strict=True):
            first, last = sums[bisect_left(ids, low)], sums[bisect_left(ids, high)]
            assert (count, int.from_bytes(fingerprint)) == (last.size - first.size, last.total ^ first.total)
            assert bisect_left(below, high) - bisect_left(below, low) <= aggregate.CROWDED
        below = starts
    assert len(below) <= aggregate.ROOT + 1
    tree = aggregate.read_tree(connection, namespace)
    assert tree.total == sums[-1]
    for bound in (START, END, *rng.sample(ids, min(len(ids), 20)), (rng.randbytes(32), b"a")):
        assert tree.before(bound) == sums[bisect_left(ids, bound)]
    for position in rng.sample(range(len(ids)), min(len(ids), 20)):
        assert tree.at(position) == ids[position]
    check_cuts(tree, ids, rng)
    whole = EntryRows(connection, namespace).summary(IdRange(bytes(64), bytes(64)))
    assert whole == (len(ids), (sums[-1].total ^ int.from_bytes(EMPTY_HASH)).to_bytes(32))


def check_cuts(tree, ids, rng: random.Random) -> None:
    """In the order of ids, inside of the range, never its first, at most as many as asked for, and about even."""
    low, high = sorted(rng.choices([START, END, *ids], k=2))
    inside = ids[bisect_left(ids, low) : bisect_left(ids, high)]
    ways, fewest = rng.randrange(2, 40), rng.randrange(1, 80)
    cuts = tree.cuts(low, high, ways, fewest)
    assert cuts == sorted(set(cuts))
    assert set(cuts) <= set(inside[1:])
    assert len(cuts) < ways
    assert len(inside) < 2 or cuts
    if fewest >= len(inside):  # then any id will do
        assert len(cuts) == min(ways, max(1, len(inside))) - 1
        runs = [bisect_left(inside, b) - bisect_left(inside, a) for a, b in pairwise([START, *cuts, END])]
        assert max(runs) - min(runs) <= 1


def arrivals(connection, namespace: bytes) -> dict[tuple, int]:
    """The arrival number of each entry."""
    query = sa.select(_e.author, _e.key, _e.timestamp, _e.hash, _e.seq).where(_e.namespace == namespace)
    return {tuple(row[:4]): row[4] for row in connection.execute(query)}


async def sync_stores(namespace, dialler, acceptor) -> int:
    """One session between two `DocsStore`s, through the bytes of the messages. How many messages it took."""
    message = await dialler.initial_message(namespace)
    sides, count = (acceptor, dialler), 0
    payload = await dialler.encode(Init(bytes(namespace), message))
    while True:
        side = sides[count % 2]
        count += 1
        assert count < 1000, "the session does not end"
        received = await side.decode(payload)
        result = await side.process(namespace, received.message)
        assert not result.rejected
        if not result.reply:
            return count
        payload = await side.encode(Sync(result.reply))
