"""What a mirror knew when it last looked, kept in the node's database (table ``mirror_files``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa

from ..storage import Database
from ..storage.tables import mirror_files
from .mirror_plan import Synced

__all__ = ["MirrorState"]

_c = mirror_files.c


class MirrorState:
    """The `Synced` of each path of one folder and one document."""

    def __init__(self, database: Database, namespace: bytes, folder: Path) -> None:
        self._database = database
        self._owner = {"namespace": namespace, "folder": os.fsencode(folder)}

    async def load(self) -> dict[str, Synced]:
        query = sa.select(_c.path, _c.hash, _c.size, _c.mtime_ns, _c.seen).where(
            *(mirror_files.c[name] == value for name, value in self._owner.items())
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {path.decode(): Synced(hash, size, mtime_ns, _unpack(seen)) for path, hash, size, mtime_ns, seen in rows}

    async def save(self, path: str, synced: Synced) -> None:
        """Durable on return."""
        key = {**self._owner, "path": path.encode()}
        row = {"hash": synced.hash, "size": synced.size, "mtime_ns": synced.mtime_ns, "seen": _pack(synced.seen)}

        def job(connection: sa.Connection) -> None:
            connection.execute(sa.delete(mirror_files).where(*(mirror_files.c[name] == key[name] for name in key)))
            connection.execute(sa.insert(mirror_files), {**key, **row})

        await self._database.write(job)


def _pack(seen: Mapping[bytes, int]) -> bytes:
    return b"".join(author + timestamp.to_bytes(8, "big") for author, timestamp in sorted(seen.items()))


def _unpack(data: bytes) -> dict[bytes, int]:
    return {data[i : i + 32]: int.from_bytes(data[i + 32 : i + 40], "big") for i in range(0, len(data), 40)}
