"""What is asked next, and of whom."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.contents import wanted as module
from tidings.docs_sync.contents.wanted import MAX_TRIED, Rank, WantedContents, retry_delay

DOC, OTHER = b"d" * 32, b"e" * 32
A, B = b"a" * 32, b"b" * 32


def hash_of(n: int) -> bytes:
    return n.to_bytes(32, "big")


class Peers(dict):
    def __call__(self, document: bytes) -> list[bytes]:
        return self.get(document, [])


@pytest.fixture
def peers() -> Peers:
    return Peers({DOC: [A]})


@pytest.fixture
def contents(peers: Peers) -> WantedContents:
    return WantedContents(Random(1), peers)


def hashes(request: module.Request | None) -> list[int]:
    assert request is not None
    return [int.from_bytes(wanted.hash, "big") for wanted in request.contents]


def test_ranks(contents: WantedContents) -> None:
    contents.add(DOC, hash_of(1), 5, 0, Rank.DUE)
    contents.add(DOC, hash_of(2), 5, 0, Rank.ANNOUNCED, [B])
    contents.add(DOC, hash_of(3), 5, 0, Rank.DUE)
    contents.add(DOC, hash_of(3), 5, 0, Rank.URGENT)
    first, second, third = (contents.take(0.0) for _ in range(3))
    assert (hashes(first), hashes(second), hashes(third)) == ([3], [2], [1])
    assert second is not None
    assert second.peer == B
    assert contents.take(0.0) is None


def test_small_contents_share_a_request(contents: WantedContents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 40_000)
    for n in range(8):
        contents.add(DOC, hash_of(n), 20_000 if n == 1 else 10_000, 0, Rank.DUE)
    assert hashes(contents.take(0.0)) == [0, 2, 3, 4]
    assert hashes(contents.take(0.0)) == [1]
    assert hashes(contents.take(0.0)) == [5, 6, 7]


def test_what_came_ends_and_is_kept_until_it_is_settled(contents: WantedContents) -> None:
    contents.add(DOC, hash_of(1), 5, 3, Rank.DUE)
    request = contents.take(0.0)
    assert request is not None
    contents.delivered(request, [hash_of(1)], None, 0.0)
    [ended] = contents.ended()
    assert (ended.content.hash, ended.content.documents, ended.peer, ended.error) == (hash_of(1), {DOC: 3}, A, None)
    assert contents.add(DOC, hash_of(1), 5, 3, Rank.DUE)
    assert contents.take(0.0) is None
    contents.settled([ended])
    assert hash_of(1) not in contents
    assert contents.of(DOC) == 0


def test_an_attempt_asks_one_peer_after_another(contents: WantedContents, peers: Peers) -> None:
    peers[DOC] = [A, B]
    contents.add(DOC, hash_of(1), 5, 0, Rank.DUE)
    for peer in (A, B):
        request = contents.take(0.0)
        assert request is not None
        assert request.peer == peer
        assert contents.ended() == []
        contents.delivered(request, [], f"not from {peer[:1].decode()}", 0.0, at_fault=hash_of(1))
    assert contents.take(0.0) is None
    [ended] = contents.ended()
    assert (ended.peer, ended.error) == (B, "not from b")
    contents.settled([ended])
    assert len(contents) == 0


def test_an_announcement_during_the_last_failure_counts(contents: WantedContents) -> None:
    contents.add(DOC, hash_of(1), 5, 0, Rank.DUE)
    request = contents.take(0.0)
    assert request is not None
    contents.delivered(request, [], "no", 0.0, at_fault=hash_of(1))
    assert contents.take(0.0) is None
    [ended] = contents.ended()
    contents.add(DOC, hash_of(1), 5, 0, Rank.ANNOUNCED, [B])
    contents.settled([ended])
    again = contents.take(0.0)
    assert again is not None
    assert (again.peer, again.contents[0].documents) == (B, {DOC: 1})


def attempt(contents: WantedContents, now: float = 0.0) -> list[bytes]:
    """Who is asked until the attempt for the one content of the window is over; nobody has it."""
    asked = []
    while (request := contents.take(now)) is not None:
        asked.append(request.peer)
        contents.delivered(request, [], "no", now)
    contents.settled(contents.ended())
    return asked


def test_an_attempt_ends_however_many_peers_there_are(contents: WantedContents, peers: Peers) -> None:
    many = [bytes([n]) * 32 for n in range(20)]
    peers[DOC] = many
    contents.add(DOC, hash_of(1), 5, 0, Rank.ANNOUNCED, [B])
    assert attempt(contents) == [B, *many[: MAX_TRIED - 1]]
    assert hash_of(1) not in contents
    contents.add(DOC, hash_of(1), 5, 0, Rank.DUE)
    for peer in many[:MAX_TRIED]:
        request = contents.take(0.0)
        assert request is not None and request.peer == peer
        if peer == many[MAX_TRIED - 1]:
            contents.add(DOC, hash_of(1), 5, 0, Rank.ANNOUNCED, [B])  # it is asked, too
        contents.delivered(request, [], "no", 0.0)
    assert attempt(contents) == [B]
    assert hash_of(1) not in contents


def test_further_attempts_ask_others(contents: WantedContents, peers: Peers) -> None:
    peers[DOC] = many = [bytes([n]) * 32 for n in range(20)]
    asked = []
    for attempts in range(5):
        contents.add(DOC, hash_of(1), 5, attempts, Rank.DUE)
        asked.append(attempt(contents))
    assert asked[0] == many[:MAX_TRIED] and all(len(each) == MAX_TRIED for each in asked)
    assert {peer for each in asked for peer in each} == set(many)


def test_an_announcer_that_is_left_alone_is_asked_later(contents: WantedContents, peers: Peers) -> None:
    contents.add(OTHER, hash_of(9), 5, 0, Rank.ANNOUNCED, [B])
    request = contents.take(0.0)
    assert request is not None
    contents.delivered(request, [], "gone", 0.0, unwell=True)
    contents.add(DOC, hash_of(1), 5, 0, Rank.ANNOUNCED, [B])
    assert attempt(contents, 0.1) == [A]
    assert hash_of(1) not in contents  # its time will come


def test_broken_requests_get_smaller_until_one_counts(contents: WantedContents) -> None:
    for n in range(100):
        contents.add(DOC, hash_of(n), 5, 0, Rank.DUE)
    sizes = []
    while (request := contents.take(0.0)) is not None:
        sizes.append(len(request.contents))
        came = [wanted.hash for wanted in request.contents if wanted.hash != hash_of(50)]
        if len(came) < len(request.contents):
            contents.delivered(request, [], "reset", 0.0)
        else:
            contents.delivered(request, came, None, 0.0)
    assert sizes[:3] == [100, 25, 50]
    assert len(sizes) < 30
    errors = {ended.content.hash: ended.error for ended in contents.ended()}
    assert [hash for hash, error in errors.items() if error] == [hash_of(50)]
    assert len(errors) == 100


def test_who_cannot_be_reached_is_left_alone(contents: WantedContents, peers: Peers) -> None:
    for n in range(2):
        contents.add(DOC, hash_of(n), 20_000, 0, Rank.DUE)
    request = contents.take(0.0)
    assert request is not None
    contents.delivered(request, [], "unreachable", 0.0, unwell=True)
    assert contents.take(0.0) is None
    assert [hash for (hash, *_), _, _ in [((e.content.hash,), e.peer, e.error) for e in contents.ended()]] == [
        hash_of(0)
    ]
    assert contents.dropped() == {DOC}
    assert hash_of(1) not in contents  # untried: it is in the store
    open_at = contents.open_at(DOC, 0.0)
    assert open_at is not None
    assert 0 < open_at <= module.AVOID_FIRST * module.JITTER[1]
    contents.appeared(A)
    assert contents.open_at(DOC, 0.0) == 0.0
    peers.clear()
    assert contents.open_at(DOC, 0.0) is None


def test_who_waits_asks_the_unwell_too(contents: WantedContents) -> None:
    contents.add(DOC, hash_of(1), 5, 0, Rank.DUE)
    request = contents.take(0.0)
    assert request is not None
    contents.delivered(request, [], "stalled", 0.0, unwell=True)
    contents.add(DOC, hash_of(2), 5, 0, Rank.URGENT)
    assert hashes(contents.take(0.0)) == [2]


def test_bounds(contents: WantedContents, peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_OF_DOCUMENT", 30)
    monkeypatch.setattr(module, "WINDOW", 40)
    added = [contents.add(DOC, hash_of(n), 20_000, 0, Rank.DUE) for n in range(50)]
    assert (sum(added), contents.room(DOC), contents.room(OTHER)) == (30, 0, 10)
    for n in range(50):
        contents.add(DOC, hash_of(0), 5, 0, Rank.ANNOUNCED, [hash_of(n)])
    assert len(contents._wanted[hash_of(0)].providers) == module.MAX_PROVIDERS
    assert contents.add(DOC, hash_of(99), 20_000, 0, Rank.URGENT)
    running = []
    while (request := contents.take(0.0)) is not None:
        running.append(request)
    of_a = [request for request in running if request.peer == A and not request.urgent]
    assert (len(of_a), len(running)) == (module.REQUESTS_OF_PEER - 1, module.REQUESTS_OF_PEER + 1)
    assert contents.take(0.0, urgent_only=True) is None


def test_a_document_that_leaves(contents: WantedContents, peers: Peers) -> None:
    peers[OTHER] = [A]
    contents.add(DOC, hash_of(1), 5, 0, Rank.DUE)
    contents.add(OTHER, hash_of(1), 5, 0, Rank.DUE)
    contents.add(DOC, hash_of(2), 20_000, 0, Rank.DUE)
    contents.add(DOC, hash_of(3), 5, 0, Rank.URGENT)
    contents.leave(DOC, urgent_too=False)
    assert hash_of(2) not in contents
    assert hash_of(3) in contents
    contents.leave(DOC)
    request = contents.take(0.0)
    assert hashes(request) == [1]
    contents.leave(OTHER)
    assert request is not None
    contents.delivered(request, [], "reset", 0.0)
    assert len(contents) == 0


def test_what_came_by_another_way(contents: WantedContents) -> None:
    contents.add(DOC, hash_of(1), 5, 0, Rank.DUE)
    contents.here(hash_of(1))
    contents.here(hash_of(2))
    assert contents.take(0.0) is None
    assert [(ended.content.hash, ended.peer, ended.error) for ended in contents.ended()] == [(hash_of(1), None, None)]


def test_delays_grow() -> None:
    rng = Random(1)
    delays = [retry_delay(attempts, rng) for attempts in range(1, 40)]
    assert delays[0] <= module.RETRY_FIRST * module.JITTER[1]
    assert max(delays) <= module.RETRY_MOST * module.JITTER[1]
    assert delays[11] > 100 * delays[0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_everything_ends_whatever_the_peers_do(data: st.DataObject) -> None:
    """Each content comes or fails, nothing stays behind, and no more is asked than there is to ask."""
    names = [bytes([n]) * 32 for n in range(1, 4)]
    contents = WantedContents(Random(data.draw(st.integers(0, 99))), lambda _: names)
    many = data.draw(st.integers(1, 40))
    for n in range(many):
        contents.add(DOC, hash_of(n), data.draw(st.sampled_from([5, 20_000])), 0, Rank(data.draw(st.integers(0, 2))))
    running, left, now, asked = [], set(range(many)), 0.0, 0
    while left and asked < 60 * many:
        now += 1000.0  # all are well again
        while (request := contents.take(now)) is not None:
            running.append(request)
            asked += 1
        for ended in contents.ended():
            left.discard(int.from_bytes(ended.content.hash, "big"))
            contents.settled([ended])
        for document in contents.dropped():
            assert document == DOC
        if running:
            request = running.pop(data.draw(st.integers(0, len(running) - 1)))
            held = [wanted.hash for wanted in request.contents]
            came = held[: data.draw(st.integers(0, len(held)))]
            rest = held[len(came) :]
            if not rest:
                contents.delivered(request, came, None, now)
            else:
                fault = rest[0] if data.draw(st.booleans()) else None
                contents.delivered(request, came, "bad", now, at_fault=fault, unwell=data.draw(st.booleans()))
    assert not left
    assert len(contents) == contents.of(DOC) == 0
    assert contents._requests == [0, 0]
    assert not any(peer.requests for peer in contents._peers.values())
