"""What the documents acknowledged survives ``kill -9`` at any moment, and every row is right after it.

The long form: ``python -m benchmarks.kill --documents --rounds 200``.
"""

import random
from pathlib import Path

import pytest
from crash_rounds import kill_documents, kill_migrations

pytestmark = pytest.mark.timeout(180)  # seconds on a free machine


async def test_kills_while_documents_are_written(tmp_path: Path) -> None:
    kills, acknowledged = await kill_documents(tmp_path, 6, random.Random(1))
    assert kills >= 6
    assert acknowledged > 50


async def test_kills_while_an_older_database_is_opened(tmp_path: Path) -> None:
    words = await kill_migrations(tmp_path, 5, random.Random(2), count=1_000)
    assert len(words) >= 5
    assert "done" in words
