"""Which groups of a partial blob are there: a file of one bit for each, the lowest bit first, behind a header.

Header (64 bytes): ``tidings have 1`` padded to 16, the boot id of the machine (16), zeros. A bit is set after the group
was written, and nothing waits for the disk: within one boot the kernel keeps what a killed program wrote. After
another boot the bits say nothing, and the groups are checked instead.

The file is as long as the last bit that is set asks for: a size that a peer claims costs nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
from functools import lru_cache
from pathlib import Path

from ..storage.errors import from_os_error
from .geometry import GROUP_CHUNKS
from .ranges import ChunkRanges

__all__ = ["Bitmap"]

_HEADER = struct.Struct("<16s16s32x")
_MAGIC = b"tidings have 1\0\0"


class Bitmap:
    """The file at ``path``, made where it is not there. All methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os_error(error, path) from error

    def ranges(self, chunks: int) -> ChunkRanges:
        """The groups whose bits are set, of a blob of ``chunks`` chunks; none where another boot wrote the file."""
        stored = self._read(0, os.fstat(self._fd).st_size)
        if stored[: _HEADER.size] != _header():
            return ChunkRanges.NONE
        digits = f"{int.from_bytes(stored[_HEADER.size :], 'little'):b}"[::-1]
        runs = (run.span() for run in re.finditer("1+", digits))
        return ChunkRanges.of_spans((first * GROUP_CHUNKS, min(stop * GROUP_CHUNKS, chunks)) for first, stop in runs)

    def begin(self, ranges: ChunkRanges, chunks: int) -> None:
        """These groups are there, of a blob of ``chunks`` chunks, and no others."""
        try:
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise from_os_error(error, self._path) from error
        self._write(0, _header())
        self.add(ranges, chunks)

    def add(self, ranges: ChunkRanges, chunks: int) -> None:
        """``ranges`` holds whole groups of a blob of ``chunks`` chunks, and they are written."""
        for start, stop in ranges.spans(chunks):
            first, last = start // GROUP_CHUNKS, -(-stop // GROUP_CHUNKS) - 1
            offset, length = first // 8, last // 8 - first // 8 + 1
            bits = ((1 << last - first + 1) - 1) << first % 8
            bits |= int.from_bytes(self._read(_HEADER.size + offset, length), "little")
            self._write(_HEADER.size + offset, bits.to_bytes(length, "little"))

    def close(self) -> None:
        os.close(self._fd)

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            raise from_os_error(error, self._path) from error

    def _write(self, offset: int, data: bytes) -> None:
        try:
            while data:
                written = os.pwrite(self._fd, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise from_os_error(error, self._path) from error


def _header() -> bytes:
    return _HEADER.pack(_MAGIC, _boot_id())


@lru_cache(1)
def _boot_id() -> bytes:
    """Of this run of the machine; where it cannot be told, of this process."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return secrets.token_bytes(16)
