"""Names that keep blobs from being collected, and lead to them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..errors import UsageError
from ..storage import Database
from ..storage.tables import tags
from .hash import Hash
from .tickets import BlobFormat

__all__ = ["MAX_TAG", "Tag", "Tags", "automatic_name", "tagging"]

MAX_TAG = 255  # bytes of a name in UTF-8


@dataclass(frozen=True, slots=True)
class Tag:
    """``format``: a blob by itself, or a sequence of hashes whose blobs are kept, too."""

    name: str
    hash: Hash
    format: BlobFormat = BlobFormat.RAW


class Tags:
    """The tags of a store; ``blobs.tags``. A name is a text of 1 to 255 bytes."""

    def __init__(self, database: Database, collecting: asyncio.Lock) -> None:
        self._database = database
        self._collecting = collecting

    async def set(self, name: str, hash: Hash | str, format: BlobFormat = BlobFormat.RAW) -> Tag:
        """Name a blob, in place of what had that name. The blob need not be here yet."""
        tag = Tag(name, _hash(hash), format)
        write = tagging(tag)
        async with self._collecting:  # what is named is not collected by a collection that has looked already
            await self._database.write(write)
        return tag

    async def create(self, hash: Hash | str, format: BlobFormat = BlobFormat.RAW) -> Tag:
        """Keep a blob under a name made of the time, as what is added is kept unless told otherwise."""
        return await self.set(automatic_name(), hash, format)

    async def get(self, name: str) -> Tag | None:
        query = sa.select(tags).where(tags.c.name == _name(name))
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else _tag(row)

    async def list(self, prefix: str = "") -> list[Tag]:
        """Those whose name begins so, by name."""
        start = prefix.encode()
        query = sa.select(tags).where(tags.c.name >= start).order_by(tags.c.name)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_tag(row) for row in rows if bytes(row.name).startswith(start)]

    async def delete(self, name: str) -> bool:
        """Whether there was one. What nothing else keeps goes with the next collection."""
        query = sa.delete(tags).where(tags.c.name == _name(name))
        return bool(await self._database.write(lambda connection: connection.execute(query).rowcount))

    async def rename(self, old: str, new: str) -> Tag:
        """UsageError where there is no ``old``; what was called ``new`` is replaced."""
        before, after = _name(old), _name(new)

        def job(connection: sa.Connection) -> Tag | None:
            row = connection.execute(sa.select(tags).where(tags.c.name == before)).one_or_none()
            if row is not None:
                connection.execute(sa.delete(tags).where(tags.c.name.in_([before, after])))
                connection.execute(sa.insert(tags).values(name=after, hash=row.hash, format=row.format))
            return None if row is None else Tag(new, Hash(row.hash), BlobFormat(row.format))

        renamed = await self._database.write(job)
        if renamed is None:
            raise UsageError(f"there is no tag {old!r}")
        return renamed


def automatic_name() -> str:
    """Unique, and in the order of time."""
    now = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
    return f"auto-{seconds}.{now % 10**9:09}Z-{secrets.token_hex(3)}"


def tagging(tag: Tag) -> Callable[[sa.Connection], None]:
    """The write that makes ``tag``."""
    name = _name(tag.name)

    def write(connection: sa.Connection) -> None:
        connection.execute(sa.delete(tags).where(tags.c.name == name))
        connection.execute(sa.insert(tags).values(name=name, hash=bytes(tag.hash), format=int(tag.format)))

    return write


def _name(name: str) -> bytes:
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        encoded = b""
    if not 1 <= len(encoded) <= MAX_TAG:
        raise UsageError(f"a tag is a text of 1 to {MAX_TAG} bytes in UTF-8")
    return encoded


def _tag(row: sa.Row[Any]) -> Tag:
    return Tag(bytes(row.name).decode(errors="replace"), Hash(row.hash), BlobFormat(row.format))


def _hash(hash: Hash | str) -> Hash:
    return Hash.parse(hash) if isinstance(hash, str) else hash
