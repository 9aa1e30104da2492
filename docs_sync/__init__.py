"""Replicated documents: signed entries, reconciliation, live sync over gossip; iroh's wire (``/iroh-sync/1``)."""

from .access.control import Access, IssuedShare
from .access.tickets import DocTicket
from .bulk.batch import Batch
from .bulk.folders import Copied, FileCopied
from .bulk.history import Superseded
from .bulk.jsonl import Exported, Imported
from .bulk.watch import CaughtUp, Changed, Present, WatchEvent
from .doc import Doc
from .doc_entry import Entry
from .docs import Docs
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
from .model.keys import Author, AuthorId, NamespaceId, NamespaceSecret
from .model.policy import DownloadPolicy, Exact, Prefix
from .model.reconcile import ContentStatus
from .store.content_store import Content, ContentCounts, ContentState
from .sync.session import ALPN

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
