"""The aggregate of a document as rows: kept in the transaction that changes the entries, so that it is never wrong.

`summary_tree` says what the nodes mean. Which entries begin one is decided by a hash of the id: one entry in `FAN`
begins a node of level 1, one in ``FAN ** 2`` one of level 2 too. So the tree needs no balancing, and two peers with the
same entries have the same nodes. Since whoever may write could choose ids whose hashes begin no node, or too many, two
rules keep every run of nodes short whatever the ids are: a node with more than `CROWDED` children is cut in the middle,
and when the highest level has more than `ROOT` nodes, one more level is begun.

A change costs one row for each level. XOR is its own inverse: what is added and what is removed are the same sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import sqlalchemy as sa
from blake3 import blake3

from ...storage import tables
from ...storage.prepared import Prepared
from ..model.ranges import Bound
from .summary_tree import END, START, Sum, Tree

__all__ = ["CROWDED", "FAN", "ROOT", "build", "read_tree", "remove_range", "update"]

FAN = 32  # children of a node on average: a run is read in one query, and there are four levels in a million entries
CROWDED = 8 * FAN
ROOT = 2 * FAN
AT_ONCE = 5  # levels whose nodes are read in one statement: more than a billion entries have
_BITS = FAN.bit_length() - 1
_EMPTY = bytes(32)

_e, _s = tables.entries.c, tables.summaries.c

_place = sa.tuple_(_s.author, _s.key)
_here = sa.tuple_(sa.bindparam("author"), sa.bindparam("key"))
_low = sa.tuple_(sa.bindparam("low_author"), sa.bindparam("low_key"))
_high = sa.tuple_(sa.bindparam("high_author"), sa.bindparam("high_key"))
_level = (_s.namespace == sa.bindparam("namespace"), _s.level == sa.bindparam("level"))
_node = (*_level, _s.author == sa.bindparam("author"), _s.key == sa.bindparam("key"))
_columns = (_s.author, _s.key, _s.count, _s.fingerprint)

_LEVELS = Prepared(sa.select(sa.func.max(_s.level)).where(_s.namespace == sa.bindparam("namespace")))
_NODES = Prepared(
    sa.select(*_columns).where(*_level, _place >= _low, _place < _high).order_by(_s.author, _s.key),
)
_LEAVES = Prepared(
    sa.select(_e.author, _e.key, sa.literal_column("1"), _e.fingerprint)
    .where(
        _e.namespace == sa.bindparam("namespace"),
        sa.tuple_(_e.author, _e.key) >= _low,
        sa.tuple_(_e.author, _e.key) < _high,
    )
    .order_by(_e.author, _e.key)
)
_NODE = Prepared(sa.select(*_columns).where(*_node))
_AT_OR_BEFORE = Prepared(
    sa.select(*_columns).where(*_level, _place <= _here).order_by(_s.author.desc(), _s.key.desc()).limit(1)
)
_PATH = Prepared(
    sa.union_all(
        *(
            sa.select(
                sa.select(_s.level, *_columns)
                .where(_s.namespace == sa.bindparam("namespace"), _s.level == sa.literal_column(level), _place <= _here)
                .order_by(_s.author.desc(), _s.key.desc())
                .limit(sa.literal_column("1"))
                .subquery()
            )
            for level in map(str, range(1, AT_ONCE + 1))
        )
    )
)
_BEFORE = Prepared(
    sa.select(*_columns).where(*_level, _place < _here).order_by(_s.author.desc(), _s.key.desc()).limit(1)
)
_AFTER = Prepared(
    sa.select(_s.author, _s.key).where(*_level, _place > _here).order_by(_s.author, _s.key).limit(1),
)
_FIRST_NODES = Prepared(sa.select(sa.literal_column("1")).where(*_level).limit(ROOT + 1))
_FIRST_LEAVES = Prepared(
    sa.select(sa.literal_column("1")).where(_e.namespace == sa.bindparam("namespace")).limit(ROOT + 1)
)
_INSERT = Prepared(sa.insert(tables.summaries))
_SET = Prepared(
    sa.update(tables.summaries).where(*_node).values(count=sa.bindparam("sum"), fingerprint=sa.bindparam("total"))
)
_DELETE = Prepared(sa.delete(tables.summaries).where(*_node))
_DELETE_RANGE = Prepared(sa.delete(tables.summaries).where(*_level, _place >= _low, _place < _high))
_CLEAR = Prepared(sa.delete(tables.summaries).where(_s.namespace == sa.bindparam("namespace")))


def height(bound: Bound) -> int:
    """Up to which level the entry begins nodes."""
    number = int.from_bytes(blake3(bound[0] + bound[1]).digest(8), "big") | 1 << 63
    return ((number & -number).bit_length() - 1) // _BITS


def read_tree(connection: sa.Connection, namespace: bytes) -> Tree:
    """For the snapshot, or the moment in a transaction, of ``connection``."""
    rows = _Nodes(connection, namespace)
    return Tree(rows.load, rows.levels())


def update(
    connection: sa.Connection, namespace: bytes, gone: Mapping[Bound, bytes], new: Mapping[Bound, bytes]
) -> None:
    """After the entries changed: ``gone`` and ``new`` map ids to fingerprints; one that was replaced is in both."""
    nodes = _Nodes(connection, namespace)
    changes: dict[Bound, Sum] = {bound: Sum(-1, _number(fingerprint)) for bound, fingerprint in gone.items()}
    for bound, fingerprint in new.items():
        before = changes.get(bound, Sum(0, 0))
        changes[bound] = Sum(before.size + 1, before.total ^ _number(fingerprint))
    if len(changes) == 1 and _update_one(nodes, *next(iter(changes.items()))):
        return
    levels = nodes.levels()
    ordered = sorted(changes.items())
    born = {bound: height(bound) for bound in new.keys() - gone.keys()} if levels else {}
    dead: Iterable[Bound] = gone.keys() - new.keys()
    suspects: list[tuple[int, Bound]] = []  # places where a node may have too many children now
    for level in range(1, levels + 1):
        large = nodes.add(level, ordered)
        dead = [bound for bound in dead if nodes.merge(level, bound)]
        suspects += [(level, bound) for bound in ((*large, *dead) if level == 1 else (*born, *dead))]
        born = {bound: high for bound, high in born.items() if high >= level}
        for bound in sorted(born, reverse=True):  # so that each reads up to the one after it only
            nodes.cut(level, bound)
    for level, bound in suspects:  # when all sums are right again
        nodes.relieve(level, nodes.containing(level, bound))
    if suspects or born or not levels:
        nodes.grow(levels)


def _update_one(nodes: _Nodes, bound: Bound, change: Sum) -> bool:
    """The most frequent change, in two statements; False where it does more than change sums."""
    if change.size < 0 or (change.size and height(bound)):
        return False
    path = nodes.path(bound)
    if not 0 < len(path) < AT_ONCE or path[0][1].size + change.size > CROWDED:
        return False
    nodes.set_path([(start, Sum(sum.size + change.size, sum.total ^ change.total)) for start, sum in path])
    return True


def remove_range(connection: sa.Connection, namespace: bytes, low: Bound, high: Bound, removed: Sum) -> None:
    """After all entries in [low, high) were deleted, whose sum was ``removed``."""
    nodes = _Nodes(connection, namespace)
    merged: list[tuple[int, Bound]] = []
    for level in range(1, nodes.levels() + 1):
        covered = nodes.load(level, low, high)
        _DELETE_RANGE.run(connection, nodes.between(level, low, high))
        start, count, total = nodes.find(_BEFORE, level, low)
        for _, _, more, fingerprint in covered:
            count, total = count + more, total ^ _number(fingerprint)
        nodes.set(level, start, Sum(count - removed.size, total ^ removed.total))
        if level == 1 or covered:
            merged.append((level, start))
    for level, start in merged:  # when all sums are right again
        nodes.relieve(level, nodes.containing(level, start))


def build(connection: sa.Connection, namespace: bytes) -> None:
    """From the entries alone, for documents that have no aggregate yet."""
    nodes = _Nodes(connection, namespace)
    _CLEAR.run(connection, {"namespace": namespace})
    nodes.grow(0)


class _Nodes:
    """The rows of one document in one transaction."""

    def __init__(self, connection: sa.Connection, namespace: bytes) -> None:
        self._connection = connection
        self._namespace = namespace

    def levels(self) -> int:
        (highest,) = _LEVELS.first(self._connection, {"namespace": self._namespace})
        return highest or 0

    def load(self, level: int, low: Bound, high: Bound) -> Sequence[tuple[bytes, bytes, int, bytes]]:
        return (_NODES if level else _LEAVES).all(self._connection, self.between(level, low, high))

    def between(self, level: int, low: Bound, high: Bound) -> dict[str, object]:
        bounds = {"low_author": low[0], "low_key": low[1], "high_author": high[0], "high_key": high[1]}
        return self._first(level) | bounds

    def find(self, query: Prepared, level: int, bound: Bound) -> tuple[Bound, int, int]:
        author, key, count, fingerprint = query.first(self._connection, self._at(level, bound))
        return (author, key), count, _number(fingerprint)

    def containing(self, level: int, bound: Bound) -> Bound:
        return self.find(_AT_OR_BEFORE, level, bound)[0]

    def path(self, bound: Bound) -> list[tuple[Bound, Sum]]:
        """The nodes that contain the entry, from level 1 upward, at most `AT_ONCE`."""
        rows = sorted(_PATH.all(self._connection, self._at(0, bound)))
        return [((author, key), Sum(count, _number(total))) for _, author, key, count, total in rows]

    def set_path(self, nodes: Sequence[tuple[Bound, Sum]]) -> None:
        """One of each level, from level 1 upward."""
        _SET.run_many(
            self._connection, [self._values(level, start, *sum) for level, (start, sum) in enumerate(nodes, 1)]
        )

    def add(self, level: int, changes: Sequence[tuple[Bound, Sum]]) -> list[Bound]:
        """Add the changes, in order, to the nodes that contain them. Returns those that cover more than `CROWDED`."""
        updates = []
        large = []
        position = 0
        while position < len(changes):
            start, count, total = self.find(_AT_OR_BEFORE, level, changes[position][0])
            end = self._after(level, start) if position + 1 < len(changes) else END
            while position < len(changes) and changes[position][0] < end:
                _, change = changes[position]
                count, total = count + change.size, total ^ change.total
                position += 1
            updates.append(self._values(level, start, count, total))
            if count > CROWDED:
                large.append(start)
        _SET.run_many(self._connection, updates)
        return large

    def merge(self, level: int, bound: Bound) -> bool:
        """Where a node begins at ``bound``, add it to the one before: nothing begins there any more."""
        row = _NODE.first(self._connection, self._at(level, bound))
        if row is None:
            return False
        start, count, total = self.find(_BEFORE, level, bound)
        self.set(level, start, Sum(count + row[2], total ^ _number(row[3])))
        _DELETE.run(self._connection, self._at(level, bound))
        return True

    def cut(self, level: int, bound: Bound) -> None:
        """Begin a node at ``bound``, where one of the level below begins."""
        start, count, total = self.find(_BEFORE, level, bound)
        right = _sum(self.load(level - 1, bound, self._after(level, start)))
        self.set(level, start, Sum(count - right.size, total ^ right.total))
        self._insert(level, [(bound, right)])

    def relieve(self, level: int, start: Bound) -> None:
        """Cut a node that has too many children in the middle, and again."""
        children = self.load(level - 1, start, self._after(level, start))
        if len(children) <= CROWDED:
            return
        middle: Bound = children[len(children) // 2][:2]
        self.cut(level, middle)
        self.relieve(level, start)
        self.relieve(level, middle)
        if level < self.levels():
            self.relieve(level + 1, self.containing(level + 1, middle))

    def grow(self, levels: int) -> None:
        """Begin more levels while the highest one is too long."""
        while len((_FIRST_NODES if levels else _FIRST_LEAVES).all(self._connection, self._first(levels))) > ROOT:
            levels += 1
            self._insert_level(levels)

    def set(self, level: int, start: Bound, sum: Sum) -> None:
        _SET.run(self._connection, self._values(level, start, *sum))

    def _insert_level(self, level: int) -> None:
        """The nodes of a level that has none, from the level below."""
        start, count, total, children = START, 0, 0, 0
        made: list[tuple[Bound, Sum]] = []
        for author, key, more, fingerprint in self._below(level):
            bound = (author, key)
            if bound != START and (height(bound) >= level or children >= CROWDED):
                made.append((start, Sum(count, total)))
                start, count, total, children = bound, 0, 0, 0
                if len(made) >= 1000:
                    self._insert(level, made)
                    made = []
            count, total, children = count + more, total ^ _number(fingerprint), children + 1
        self._insert(level, [*made, (start, Sum(count, total))])

    def _below(self, level: int) -> Iterator[tuple[bytes, bytes, int, bytes]]:
        """The whole level below, read in pieces."""
        table = tables.entries if level == 1 else tables.summaries
        place = sa.tuple_(table.c.author, table.c.key)
        count = sa.literal_column("1") if level == 1 else _s.count
        query = sa.select(table.c.author, table.c.key, count, table.c.fingerprint)
        query = query.where(table.c.namespace == self._namespace)
        if level > 1:
            query = query.where(_s.level == level - 1)
        after: Bound | None = None
        while True:
            page = query if after is None else query.where(place > sa.tuple_(*map(sa.literal, after)))
            rows = self._connection.execute(page.order_by(table.c.author, table.c.key).limit(4096)).all()
            for row in rows:
                yield row[0], row[1], row[2], row[3]
            if len(rows) < 4096:
                return
            after = (rows[-1][0], rows[-1][1])

    def _insert(self, level: int, made: Sequence[tuple[Bound, Sum]]) -> None:
        rows = []
        for (author, key), (count, total) in made:
            row = {"namespace": self._namespace, "level": level, "author": author, "key": key}
            rows.append(row | {"count": count, "fingerprint": total.to_bytes(32, "big")})
        _INSERT.run_many(self._connection, rows)

    def _first(self, level: int) -> dict[str, object]:
        return {"namespace": self._namespace} | ({"level": level} if level else {})

    def _after(self, level: int, start: Bound) -> Bound:
        """Where the node that begins at ``start`` ends."""
        row = _AFTER.first(self._connection, self._at(level, start))
        return END if row is None else (row[0], row[1])

    def _at(self, level: int, bound: Bound) -> dict[str, object]:
        return {"namespace": self._namespace, "level": level, "author": bound[0], "key": bound[1]}

    def _values(self, level: int, start: Bound, count: int, total: int) -> dict[str, object]:
        return self._at(level, start) | {"sum": count, "total": total.to_bytes(32, "big")}


def _number(fingerprint: bytes) -> int:
    return int.from_bytes(fingerprint, "big")


def _sum(rows: Sequence[tuple[bytes, bytes, int, bytes]]) -> Sum:
    count, total = 0, 0
    for _, _, more, fingerprint in rows:
        count, total = count + more, total ^ _number(fingerprint)
    return Sum(count, total)
