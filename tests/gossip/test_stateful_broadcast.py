"""Plumtree and the catch-up over HyParView, in small swarms, under any sequence of messages, departures and faults.

After each step the tree's links are the neighbours, and its tables are bounded. When the faults are over, every
message that somebody living has sent or got is at everybody whom that one can reach, once, each author's in order, and
no table or timer is left that belongs to a message.
"""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from tidings.gossip.core.log import LogConfig
from tidings.gossip.core.messages import Graft, IHave, Payload, Prune

from benchmarks.gossip_sim.network import Network

from .test_stateful_membership import LIAR, STORM, Swarm, which

LOG = LogConfig(messages=100_000, age=1e7)  # nothing is too old for a test that waits for hours
CAUGHT_UP = 120.0  # seconds within which everything is everywhere
FORGOTTEN = 200.0  # seconds after which no table remembers a message

contents = st.integers(0, 4).map(lambda number: b"invented %d" % number)
ids = st.integers(0, 4).map(lambda number: bytes((number,)) * 32)
lies = st.one_of(
    st.builds(Payload, ids, contents, st.none() | st.integers(0, 0xFFFF)),  # with ids that are not theirs
    st.builds(Graft, st.none() | ids, st.integers(0, 0xFFFF)),
    st.builds(IHave, st.lists(st.tuples(ids, st.integers(0, 0xFFFF)), max_size=5).map(tuple)),
    st.just(Prune()),
)


class Talk(Swarm):
    timers_beside = frozenset({"_tick"})

    def make(self, seed, config, link):
        self.got = {}
        self.sent = []
        return Network(seed, config, link, log=LOG, on_ready=self.ready, record=True)

    def bear(self):
        id = super().bear()
        self.network.nodes[id].log.since = -1.0  # before all
        self.got[id] = []
        return id

    def ready(self, id, ready):
        self.got[id].append(ready)

    @rule(number=which, count=st.sampled_from([1, 3, 40]), gap=st.sampled_from([0.0, 0.01, 0.3]))
    def say(self, number, count, gap):
        id = self.pick(number)
        for _ in range(count):
            body = b"%d" % len(self.sent)
            self.sent.append((id, body))
            self.network.say(id, body)
            self.network.run(gap, most=STORM)

    @precondition(lambda self: self.network.now < 3600)
    @rule(number=which, lie=lies, from_neighbor=st.booleans())
    def hear_of_what_is_not(self, number, lie, from_neighbor):
        id = self.pick(number)
        neighbors = self.network.nodes[id].neighbors
        self.network._arrive(neighbors[0] if from_neighbor and neighbors else LIAR, id, lie)

    def restart(self, number, via):
        """Another machine's: here the numbers of an author would begin again."""

    @rule()
    def rest(self):
        super().rest()
        self.network.run(CAUGHT_UP, most=10 * STORM)
        had = {id: Counter(self.bodies(id)) for id in self.living}
        for id in self.living:
            assert max(had[id].values(), default=0) <= 1, "handed on twice"
            self.check_order(id)
            for other in self.network.reached(id):
                missed = had[other].keys() - had[id].keys() - self.own(id)
                assert not missed, "somebody reachable has it"
                assert self.own(other) <= had[id].keys() or other == id, "its author can be reached"
        self.network.run(FORGOTTEN, most=10 * STORM)
        for core in self.network.nodes.values():
            tree = core.tree
            assert not (tree._missing or tree._missing_by_peer or tree._kept or tree._received or tree._unsent)
            assert tree._kept_bytes == 0
            assert not core.log._missing and not core.log._order._held
            names = Counter(action.__name__ for _, _, action, _ in core._timers._heap)
            assert not names.keys() & {"_graft", "_announce", "_evict"}, "a timer without a message"

    def bodies(self, id):
        return (ready.entry.envelope.body for ready in self.got[id] if ready.entry.envelope is not None)

    def own(self, id):
        return {body for author, body in self.sent if author == id}

    def check_order(self, id):
        last = {}
        for ready in self.got[id]:
            envelope = ready.entry.envelope
            if envelope is not None and not ready.late:
                assert envelope.number > last.get(envelope.author, 0), "out of its author's order"
                last[envelope.author] = envelope.number

    @invariant()
    def trees(self):
        config = self.network.config.broadcast
        for core in self.network.nodes.values():
            tree = core.tree
            assert len(tree._missing) <= config.max_missing
            assert all(0 < count <= config.max_missing_per_peer for count in tree._missing_by_peer.values())
            announced = Counter(peer for missing in tree._missing.values() for peer, _ in missing.announcers)
            assert announced == tree._missing_by_peer
            pairs = {peer for pair in tree._gains for peer in pair}
            assert pairs | tree._round_trips.keys() | tree._unsent.keys() <= {*tree.eager, *tree.lazy}


TestBroadcast = Talk.TestCase
TestBroadcast.settings = settings(deadline=None, max_examples=30, stateful_step_count=25)
