"""What the database knows of who may read: settings of documents, shares, revocations, restrictions.

One row of ``shares`` for each share that was issued or revoked; the latest restriction lies under `RESTRICTION_ID`.
Nothing is checked here: signatures are `control.AccessControl`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from ...storage import Database, lock, tables
from ..errors import TooManyShares
from ..model.keys import NamespaceId
from .shares import SHARE_ID_SIZE, Grant, Restriction, Revocation, Share, decode_statement

__all__ = ["MAX_REVOCATIONS", "MAX_SHARES", "Rules", "ShareStore"]

MAX_SHARES = 10_000
"""Of a document, issued here and not expired: about 3 MB of rows."""

MAX_REVOCATIONS = 500
"""Of a document, of shares that have not expired: they are sent in every sync with a tidings peer, 50 kB at most."""

RESTRICTION_ID = bytes(SHARE_ID_SIZE)

_n, _s = tables.namespaces.c, tables.shares.c


@dataclass(frozen=True, slots=True)
class Rules:
    """How a document stands: whether it is restricted, which shares were revoked, and by what this node may read.

    ``secret`` and ``cipher_key`` are 32 bytes, or None where this node has none.
    """

    restricted: bool
    secret: bytes | None = field(repr=False)
    cipher_key: bytes | None = field(repr=False)
    grant: Grant | None
    revoked: frozenset[bytes]
    notices: tuple[bytes, ...] = field(repr=False)
    """The revocations and the restriction, encoded, for other nodes."""
    prefix: bytes | None = None
    """Of the part that this node holds; None: the whole document."""


class ShareStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def is_shared(self) -> bool:
        """Whether other processes may change what is here."""
        return self._database.is_shared

    async def rules(self, namespace: NamespaceId, now_us: int) -> Rules | None:
        """None where there is no such document here."""
        return (await self._rules(_n.namespace == bytes(namespace), _s.namespace == bytes(namespace), now_us)).get(
            namespace
        )

    async def all_rules(self, now_us: int) -> dict[NamespaceId, Rules]:
        """Of every document, in the order of their creation here."""
        return await self._rules(sa.true(), sa.true(), now_us)

    async def _rules(
        self, documents: sa.ColumnElement[bool], shares: sa.ColumnElement[bool], now_us: int
    ) -> dict[NamespaceId, Rules]:
        columns = (_n.namespace, _n.restricted, _n.secret, _n.cipher_key, _n.share, _n.prefix)
        settings = sa.select(*columns).where(documents)
        notices = sa.select(_s.namespace, _s.id, _s.record, _s.revocation).where(
            shares, sa.or_(_s.revocation.is_not(None), _s.id == RESTRICTION_ID)
        )

        def job(connection: sa.Connection) -> dict[NamespaceId, Rules]:
            revoked: dict[bytes, set[bytes]] = {}
            encoded: dict[bytes, list[bytes]] = {}
            for namespace, share_id, record, revocation in connection.execute(notices):
                if share_id == RESTRICTION_ID:
                    encoded.setdefault(namespace, []).insert(0, record)
                elif not _is_over(revocation, now_us):
                    revoked.setdefault(namespace, set()).add(share_id)
                    encoded.setdefault(namespace, []).append(revocation)
            found = {}
            for namespace, restricted, secret, key, share, prefix in connection.execute(
                settings.order_by(_n.created_us, _n.namespace)
            ):
                grant = None if share is None else Grant.decode(share)
                mine = frozenset(revoked.get(namespace, ())), tuple(encoded.get(namespace, ()))
                found[NamespaceId(namespace)] = Rules(restricted, secret, key, grant, *mine, prefix)
            return found

        return await self._database.read(job)

    async def adopt(
        self, namespace: NamespaceId, *, restricted: bool, cipher_key: bytes | None, grant: Grant | None
    ) -> None:
        """Keep what came with a ticket: the grant that was issued last counts, a key and a restriction stay."""
        row = tables.namespaces.update().where(_n.namespace == bytes(namespace))

        def job(connection: sa.Connection) -> None:
            lock(connection, bytes(namespace))
            told = sa.exists().where(_s.namespace == bytes(namespace), _s.id == RESTRICTION_ID)
            if restricted:  # by the ticket, which may be older than a statement that is here
                connection.execute(row.where(~told).values(restricted=True))
            known = connection.execute(sa.select(_n.share).where(_n.namespace == bytes(namespace))).scalar()
            last = 0 if known is None else Grant.decode(known).share.issued_us
            if grant is not None and grant.share.issued_us >= last:
                connection.execute(row.values(share=grant.encode()))
            if cipher_key is not None:
                connection.execute(row.where(_n.cipher_key.is_(None)).values(cipher_key=cipher_key))

        await self._database.write(job)

    async def issued(self, namespace: NamespaceId, now_us: int) -> list[tuple[Share, Revocation | None]]:
        """The shares that were issued here and have not expired, oldest first."""
        query = sa.select(_s.record, _s.revocation).where(
            _s.namespace == bytes(namespace), _s.record.is_not(None), _s.id != RESTRICTION_ID
        )
        rows = await self._database.read(lambda connection: list(connection.execute(query)))
        found = []
        for record, revocation in rows:
            share = decode_statement(record)
            withdrawn = None if revocation is None else decode_statement(revocation)
            assert isinstance(share, Share)
            assert withdrawn is None or isinstance(withdrawn, Revocation)
            if share.not_after_us is None or now_us < share.not_after_us:
                found.append((share, withdrawn))
        return sorted(found, key=lambda each: each[0].issued_us)

    async def add_share(self, namespace: NamespaceId, share: Share) -> None:
        """Raises TooManyShares."""
        id = bytes(namespace)
        row = {"namespace": id, "id": share.id, "record": share.encode(), "changed_us": share.issued_us}

        def job(connection: sa.Connection) -> None:
            lock(connection, id)
            _purge(connection, id, share.issued_us, _s.record, MAX_SHARES)
            connection.execute(sa.insert(tables.shares), row)

        await self._database.write(job)

    async def add_revocations(self, namespace: NamespaceId, revocations: Sequence[Revocation], now_us: int) -> None:
        """Raises TooManyShares; what found room until then is kept."""
        id = bytes(namespace)

        def job(connection: sa.Connection) -> bool:
            lock(connection, id)
            for revocation in revocations:
                place = sa.and_(_s.namespace == id, _s.id == revocation.share_id)
                known = connection.execute(sa.select(_s.revocation).where(place)).first()
                if known is not None and known[0] is not None:
                    continue
                try:
                    _purge(connection, id, now_us, _s.revocation, MAX_REVOCATIONS)
                except TooManyShares:
                    return False
                values = {"revocation": revocation.encode(), "changed_us": now_us}
                if known is None:
                    row = {"namespace": id, "id": revocation.share_id, **values}
                    connection.execute(sa.insert(tables.shares), row)
                else:
                    connection.execute(sa.update(tables.shares).where(place).values(values))
            return True

        if not await self._database.write(job):
            raise TooManyShares(f"document {namespace.short()} has {MAX_REVOCATIONS} revocations already")

    async def restrict(self, namespace: NamespaceId, restriction: Restriction) -> bool:
        """Follow ``restriction`` unless a later one is here; whether it was followed."""
        id = bytes(namespace)
        place = sa.and_(_s.namespace == id, _s.id == RESTRICTION_ID)
        values = {"record": restriction.encode(), "changed_us": restriction.issued_us}

        def job(connection: sa.Connection) -> bool:
            lock(connection, id)
            known = connection.execute(sa.select(_s.changed_us).where(place)).scalar()
            if known is not None and known >= restriction.issued_us:
                return False
            if known is None:
                row = {"namespace": id, "id": RESTRICTION_ID, **values}
                connection.execute(sa.insert(tables.shares), row)
            else:
                connection.execute(sa.update(tables.shares).where(place).values(values))
            document = sa.update(tables.namespaces).where(_n.namespace == id)
            connection.execute(document.values(restricted=restriction.restricted))
            return True

        return await self._database.write(job)


def _purge(
    connection: sa.Connection, namespace: bytes, now_us: int, column: sa.ColumnElement[bytes], limit: int
) -> None:
    """Where ``limit`` rows have something in ``column``, drop those whose share has expired. Raises TooManyShares."""
    here = sa.and_(_s.namespace == namespace, _s.id != RESTRICTION_ID)
    count = sa.select(sa.func.count()).where(here, column.is_not(None))
    if connection.execute(count).scalar_one() < limit:
        return
    rows = connection.execute(sa.select(_s.id, _s.record, _s.revocation).where(here)).all()
    over = [id for id, record, revocation in rows if _is_over(record or revocation, now_us)]
    for id in over:
        connection.execute(sa.delete(tables.shares).where(here, _s.id == id))
    if connection.execute(count).scalar_one() >= limit:
        raise TooManyShares(f"the document has {limit} of these already that have not expired: let shares expire")


def _is_over(statement: bytes, now_us: int) -> bool:
    decoded = decode_statement(statement)
    end = decoded.not_after_us if isinstance(decoded, Share) else None
    end = decoded.until_us if isinstance(decoded, Revocation) else end
    return end is not None and end <= now_us
