"""Plumtree, one node at a time, and six in a row."""

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.gossip.core.config import BroadcastConfig
from tidings.gossip.core.messages import BroadcastMessage, Graft, IHave, Payload, Prune
from tidings.gossip.core.outputs import Deliver, Fault, Output, Send
from tidings.gossip.core.plumtree import Plumtree
from tidings.gossip.core.timers import Timers

from benchmarks.gossip_sim.network import Network, node_id


def payload(content: bytes, round: int | None = 0) -> Payload:
    return Payload(blake3(content).digest(), content, round)


class Node:
    def __init__(self, config: BroadcastConfig | None = None, eager: int = 0) -> None:
        self.timers = Timers()
        self.out: list[Output] = []
        self.tree = Plumtree(config or BroadcastConfig(), self.timers, self.out)
        self.now = 0.0
        for number in range(1, eager + 1):
            self.tree.neighbor_up(node_id(number))

    def said(self) -> list[Output]:
        out = self.out[:]
        self.out.clear()
        return out

    def hear(self, number: int, message: BroadcastMessage) -> list[Output]:
        self.tree.receive(node_id(number), message, self.now)
        return self.said()

    def wait(self, seconds: float) -> list[Output]:
        self.now += seconds
        self.timers.run(self.now)
        return self.said()


def test_a_new_payload_is_pushed_announced_and_delivered() -> None:
    node = Node(eager=3)
    node.hear(3, Prune())
    assert node.hear(1, payload(b"x", 4)) == [Send(node_id(2), payload(b"x", 5)), Deliver(node_id(1), b"x", 4)]
    assert node.wait(0.006) == [Send(node_id(3), IHave(((payload(b"x").id, 5),)))]


def test_a_second_copy_prunes_its_sender_once() -> None:
    node = Node(eager=2)
    node.hear(1, payload(b"x"))
    node.hear(1, payload(b"y"))
    assert node.hear(2, payload(b"x")) == [Send(node_id(2), Prune())]
    assert list(node.tree.lazy) == [node_id(2)]
    assert node.hear(2, payload(b"y")) == [], "it was on its way already"
    node.wait(0.1)
    assert node.hear(2, payload(b"y")) == [Send(node_id(2), Prune())], "it has not understood"


def test_spoofed_ids_are_ignored() -> None:
    node = Node(eager=2)
    for round in (0, None):
        assert node.hear(1, Payload(payload(b"other").id, b"content", round)) == [Fault(node_id(1), "wrong id")]
    assert node.tree._received == {}


def test_a_missing_payload_is_fetched_from_one_announcer_after_the_other() -> None:
    node = Node(eager=3)
    id = payload(b"x").id
    for number in (1, 2):
        node.hear(number, Prune())
        assert node.hear(number, IHave(((id, 2),))) == []
    assert node.wait(0.081) == [Send(node_id(1), Graft(id, 2))]
    assert node_id(1) in node.tree.eager
    assert node.wait(0.041) == [Send(node_id(2), Graft(id, 2))]
    node.wait(0.041)
    assert node.tree._missing == {} and node.tree._missing_by_peer == {}
    assert len(node.timers) == 0
    assert node.hear(3, IHave(((id, 2),))) == [] and node.wait(0.081) == [Send(node_id(3), Graft(id, 2))]


def test_a_payload_in_time_ends_its_timer() -> None:
    node = Node(eager=2)
    node.hear(1, IHave(((payload(b"x").id, 0),)))
    node.hear(2, payload(b"x"))
    assert not any(isinstance(output, Send) and isinstance(output.message, Graft) for output in node.wait(0.2))


def test_a_graft_is_answered_while_the_payload_is_kept() -> None:
    node = Node(eager=1)
    node.hear(1, Prune())
    node.tree.broadcast(b"x", 0.0)
    node.said()
    assert node.hear(1, Graft(payload(b"x").id, 0)) == [Send(node_id(1), payload(b"x"))]
    assert node_id(1) in node.tree.eager
    node.wait(31)
    assert node.hear(1, Graft(payload(b"x").id, 0)) == []


def test_the_tree_is_optimised_for_what_comes_as_a_rule() -> None:
    node = Node(eager=2)
    node.hear(2, Prune())

    def come(number: int, announced: int, pushed: int, *, first: bool = True) -> list[Output]:
        x = payload(b"%d" % number, pushed)
        if first:
            node.hear(2, IHave(((x.id, announced),)))
        said = node.hear(1, x)
        if not first:
            node.hear(2, IHave(((x.id, announced),)))
        return said[:-1]

    for number in range(4):
        assert come(number, 2, 9) == [], "too few to say"
    assert come(4, 20, 1, first=False) == [], "from other senders it is the longer way"
    assert come(5, 2, 4) == [], "two hops are too few, whatever the rule"
    assert come(6, 2, 9) == [Send(node_id(2), Graft(None, 2)), Send(node_id(1), Prune())]
    assert list(node.tree.eager) == [node_id(2)] and list(node.tree.lazy) == [node_id(1)]
    node.tree.neighbor_down(node_id(1))
    assert node.tree._gains == {}


