"""After ``kill -9`` at any moment every blob called complete is, and every exported file whole."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from blob_kills import kill_blobs


@pytest.mark.timeout(180)
async def test_blobs_survive_kills(tmp_path: Path) -> None:
    """The long form: ``python -m benchmarks.kill --blobs --rounds 200``."""
    done = await kill_blobs(tmp_path, 8, Random(1))
    assert sum(done.values()) >= 8
