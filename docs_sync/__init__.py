"""Replicated documents: signed entries, reconciliation, live sync over gossip; iroh's wire (``/iroh-sync/1``)."""

from .access import Access, IssuedShare
from .api import Doc, Docs
from .batch import Batch
from .content_store import Content, ContentCounts, ContentState
from .doc_entry import Entry
from .entries import Entries
from .events import (
    ContentReady,
    DocEvent,
    EventStream,
    InsertLocal,
    InsertRemote,
    InsertShared,
    Lagged,
    NeighborDown,
    NeighborUp,
    PendingContentReady,
    SyncFinished,
)
from .folders import Copied, FileCopied
from .history import Superseded
from .jsonl import Exported, Imported
from .keys import Author, AuthorId, NamespaceId, NamespaceSecret
from .policy import DownloadPolicy, Exact, Prefix
from .reconcile import ContentStatus
from .sync import ALPN
from .tickets import DocTicket
from .watch import CaughtUp, Changed, Present, WatchEvent

__all__ = [
    "ALPN",
    "Access",
    "Author",
    "AuthorId",
    "Batch",
    "CaughtUp",
    "Changed",
    "Content",
    "ContentCounts",
    "ContentReady",
    "ContentState",
    "ContentStatus",
    "Copied",
    "Doc",
    "DocEvent",
    "DocTicket",
    "Docs",
    "DownloadPolicy",
    "Entries",
    "Entry",
    "EventStream",
    "Exact",
    "Exported",
    "FileCopied",
    "Imported",
    "InsertLocal",
    "InsertRemote",
    "InsertShared",
    "IssuedShare",
    "Lagged",
    "NamespaceId",
    "NamespaceSecret",
    "NeighborDown",
    "NeighborUp",
    "PendingContentReady",
    "Prefix",
    "Present",
    "Superseded",
    "SyncFinished",
    "WatchEvent",
]
