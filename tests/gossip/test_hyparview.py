"""HyParView, one node at a time: what each message makes it do."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.gossip.core.config import MembershipConfig
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

from benchmarks.gossip_sim.network import node_id

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


def test_an_answer_that_crosses_an_eviction_is_dropped() -> None:
    node = Node(MembershipConfig(active_capacity=1))
    node.hear(1, Join(None))
    assert Down(node_id(1)) in node.hear(2, Join(None))
    assert node.hear(1, Neighbor(HIGH, None)) == []
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


def test_join_is_given_up_only_by_a_node_with_neighbors() -> None:
    lonely, settled = Node(), Node().with_neighbors(1)
    for node in (lonely, settled):
        node.view.join(node_id(5), 0.0)
        node.said()
        joins = sum(Send(node_id(5), Join(b"")) in node.wait(1) for _ in range(300))
        assert joins == 5 if node is settled else joins > 10


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
        assert view._peer_data.keys() <= view.active.keys() | view.passive.keys() | view._pending.keys()
        assert not view._pending.keys() & view.active.keys()
