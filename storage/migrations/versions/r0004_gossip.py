"""Messages and peers of gossip topics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "gossip_messages",
        sa.Column("node", sa.LargeBinary(32), primary_key=True),
        sa.Column("topic", sa.LargeBinary(32), primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "gossip_peers",
        sa.Column("node", sa.LargeBinary(32), primary_key=True),
        sa.Column("topic", sa.LargeBinary(32), primary_key=True),
        sa.Column("peer", sa.LargeBinary(32), primary_key=True),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
