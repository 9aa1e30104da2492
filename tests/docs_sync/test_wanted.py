"""What is fetched next, and when."""

from random import Random

import pytest
from tidings.docs_sync import wanted as module
from tidings.docs_sync.wanted import WantedContents

DOC, OTHER = b"d" * 32, b"e" * 32
A, B = b"a" * 32, b"b" * 32


def hash_of(n: int) -> bytes:
    return n.to_bytes(32, "big")


@pytest.fixture
def contents() -> WantedContents:
    return WantedContents(Random(1))


def test_what_is_offered_is_due_at_once(contents: WantedContents) -> None:
    contents.add(hash_of(1), 5, DOC, None, 0.0)
    contents.add(hash_of(2), 5, DOC, A, 0.0)
    taken = contents.take(0.0)
    assert taken is not None
    assert (taken.hash, list(taken.providers)) == (hash_of(2), [A])
    assert contents.take(0.0) is None
    later = contents.take(module.UNANNOUNCED_DELAY)
    assert later is not None
    assert later.hash == hash_of(1)
    assert contents.done(hash_of(1)) == {DOC}
    assert hash_of(1) not in contents


def test_failures_wait_and_announcements_do_not(contents: WantedContents) -> None:
    contents.add(hash_of(1), 5, DOC, A, 0.0)
    taken = contents.take(0.0)
    contents.failed(taken, 0.0)
    assert contents.take(0.5) is None
    contents.announce(hash_of(1), B, 0.5)
    assert contents.take(0.5) is taken
    assert list(taken.providers) == [A, B]
    delays = []
    for _ in range(12):
        contents.failed(taken, 0.0)
        delays.append(taken.due)
        assert contents.take(taken.due) is taken
    assert delays[-1] <= module.RETRY_MOST * module.JITTER[1]
    assert delays[-1] > 10 * delays[0]


def test_a_new_peer_makes_all_due_soon(contents: WantedContents) -> None:
    contents.add(hash_of(1), 5, DOC, A, 0.0)
    taken = contents.take(0.0)
    for _ in range(8):
        contents.failed(taken, 0.0)
    contents.hasten(OTHER, 1.0)
    assert contents.take(1.0 + module.RETRY_FIRST) is None
    contents.hasten(DOC, 1.0)
    assert contents.take(1.0 + module.RETRY_FIRST) is taken


def test_bounds(contents: WantedContents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WANTED", 3)
    assert [contents.add(hash_of(n), 5, DOC, None, 0.0) for n in range(5)] == [True] * 3 + [False] * 2
    assert contents.overflown == {DOC}
    assert contents.add(hash_of(9), 5, DOC, None, 0.0, urgent=True)
    for n in range(50):
        contents.announce(hash_of(0), hash_of(n), 0.0)
    assert len(contents.take(0.0).providers) == module.MAX_PROVIDERS
    for _ in range(1000):
        contents.hasten(DOC, 0.0)
    assert len(contents._queue) < 100


def test_a_document_that_leaves(contents: WantedContents) -> None:
    contents.add(hash_of(1), 5, DOC, A, 0.0)
    contents.add(hash_of(1), 5, OTHER, A, 0.0)
    contents.add(hash_of(2), 5, DOC, A, 0.0)
    contents.leave(DOC)
    assert len(contents) == 1
    assert contents.done(hash_of(1)) == {OTHER}
    assert contents.take(0.0) is None
