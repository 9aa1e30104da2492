"""Aggregates, arrival numbers, heads, states of contents, history and shares.

The aggregate itself is built by the documents when they are first opened: storage does not know how.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("aggregated", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("policy", sa.LargeBinary),
        sa.Column("prefix", sa.LargeBinary),
        sa.Column("history_us", sa.BigInteger),
        sa.Column("restricted", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("cipher_key", sa.LargeBinary(32)),
        sa.Column("share", sa.LargeBinary),
        sa.Column("contents_from", sa.BigInteger, server_default=sa.text("0")),
    ):
        op.add_column("namespaces", column)
    op.add_column("authors", sa.Column("clock_us", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.add_column("entries", sa.Column("seq", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.drop_index("entries_by_time", "entries")
    op.create_table(
        "heads",
        sa.Column("namespace", sa.LargeBinary(32), primary_key=True),
        sa.Column("author", sa.LargeBinary(32), primary_key=True),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "summaries",
        sa.Column("namespace", sa.LargeBinary(32), primary_key=True),
        sa.Column("level", sa.SmallInteger, primary_key=True),
        sa.Column("author", sa.LargeBinary, primary_key=True),
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "contents",
        sa.Column("namespace", sa.LargeBinary(32), primary_key=True),
        sa.Column("hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("key", sa.LargeBinary),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due_us", sa.BigInteger, nullable=False),
        sa.Column("changed_us", sa.BigInteger, nullable=False),
        sa.Column("peer", sa.LargeBinary(32)),
        sa.Column("error", sa.Text),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "history",
        sa.Column("namespace", sa.LargeBinary(32), primary_key=True),
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("timestamp", sa.BigInteger, primary_key=True),
        sa.Column("author", sa.LargeBinary(32), primary_key=True),
        sa.Column("hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("author_sig", sa.LargeBinary(64), nullable=False),
        sa.Column("namespace_sig", sa.LargeBinary(64), nullable=False),
        sa.Column("superseded_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "shares",
        sa.Column("namespace", sa.LargeBinary(32), primary_key=True),
        sa.Column("id", sa.LargeBinary(16), primary_key=True),
        sa.Column("record", sa.LargeBinary),
        sa.Column("revocation", sa.LargeBinary),
        sa.Column("changed_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("contents_by_state", "contents", ["namespace", "state", "due_us"])
    op.create_index("history_by_age", "history", ["namespace", "superseded_us"])
    op.execute("INSERT INTO heads SELECT namespace, author, max(timestamp) FROM entries GROUP BY namespace, author")
    op.execute(
        """
        UPDATE entries SET seq = numbered.position FROM (
            SELECT namespace, author, key,
                   row_number() OVER (PARTITION BY namespace ORDER BY timestamp, author, key) AS position FROM entries
        ) AS numbered
        WHERE entries.namespace = numbered.namespace AND entries.author = numbered.author AND entries.key = numbered.key
        """
    )
    op.create_index("entries_by_seq", "entries", ["namespace", "seq"])
