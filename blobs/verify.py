"""Looking at every byte of what is stored: a disk may have changed it since."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from .check import check_groups
from .errors import BlobDamaged, NotFound
from .geometry import CHUNK
from .hash import Hash
from .ranges import ChunkRanges
from .reader import BlobInfo, BlobReader
from .store import BlobStore

__all__ = ["Checked", "verify"]

STEPS = 16  # of a check in one call in a thread: up to 16 MiB


@dataclass(frozen=True, slots=True)
class Checked:
    """A blob that was looked at. ``bad``: how many of its bytes are not what they should be, as groups of 16 KiB."""

    hash: Hash
    size: int
    bad: int


async def verify(store: BlobStore) -> AsyncIterator[Checked]:
    """Look at every complete blob. One that is damaged is partial from then on: a fetch gets what is bad, and no more.

    A small one, and one whose file is gone, is forgotten.
    """
    for info in await store.list():
        try:
            async with await store.reader(info.hash) as reader:
                bad = await _bad(store, info, reader)
        except NotFound:
            continue  # it was collected meanwhile
        except BlobDamaged:  # the row is gone
            bad = info.size
        else:
            if bad:
                await store.demote(info.hash)
        yield Checked(info.hash, info.size, bad)


async def _bad(store: BlobStore, info: BlobInfo, reader: BlobReader) -> int:
    if reader.in_memory:
        return 0 if Hash.of(reader.data_at(0, info.size)) == info.hash else info.size
    steps = check_groups(info.hash, info.size, ChunkRanges.ALL, reader.data_at, reader.outboard_at)
    bad = 0
    while (found := await store.run(_some, steps)) is not None:
        bad += sum(min(stop * CHUNK, info.size) - start * CHUNK for start, stop in found)
    return bad


def _some(steps: Iterator[tuple[int, int, bool]]) -> list[tuple[int, int]] | None:
    """What is bad among the next steps; None after the last."""
    found, any = [], False
    for _ in range(STEPS):
        step = next(steps, None)
        if step is None:
            break
        any = True
        if not step[2]:
            found.append(step[:2])
    return found if any else None
