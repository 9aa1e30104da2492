"""After ``kill -9`` at any moment every blob called complete is, and every exported file whole."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from blob_kills import kill_and_resume, kill_blobs
from tidings.blobs.geometry import GROUP


@pytest.mark.timeout(180)
async def test_blobs_survive_kills(tmp_path: Path) -> None:
    """The long form: ``python -m benchmarks.kill --blobs --rounds 200``."""
    done = await kill_blobs(tmp_path, 8, Random(1))
    assert sum(done.values()) >= 8


@pytest.mark.timeout(60)
async def test_after_a_kill_half_way_nothing_that_was_kept_is_sent_again(tmp_path: Path) -> None:
    resumed = await kill_and_resume(tmp_path, 12_000_000, Random(2))
    assert resumed.size / 2 <= resumed.found < resumed.size
    assert resumed.sent_after <= resumed.least_after + GROUP
