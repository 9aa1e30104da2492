"""Up to which arrival a document was the same here and at a peer when a sync with it ended.

What arrived since is most likely all that differs, so the next sync begins with it: a few entries and one fingerprint,
however many entries there are. It is a guess, and the fingerprint tells whether it was right: where it was not, the
sync goes on as between strangers.
"""

from __future__ import annotations

import sqlalchemy as sa

from ...storage import lock, tables
from ...storage.prepared import Prepared
from ..model.reconcile import ENTRY_OVERHEAD, Value
from .rows import arrivals

__all__ = ["MOST_PEERS", "MOST_RECENT", "agree", "recent"]

MOST_RECENT = 64  # entries: 15 kB, no more than a first split costs
MAX_RECENT = 1 << 16  # bytes of them, where keys are long
MOST_PEERS = 256  # of a document

_g, _e = tables.agreed.c, tables.entries.c
_here = (_g.namespace == sa.bindparam("namespace"), _g.peer == sa.bindparam("peer"))
_last = sa.select(sa.func.coalesce(sa.func.max(_e.seq), 0)).where(_e.namespace == sa.bindparam("namespace"))
_SEQ = Prepared(sa.select(_g.seq).where(*_here))
_LAST = Prepared(_last)
_SET = Prepared(
    sa.update(tables.agreed)
    .where(_g.namespace == sa.bindparam("of"), _g.peer == sa.bindparam("whom"))
    .values(seq=sa.bindparam("last"))
)
_ADD = Prepared(sa.insert(tables.agreed))
_newest = sa.select(_g.peer).where(_g.namespace == sa.bindparam("namespace")).order_by(_g.seq.desc()).limit(MOST_PEERS)
_TRIM = Prepared(sa.delete(tables.agreed).where(_g.namespace == sa.bindparam("namespace"), _g.peer.not_in(_newest)))


def agree(connection: sa.Connection, namespace: bytes, peer: bytes) -> None:
    """What is here now is at the peer, too."""
    lock(connection, namespace)
    where = {"namespace": namespace, "peer": peer}
    known = _SEQ.first(connection, where)
    (last,) = _LAST.first(connection, where)
    if not last:
        return
    if known is None:
        _ADD.run(connection, where | {"seq": last})
        _TRIM.run(connection, where)
    elif known[0] != last:
        _SET.run(connection, {"of": namespace, "whom": peer, "last": last})


def recent(connection: sa.Connection, namespace: bytes, peer: bytes) -> list[Value] | None:
    """What arrived since; None where nothing was ever agreed on, or too much arrived to be sent on a guess."""
    known = _SEQ.first(connection, {"namespace": namespace, "peer": peer})
    if known is None:
        return None
    values = [value for _, value in arrivals(connection, namespace, known[0], MOST_RECENT + 1)]
    size = sum(len(value.entry.id.key) + ENTRY_OVERHEAD for value in values)
    return None if len(values) > MOST_RECENT or size > MAX_RECENT else values
