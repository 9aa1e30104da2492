"""Blobs that are files elsewhere, which the store refers to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("blobs", sa.Column("path", sa.LargeBinary))
    op.add_column("blobs", sa.Column("mtime_ns", sa.BigInteger))
