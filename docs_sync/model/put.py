"""The put rule: how an entry meets those that are there (``reference/iroh-protocols.md`` 2.3).

For an entry of some author at key k with record v:

1. where the same author has an entry at a prefix of k (the empty key and k itself included) whose record is v or
   newer, the new entry is refused. *Tombstones count*: a delete holds, whatever arrives later in whatever order;
2. everything of the same author whose key starts with k and whose record is v or older goes;
3. the entry is stored.

This makes documents join semilattices: any two histories that saw the same entries hold the same ones. The reference
skips tombstones and the empty key in step 1, so that deletes come back there; it still converges with us, because we
send the tombstone and never the loser (`reconcile.take_values` says how).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from .entry import EntryId, SignedEntry

__all__ = ["EntryStore", "Put", "prefix_end", "put"]


class EntryStore(Protocol):
    """What the rule needs of a store, within one transaction."""

    def superseding(self, entry: SignedEntry) -> EntryId | None:
        """An entry of the same author at a prefix of the key, or at the key, that is as new or newer."""

    def remove_superseded(self, entry: SignedEntry) -> int:
        """Delete the same author's entries at or below the key that are as old or older. How many had content."""

    def insert(self, entry: SignedEntry) -> None: ...


class Put(NamedTuple):
    """Stored, or refused because of the entry ``superseded_by``.

    ``removed`` counts entries with content that the new one replaced; tombstones that went are not in it.
    """

    superseded_by: EntryId | None
    removed: int

    @property
    def stored(self) -> bool:
        return self.superseded_by is None


def put(store: EntryStore, entry: SignedEntry) -> Put:
    superseding = store.superseding(entry)
    if superseding is not None:
        return Put(superseding, removed=0)
    removed = store.remove_superseded(entry)
    store.insert(entry)
    return Put(None, removed)


def prefix_end(prefix: bytes) -> bytes | None:
    """The first byte string after all that start with ``prefix``; None where there is none (all bytes are ff)."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None
