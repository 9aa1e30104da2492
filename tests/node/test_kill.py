"""What a node acknowledged survives ``kill -9``: entries, small and large contents, added files, deletions."""

import asyncio
import random
from pathlib import Path

from kill_rounds import kill_rounds


async def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The long form: ``python -m benchmarks.kill --rounds 200``."""
    series = [(tmp_path / str(seed), seed) for seed in range(2)]
    for directory, _ in series:
        directory.mkdir()
    counts = await asyncio.gather(*(kill_rounds(directory, 6, random.Random(seed)) for directory, seed in series))
    assert min(counts) > 20
