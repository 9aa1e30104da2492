"""What was agreed on with which peer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agreed",
        sa.Column("namespace", sa.LargeBinary(32), primary_key=True),
        sa.Column("peer", sa.LargeBinary(32), primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
