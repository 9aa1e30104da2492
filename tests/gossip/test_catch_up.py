"""The log of a topic: its messages, the order of authors, and whole swarms that miss nothing."""

from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tidings.gossip.core.codec import MAX_CONTENT
from tidings.gossip.core.envelope import MAGIC, MAX_BODY, Envelope, Kind
from tidings.gossip.core.log import Entry, LogConfig, MessageLog
from tidings.gossip.core.log_messages import Ask, Give, Have, Summary, Want, decode_log, encode_log
from tidings.gossip.core.order import MAX_HELD, AuthorOrder
from tidings.transport import SecretKey
from tidings.transport.errors import DecodeError

from benchmarks.gossip_sim.links import Link, plane
from benchmarks.gossip_sim.network import Network, node_id

TOPIC = bytes(32)
BIG = 2**64 - 1


def envelope(number, body=b"", author=b"a" * 32, gap=1_000_000, session=1):
    return Envelope(author, session, number, 0, gap if number > 1 else 0, Kind.CONTENT, body)


def entry(number, at=100.0, **fields):
    return Entry(number.to_bytes(16, "big"), b"", at, envelope(number, **fields))


class TestEnvelope:
    def test_a_signed_message_comes_back_and_fits(self):
        secret = SecretKey.generate()
        signed = Envelope(bytes(secret.public), BIG, BIG, BIG, BIG, Kind.CARRIED, bytes(MAX_BODY))
        content = signed.seal(secret, TOPIC)
        assert len(content) <= MAX_CONTENT
        assert Envelope.open(content, TOPIC) == signed

    def test_other_contents_are_plain(self):
        assert Envelope.open(b"hello", TOPIC) is None
        assert Envelope.open(b"", TOPIC) is None

    def test_a_changed_byte_another_topic_or_author_is_refused(self):
        secret = SecretKey.generate()
        content = envelope(1, b"body", bytes(secret.public)).seal(secret, TOPIC)
        for at in range(len(MAGIC), len(content)):
            with pytest.raises(DecodeError):
                Envelope.open(content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :], TOPIC)
        for size in range(len(MAGIC), len(content)):
            with pytest.raises(DecodeError):
                Envelope.open(content[:size], TOPIC)
        with pytest.raises(DecodeError):
            Envelope.open(content, bytes(31) + b"\x01")
        with pytest.raises(DecodeError):
            Envelope.open(envelope(1, b"", b"\xff" * 32).seal(secret, TOPIC), TOPIC)
        with pytest.raises(DecodeError):
            Envelope.open(content + b"x", TOPIC)


@pytest.mark.parametrize(
    "message",
    [
        Summary(b"12345678", 2**40),
        Ask(0, 600_000),
        Have(b"12345678", 3, ((bytes(16), 5), (bytes(16), 0)), 7, True),
        Want((bytes(16),) * 64),
        Give(((b"content", 3), (bytes(MAX_CONTENT), 0)), (bytes(16),)),
    ],
)
def test_messages_of_logs_come_back(message):
    encoded = encode_log(message)
    assert decode_log(encoded) == message
    for size in range(min(len(encoded), 300)):
        with pytest.raises(DecodeError):
            decode_log(encoded[:size])


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_of_a_log_are_refused(data):
    try:
        assert decode_log(encode_log(decode_log(data))) == decode_log(data)
    except DecodeError:
        pass


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [5],
        [0, b"1234567", 1],
        [0, b"12345678", -1],
        [1, 0, 2**50],
        [2, b"12345678", 0, [[bytes(16)]], 1, False],
        [2, b"12345678", 0, [], 1, 1],
        [2, b"12345678", -1, [], 1, False],
        [3, []],
        [3, [b"short"]],
        [3, [bytes(16)] * 65],
        [4, [[bytes(MAX_CONTENT + 1), 0]], []],
    ],
)
def test_messages_of_another_shape_are_refused(fields):
    import msgpack

    with pytest.raises(DecodeError):
        decode_log(msgpack.packb(fields))


class TestLog:
    def test_it_is_bounded_by_number_bytes_and_age(self):
        log = MessageLog(LogConfig(messages=3, bytes=100, age=10))
        for number in range(5):
            log.append(Entry(bytes((number,)), b"12345", float(number)))
        assert [each.id for each in log] == [b"\x02", b"\x03", b"\x04"] and log.high == 5
        assert log.find(b"\x01") is None and log.find(b"\x02") is not None
        assert [each.index for each in log.after(0, 10)] == [3, 4, 5]
        assert [each.index for each in log.after(3, 1)] == [4]
        assert log.after(5, 10) == log.after(99, 10) == []
        log.append(Entry(b"x", bytes(98), 5.0))
        assert len(log) == 1 and log.bytes == 98
        log.expire(15.5)
        assert len(log) == 0 and log.bytes == 0 and log.after(0, 10) == []


