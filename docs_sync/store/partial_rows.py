"""The part of a document below a prefix, as reconciliation reads it.

Ids are ordered by author, then key: below a prefix lies one run of ids for each author. The put rule also needs what
may delete there, the author's entries at proper prefixes of the prefix; these *ancestors*, at most one for each byte of
the prefix, belong to the `part`. `PartialRows` shows the runs as if they were the whole document, so that two peers
reconcile a part with the messages and rules of a whole one.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from ...storage import tables
from ..model.entry import EMPTY_HASH
from ..model.put import prefix_end
from ..model.ranges import IdRange
from ..model.reconcile import Summary, Value
from .put_rows import AFTER_ALL_KEYS
from .rows import EntryRows

__all__ = ["PartialRows"]

_e, _h = tables.entries.c, tables.heads.c


class PartialRows:
    """Good for the transaction of ``connection`` only; a `keyed.KeyedSource`.

    Costs a look at each author of the document, and O(log n) for each that has something there.
    """

    def __init__(self, connection: sa.Connection, namespace: bytes, prefix: bytes) -> None:
        self._rows = EntryRows(connection, namespace)
        self._runs = sorted([*_ancestors(connection, namespace, prefix), *_below(connection, namespace, prefix)])

    @property
    def namespace(self) -> bytes:
        return self._rows.namespace

    def first_id(self) -> bytes | None:
        return self._rows.ids_at(IdRange(*self._runs[0]), [0])[0] if self._runs else None

    def summary(self, range: IdRange) -> Summary:
        count, total = 0, int.from_bytes(EMPTY_HASH, "big")
        for run in self._within(range):
            part = self._rows.summary(run)
            count += part.size
            total ^= int.from_bytes(part.fingerprint, "big") ^ int.from_bytes(EMPTY_HASH, "big")
        return Summary(count, total.to_bytes(32, "big"))

    def ids_at(self, range: IdRange, positions: Sequence[int]) -> list[bytes]:
        ids: list[bytes] = []
        passed = 0
        wanted = list(positions)
        for run in self._within(range):
            size = self._rows.summary(run).size
            here = [position - passed for position in wanted if position < passed + size]
            ids += self._rows.ids_at(run, here)
            del wanted[: len(here)]
            passed += size
        return ids

    def cuts(self, range: IdRange, ways: int, fewest: int) -> list[bytes]:
        size = self.summary(range).size
        ways = min(ways, size)
        return self.ids_at(range, [size * way // ways for way in builtins.range(1, ways)])

    def walk(self, range: IdRange) -> Iterator[Value]:
        for run in self._within(range):
            yield from self._rows.walk(run)

    def listing(self, range: IdRange) -> list[tuple[bytes, bytes]]:
        return [each for run in self._within(range) for each in self._rows.listing(run)]

    def values_of(self, ids: Sequence[bytes]) -> list[Value]:
        return self._rows.values_of(ids)

    def fingerprints(self, range: IdRange) -> Iterator[bytes]:
        for run in self._within(range):
            yield from self._rows.fingerprints(run)

    def _within(self, range: IdRange) -> Iterator[IdRange]:
        """The runs, or what of them lies in the range, in the order of the walk."""
        stretches: list[tuple[bytes, bytes | None]] = [(range.x, range.y)]
        if range.x >= range.y:
            stretches = [(range.x, None), (b"", range.y)]
        for low, high in stretches:
            for first, end in self._runs:
                x, y = max(low, first), end if high is None else min(high, end)
                if x < y:
                    yield IdRange(x, y)


def _ancestors(connection: sa.Connection, namespace: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    keys = [prefix[:size] for size in range(len(prefix))]
    query = sa.select(_e.author, _e.key).where(_e.namespace == namespace)
    for start in range(0, len(keys), 500):
        for author, key in connection.execute(query.where(_e.key.in_(keys[start : start + 500]))):
            id = namespace + author + key
            yield id, id + b"\0"


def _below(connection: sa.Connection, namespace: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    end = prefix_end(prefix)
    there = sa.exists().where(
        _e.namespace == _h.namespace, _e.author == _h.author, _e.key >= prefix, _e.key < (end or AFTER_ALL_KEYS)
    )
    for author in connection.execute(sa.select(_h.author).where(_h.namespace == namespace, there)).scalars():
        stem = namespace + author
        yield stem + prefix, _after(stem) if end is None else stem + end


def _after(stem: bytes) -> bytes:
    """The first id of another author; the stem is never all ff, which is no key."""
    return (int.from_bytes(stem, "big") + 1).to_bytes(len(stem), "big")
