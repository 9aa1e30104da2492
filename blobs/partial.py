"""A blob of which only some groups are here: a data file and an outboard with holes, and a `Bitmap`.

Order of writes: data, pairs, bit. So whatever moment a kill comes at, a group whose bit is set is there; when the blob
is opened again, groups that were written and have no bit are checked, and count if they are right. At the end data and
outboard are made durable before anything calls the blob complete.

A size is a claim until the last group is there (reference 3.1). Groups that were found right are at their place all
the same: a chunk's number is in its hash, and so is each pair's place, since every left subtree is perfect.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..storage.errors import from_os_error
from ..storage.files import fsync_dir, make_private_dir
from .bao import Leaf, Pairs
from .bitmap import Bitmap
from .check import check_groups
from .errors import BlobDamaged
from .geometry import CHUNK, PAIR, chunk_count, outboard_size
from .hash import Hash
from .ranges import ChunkRanges

__all__ = ["Partial", "partial_paths"]


def partial_paths(stem: Path) -> tuple[Path, Path, Path]:
    """The files of the data, of the outboard, and of the bitmap."""
    return stem.with_suffix(".data"), stem.with_suffix(".obao4"), stem.with_suffix(".have")


class Partial:
    """``stem``: the path of its files without their suffix. All methods block; they are for worker threads.

    `write` may be called by several threads at a time, the others by one.
    """

    def __init__(self, hash: Hash, size: int, stem: Path) -> None:
        self.hash = hash
        self.size = size
        self.have = ChunkRanges.NONE
        """The chunks that are here: whole groups."""
        self._paths = partial_paths(stem)
        self._lock = threading.Lock()
        if not stem.parent.exists():
            make_private_dir(stem.parent)
        self._data = self._open(self._paths[0])
        self._outboard = self._open(self._paths[1])
        self._bitmap = Bitmap(self._paths[2])

    @property
    def chunks(self) -> int:
        return chunk_count(self.size)

    @property
    def proven(self) -> bool:
        """Whether the size is: the last group is here."""
        return self.have.contains(self.chunks - 1, self.chunks)

    @property
    def complete(self) -> bool:
        return self.have.contains(0, self.chunks)

    @property
    def bytes_here(self) -> int:
        count = self.have.count(self.chunks) * CHUNK
        return count - (self.chunks * CHUNK - self.size if self.proven else 0)

    def recover(self) -> Iterator[int]:
        """Find what is here, to be called first; yields the chunks looked at, a step of at most 1 MiB at a time."""
        known = self._bitmap.ranges(self.chunks)
        written = ChunkRanges.of_spans(self._extents())
        found = known & written.whole_groups(self.chunks)
        unsure = written.touched_groups(self.chunks) - found
        for start, stop, sound in check_groups(self.hash, self.size, unsure, self.data_at, self.outboard_at):
            if sound:
                found |= ChunkRanges.of(start, stop)
            yield stop
        self.have = found
        self._bitmap.begin(found, self.chunks)

    def resize(self, size: int) -> None:
        """Another provider claims this size. Only while it is not `proven`."""
        self.size = size
        self.have &= ChunkRanges.of(0, self.chunks)

    def write(self, items: Iterable[Leaf | Pairs]) -> None:
        """Keep what a `Decoder` has verified; of leaves whole groups count."""
        new = ChunkRanges.NONE
        for item in items:
            if isinstance(item, Leaf):
                self._write(self._data, 0, item.offset, item.data)
                start = item.offset // CHUNK
                new |= ChunkRanges.of(start, start + -(-len(item.data) // CHUNK))
            else:
                self._write(self._outboard, 1, item.index * PAIR, item.data)
        with self._lock:
            new = new.whole_groups(self.chunks)
            self._bitmap.add(new, self.chunks)
            self.have |= new

    def data_at(self, offset: int, size: int) -> bytes:
        """`BlobDamaged` for what was never written."""
        return self._read(self._data, 0, offset, size)

    def outboard_at(self, offset: int, size: int) -> bytes:
        return self._read(self._outboard, 1, offset, size)

    def outboard(self) -> bytes:
        return self.outboard_at(0, outboard_size(self.size))

    def make_durable(self) -> None:
        """Once it is complete: return when its bytes are on the disk."""
        try:
            os.ftruncate(self._data, self.size)
            os.fsync(self._data)
            os.fsync(self._outboard)
            fsync_dir(self._paths[0].parent)
        except OSError as error:
            raise from_os_error(error, self._paths[0]) from error

    def close(self) -> None:
        os.close(self._data)
        os.close(self._outboard)
        self._bitmap.close()

    def _open(self, path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os_error(error, path) from error

    def _extents(self) -> Iterator[tuple[int, int]]:
        """Where the data file is not a hole, in chunks."""
        end, at = min(os.fstat(self._data).st_size, self.size), 0
        while at < end:
            try:
                start = os.lseek(self._data, at, os.SEEK_DATA)
            except OSError:  # no data behind ``at``
                return
            at = os.lseek(self._data, start, os.SEEK_HOLE)
            yield start // CHUNK, -(-at // CHUNK)

    def _write(self, fd: int, which: int, offset: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise from_os_error(error, self._paths[which]) from error

    def _read(self, fd: int, which: int, offset: int, size: int) -> bytes:
        try:
            out = os.pread(fd, size, offset)
        except OSError as error:
            raise from_os_error(error, self._paths[which]) from error
        if len(out) != size:
            raise BlobDamaged(f"blob {self.hash} is not all here: fetch it again")
        return out
