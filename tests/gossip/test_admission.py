"""Who is let into a topic: the memory, and a whole swarm with a say in it."""

import asyncio
import logging

import pytest
from tidings.gossip import JoinTimeout
from tidings.gossip.core.config import MembershipConfig
from tidings.gossip.core.messages import Prune
from tidings.gossip.net import door as door_module
from tidings.gossip.net.admission import MAX_HELD, REFUSED_FOR, Admission

from .swarm import heard, members, until

A, B = b"a" * 32, b"b" * 32


def test_an_unknown_peer_is_asked_about_and_an_admitted_one_is_not_again() -> None:
    admission = Admission()
    assert admission.verdict(A, 0.0) is None
    admission.hold(A, Prune())
    assert admission.settle(A, True, 0.0) == [Prune()]
    assert admission.verdict(A, 1e9) is True
    assert admission.verdict(B, 0.0) is None


def test_a_refusal_is_forgotten_before_the_next_join() -> None:
    assert MembershipConfig().join_retry > REFUSED_FOR
    admission = Admission()
    admission.hold(A, Prune())
    assert admission.settle(A, False, 5.0) == []
    assert admission.verdict(A, 5.0) is False
    assert admission.verdict(A, 5.0 + REFUSED_FOR) is None
    assert admission.settle(A, True, 6.0) == [], "what was held for it then is gone"


def test_what_is_held_is_bounded() -> None:
    admission = Admission()
    for _ in range(MAX_HELD + 5):
        admission.hold(A, Prune())
    assert len(admission.settle(A, True, 0.0)) == MAX_HELD


def test_who_is_not_wanted_any_more_is_asked_about_afresh() -> None:
    admission = Admission()
    for peer in (A, B):
        admission.settle(peer, True, 0.0)
    admission.forget_but(lambda peer: peer == A)
    assert admission.admitted == {A}
    assert admission.verdict(B, 0.0) is None


async def test_a_refused_peer_is_no_neighbor_and_other_topics_go_on() -> None:
    async with members(2) as (a, b):
        asked = []

        async def admit(peer, topic):
            asked.append((peer, topic))
            return topic != b"closed" + bytes(26)

        a.gossip.guard(admit)
        closed = await a.gossip.subscribe(b"closed" + bytes(26))
        opened = await a.gossip.subscribe(b"open" + bytes(28))
        refused = await b.gossip.subscribe(closed.id, [a.addr])
        welcome = await b.gossip.subscribe(opened.id, [a.addr])
        await welcome.joined(10)
        with pytest.raises(JoinTimeout):
            await refused.joined(1.5)
        assert closed.neighbors() == []
        await welcome.broadcast(b"hello")
        await heard(opened, b"hello")
        assert (b.endpoint.id, closed.id) in asked
        assert len(a.endpoint.connections()) == 1


async def test_nobody_is_asked_to_join_who_may_not() -> None:
    """Forward-joins and shuffles name peers; the refused one is neither dialled nor made a neighbour."""
    async with members(4) as nodes:
        stranger = nodes[3].endpoint.id
        for node in nodes[1:3]:
            node.gossip.guard(lambda peer, topic: peer != stranger)
        topics = [await nodes[0].gossip.subscribe("t")]
        topics += [await node.gossip.subscribe("t", [nodes[0].addr]) for node in nodes[1:]]
        await until(lambda: len(topics[0].neighbors()) == 3)
        await until(lambda: len(topics[1].neighbors()) == 2 and len(topics[2].neighbors()) == 2)
        await asyncio.sleep(0.3)
        assert topics[3].neighbors() == [nodes[0].endpoint.id]
        assert stranger not in topics[1].neighbors() + topics[2].neighbors()


async def test_who_may_not_stay_is_put_out_and_may_come_back() -> None:
    async with members(2) as (a, b):
        allowed = True
        a.gossip.guard(lambda peer, topic: allowed)
        ours = await a.gossip.subscribe("t")
        theirs = await b.gossip.subscribe("t", [a.addr])
        await theirs.joined(10)
        await ours.joined(10)
        allowed = False
        a.gossip.reconsider("t")
        await until(lambda: not ours.neighbors() and not theirs.neighbors())
        allowed = True
        await theirs.join_peers([a.addr])
        await until(lambda: bool(ours.neighbors() and theirs.neighbors()))


@pytest.mark.parametrize("slow", [False, True])
async def test_a_guard_that_fails_refuses(slow, monkeypatch, caplog) -> None:
    monkeypatch.setattr(door_module, "ADMIT_TIMEOUT", 0.1)
    caplog.set_level(logging.CRITICAL)

    async def admit(peer, topic):
        if slow:
            await asyncio.sleep(60)
        raise RuntimeError("a fault of the program's")

    async with members(2) as (a, b):
        a.gossip.guard(admit)
        ours = await a.gossip.subscribe("t")
        theirs = await b.gossip.subscribe("t", [a.addr])
        with pytest.raises(JoinTimeout):
            await theirs.joined(1)
        assert ours.neighbors() == []
    assert len(asyncio.all_tasks()) == 1, "every task has ended"
