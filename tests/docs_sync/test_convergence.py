"""Ten nodes from a seed, in virtual time. Long form: ``python -m benchmarks.convergence``."""

import pytest
from tidings.docs_sync.live.document import LiveDocument
from tidings.docs_sync.model.entry import Record, sign_entry
from tidings.docs_sync.model.put import Put
from tidings.docs_sync.store.documents import DocsStore, Inserted
from tidings.docs_sync.store.put_rows import _Overlay
from tidings.docs_sync.sync.sync_state import TRANSITIONS, Action, Event, State
from virtual_clock import HOST
from virtual_swarm import Scenario, Violation, run

pytestmark = pytest.mark.timeout(240)  # on a machine that is busy; alone each takes a second or two
SMALL = Scenario(seed=0, nodes=4, rust=1, seconds=45, edits=24, faults=8, contents=False)


def scenario(seed, **changes):
    return Scenario(**(SMALL.__dict__ | {"seed": seed} | changes))


@pytest.mark.parametrize("seed", [1, 2])
def test_convergence(tmp_path, seed):
    run(scenario(seed, contents=True), tmp_path)


def test_ten_nodes(tmp_path):
    run(scenario(3, nodes=10, rust=2, seconds=15, edits=12, faults=3), tmp_path)


def test_a_seed_gives_the_same_run(tmp_path):
    first, again = (run(scenario(4, nodes=5, rust=2), tmp_path / name) for name in "ab")
    assert first.events > 1000
    assert (first.events, first.digest) == (again.events, again.digest)


# A checker that finds nothing wrong with broken nodes is worth nothing.


def forget_tombstones(member):
    """One node says that it stored them."""
    if member.name != "node2":
        return
    store = member.node.docs._store
    put = store._put

    def put_entries(connection, namespace, entries):
        outcomes = iter(put(connection, namespace, [entry for entry in entries if not entry.record.is_tombstone]))
        return [Put(None, 0) if entry.record.is_tombstone else next(outcomes) for entry in entries]

    store._put = put_entries


def never_differ(member):
    """No digest finds anything."""

    async def digest(peer, digests):
        return set()

    member.node.docs._links.digest = digest


@pytest.mark.parametrize(
    ("mutate", "complaint"),
    [
        (forget_tombstones, "node2 lacks .*tombstone"),
        (never_differ, "not repaired 30 s after"),
    ],
)
def test_what_is_broken_is_found(tmp_path, mutate, complaint):
    with pytest.raises(Violation, match=complaint):
        run(scenario(6, rust=0, repair=30), tmp_path, mutate=mutate)


def test_lost_writes_are_found(tmp_path, monkeypatch):
    """One node acknowledges what it does not keep."""
    write, inserted = DocsStore.write_batch, LiveDocument.inserted

    async def write_batch(self, capability, author, entries):
        if HOST.get().name != "node3":
            return await write(self, capability, author, entries)
        now = self._clock()
        records = [Record(entry.size, entry.hash, now + number) for number, entry in enumerate(entries)]
        signed = [
            sign_entry(capability.secret, author, entry.key, record)
            for entry, record in zip(entries, records, strict=True)
        ]
        return [Inserted(entry, 0) for entry in signed]

    def tell(self, entry):
        if HOST.get().name != "node3":
            inserted(self, entry)

    monkeypatch.setattr(DocsStore, "write_batch", write_batch)
    monkeypatch.setattr(LiveDocument, "inserted", tell)
    with pytest.raises(Violation, match=r"node0 lacks"):
        run(scenario(6, rust=0, repair=30), tmp_path)


def test_a_broken_put_rule_is_found(tmp_path, monkeypatch):
    """One node replaces what is at the key, and nothing below it."""
    remove = _Overlay.remove_superseded

    def remove_superseded(self, entry):
        prefix = entry.id.key
        below = {key: self.known[key] for key in self.keys if key.startswith(prefix) and key != prefix}
        removed = remove(self, entry)
        for key, known in below.items() if HOST.get().name == "node2" else ():
            if key not in self.known:
                self._add(key, known)
                self.removed.pop(key, None)
        return removed

    monkeypatch.setattr(_Overlay, "remove_superseded", remove_superseded)
    with pytest.raises(Violation, match=r"node2 lacks|verify"):
        run(scenario(8, rust=0, repair=30), tmp_path)


def test_a_state_that_stays_busy_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(TRANSITIONS, (State.DIALING, Event.DIAL_ENDED), (State.DIALING, Action.NOTHING))
    with pytest.raises(Violation, match=r"not idle|not repaired"):
        run(scenario(7, repair=30), tmp_path)
