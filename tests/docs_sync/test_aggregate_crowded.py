"""Range deletes in trees whose nodes are full: what a writer who picks keys can bring about."""

import random

import pytest
from docs_checker import entries_of, verify_aggregate
from docs_model import NAMESPACE_ID, entry
from tidings.docs_sync.store import aggregate, put_rows
from tidings.docs_sync.store.put_rows import put_entries
from tidings.storage import schema
from tidings.storage.engine import writer_engine


@pytest.mark.parametrize("seed", range(8))
def test_range_deletes_in_crowded_nodes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate, "CROWDED", 4)
    monkeypatch.setattr(aggregate, "ROOT", 4)
    monkeypatch.setattr(aggregate, "height", lambda bound: 0)
    monkeypatch.setattr(put_rows, "MANY_BELOW", 4)
    monkeypatch.setattr(put_rows, "SPARSE", 0)
    rng = random.Random(seed)
    engine = writer_engine(None)
    connection = engine.connect()
    schema.create(connection)
    time = 0
    with connection.begin():
        for _ in range(10):
            time += 1
            some = [entry(b"%d/%03d" % (rng.randrange(4), rng.randrange(400)), time) for _ in range(300)]
            put_entries(connection, NAMESPACE_ID, some, now_us=1, history=False)
            time += 1
            prefix = b"%d/%d" % (rng.randrange(4), rng.randrange(4))
            put_entries(connection, NAMESPACE_ID, [entry(prefix, time, None)], now_us=1, history=False)
            verify_aggregate(connection, NAMESPACE_ID, entries_of(connection, NAMESPACE_ID), rng)
    connection.close()
    engine.dispose()
