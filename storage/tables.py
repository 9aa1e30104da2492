"""The tables, as they are after the newest migration.

A new database is made from these definitions and marked with the newest revision; an older one is brought here by
the migrations. ``tests/storage/test_schema.py`` holds the two equal. Ids, hashes, keys and signatures are raw bytes:
SQLite compares them as memcmp does, so the order of rows by (namespace, author, key) is the order on the wire.
Times ending in ``_us`` and entries' timestamps are microseconds since 1970. Integers are signed 64-bit.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    false,
    text,
)

__all__ = [
    "agreed",
    "authors",
    "blobs",
    "contents",
    "entries",
    "gossip_messages",
    "gossip_peers",
    "heads",
    "history",
    "metadata",
    "mirror_files",
    "namespaces",
    "shares",
    "summaries",
    "sync_peers",
    "tags",
]

metadata = MetaData()

# kind: 1 may write (secret is the namespace's secret key), 2 may only read (secret is null). aggregated: whether
# `summaries` hold its sums; not yet where an older version wrote it. policy: which contents are fetched,
# null for all. prefix: of a partial replica, the keys that it holds. history_us: for how long superseded entries are
# kept. restricted: answered only to who may read. cipher_key: with which contents and keys are encrypted. share: the
# record that lets this node read a restricted document. contents_from: the arrival number behind which the entries'
# contents have still to be looked at, -1 where first those go that the policy does not want, null when it is done.
namespaces = Table(
    "namespaces",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("kind", SmallInteger, nullable=False),
    Column("secret", LargeBinary(32)),
    Column("created_us", BigInteger, nullable=False),
    Column("aggregated", Boolean, nullable=False, server_default=false()),
    Column("policy", LargeBinary),
    Column("prefix", LargeBinary),
    Column("history_us", BigInteger),
    Column("restricted", Boolean, nullable=False, server_default=false()),
    Column("cipher_key", LargeBinary(32)),
    Column("share", LargeBinary),
    Column("contents_from", BigInteger, server_default=text("0")),
)

# clock_us: the latest time that this node wrote with in the author's name, in any document.
authors = Table(
    "authors",
    metadata,
    Column("author", LargeBinary(32), primary_key=True),
    Column("secret", LargeBinary(32), nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("clock_us", BigInteger, nullable=False, server_default=text("0")),
)

# Signed entries of every document. fingerprint is the reconciliation fingerprint of this entry alone. seq numbers the
# entries of a document as they arrived here: it only grows, and what is read again "after seq n" misses nothing.
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
    Column("seq", BigInteger, nullable=False, server_default=text("0")),
    Index("entries_by_key", "namespace", "key", "author"),
    Index("entries_by_seq", "namespace", "seq"),
    sqlite_with_rowid=False,
)

# The time of each author's newest entry in a document. It never goes back.
heads = Table(
    "heads",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("author", LargeBinary(32), primary_key=True),
    Column("timestamp", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Sums over runs of entries, so that a range's count and fingerprint need no scan. A row of level n covers the entries
# from (author, key) up to the next row of that level; fingerprint is the XOR of theirs.
summaries = Table(
    "summaries",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("level", SmallInteger, primary_key=True),
    Column("author", LargeBinary, primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("fingerprint", LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)

# What became of the contents that a document's entries name. state: 0 wanted (it failed where attempts are counted), to
# be tried at due_us; 1 had, and forgotten at due_us. key: of an entry that names it, null where that is superseded.
# peer: from whom it came, or who failed last.
contents = Table(
    "contents",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("hash", LargeBinary(32), primary_key=True),
    Column("key", LargeBinary),
    Column("size", BigInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("peer", LargeBinary(32)),
    Column("error", Text),
    Index("contents_by_state", "namespace", "state", "due_us"),
    sqlite_with_rowid=False,
)

# Superseded entries of documents that keep them for a time. One author's clocks may write two at one time.
history = Table(
    "history",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    Column("timestamp", BigInteger, primary_key=True),
    Column("author", LargeBinary(32), primary_key=True),
    Column("hash", LargeBinary(32), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("author_sig", LargeBinary(64), nullable=False),
    Column("namespace_sig", LargeBinary(64), nullable=False),
    Column("superseded_us", BigInteger, nullable=False),
    Index("history_by_age", "namespace", "superseded_us"),
    sqlite_with_rowid=False,
)

# Signed records of who may read a restricted document until when; revocation: the signed record that ends it.
shares = Table(
    "shares",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("id", LargeBinary(16), primary_key=True),
    Column("record", LargeBinary),
    Column("revocation", LargeBinary),
    Column("changed_us", BigInteger, nullable=False),
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

# Up to which arrival number (seq) a document was found the same at a peer.
agreed = Table(
    "agreed",
    metadata,
    Column("namespace", LargeBinary(32), primary_key=True),
    Column("peer", LargeBinary(32), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# The last messages of the gossip topics that are stored, each node's by itself. at_us: when a message was new.
gossip_messages = Table(
    "gossip_messages",
    metadata,
    Column("node", LargeBinary(32), primary_key=True),
    Column("topic", LargeBinary(32), primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

# Peers to come back to a topic through, the best first, with what is known of their addresses.
gossip_peers = Table(
    "gossip_peers",
    metadata,
    Column("node", LargeBinary(32), primary_key=True),
    Column("topic", LargeBinary(32), primary_key=True),
    Column("peer", LargeBinary(32), primary_key=True),
    Column("rank", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# state: 0 partial, 1 complete. data and outboard are null where they live in files. path, as file-system bytes, and
# mtime_ns: of a file elsewhere that is the blob, as long as nobody changes it.
blobs = Table(
    "blobs",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("added_us", BigInteger, nullable=False),
    Column("outboard", LargeBinary),
    Column("data", LargeBinary),
    Column("path", LargeBinary),
    Column("mtime_ns", BigInteger),
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
