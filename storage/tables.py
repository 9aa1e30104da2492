"""The tables, as they are after the newest migration.

A new database is made from these definitions and marked with the newest revision; an older one is brought here by
the migrations. ``tests/storage/test_schema.py`` holds the two equal. Ids, hashes, keys and signatures are raw bytes:
SQLite compares them as memcmp does, so the order of rows by (namespace, author, key) is the order on the wire.
Times ending in ``_us`` and entries' timestamps are microseconds since 1970. Integers are signed 64-bit.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table

__all__ = ["authors", "blobs", "entries", "metadata", "mirror_files", "namespaces", "sync_peers", "tags"]

metadata = MetaData()

# kind: 1 may write (secret is the namespace's secret key), 2 may only read (secret is null).
namespaces = Table(
    "namespaces",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("kind", SmallInteger, nullable=False),
    Column("secret", LargeBinary(32)),
    Column("created_us", BigInteger, nullable=False),
)

authors = Table(
    "authors",
    metadata,
    Column("author", LargeBinary(32), primary_key=True),
    Column("secret", LargeBinary(32), nullable=False),
    Column("is_default", Boolean, nullable=False),
)

# Signed entries of every document. fingerprint is the reconciliation fingerprint of this entry alone.
entries = Table(
    "entries",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("author", LargeBinary(32), primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    Column("timestamp", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("author_sig", LargeBinary(64), nullable=False),
    Column("namespace_sig", LargeBinary(64), nullable=False),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Index("entries_by_key", "namespace", "key", "author"),
    Index("entries_by_time", "namespace", "author", "timestamp"),
    sqlite_with_rowid=False,
)

# Peers that a document was synced with, to dial first after a restart; `addr`, the last known address, is opaque here.
sync_peers = Table(
    "sync_peers",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("peer", LargeBinary(32), primary_key=True),
    Column("last_us", BigInteger, nullable=False),
    Column("addr", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# state: 0 partial, 1 complete. data and outboard are null where they live in files.
blobs = Table(
    "blobs",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("added_us", BigInteger, nullable=False),
    Column("outboard", LargeBinary),
    Column("data", LargeBinary),
)

# format: 0 a blob, 1 a sequence of hashes.
tags = Table(
    "tags",
    metadata,
    Column("name", LargeBinary, primary_key=True),
    Column("hash", LargeBinary(32), nullable=False),
    Column("format", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# What ``tidings sync`` last saw equal in the folder and in the document. folder and path are file-system bytes; hash is
# null where the file was on neither side. seen: others' versions taken into account, each author 32 and time u64 BE.
mirror_files = Table(
    "mirror_files",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("folder", LargeBinary, primary_key=True),
    Column("path", LargeBinary, primary_key=True),
    Column("hash", LargeBinary(32)),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("seen", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
