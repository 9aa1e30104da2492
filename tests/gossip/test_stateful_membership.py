"""HyParView in small swarms, under any sequence of joins, departures and faults that hypothesis thinks of.

After each step the invariants of a node hold. When the faults are over, the swarm comes to rest: active views are
symmetric, all who know of each other are in one overlay, and no timer is left that has no cause.
"""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tidings.gossip.core.config import MembershipConfig, TopicConfig
from tidings.gossip.core.hyparview import MAX_EXPECTED, MAX_PENDING
from tidings.gossip.core.messages import (
    Disconnect,
    ForwardJoin,
    Join,
    Neighbor,
    PeerInfo,
    Priority,
    Shuffle,
    ShuffleReply,
)

from benchmarks.gossip_sim.links import Link, uniform
from benchmarks.gossip_sim.network import Network, node_id

MOST = 8  # nodes at once
LIAR = node_id(99)  # says anything, and cannot be reached
ON_ITS_WAY = 3.0  # seconds: what happened before the faults ended is known to everybody then
WINDOW = 300.0  # seconds without a change are rest
PATIENCE = 7200.0  # seconds within which a swarm comes to rest
STORM = 20_000  # events in one go that only nodes make who keep each other busy

ids = st.integers(0, 12).map(node_id) | st.just(LIAR)
infos = st.builds(PeerInfo, ids, st.none() | st.binary(max_size=3))
nodes = st.lists(infos, max_size=5).map(tuple)
lies = st.one_of(
    st.builds(Join, st.none() | st.binary(max_size=3)),
    st.builds(ForwardJoin, infos, st.integers(0, 0xFFFF)),
    st.builds(Neighbor, st.sampled_from(Priority), st.none()),
    st.builds(Disconnect, st.booleans()),
    st.builds(Shuffle, ids, nodes, st.integers(0, 8)),
    st.builds(ShuffleReply, nodes),
)
which = st.integers(0, MOST - 1)


def check_node(id, core, config, changes):
    view = core.membership
    assert id not in {*view.active, *view.passive, *view._pending, *view._lost, *view._contacts}
    assert not view.active.keys() & (view.passive.keys() | view._pending.keys() | view._lost.keys())
    assert len(view._pending) <= MAX_PENDING
    assert all(len(table) <= MAX_EXPECTED for table in (view._expected, view._parted, view._told))
    assert len(view._contacts) <= config.max_contacts and len(view._lost) <= config.max_lost
    assert view._peer_data.keys() <= {*view.active, *view.passive, *view._pending, *view._lost}
    count = Counter(type(change).__name__ for change in changes)
    assert count["Up"] - count["Down"] == len(view.active)


def check_timers(core, beside):
    """Of a node at rest; ``beside``: those that are not the membership's."""
    view = core.membership
    armed = [(action.__name__, args) for _, _, action, args in core._timers._heap]
    names = Counter(name for name, _ in armed if name not in beside)
    assert names.keys() <= {"_shuffle", "_first_shuffle", "_end_pause", "_request_expired", "_revive", "_ask"}
    assert names["_shuffle"] + names["_first_shuffle"] == bool(view.active)
    assert names["_end_pause"] <= 1 and names["_request_expired"] <= MAX_PENDING
    assert view._lost.items() <= {args for name, args in armed if name == "_revive"}, "not asked again"
    asked = [args[0] for name, args in armed if name == "_ask" and view._contacts.get(args[0]) is args[1]]
    unsettled = {peer for peer, contact in view._contacts.items() if not contact.settled}
    assert len(asked) == len(set(asked)) and unsettled <= set(asked)
    assert view.active or unsettled == view._contacts.keys(), "alone, and does not ask everybody"


