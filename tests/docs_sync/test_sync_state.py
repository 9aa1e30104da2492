"""The machine of one (document, peer): complete, and never stuck."""

import itertools
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.sync.sync_state import TRANSITIONS, Action, Event, PeerSync, State

LOW, HIGH = b"\1" * 32, b"\2" * 32


def machine(me: bytes = HIGH, peer: bytes = LOW) -> PeerSync:
    return PeerSync(me, peer, Random(1))


def test_the_table_is_complete() -> None:
    for state, event in itertools.product(State, Event):
        dialling = state in (State.DIALING, State.BOTH)
        accepting = state in (State.ACCEPTING, State.BOTH)
        possible = {Event.DIAL_ENDED: dialling, Event.ACCEPT_ENDED: accepting}.get(event, True)
        assert ((state, event) in TRANSITIONS) == possible


def test_of_two_dials_the_one_of_the_smaller_id_survives() -> None:
    high, low = machine(HIGH, LOW), machine(LOW, HIGH)
    assert high.want()
    assert low.want()
    assert high.called() is Action.ACCEPT
    assert low.called() is Action.REFUSE
    high.dial_ended(ok=False, now=0)
    assert high.state is State.ACCEPTING
    assert high.retry_at is None
    low.dial_ended(ok=True, now=1)
    high.accept_ended(ok=True, now=1)
    assert high.settled
    assert low.settled


def test_wanted_while_one_runs() -> None:
    peer = machine()
    assert peer.want()
    assert not peer.want()
    peer.dial_ended(ok=True, now=0)
    assert peer.due(0)
    assert peer.want()
    peer.dial_ended(ok=True, now=0)
    assert peer.settled


def test_failures_are_retried_more_and_more_slowly() -> None:
    peer, now, delays = machine(), 0.0, []
    for _ in range(12):
        assert peer.want()
        peer.dial_ended(ok=False, now=now)
        assert not peer.due(now)
        delays.append(peer.retry_at - now)
        now = peer.retry_at
        assert peer.due(now)
    assert 0.5 <= delays[0] <= 1.5
    assert 30 <= delays[-1] <= 90
    assert peer.want()
    peer.dial_ended(ok=True, now=now)
    assert peer.settled
    assert peer.failures == 0


def test_a_peer_that_calls_again_has_given_the_first_call_up() -> None:
    for me, them in ((LOW, HIGH), (HIGH, LOW)):
        peer = machine(me, them)
        assert peer.called() is Action.ACCEPT
        assert peer.called() is Action.SUPERSEDE
        peer.accept_ended(ok=False, now=0)
        assert peer.called() is Action.ACCEPT


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["want", "call", "dial_ok", "dial_bad", "accept_ok", "accept_bad"])), st.booleans())
def test_every_path_leads_back_to_idle(steps: list, larger: bool) -> None:
    peer = machine(*((HIGH, LOW) if larger else (LOW, HIGH)))
    dialling = accepting = False
    for now, step in enumerate(steps):
        if step == "want":
            started = peer.want()
            assert not (started and dialling)
            dialling = dialling or started
        elif step == "call":
            action = peer.called()
            assert (action is Action.SUPERSEDE) == accepting
            accepting = accepting or action is Action.ACCEPT
        elif step.startswith("dial") and dialling:
            dialling = False
            peer.dial_ended(ok=step == "dial_ok", now=now)
        elif step.startswith("accept") and accepting:
            accepting = False
            peer.accept_ended(ok=step == "accept_ok", now=now)
    if dialling:
        peer.dial_ended(ok=False, now=0)
    if accepting:
        peer.accept_ended(ok=False, now=0)
    assert peer.state is State.IDLE
    assert peer.called() is Action.ACCEPT
