"""The first schema: documents, authors, blobs, tags and the state of mirrored folders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "namespaces",
        sa.Column("namespace", sa.LargeBinary(32), primary_key=True),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("secret", sa.LargeBinary(32)),
        sa.Column("created_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "authors",
        sa.Column("author", sa.LargeBinary(32), primary_key=True),
        sa.Column("secret", sa.LargeBinary(32), nullable=False),
        sa.Column("is_default", sa.Boolean, nullable=False),
    )
    op.create_table(
        "entries",
        sa.Column("namespace", sa.LargeBinary(32), primary_key=True),
        sa.Column("author", sa.LargeBinary(32), primary_key=True),
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("author_sig", sa.LargeBinary(64), nullable=False),
        sa.Column("namespace_sig", sa.LargeBinary(64), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("entries_by_key", "entries", ["namespace", "key", "author"])
    op.create_index("entries_by_time", "entries", ["namespace", "author", "timestamp"])
    op.create_table(
        "sync_peers",
        sa.Column("namespace", sa.LargeBinary(32), primary_key=True),
        sa.Column("peer", sa.LargeBinary(32), primary_key=True),
        sa.Column("last_us", sa.BigInteger, nullable=False),
        sa.Column("addr", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "blobs",
        sa.Column("hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("added_us", sa.BigInteger, nullable=False),
        sa.Column("outboard", sa.LargeBinary),
        sa.Column("data", sa.LargeBinary),
    )
    op.create_table(
        "tags",
        sa.Column("name", sa.LargeBinary, primary_key=True),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("format", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "mirror_files",
        sa.Column("namespace", sa.LargeBinary(32), primary_key=True),
        sa.Column("folder", sa.LargeBinary, primary_key=True),
        sa.Column("path", sa.LargeBinary, primary_key=True),
        sa.Column("hash", sa.LargeBinary(32)),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
