"""What one session sees of a document, and what it lets in.

A *view* is a whole document or the part below a prefix, with plain fingerprints or with those of the second check, and
says whether the peer may bring entries. `DocsStore.process` reads and writes through it.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from ..errors import InvalidEntry, OutsidePart, Unwelcome
from ..model.entry import SignedEntry
from ..model.keyed import KeyedRange, KeyedSource
from ..model.part import in_part
from ..model.reconcile import Limits, RangeStore
from .partial_rows import PartialRows
from .rows import EntryRows

__all__ = ["View"]


@dataclass(frozen=True, slots=True)
class View:
    limits: Limits | None = None
    """None: those of the store."""
    prefix: bytes | None = None
    """Of the part that is synced; None for the whole document."""
    key: bytes | None = None
    """Of the second check; None in the first pass."""
    takes: bool = True
    """Whether entries of the peer are stored."""

    def rows(self, connection: sa.Connection, namespace: bytes) -> KeyedSource:
        """The document or its part, with plain fingerprints."""
        if self.prefix is None:
            return EntryRows(connection, namespace)
        return PartialRows(connection, namespace, self.prefix)

    def open(self, connection: sa.Connection, namespace: bytes) -> RangeStore:
        """For one message."""
        rows = self.rows(connection, namespace)
        return rows if self.key is None else KeyedRange(rows, self.key)

    def objection(self, entry: SignedEntry) -> InvalidEntry | None:
        """Why an entry that may be good is not stored through this view."""
        if not self.takes:
            return Unwelcome("the access hook takes no entries from this peer")
        if self.prefix is not None and not in_part(entry.id.key, self.prefix):
            return OutsidePart("an entry lies outside of the part of the document that is synced")
        return None
