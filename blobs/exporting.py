"""Blobs written to files outside the store: as a copy, which shares blocks where the file system can, or given away.

A file appears under its name whole or not at all. One that is given away is the store's own, under a second name until
the row says where it is; so a crash in between leaves the blob in the store and the file beside it.
"""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

from ..storage.errors import from_os_error
from ..storage.files import clone_file, fsync_dir
from .errors import UnreadableFile
from .hash import Hash
from .partial import partial_paths
from .reader import BlobReader
from .store import BlobStore

__all__ = ["export"]


async def export(store: BlobStore, hash: Hash, target: Path, *, durable: bool = True, refer: bool = False) -> None:
    """Write the blob to ``target``, in place of what was there.

    ``durable``: return when it is on the disk, so that not even a power cut leaves less. ``refer``: the file is where
    the store has the blob from then on (`BlobStore.refer_to`).
    """
    temporary = target.with_name(f".{target.name[:100]}.{os.urandom(6).hex()}.part")
    async with await store.reader(hash) as reader:
        if refer and reader.referred:
            refer = False  # it is in another file, which stays the one that is referred to
        try:
            if not (refer and await store.run(_link, partial_paths(store.stem(hash))[0], temporary, target)):
                await _copy(store, reader, temporary, target, durable or refer)
            await store.run(temporary.rename, target)
            if refer:
                await store.run(fsync_dir, temporary.parent)
                await store.refer_to(hash, target, (await store.run(target.stat)).st_mtime_ns)
        except OSError as error:
            raise from_os_error(error, target) from error
        finally:
            await store.run(lambda: temporary.unlink(missing_ok=True))


async def _copy(store: BlobStore, reader: BlobReader, temporary: Path, target: Path, durable: bool) -> None:
    try:
        file = await store.run(FileIO, temporary, "xb")
    except OSError as error:
        raise _unwritable(target, error) from error
    with file:
        if reader.fd is None or not await store.run(clone_file, reader.fd, file.fileno()):
            async for piece in reader:
                await store.run(_write_all, file, piece)
        if durable:
            await store.run(os.fsync, file.fileno())


def _link(own: Path, temporary: Path, target: Path) -> bool:
    """Whether the store's file has the second name now. Not across file systems, nor where there are no links."""
    if not target.absolute().parent.is_dir():
        raise _unwritable(target, FileNotFoundError(2, "No such file or directory"))
    try:
        os.link(own, temporary)
    except OSError:
        return False
    return True


def _unwritable(target: Path, error: OSError) -> UnreadableFile:
    return UnreadableFile(f"cannot write {target}: {error.strerror}")


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