class TestOrder:
    @given(st.permutations(range(1, 9)))
    def test_any_arrival_is_handed_on_in_order(self, arrival):
        order, out = AuthorOrder(), []
        for number in arrival:
            each = entry(number)
            out += order.arrived(each, each.envelope, 0.0, 100.0)
        assert [each.envelope.number for each, _ in out] == list(range(1, 9))
        assert not any(late for _, late in out)
        assert all(order.knows(envelope(number)) for number in range(1, 9))
        assert order.arrived(entry(3), envelope(3), 0.0, 100.0) == []

    def test_who_comes_later_follows_from_there(self):
        order = AuthorOrder()
        assert len(order.arrived(entry(7, gap=5_000_000), envelope(7, gap=5_000_000), 96.0, 100.0)) == 1
        assert order.arrived(entry(9), envelope(9), 96.0, 101.0) == []
        assert order.waits((b"a" * 32, 1))

    def test_who_comes_later_waits_for_nothing_earlier_whichever_message_arrives_first(self):
        """The first of ours is known by the gap before it, and may be overtaken."""
        order = AuthorOrder()
        assert order.arrived(entry(8), envelope(8), 96.0, 101.0) == []
        first = entry(7, gap=5_000_000)
        ready = order.arrived(first, first.envelope, 96.0, 101.0)
        assert [(each.envelope.number, late) for each, late in ready] == [(7, False), (8, False)]
        assert not order.waits((b"a" * 32, 1))

    def test_what_was_given_up_is_late_but_not_lost(self):
        order = AuthorOrder()
        order.arrived(entry(1), envelope(1), 0.0, 0.0)
        for number in (4, 5, 7):
            assert order.arrived(entry(number), envelope(number), 0.0, 0.0) == []
        gap, ready = order.give_up((b"a" * 32, 1))
        assert (gap.first, gap.last) == (2, 3)
        assert [each.envelope.number for each, _ in ready] == [4, 5]
        assert [(each.envelope.number, late) for each, late in order.arrived(entry(2), envelope(2), 0.0, 0.0)] == [
            (2, True)
        ]
        assert order.arrived(entry(2), envelope(2), 0.0, 0.0) == []
        assert order.waits((b"a" * 32, 1))

    def test_too_much_is_not_held_back(self):
        order = AuthorOrder()
        order.arrived(entry(1), envelope(1), 0.0, 0.0)
        for number in range(3, 3 + MAX_HELD):
            assert not order.crowded((b"a" * 32, 1))
            order.arrived(entry(number), envelope(number), 0.0, 0.0)
        assert order.crowded((b"a" * 32, 1))


class Swarm:
    """A network whose nodes keep logs, and what each got of whom, in order."""

    def __init__(self, seed, count, config=None):
        self.got = {}
        self.sent = {}
        self.network = Network(
            seed, link=Link(plane(0.005, 0.05, seed)), log=config or LogConfig(), on_ready=self.ready
        )
        first, *others = self.network.add(*range(count))
        for other in others:
            self.network.join(other, first)
            self.network.run(0.05)
        self.network.run(10)

    def ready(self, id, ready):
        envelope = ready.entry.envelope
        self.got.setdefault((id, envelope.author), []).append(envelope.number)

    def say(self, id):
        self.sent[id] = self.sent.get(id, 0) + 1
        self.network.say(id, b"%d" % self.sent[id])

    def whole(self):
        """Whether every node got everything that was sent by those who are there, in order, and once."""
        return all(
            self.got.get((id, author), []) == list(range(1, self.sent[author] + 1))
            for id in self.network.nodes
            for author in self.sent
            if author in self.network.nodes and author != id
        )


@pytest.mark.parametrize("seed", range(3))
def test_with_loss_everything_arrives_in_order(seed):
    swarm = Swarm(seed, 40, LogConfig(gap_timeout=60))
    swarm.network.link.loss = 0.2
    swarm.network.link.jitter = 0.1
    swarm.network.link.duplicate = 0.1
    for number in range(60):
        swarm.say(node_id(number % 7))
        swarm.network.run(0.05)
    swarm.network.run(60)
    assert swarm.whole()


def test_a_healed_partition_finds_together_and_gets_what_it_missed():
    swarm = Swarm(5, 40)
    ids = list(swarm.network.nodes)
    swarm.say(ids[3])
    swarm.network.part(ids[:20], ids[20:])
    for number in range(40):
        swarm.say(ids[number])
        swarm.say(ids[3])
        swarm.network.run(0.2)
    assert not swarm.whole()
    swarm.network.heal()
    swarm.network.run(40)
    assert swarm.whole()


def test_who_comes_later_gets_what_comes_then_and_waits_for_nothing_older():
    swarm = Swarm(1, 10)
    for _ in range(5):
        swarm.say(node_id(2))
        swarm.network.run(1)
    (late,) = swarm.network.add(99)
    swarm.network.join(late, node_id(0))
    swarm.network.run(2)
    swarm.say(node_id(2))
    swarm.network.run(1)
    assert swarm.got[late, node_id(2)] == [6]


def test_who_asks_for_the_past_gets_it_in_order():
    swarm = Swarm(2, 10)
    for _ in range(20):
        swarm.say(node_id(2))
        swarm.say(node_id(3))
        swarm.network.run(1)
    (late,) = swarm.network.add(99)
    swarm.network.nodes[late].log.since = 0.0
    swarm.network.join(late, node_id(0))
    swarm.network.run(10)
    assert swarm.got[late, node_id(2)] == swarm.got[late, node_id(3)] == list(range(1, 21))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32))
@example(345769603)  # the first who listed a content had lost it when it was wanted: the next is to be asked
def test_no_log_outgrows_its_bounds_whatever_happens(seed):
    swarm = Swarm(seed, 12, LogConfig(messages=16, bytes=4000, age=20, gap_timeout=2))
    rng = Random(seed)
    for _ in range(60):
        swarm.say(rng.choice(list(swarm.network.nodes)))
        swarm.network.link.loss = rng.choice([0.0, 0.5])
        swarm.network.run(rng.choice([0.01, 0.5]))
        assert all(len(core.log.log) <= 16 and core.log.log.bytes <= 4000 for core in swarm.network.nodes.values())
    swarm.network.run(60)
    assert all(not core.log._missing and not core.log._order._held for core in swarm.network.nodes.values())
