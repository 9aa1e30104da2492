"""Blobs that no document names get a tag: they came before there was a collection of garbage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    hashes = connection.execute(
        sa.text(
            """
            SELECT hash FROM blobs
            WHERE hash NOT IN (SELECT hash FROM entries) AND hash NOT IN (SELECT hash FROM history)
              AND hash NOT IN (SELECT hash FROM contents) AND hash NOT IN (SELECT hash FROM tags)
            """
        )
    ).scalars()
    rows = [{"name": b"auto-old-" + bytes(hash).hex().encode(), "hash": bytes(hash)} for hash in hashes]
    if rows:
        connection.execute(sa.text("INSERT INTO tags (name, hash, format) VALUES (:name, :hash, 0)"), rows)