def test_a_link_that_is_shorter_for_one_sender_only_is_left_lazy() -> None:
    node = Node(eager=2)
    node.hear(2, Prune())
    for number in range(40):
        x = payload(b"%d" % number, 12 if number % 2 else 3)
        if number % 2:
            node.hear(2, IHave(((x.id, 2),)))
            assert node.hear(1, x) == [Deliver(node_id(1), x.content, 12)]
        else:
            node.hear(1, x)
            node.hear(2, IHave(((x.id, 13),)))


def test_the_same_content_is_one_message_until_its_id_is_forgotten() -> None:
    node = Node(eager=1)
    assert node.tree.broadcast(b"x", 0.0)
    assert not node.tree.broadcast(b"x", 1.0)
    node.wait(92)
    assert node.tree._received == {} and node.tree._kept == {} and node.tree._kept_bytes == 0
    assert len(node.timers) == 0
    assert node.tree.broadcast(b"x", node.now)


def test_payloads_and_ids_are_forgotten_in_time_and_nothing_wakes_before() -> None:
    config = BroadcastConfig()
    node = Node(eager=1)
    node.hear(1, payload(b"x"))
    node.wait(1)
    node.hear(1, payload(b"y"))
    for now, kept, known in ((30.0, 1, 2), (31.0, 0, 2), (90.0, 0, 1), (91.0, 0, 0)):
        assert node.timers.next_deadline() == now
        node.wait(now - node.now)
        assert (len(node.tree._kept), len(node.tree._received)) == (kept, known)
    assert (config.payload_retention, config.id_retention) == (30, 90) and node.timers.next_deadline() is None


def test_neighbors_scope_is_not_remembered_and_reaches_lazy_ones() -> None:
    node = Node(eager=2)
    node.hear(2, Prune())
    node.tree.broadcast_neighbors(b"x")
    assert node.said() == [Send(node_id(1), payload(b"x", None)), Send(node_id(2), payload(b"x", None))]
    for _ in range(2):
        assert node.hear(1, payload(b"x", None)) == [Deliver(node_id(1), b"x", None)]


def test_announcements_are_cut_to_frames() -> None:
    node = Node(eager=1)
    node.hear(1, Prune())
    for number in range(300):
        node.tree.broadcast(b"%d" % number, 0.0)
    node.said()
    sizes = [len(output.message.announced) for output in node.wait(0.01)]  # type: ignore[union-attr]
    assert sizes == [116, 116, 68]


def test_liars_announcements_are_bounded_and_go_away() -> None:
    node = Node(BroadcastConfig(max_missing=50, max_missing_per_peer=30), eager=3)
    for number in (1, 2):
        for start in range(10):
            node.hear(number, IHave(tuple((blake3(b"%d %d %d" % (number, start, i)).digest(), 0) for i in range(10))))
    assert len(node.tree._missing) == 50 and max(node.tree._missing_by_peer.values()) == 30
    while node.timers.next_deadline() is not None:
        node.wait(0.05)
    assert node.tree._missing == {} and node.tree._missing_by_peer == {}


def test_kept_payloads_are_bounded_by_bytes() -> None:
    node = Node(BroadcastConfig(max_payload_bytes=1000, max_ids=20))
    for number in range(50):
        node.tree.broadcast(b"%100d" % number, 0.0)
    assert len(node.tree._kept) == 10 and node.tree._kept_bytes == 1000 and len(node.tree._received) == 20


def test_strangers_do_not_get_into_the_tree() -> None:
    node = Node(eager=1)
    node.tree.broadcast(b"x", 0.0)
    node.said()
    node.hear(9, Graft(None, 0))
    node.hear(9, Prune())
    node.hear(9, payload(b"x"))
    assert list(node.tree.eager) == [node_id(1)] and node.tree.lazy == {}


