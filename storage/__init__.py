"""Rows and files that survive: the database of a node, and durable files beside it. Knows no protocol."""

from __future__ import annotations

from .database import Database
from .errors import (
    BadDatabaseURL,
    Damaged,
    DatabaseClosed,
    DatabaseUnreachable,
    DiskFailed,
    DiskFull,
    Locked,
    NotWritable,
    TooNew,
)
from .locks import lock
from .notices import Notices, notify

__all__ = [
    "BadDatabaseURL",
    "Damaged",
    "Database",
    "DatabaseClosed",
    "DatabaseUnreachable",
    "DiskFailed",
    "DiskFull",
    "Locked",
    "NotWritable",
    "Notices",
    "TooNew",
    "lock",
    "notify",
]
