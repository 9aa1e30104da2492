"""Rows and files that survive: the database of a node, and durable files beside it. Knows no protocol."""

from __future__ import annotations

from .database import Database
from .errors import Damaged, DatabaseClosed, DiskFailed, DiskFull, Locked, NotWritable, TooNew

__all__ = ["Damaged", "Database", "DatabaseClosed", "DiskFailed", "DiskFull", "Locked", "NotWritable", "TooNew"]
