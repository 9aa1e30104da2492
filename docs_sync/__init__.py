"""Replicated documents: signed entries, reconciliation, live sync over gossip; iroh's wire (``/iroh-sync/1``)."""

from .access import Access, IssuedShare
from .api import Doc, Docs
from .doc_entry import Entry
from .events import (
    ContentReady,
    DocEvent,
    EventStream,
    InsertLocal,
    InsertRemote,
    Lagged,
    NeighborDown,
    NeighborUp,
    PendingContentReady,
    SyncFinished,
)
from .keys import Author, AuthorId, NamespaceId, NamespaceSecret
from .reconcile import ContentStatus
from .sync import ALPN
from .tickets import DocTicket
from .watch import CaughtUp, Changed, Present, WatchEvent

__all__ = [
    "ALPN",
    "Access",
    "Author",
    "AuthorId",
    "CaughtUp",
    "Changed",
    "ContentReady",
    "ContentStatus",
    "Doc",
    "DocEvent",
    "DocTicket",
    "Docs",
    "Entry",
    "EventStream",
    "InsertLocal",
    "InsertRemote",
    "IssuedShare",
    "Lagged",
    "NamespaceId",
    "NamespaceSecret",
    "NeighborDown",
    "NeighborUp",
    "PendingContentReady",
    "Present",
    "SyncFinished",
    "WatchEvent",
]
