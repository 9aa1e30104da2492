"""How many syncs are served at once, and for whom."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.sync.admittance import MAX_OF_PEER, MAX_SERVED, Admittance
from tidings.docs_sync.sync.dial_queue import MAX_DIALS_TO_PEER


def test_one_peer_cannot_take_every_place() -> None:
    served = Admittance()
    assert sum(served.enter("greedy") for _ in range(1000)) == MAX_OF_PEER
    assert served.enter("other")


def test_the_last_places_go_to_those_that_have_none() -> None:
    served = Admittance()
    for peer in range(6):
        for _ in range(1000):
            served.enter(peer)
    assert served.enter("new")
    assert served.enter("another")
    assert served.total == MAX_SERVED


def test_our_own_dials_fit() -> None:
    assert MAX_DIALS_TO_PEER <= MAX_OF_PEER


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=400))
def test_bounded_and_every_place_comes_back(steps: list) -> None:
    served, inside = Admittance(), []
    for enters, peer in steps:
        if enters and served.enter(peer):
            inside.append(peer)
        elif not enters and peer in inside:
            inside.remove(peer)
            served.leave(peer)
        assert served.total == len(inside) <= MAX_SERVED
        assert all(inside.count(each) <= MAX_OF_PEER for each in inside)
    for peer in inside:
        served.leave(peer)
    assert served.total == 0
    assert not served._served
