"""What a mirror knows survives."""

from __future__ import annotations

from pathlib import Path

from tidings.node.mirror_plan import Synced
from tidings.node.mirror_state import MirrorState
from tidings.storage import Database


async def test_what_was_saved_is_loaded() -> None:
    database = await Database.open(None)
    state = MirrorState(database, b"n" * 32, Path("/home/ü\udcff"))
    file = Synced(b"h" * 32, 2**40, 1_700_000_000_000_000_000, {b"a" * 32: 5, b"b" * 32: 2**63})
    gone = Synced(None, 0, 0, {})
    await state.save("d/ü", gone)
    await state.save("d/ü", file)
    await state.save("x", gone)
    assert await state.load() == {"d/ü": file, "x": gone}
    assert await MirrorState(database, b"m" * 32, Path("/home/ü\udcff")).load() == {}
    assert await MirrorState(database, b"n" * 32, Path("/home")).load() == {}
    await database.aclose()
