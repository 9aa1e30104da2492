"""Whose turn it is to be dialled."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.sync.dial_queue import MAX_DIALS, MAX_DIALS_TO_PEER, RESERVED, DialQueue


def drain(queue: DialQueue, now: float = 0.0) -> list:
    taken = []
    while (each := queue.take(now)) is not None:
        taken.append(each)
    return taken


def test_what_somebody_waits_for_goes_first() -> None:
    queue = DialQueue(Random(1))
    for n in range(1000):
        queue.want(n, "p", urgent=False)
    queue.want(999, "p", urgent=True)
    queue.want("new", "q", urgent=True)
    queue.want(5, "p", urgent=True)
    assert drain(queue)[:3] == [(999, "p"), ("new", "q"), (5, "p")]


def test_some_slots_are_kept_for_it() -> None:
    queue = DialQueue(Random(1))
    for n in range(100):
        queue.want(n, f"p{n}", urgent=False)
    assert len(drain(queue)) == MAX_DIALS - RESERVED
    for n in range(100):
        queue.want(n, f"q{n}", urgent=True)
    assert [peer[0] for _, peer in drain(queue)] == ["q"] * RESERVED
    queue.ended("q0")
    assert drain(queue) == [(RESERVED, f"q{RESERVED}")]


def test_a_peer_gets_its_share() -> None:
    queue = DialQueue(Random(1))
    for n in range(100):
        queue.want(n, "many", urgent=False)
    queue.want(0, "few", urgent=False)
    taken = drain(queue)
    assert len(taken) == MAX_DIALS_TO_PEER - RESERVED + 1
    assert taken[1] == (0, "few")
    for n in range(100):
        queue.want(n, "many", urgent=True)
    assert len(drain(queue)) == RESERVED


def test_who_cannot_be_reached_is_tried_with_one_document_at_a_time() -> None:
    queue = DialQueue(Random(1))
    for n in range(10_000):
        queue.want(n, "dead", urgent=False)
    now, tries, delays = 0.0, 0, []
    for _ in drain(queue):
        queue.unreachable("dead", now)
        queue.ended("dead")
        tries += 1
    for _ in range(12):
        assert queue.take(now) is None
        due = queue.next_due(now)
        assert due is not None
        delays.append(due - now)
        now = due
        assert len(drain(queue, now)) == 1
        queue.unreachable("dead", now)
        queue.ended("dead")
        tries += 1
    assert delays[0] <= 1.5
    assert 30 <= delays[-1] <= 90
    assert tries < 20
    queue.want("asked", "dead", urgent=True)
    assert queue.take(now) == ("asked", "dead")  # where somebody waits, at once
    assert queue.reachable("dead")
    assert len(drain(queue, now)) == MAX_DIALS_TO_PEER - RESERVED - 1
    assert not queue.reachable("dead")


def test_dropped_ones_are_not_dialled() -> None:
    queue = DialQueue(Random(1))
    queue.want(1, "p", urgent=False)
    queue.want(2, "p", urgent=True)
    queue.drop(1, "p")
    queue.drop(2, "p")
    queue.drop(3, "nobody")
    assert drain(queue) == []
    assert queue.next_due(0.0) is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["want", "urgent", "drop", "take", "ended", "dead", "alive"]),
            st.integers(0, 5),
            st.integers(0, 3),
        )
    )
)
def test_nothing_is_lost_and_every_slot_comes_back(steps: list) -> None:
    queue, wanted, running, now = DialQueue(Random(1)), set(), [], 0.0
    for step, document, peer in steps:
        now += 0.5
        if step in ("want", "urgent"):
            queue.want(document, peer, urgent=step == "urgent")
            wanted.add((document, peer))
        elif step == "drop":
            queue.drop(document, peer)
            wanted.discard((document, peer))
        elif step == "take" and (taken := queue.take(now)) is not None:
            wanted.remove(taken)
            running.append(taken[1])
        elif step == "ended" and running:
            queue.ended(running.pop())
        elif step == "dead":
            queue.unreachable(peer, now)
        elif step == "alive":
            queue.reachable(peer)
    for peer in running:
        queue.ended(peer)
    for _ in range(100):
        while (taken := queue.take(now)) is not None:
            wanted.remove(taken)
            queue.ended(taken[1])
        due = queue.next_due(now)
        if due is None:
            break
        now = due
    assert not wanted
    for peer in range(4):
        queue.reachable(peer)
    assert not queue._peers
    assert queue._running == 0
