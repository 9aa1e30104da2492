"""The memory of a transfer between real nodes does not depend on the blob's size."""

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))
from benchmarks.memory import LIMIT, transfer


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
async def test_a_transfer_takes_no_more_memory_for_three_times_the_bytes() -> None:
    """The form of the promise: ``python -m benchmarks.memory --size 1024``."""
    small, large = await asyncio.gather(transfer(32), transfer(96))
    for who in ("serving", "fetching"):
        assert large[who] - small[who] < 16_000_000
        assert large[who] < LIMIT
