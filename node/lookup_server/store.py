"""The newest signed packet of each id, in one SQLite file."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from ...errors import StoreError
from ...transport.errors import DecodeError
from ...transport.keys import EndpointId
from ...transport.lookup.pkarr import SignedPacket
from .metrics import LookupMetrics

__all__ = ["Full", "PacketStore"]

EXPIRY = 7 * 86_400  # seconds after which a packet that nobody renewed is dropped (iroh's figure)
MAX_PACKETS = 1_000_000
CACHED = 16_384

T = TypeVar("T")

_metadata = sa.MetaData()
_packets = sa.Table(
    "packets",
    _metadata,
    sa.Column("id", sa.LargeBinary(32), primary_key=True),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("taken_at", sa.Float, nullable=False, index=True),
    sqlite_with_rowid=False,
)


class Full(StoreError):
    """No room for another id."""


class PacketStore:
    """``path`` None is memory. Everything happens in one thread of its own; time is seconds since 1970."""

    def __init__(self, path: Path | None, metrics: LookupMetrics, *, limit: int = MAX_PACKETS) -> None:
        """Raises StoreError."""
        self._metrics, self._limit = metrics, limit
        self._cache: OrderedDict[EndpointId, SignedPacket] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lookup store")
        url = sa.URL.create("sqlite", database=":memory:" if path is None else str(path))
        self._engine = sa.create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
                _metadata.create_all(connection)
                self._count = connection.scalar(sa.select(sa.func.count()).select_from(_packets)) or 0
        except sa.exc.SQLAlchemyError as error:
            self._thread.shutdown()
            raise StoreError(f"{path} cannot be used for packets: {error.args[0]}") from error
        metrics.packets.set(self._count)

    async def get(self, id: EndpointId) -> SignedPacket | None:
        if (cached := self._cache.get(id)) is not None:
            self._cache.move_to_end(id)
            return cached
        packet = await self._run(lambda: self._get(id))
        if packet is not None:
            self._remember(packet)
        return packet

    async def put(self, packet: SignedPacket, now: float) -> bool:
        """Whether it was newer than what we had. A packet that we have is renewed by it. Raises Full."""
        taken, newest = await self._run(lambda: self._put(packet, now))
        self._remember(newest)
        (self._metrics.updates if taken else self._metrics.noops).inc()
        return taken

    async def expire(self, now: float) -> int:
        """Drop what nobody has renewed; how many those were."""
        dropped = await self._run(lambda: self._expire(now - EXPIRY))
        if dropped:
            self._cache.clear()
            self._metrics.expired.inc(dropped)
        return dropped

    async def aclose(self) -> None:
        await self._run(self._engine.dispose)
        self._thread.shutdown()

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _get(self, id: EndpointId) -> SignedPacket | None:
        with self._engine.connect() as connection:
            payload = connection.scalar(sa.select(_packets.c.payload).where(_packets.c.id == bytes(id)))
        try:
            return None if payload is None else SignedPacket.from_payload(id, payload)
        except DecodeError:
            return None  # the file was damaged: its owner will say it anew

    def _put(self, packet: SignedPacket, now: float) -> tuple[bool, SignedPacket]:
        key = bytes(packet.id)
        known = self._cache.get(packet.id) or self._get(packet.id)
        if known is not None and known.is_newer_than(packet):
            return False, known
        renewed = known is not None and known.payload() == packet.payload()
        with self._engine.begin() as connection:
            values = {"payload": packet.payload(), "taken_at": now}
            if connection.execute(_packets.update().where(_packets.c.id == key).values(values)).rowcount:
                (self._metrics.noops if renewed else self._metrics.updated).inc(0 if renewed else 1)
            elif self._count >= self._limit:
                raise Full("this server has no room for another id: try another server")
            else:
                connection.execute(_packets.insert().values(id=key, **values))
                self._count += 1
                self._metrics.inserted.inc()
        self._metrics.packets.set(self._count)
        return not renewed, packet

    def _expire(self, before: float) -> int:
        with self._engine.begin() as connection:
            dropped = connection.execute(_packets.delete().where(_packets.c.taken_at < before)).rowcount
        self._count -= dropped
        self._metrics.packets.set(self._count)
        return dropped

    def _remember(self, packet: SignedPacket) -> None:
        self._cache[packet.id] = packet
        self._cache.move_to_end(packet.id)
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
