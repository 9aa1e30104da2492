"""Ten nodes from a seed, in virtual time. Long form: ``python -m benchmarks.convergence``."""

import pytest
from tidings.docs_sync.entry import Record, sign_entry
from tidings.docs_sync.put import Put
from tidings.docs_sync.store import Inserted
from tidings.docs_sync.sync_state import TRANSITIONS, Action, Event, State
from virtual_swarm import Scenario, Violation, run

SMALL = Scenario(seed=0, nodes=5, rust=1, seconds=60, edits=30, faults=8, contents=False)


def scenario(seed, **changes):
    return Scenario(**(SMALL.__dict__ | {"seed": seed} | changes))


@pytest.mark.parametrize("seed", [1, 2])
def test_convergence(tmp_path, seed):
    run(scenario(seed, contents=True), tmp_path)


def test_ten_nodes(tmp_path):
    run(scenario(3, nodes=10, rust=2), tmp_path)


def test_a_seed_gives_the_same_run(tmp_path):
    first, again, other = (run(scenario(seed), tmp_path / name) for seed, name in ((4, "a"), (4, "b"), (5, "c")))
    assert first.digest == again.digest
    assert first.digest != other.digest


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


def acknowledge_too_early(member):
    """One node tells of a write before it is kept, and is then killed: here it just loses every fifth."""
    if member.name != "node3":
        return
    store, count = member.node.docs._store, 0
    write = store.write_batch

    async def write_batch(capability, author, entries):
        nonlocal count
        count += 1
        if count % 5:
            return await write(capability, author, entries)
        now = store._clock()
        records = [Record(entry.size, entry.hash, now + number) for number, entry in enumerate(entries)]
        return [
            Inserted(sign_entry(capability.secret, author, entry.key, record), 0)
            for entry, record in zip(entries, records, strict=True)
        ]

    store.write_batch = write_batch


def never_differ(member):
    """No digest finds anything."""

    async def digest(peer, digests):
        return set()

    member.node.docs._links.digest = digest


@pytest.mark.parametrize(
    ("mutate", "complaint"),
    [
        (forget_tombstones, "node2 lacks .*tombstone"),
        (acknowledge_too_early, "lacks"),
        (never_differ, "after the loss of all gossip"),
    ],
)
def test_what_is_broken_is_found(tmp_path, mutate, complaint):
    with pytest.raises(Violation, match=complaint):
        run(scenario(6, rust=0), tmp_path, mutate=mutate)


def test_a_state_that_stays_busy_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(TRANSITIONS, (State.DIALING, Event.DIAL_ENDED), (State.DIALING, Action.NOTHING))
    with pytest.raises(Violation, match=r"not idle|not repaired"):
        run(scenario(7), tmp_path)