class Swarm(RuleBasedStateMachine):
    timers_beside: frozenset[str] = frozenset()

    @initialize(
        seed=st.integers(0, 2**16),
        count=st.integers(3, MOST),
        capacity=st.sampled_from([5, 3, 2]),
        far=st.sampled_from([0.01, 0.1, 0.2]),
        gap=st.sampled_from([1.0, 0.05, 0.0]),
    )
    def begin(self, seed, count, capacity, far, gap):
        config = TopicConfig(MembershipConfig(active_capacity=capacity))
        self.network = self.make(seed, config, Link(uniform(0.001, far, seed)))
        self.born = 0
        for _ in range(count):
            self.network.join(self.bear(), node_id(0))
            self.network.run(gap)

    def make(self, seed, config, link):
        return Network(seed, config, link, record=True)

    def bear(self):
        """A new node, which knows nobody."""
        (id,) = self.network.add(self.born)
        self.born += 1
        return id

    @property
    def living(self):
        return list(self.network.nodes)

    def pick(self, number):
        return self.living[number % len(self.living)]

    @rule(number=which, via=which)
    def join_again(self, number, via):
        self.network.join(self.pick(number), self.pick(via))

    @precondition(lambda self: len(self.living) < MOST)
    @rule(via=st.integers(0, 20))
    def arrive(self, via):
        id = self.bear()
        self.network.join(id, node_id(via % self.born))  # who may be gone

    @precondition(lambda self: len(self.living) > 2)
    @rule(number=which)
    def leave(self, number):
        id = self.pick(number)
        core = self.network.nodes[id]
        self.network.leave(id)
        assert len(core._timers) == 0

    @precondition(lambda self: len(self.living) > 2)
    @rule(number=which)
    def die(self, number):
        self.network.kill(self.pick(number))

    @rule(number=which, via=which)
    def restart(self, number, via):
        """So fast that its neighbours may not notice."""
        id = self.pick(number)
        self.network.kill(id)
        self.network.add(int.from_bytes(id, "big"))
        self.network.join(id, self.pick(via))

    @rule(side=st.integers(1, 2 ** (MOST - 1) - 1))
    def part(self, side):
        sides = [[], []]
        for number, id in enumerate(self.living):
            sides[side >> number & 1].append(id)
        self.network.part(*sides)

    @rule()
    def heal(self):
        self.network.heal()

    @rule(
        loss=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        jitter=st.sampled_from([0.0, 0.05, 0.3]),
        duplicate=st.sampled_from([0.0, 0.3]),
    )
    def weather(self, loss, jitter, duplicate):
        link = self.network.link
        link.loss, link.jitter, link.duplicate = loss, jitter, duplicate

    @rule(number=which, lie=lies)
    def hear_a_lie(self, number, lie):
        self.network._arrive(LIAR, self.pick(number), lie)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.6, 3.0, 20.0, 90.0, 4000.0]))
    def wait(self, seconds):
        for _ in range(20):
            self.network.run(seconds / 20, most=STORM)
            self.tables()

    @rule()
    def rest(self):
        """All faults are over: the swarm becomes one, and then changes no more."""
        network = self.network
        network.heal()
        network.link.loss = network.link.jitter = network.link.duplicate = 0.0
        network.run(ON_ITS_WAY, most=STORM)
        knew, end = self.acquaintances(), network.now + PATIENCE
        while not self.is_at_rest(knew):
            assert network.now < end, "never at rest"
            self.tables()
        for core in network.nodes.values():
            check_timers(core, self.timers_beside)

    def is_at_rest(self, knew):
        before = self.changes()
        self.network.run(WINDOW, most=STORM)
        joined = all(self.are_joined(id, other) for id, other in [*knew, *self.acquaintances()])
        return self.changes() == before and self.network.symmetric() and joined

    def changes(self):
        return sum(map(len, self.network.changes.values()))

    def acquaintances(self):
        """Who is alive and knows of whom that is alive, too."""
        alive = self.network.nodes
        return [(id, other) for id, core in alive.items() for other in self.known(core) if other in alive]

    def known(self, core):
        view = core.membership
        known = {*view.active, *view.passive, *view._lost, *view._pending}
        return known if view.active else {*known, *view._contacts}

    def are_joined(self, id, other):
        """But on an island whose views are all full nobody looks for a neighbour."""
        reached = self.network.reached(id)
        return other in reached or all(self.network.nodes[each].membership.is_full for each in reached)

    @invariant()
    def tables(self):
        network = self.network
        network.check()
        for id, core in network.nodes.items():
            check_node(id, core, network.config.membership, network.changes[id])

    def teardown(self):
        if hasattr(self, "network"):
            self.rest()


TestMembership = Swarm.TestCase
TestMembership.settings = settings(deadline=None, max_examples=50, stateful_step_count=25)