def test_six_in_two_groups_and_one_link_between() -> None:
    simulation = Network(1, record=True)
    ids = simulation.add(*range(6))
    trees = [simulation.nodes[id].tree for id in ids]

    def link(a: int, b: int) -> None:
        trees[a].neighbor_up(ids[b])
        trees[b].neighbor_up(ids[a])

    for a, b in ((0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)):
        link(a, b)
    simulation.broadcast(ids[0], b"one")
    simulation.run(2)
    assert simulation.heard(b"one") == 2
    link(2, 5)
    simulation.broadcast(ids[0], b"two")
    simulation.run(2)
    assert simulation.heard(b"two") == 5
    simulation.sent.clear()
    simulation.broadcast(ids[0], b"three")
    simulation.run(2)
    assert simulation.sent[Payload] == 5, "the tree has no cycle left"


ids = st.sampled_from([blake3(b"%d" % number).digest() for number in range(12)])
messages = st.one_of(
    st.builds(payload, st.integers(0, 11).map(lambda number: b"%d" % number), st.none() | st.integers(0, 20)),
    st.just(Prune()),
    st.builds(Graft, st.none() | ids, st.integers(0, 9)),
    st.builds(IHave, st.lists(st.tuples(ids, st.integers(0, 20)), max_size=6).map(tuple)),
)
events = messages | st.floats(0, 5) | st.sampled_from(["up", "down", "say"])


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(1, 6), events), max_size=80))
def test_any_history_keeps_the_invariants(script: list[tuple[int, object]]) -> None:
    node = Node(BroadcastConfig(max_missing=8, max_missing_per_peer=4))
    tree = node.tree
    neighbors: set[bytes] = set()
    delivered: set[bytes] = set()
    for number, event in script:
        peer = node_id(number)
        match event:
            case "up" if peer not in neighbors:
                tree.neighbor_up(peer)
                neighbors.add(peer)
            case "down":
                tree.neighbor_down(peer)
                neighbors.discard(peer)
            case "say":
                tree.broadcast(b"own %d" % number, node.now)
            case float():
                node.wait(event)
            case Payload() | Prune() | Graft() | IHave():
                for output in node.hear(number, event):
                    if isinstance(output, Deliver) and output.round is not None:
                        assert output.content not in delivered, "once each: 90 seconds do not pass here"
                        if node.now < 80:
                            delivered.add(output.content)
        if node.now >= 80:
            return
        assert not tree.eager.keys() & tree.lazy.keys() and tree.eager.keys() | tree.lazy.keys() == neighbors
        assert len(tree._missing) <= 8 and all(0 < n <= 4 for n in tree._missing_by_peer.values())
        counted: dict[bytes, int] = {}
        for missing in tree._missing.values():
            for announcer, _ in missing.announcers:
                counted[announcer] = counted.get(announcer, 0) + 1
        assert counted == tree._missing_by_peer
        assert tree._kept_bytes == sum(len(kept.payload.content) for kept in tree._kept.values())
    for _ in range(200):
        node.wait(1)
    assert len(node.timers) == 0 and tree._missing == {} and not tree._received


def test_from_far_away_a_payload_is_awaited_longer() -> None:
    node = Node(eager=1)
    node.hear(1, Prune())
    node.tree.note_round_trip(node_id(1), 0.4)
    node.tree.note_round_trip(node_id(9), 1.0)  # a stranger's is not noted
    x = payload(b"x")
    node.hear(1, IHave(((x.id, 3),)))
    assert node.wait(2.3) == []
    assert node.wait(0.15) == [Send(node_id(1), Graft(x.id, 3))]
    node.tree.note_round_trip(node_id(1), 1000.0)
    node.hear(1, IHave(((payload(b"y").id, 3),)))
    assert node.wait(3.1)[-1] == Send(node_id(1), Graft(payload(b"y").id, 3))


def test_in_a_burst_a_payload_is_awaited_as_long_as_payloads_lately_took() -> None:
    """Announcements overtake the payloads that queue; fetching those as well would make the queue longer."""
    node = Node(eager=2)
    node.hear(2, Prune())
    for number in range(20):  # each comes a little later, and the last ones have been asked for meanwhile
        each = payload(b"%d" % number)
        node.hear(2, IHave(((each.id, 1),)))
        asked = Send(node_id(2), Graft(each.id, 1)) in node.wait(0.02 * number)
        assert not asked or number < 10, "it has learned"
        node.hear(1, each)
    lost = payload(b"lost")
    node.hear(2, IHave(((lost.id, 1),)))
    assert Send(node_id(2), Graft(lost.id, 1)) not in node.wait(0.4), "the others came after 0.38 s"
    assert Send(node_id(2), Graft(lost.id, 1)) in node.wait(2.6)
    node.hear(2, lost)
    node.wait(11)
    node.hear(2, Prune())
    after = payload(b"after")
    node.hear(2, IHave(((after.id, 1),)))
    assert Send(node_id(2), Graft(after.id, 1)) in node.wait(0.081), "the burst is over"
