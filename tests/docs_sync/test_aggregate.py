"""The aggregate equals a scan, whatever came and went, and no run of nodes grows long."""

from __future__ import annotations

import os
import random
from bisect import bisect_left
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from docs_checker import check_cuts
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.model.ranges import Bound
from tidings.docs_sync.store import aggregate
from tidings.docs_sync.store.summary_tree import END, START, Sum
from tidings.storage import schema, tables
from tidings.storage.engine import writer_engine

NAMESPACE = bytes(32)


@pytest.fixture
def connection() -> Iterator[sa.Connection]:
    yield from make_connection()


def make_connection() -> Iterator[sa.Connection]:
    engine = writer_engine(None)
    with engine.connect() as connection:
        schema.create(connection)
        yield connection
    engine.dispose()


class Document:
    """Entries in a dict, and in the tables with their aggregate."""

    def __init__(self, connection: sa.Connection) -> None:
        self.entries: dict[Bound, bytes] = {}
        self.connection = connection

    def change(self, gone: set[Bound], new: dict[Bound, bytes]) -> None:
        e = tables.entries.c
        before = {bound: self.entries.pop(bound) for bound in gone}
        before |= {bound: self.entries[bound] for bound in new if bound in self.entries}
        self.entries |= new
        for author, key in before:
            query = sa.delete(tables.entries).where(e.namespace == NAMESPACE, e.author == author, e.key == key)
            self.connection.execute(query)
        rows = [self.row(bound, fingerprint) for bound, fingerprint in new.items()]
        if rows:
            self.connection.execute(sa.insert(tables.entries), rows)
        aggregate.update(self.connection, NAMESPACE, before, new)

    def row(self, bound: Bound, fingerprint: bytes) -> dict[str, object]:
        row = {"namespace": NAMESPACE, "author": bound[0], "key": bound[1], "timestamp": 0, "hash": bytes(32)}
        return row | {"size": 0, "author_sig": b"", "namespace_sig": b"", "fingerprint": fingerprint, "seq": 0}

    def check(self, rng: random.Random) -> None:
        tree = aggregate.read_tree(self.connection, NAMESPACE)
        ids = sorted(self.entries)
        sums = [Sum(0, 0)]
        for bound in ids:
            sums.append(Sum(sums[-1].size + 1, sums[-1].total ^ int.from_bytes(self.entries[bound], "big")))
        assert tree.total == sums[-1]
        probes = [START, END, *rng.sample(ids, min(len(ids), 40)), *(random_bound(rng) for _ in range(10))]
        for bound in probes:
            assert tree.before(bound) == sums[bisect_left(ids, bound)]
        for position in rng.sample(range(len(ids)), min(len(ids), 40)):
            assert tree.at(position) == ids[position]
        check_cuts(tree, ids, rng)

    def check_nodes(self) -> None:
        """Every row, and that no run is longer than it may be."""
        s = tables.summaries.c
        levels = self.connection.execute(sa.select(sa.func.max(s.level))).scalar() or 0
        below = sorted(self.entries)
        for level in range(1, levels + 1):
            query = sa.select(s.author, s.key, s.count, s.fingerprint).where(s.level == level)
            rows = self.connection.execute(query.order_by(s.author, s.key)).all()
            starts = [(row[0], row[1]) for row in rows]
            assert starts[0] == START
            assert set(starts[1:]) <= set(below)
            for row, start, end in zip(rows, starts, [*starts[1:], END], strict=True):
                inside = [value for bound, value in self.entries.items() if start <= bound < end]
                assert row[2] == len(inside)
                total = 0
                for value in inside:
                    total ^= int.from_bytes(value, "big")
                assert int.from_bytes(row[3], "big") == total
                assert bisect_left(below, end) - bisect_left(below, start) <= aggregate.CROWDED
            below = starts
        assert len(below) <= aggregate.ROOT + 1


def random_bound(rng: random.Random) -> Bound:
    return rng.choice((b"a", b"b", b"c")) * 32, b"%d" % rng.randrange(3000)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_random_changes(seed: int) -> None:
    rng = random.Random(seed)
    for connection in make_connection():
        document = Document(connection)
        with connection.begin():
            for _ in range(rng.randrange(1, 25)):
                gone = set(rng.sample(sorted(document.entries), rng.randrange(min(len(document.entries), 200) + 1)))
                new = {random_bound(rng): rng.randbytes(32) for _ in range(rng.choice((1, 1, 5, 300)))}
                document.change(gone - new.keys(), new)
                document.check(rng)
            document.check_nodes()
            connection.execute(sa.delete(tables.summaries))
            aggregate.build(connection, NAMESPACE)
            document.check_nodes()
            document.check(rng)


@pytest.mark.parametrize("high", [False, True])
def test_chosen_ids_make_no_long_runs(connection: sa.Connection, high: bool) -> None:
    """A writer who picks keys that begin no node, or only such that do."""
    rng = random.Random(1)
    keys = (b"%d" % n for n in range(200_000))
    chosen = [(bytes(32), key) for key in keys if (aggregate.height((bytes(32), key)) > 0) == high][:2000]
    document = Document(connection)
    with connection.begin():
        for start in range(0, len(chosen), 100):
            document.change(set(), {bound: os.urandom(32) for bound in chosen[start : start + 100]})
        document.check_nodes()
        document.check(rng)
        for start in range(0, 1900, 100):
            document.change(set(chosen[start : start + 100]), {})
        document.check_nodes()
        document.check(rng)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_whole_ranges_go(seed: int) -> None:
    rng = random.Random(seed)
    for connection in make_connection():
        document = Document(connection)
        with connection.begin():
            document.change(set(), {random_bound(rng): rng.randbytes(32) for _ in range(rng.choice((10, 2000)))})
            for _ in range(3):
                low, high = sorted((random_bound(rng), random_bound(rng)))
                tree = aggregate.read_tree(connection, NAMESPACE)
                first, last = tree.before(low), tree.before(high)
                removed = Sum(last.size - first.size, last.total ^ first.total)
                place = sa.tuple_(tables.entries.c.author, tables.entries.c.key)
                inside = (place >= sa.tuple_(*map(sa.literal, low)), place < sa.tuple_(*map(sa.literal, high)))
                connection.execute(sa.delete(tables.entries).where(*inside))
                aggregate.remove_range(connection, NAMESPACE, low, high, removed)
                document.entries = {b: v for b, v in document.entries.items() if not low <= b < high}
                document.check_nodes()
                document.check(rng)


def test_every_query_goes_by_an_index(connection: sa.Connection) -> None:
    with connection.begin():
        for name, prepared in vars(aggregate).items():
            if isinstance(prepared, aggregate.Prepared) and name != "_INSERT":
                text, _ = prepared._text(connection)
                names = {part.split()[0].strip(",() ") for part in text.split(":")[1:]}
                plan = connection.connection.cursor().execute(
                    f"EXPLAIN QUERY PLAN {text}", {name.strip(): b"" for name in names}
                )
                steps = [step for *_, step in plan.fetchall()]
                assert any(step.startswith("SEARCH") for step in steps)
                assert not any(step.startswith(("SCAN entries", "SCAN summaries")) for step in steps), (
                    f"{name}: {steps}"
                )
