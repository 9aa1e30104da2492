"""What a node keeps of its gossip topics in its database. Nodes that share one each keep their own."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from ..gossip.keeper import KeptMessage, KeptTopic
from ..storage import Database
from ..storage.tables import gossip_messages as _m
from ..storage.tables import gossip_peers as _p
from ..transport import EndpointId

__all__ = ["DatabaseKeeper"]


class DatabaseKeeper:
    """A `Keeper`. What it writes can be had from peers again: it does not wait for the disk."""

    def __init__(self, database: Database, node: EndpointId) -> None:
        self._database = database
        self._node = bytes(node)

    async def load(self, topic: bytes, *, messages: bool) -> KeptTopic:
        found = sa.select(_m.c.position, _m.c.at_us, _m.c.content).where(*self._of(_m, topic)).order_by(_m.c.position)
        known = sa.select(_p.c.peer, _p.c.data).where(*self._of(_p, topic)).order_by(_p.c.rank)

        def read(connection: sa.Connection) -> KeptTopic:
            kept = connection.execute(found).all() if messages else []
            return KeptTopic(
                [KeptMessage(position, at / 1e6, bytes(content)) for position, at, content in kept],
                [(bytes(peer), bytes(data)) for peer, data in connection.execute(known)],
            )

        return await self._database.read(read)

    async def keep(self, topic: bytes, messages: Sequence[KeptMessage], first: int) -> None:
        rows = [
            {"position": each.position, "at_us": int(each.at * 1e6), "content": each.content} | self._row(topic)
            for each in messages
        ]

        def write(connection: sa.Connection) -> None:
            connection.execute(sa.insert(_m), rows)
            connection.execute(sa.delete(_m).where(*self._of(_m, topic), _m.c.position < first))

        await self._database.write(write, durable=False)

    async def remember(self, topic: bytes, peers: Sequence[tuple[bytes, bytes]]) -> None:
        rows = [
            {"peer": peer, "rank": rank, "data": data} | self._row(topic) for rank, (peer, data) in enumerate(peers)
        ]

        def write(connection: sa.Connection) -> None:
            connection.execute(sa.delete(_p).where(*self._of(_p, topic)))
            connection.execute(sa.insert(_p), rows)

        await self._database.write(write, durable=False)

    def _row(self, topic: bytes) -> dict[str, object]:
        return {"node": self._node, "topic": topic}

    def _of(self, table: sa.Table, topic: bytes) -> tuple[sa.ColumnElement[bool], ...]:
        return table.c.node == self._node, table.c.topic == topic
