"""HyParView, one node at a time: what each message makes it do."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.gossip.core.config import MembershipConfig, TopicConfig
from tidings.gossip.core.hyparview import HyParView
from tidings.gossip.core.messages import (
    Disconnect,
    ForwardJoin,
    Join,
    MembershipMessage,
    Neighbor,
    PeerInfo,
    Priority,
    Shuffle,
    ShuffleReply,
)
from tidings.gossip.core.outputs import Down, Learned, Output, Send, Up
from tidings.gossip.core.timers import Timers

from benchmarks.gossip_sim.links import Link, uniform
from benchmarks.gossip_sim.network import Network, node_id

ME = node_id(0)
HIGH, LOW = Priority.HIGH, Priority.LOW


class Node:
    """One machine with its clock and what it said."""

    def __init__(self, config: MembershipConfig | None = None, seed: int = 1) -> None:
        self.config = config or MembershipConfig()
        self.timers = Timers()
        self.out: list[Output] = []
        self.view = HyParView(ME, self.config, Random(seed), self.timers, self.out)
        self.now = 0.0

    def said(self) -> list[Output]:
        out = self.out[:]
        self.out.clear()
        return out

    def hear(self, number: int, message: MembershipMessage) -> list[Output]:
        self.view.receive(node_id(number), message, self.now)
        return self.said()

    def wait(self, seconds: float) -> list[Output]:
        self.now += seconds
        self.timers.run(self.now)
        return self.said()

    def with_neighbors(self, *numbers: int) -> "Node":
        for number in numbers:
            self.hear(number, Neighbor(HIGH, None))
        return self


def test_join_is_answered_and_forwarded_to_the_others() -> None:
    node = Node().with_neighbors(1, 2)
    assert node.hear(3, Join(b"there")) == [
        Learned(node_id(3), b"there"),
        Up(node_id(3)),
        Send(node_id(3), Neighbor(HIGH, b"")),
        Send(node_id(1), ForwardJoin(PeerInfo(node_id(3), b"there"), 6)),
        Send(node_id(2), ForwardJoin(PeerInfo(node_id(3), b"there"), 6)),
    ]


def test_the_joiners_own_answer_is_not_answered_again() -> None:
    node = Node()
    node.hear(1, Join(None))
    assert node.hear(1, Neighbor(HIGH, None)) == []
    # A second one is a handshake of its own (iroh renews neighbours so), and ends there.
    assert node.hear(1, Neighbor(HIGH, None)) == [Send(node_id(1), Neighbor(HIGH, b""))]
    assert node.hear(1, Neighbor(HIGH, None)) == []


def test_what_is_remembered_of_an_answered_join_ends() -> None:
    node = Node()
    node.hear(1, Join(None))
    assert node.view._pending == {}, "the slot is not held twice"
    node.wait(10)
    assert node.hear(1, Neighbor(HIGH, None)) == [Send(node_id(1), Neighbor(HIGH, b""))]


def test_an_answer_that_crosses_an_eviction_evicts_nobody() -> None:
    node = Node(MembershipConfig(active_capacity=1))
    node.hear(1, Join(None))
    assert Down(node_id(1)) in node.hear(2, Join(None))
    for evicts in (False, True):  # the second time it is a request for sure
        assert (Down(node_id(2)) in node.hear(1, Neighbor(HIGH, None))) is evicts
        assert len(node.view.active) == 1


def test_who_was_refused_a_while_ago_evicts_again() -> None:
    node = Node(MembershipConfig(active_capacity=1)).with_neighbors(1)
    node.hear(2, Neighbor(LOW, None))
    node.wait(6)
    node.hear(2, Neighbor(HIGH, None))
    assert list(node.view.active) == [node_id(2)]


def test_low_priority_needs_a_free_slot_and_refusal_names_others() -> None:
    node = Node().with_neighbors(1, 2, 3, 4, 5)
    said = node.hear(6, Neighbor(LOW, None))
    assert [type(output.message) for output in said if isinstance(output, Send)] == [ShuffleReply, Disconnect]
    assert len(node.view.active) == 5 and node_id(6) in node.view.passive


def test_high_priority_evicts() -> None:
    node = Node().with_neighbors(1, 2, 3, 4, 5)
    said = node.hear(6, Neighbor(HIGH, None))
    (down,) = [output for output in said if isinstance(output, Down)]
    assert Up(node_id(6)) in said and down.peer in node.view.passive
    assert Send(down.peer, Disconnect(alive=True)) in said


def test_forward_join_walks_and_ends_in_a_request() -> None:
    node = Node().with_neighbors(1, 2)
    joiner = PeerInfo(node_id(9))
    assert node.hear(1, ForwardJoin(joiner, 5)) == [Send(node_id(2), ForwardJoin(joiner, 4))]
    node.hear(1, ForwardJoin(joiner, 3))
    assert node_id(9) in node.view.passive
    assert node.hear(1, ForwardJoin(joiner, 0)) == [Send(node_id(9), Neighbor(HIGH, b""))]
    assert node_id(9) not in node.view.active, "not before it answers"
    assert node.hear(9, Neighbor(HIGH, None)) == [Up(node_id(9))]


def test_one_who_wrongly_takes_us_for_a_neighbor_is_told_once() -> None:
    node = Node().with_neighbors(1)
    for number in (1, 2, 2):
        node.view.heard_from(node_id(number), node.now)
    assert node.said() == [Send(node_id(2), Disconnect(alive=True))]
    assert node.hear(2, Neighbor(LOW, None)) == [Up(node_id(2)), Send(node_id(2), Neighbor(LOW, b""))]


def test_a_hop_count_from_the_wire_is_cut() -> None:
    node = Node().with_neighbors(1, 2)
    assert node.hear(1, ForwardJoin(PeerInfo(node_id(9)), 60_000)) == [
        Send(node_id(2), ForwardJoin(PeerInfo(node_id(9)), 5))
    ]


def test_invented_joins_make_us_ask_a_bounded_number() -> None:
    node = Node()
    for number in range(1000, 2000):
        node.hear(1, ForwardJoin(PeerInfo(node_id(number)), 0))
    assert len(node.view._pending) <= 30


def test_all_free_slots_are_refilled_at_once() -> None:
    node = Node().with_neighbors(1, 2, 3)
    node.hear(1, ShuffleReply(tuple(PeerInfo(node_id(number)) for number in range(10, 20))))
    assert len(node.view._pending) == 2
    for number in (1, 2, 3):
        node.view.peer_disconnected(node_id(number), alive=False, now=0.0)
    assert len(node.view._pending) == 5


def test_silence_forgets_the_candidate_and_asks_the_next() -> None:
    node = Node().with_neighbors(1, 2, 3, 4)
    node.hear(1, ShuffleReply((PeerInfo(node_id(10)),)))
    node.hear(1, ShuffleReply((PeerInfo(node_id(11)),)))
    assert node.wait(0.6) == [Send(node_id(11), Neighbor(LOW, b""))]
    assert node_id(10) not in node.view.passive


def test_who_refused_is_not_asked_again_soon_and_asking_is_paced() -> None:
    node = Node().with_neighbors(1, 2, 3, 4)
    node.hear(1, ShuffleReply(tuple(PeerInfo(node_id(number)) for number in range(10, 20))))
    asked = list(node.view._pending)
    for _ in range(3):
        (peer,) = node.view._pending
        node.view.receive(peer, Disconnect(alive=True), node.now)
        asked += node.view._pending
    assert len(asked) == len(set(asked)) == 3 and node.view._pending == {}
    node.said()
    (request,) = node.wait(1.5)
    assert isinstance(request, Send) and request.peer not in asked


def test_a_lonely_node_asks_with_high_priority() -> None:
    node = Node().with_neighbors(1)
    node.hear(1, ShuffleReply((PeerInfo(node_id(10)),)))
    node.hear(10, Disconnect(alive=True))
    said = node.hear(1, Disconnect(alive=False))
    assert Send(node_id(10), Neighbor(HIGH, b"")) in said


def test_shuffle_walks_and_is_answered_to_its_origin() -> None:
    node = Node().with_neighbors(1, 2)
    shuffle = Shuffle(node_id(9), (PeerInfo(node_id(9), b"nine"), PeerInfo(node_id(8))), 6)
    assert node.hear(1, shuffle) == [Send(node_id(2), Shuffle(shuffle.origin, shuffle.nodes, 5))]
    said = node.hear(1, Shuffle(shuffle.origin, shuffle.nodes, 0))
    assert Learned(node_id(9), b"nine") in said
    (reply,) = [o for o in said if isinstance(o, Send) and isinstance(o.message, ShuffleReply)]
    assert reply.peer == node_id(9) and len(reply.message.nodes) == 2  # type: ignore[union-attr]
    assert {node_id(8), node_id(9)} <= node.view.passive.keys()


def test_own_shuffle_says_where_we_are() -> None:
    node = Node().with_neighbors(1)
    node.view.data = b"here"
    (said,) = [output for output in node.wait(60) if isinstance(output, Send)]
    assert isinstance(said.message, Shuffle) and said.message.nodes[-1] == PeerInfo(ME, b"here")


def test_much_peer_data_is_left_out_of_a_full_frame() -> None:
    node = Node().with_neighbors(1)
    for number in range(10, 20):
        node.hear(1, ShuffleReply((PeerInfo(node_id(number), bytes(1000)),)))
    assert sum(len(info.data or b"") for info in node.view._infos(list(node.view.passive))) <= 3000


def test_leaving_says_so_to_everybody_who_knows_us() -> None:
    node = Node().with_neighbors(1)
    node.view.join(node_id(5), 0.0)
    node.said()
    node.view.leave()
    said = node.said()
    assert {o.peer for o in said if isinstance(o, Send) and o.message == Disconnect(alive=False)} == {
        node_id(1),
        node_id(5),
    }
    assert node.wait(100) == []


def test_join_is_repeated_more_rarely_by_a_node_with_neighbors() -> None:
    def joins(node: Node, hours: float) -> int:
        return sum(Send(node_id(5), Join(b"")) in node.wait(1) for _ in range(int(hours * 3600)))

    lonely, settled = Node(), Node().with_neighbors(1)
    for node in (lonely, settled):
        node.view.join(node_id(5), 0.0)
        node.said()
    assert joins(lonely, 1) > 100 and joins(settled, 1) < 15
    assert joins(lonely, 10) > 1000 and 15 < joins(settled, 10) < 25
    settled.hear(5, Neighbor(HIGH, None))
    assert joins(settled, 2) == 0


def test_a_lost_neighbor_is_asked_again_for_ever_but_not_one_that_left() -> None:
    for left in (False, True):
        node = Node().with_neighbors(1, 2)
        node.view.peer_disconnected(node_id(2), alive=False, now=node.now)
        if left:
            node.hear(2, Disconnect(alive=False))
        node.wait(0)
        request = Send(node_id(2), Neighbor(HIGH, b""))
        times = [second for second in range(8 * 3600) if request in node.wait(1)]
        assert len(times) == 0 if left else 15 < len(times) < 25 and times[0] < 15 and times[-1] > 7 * 3600


def test_the_longest_lost_make_room() -> None:
    node = Node(MembershipConfig(max_lost=3)).with_neighbors(1)
    for number in range(10, 20):
        node.hear(number, Neighbor(HIGH, b"there"))
        node.view.peer_disconnected(node_id(number), alive=False, now=node.now)
        node.wait(100)
    assert len(node.view._lost) == 3 and node_id(19) in node.view._lost and node_id(10) not in node.view._lost


def test_a_lonely_node_asks_whom_a_shuffle_names() -> None:
    node = Node()
    said = node.hear(1, Shuffle(node_id(9), (PeerInfo(node_id(9)),), 0))
    assert Send(node_id(9), Neighbor(HIGH, b"")) in said


def test_a_lonely_node_asks_again_who_was_silent() -> None:
    node = Node()
    node.hear(1, ShuffleReply((PeerInfo(node_id(9)),)))
    assert node.view.passive == {node_id(9): None}
    assert Send(node_id(9), Join(b"")) in [output for _ in range(20) for output in node.wait(0.1)]


def test_who_is_refused_by_everybody_for_long_insists() -> None:
    """They may be a swarm of their own, whose views are full: it would never join ours."""
    node = Node().with_neighbors(1)
    node.hear(1, ShuffleReply(tuple(PeerInfo(node_id(number)) for number in range(10, 20))))
    insisted = []
    for second in range(4 * 3600):
        for output in node.wait(1):
            if isinstance(output, Send) and isinstance(output.message, Neighbor):
                if output.message.priority is HIGH:
                    insisted.append(second)
                node.hear(int.from_bytes(output.peer, "big"), Disconnect(alive=True))
    first, second, third = insisted[:3]
    assert len(insisted) < 6 and 600 < first < 1800 < second - first < third - second


def test_what_is_remembered_of_strangers_is_bounded() -> None:
    node = Node().with_neighbors(1, 2, 3, 4, 5)
    for number in range(1000, 2000):
        node.view.heard_from(node_id(number), node.now)
        node.hear(number, Join(None))
        node.hear(number, Disconnect(alive=True))
        node.hear(number, Neighbor(LOW, None))
    for table in (node.view._told, node.view._expected, node.view._parted):
        assert len(table) <= 128


@pytest.mark.parametrize("seed", range(4))
def test_messages_that_are_late_and_come_twice_are_no_storm(seed: int) -> None:
    link = Link(uniform(0.001, 0.05, seed), jitter=0.3, duplicate=0.3)
    network = Network(seed, TopicConfig(MembershipConfig(active_capacity=2)), link)
    first, *others = network.add(*range(8))
    for other in others:
        network.join(other, first)
    network.run(20, most=10_000)
    network.sent.clear()
    network.run(10)
    assert sum(network.sent.values()) < 50


ids = st.integers(0, 60).map(node_id)
nodes = st.lists(st.builds(PeerInfo, ids, st.none() | st.binary(max_size=3)), max_size=9).map(tuple)
messages = st.one_of(
    st.builds(Join, st.none() | st.binary(max_size=3)),
    st.builds(ForwardJoin, st.builds(PeerInfo, ids), st.integers(0, 0xFFFF)),
    st.builds(Neighbor, st.sampled_from(Priority), st.none()),
    st.builds(Disconnect, st.booleans()),
    st.builds(Shuffle, ids, nodes, st.integers(0, 8)),
    st.builds(ShuffleReply, nodes),
)


@settings(deadline=None, max_examples=60)
@given(st.integers(), st.lists(st.tuples(st.integers(1, 60), messages | st.floats(0, 20) | st.booleans()), max_size=80))
def test_views_stay_within_bounds_whatever_peers_say(seed: int, script: list[tuple[int, object]]) -> None:
    node = Node(seed=seed)
    view = node.view
    up: set[bytes] = set()
    for number, event in script:
        if isinstance(event, bool):
            view.peer_disconnected(node_id(number), event, node.now)
            said = node.said()
        elif isinstance(event, float):
            said = node.wait(event)
        else:
            said = node.hear(number, event)  # type: ignore[arg-type]
        for output in said:
            match output:
                case Up(peer):
                    assert peer not in up
                    up.add(peer)
                case Down(peer):
                    up.remove(peer)
                case Send(peer, _):
                    assert peer != ME
        assert up == view.active.keys() and len(up) <= 5 and ME not in up
        assert not view.active.keys() & view.passive.keys() and len(view.passive) <= 30 and ME not in view.passive
        assert view._peer_data.keys() <= {*view.active, *view.passive, *view._pending, *view._lost}
        assert not view._pending.keys() & view.active.keys()
