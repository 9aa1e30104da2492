"""The ways to a peer, as two state machines on a network of virtual time."""

import heapq
import itertools
import random

import pytest
from tidings.transport import RelayUrl, SecretKey
from tidings.transport.paths.place import RelayPlace
from tidings.transport.paths.remote import LOST, MAX_PLACES, TRIES, Remote

ID = SecretKey.generate().public
RELAY = RelayPlace(RelayUrl("http://relay.example/"), ID)
A, B = ("192.0.2.1", 1), ("192.0.2.2", 2)


class Network:
    """Two sides, each with places; ``carry(sender, receiver, place) -> (delay, place it comes from) | None``."""

    def __init__(self, carry, start=0.0):
        self.now = start
        self.sides = {}
        self.carry = carry
        self.queue = []
        self.order = itertools.count()
        self.sent = []

    def post(self, sender, receiver, place, message):
        self.sent.append((self.now, sender, place, message))
        way = self.carry(sender, receiver, place)
        if way is not None:
            delay, source = way
            heapq.heappush(self.queue, (self.now + delay, next(self.order), receiver, sender, source, message))

    def run(self, until):
        while True:
            at = min(side.deadline() for side in self.sides.values())
            if self.queue:
                at = min(at, self.queue[0][0])
            if at > until:
                self.now = until
                return
            self.now = max(self.now, at)
            while self.queue and self.queue[0][0] <= self.now:
                _, _, receiver, sender, source, (kind, number) = heapq.heappop(self.queue)
                if kind == "ping":
                    self.post(receiver, sender, source, ("pong", number))
                    self.sides[receiver].ping_came(source, self.now)
                else:
                    self.sides[receiver].pong_came(number, source, self.now)
            for name, side in self.sides.items():
                if side.deadline() <= self.now:
                    for number, place in side.poll(self.now):
                        self.post(name, "b" if name == "a" else "a", place, ("ping", number))


def open_world(a=A, b=B, *, relay_delay=0.05, direct_delay=0.01, loss=0.0, seed=0, nat=lambda sender, place: True):
    """Both are at one address each and behind one relay; ``nat(sender, place)``: whether a packet gets out and in."""
    rng = random.Random(seed)
    home = {"a": a, "b": b}

    def carry(sender, receiver, place):
        if rng.random() < loss:
            return None
        if isinstance(place, RelayPlace):
            return relay_delay, RELAY
        return (direct_delay, home[sender]) if place == home[receiver] and nat(sender, place) else None

    network = Network(carry)
    network.sides = {"a": Remote(RELAY), "b": Remote(RELAY)}
    network.sides["a"].tell([RELAY, b], 0.0)
    network.sides["b"].tell([RELAY, a], 0.0)
    return network


def test_direct_goes_before_relayed():
    network = open_world()
    network.run(1.0)
    assert (network.sides["a"].selected, network.sides["b"].selected) == (B, A)
    first, second = network.sides["a"].paths()
    assert (first.kind, first.selected, second.kind) == ("direct", True, "relay")
    assert first.rtt == pytest.approx(0.02) and "direct" in first.why


def test_ports_that_open_only_for_whom_was_asked():
    """Port-restricted NATs on both sides: the first packet of each side opens its own."""
    asked = set()

    def nat(sender, place):
        asked.add(sender)
        return len(asked) == 2

    network = open_world(nat=nat)
    network.run(1.0)
    assert (network.sides["a"].selected, network.sides["b"].selected) == (B, A)


def test_a_peer_that_comes_from_a_place_it_could_not_name():
    """A symmetric NAT before ``a``: ``b`` is asked from a place that nobody told it."""
    odd = ("192.0.2.1", 999)

    def carry(sender, receiver, place):
        if isinstance(place, RelayPlace):
            return 0.05, RELAY
        if sender == "a":
            return (0.01, odd) if place == B else None
        return (0.01, B) if place == odd else None

    network = Network(carry)
    network.sides = {"a": Remote(RELAY), "b": Remote(RELAY)}
    network.sides["a"].tell([RELAY, B], 0.0)
    network.sides["b"].tell([RELAY, A], 0.0)
    network.run(1.0)
    assert (network.sides["a"].selected, network.sides["b"].selected) == (B, odd)


def test_where_no_direct_way_works_the_relay_stays_and_the_tries_end():
    network = open_world(nat=lambda sender, place: False)
    network.run(20.0)
    assert network.sides["a"].selected == RELAY
    direct = [at for at, sender, place, _ in network.sent if sender == "a" and place == B]
    assert len(direct) == TRIES
    assert max(direct) < 10
    network.run(120.0)
    assert TRIES < len([1 for _, sender, place, _ in network.sent if sender == "a" and place == B]) < 5 * TRIES


def test_a_dead_way_is_left_within_a_second_of_sending():
    alive = [True]
    network = open_world(nat=lambda sender, place: alive[0])
    network.run(2.0)
    a = network.sides["a"]
    alive[0] = False
    a.sent(network.now)
    network.run(3.0)
    assert a.selected == RELAY and not a.is_working(B)
    alive[0] = True
    network.run(40.0)
    assert a.selected == B  # tried again, now and then


def test_a_peer_that_answers_is_not_asked_more_than_a_heartbeat():
    network = open_world()
    network.run(2.0)
    before = len(network.sent)
    network.run(62.0)
    pings = len([1 for *_, message in network.sent[before:] if message[0] == "ping"])
    assert pings <= 2 * (60 / 5 + 60 / 15 + 2)


def test_in_a_blackout_everything_is_tried_until_something_answers():
    alive = [True]

    def carry(sender, receiver, place):
        return (0.01, A if sender == "a" else B) if alive[0] and place in (A, B) else None

    network = Network(carry)
    network.sides = {"a": Remote(B), "b": Remote(A)}
    network.run(1.0)
    alive[0] = False
    network.sides["a"].sent(1.0)
    network.run(11.0)
    assert not network.sides["a"].works and network.sides["a"].selected == B
    alive[0] = True
    network.run(12.0)
    assert network.sides["a"].works


def test_a_relay_that_is_gone():
    network = open_world(nat=lambda sender, place: False)
    other = RelayPlace(RelayUrl("http://other.example/"), ID)
    a = network.sides["a"]
    network.run(1.0)
    a.tell([RELAY, other], 1.0)
    a.relay_changed(RELAY, False, 1.0)
    assert a.selected == RELAY and not a.works
    (number, place), *_ = [ping for ping in a.poll(1.0) if ping[1] == other]
    assert a.pong_came(number, place, 1.1)
    assert a.selected == other


def test_answers_to_nothing_and_from_elsewhere_count_for_nothing():
    a = Remote(RELAY)
    a.tell([RELAY, B], 0.0)
    pings = {place: number for number, place in a.poll(0.0)}
    assert not a.pong_came(999, B, 0.1)
    assert not a.pong_came(pings[B], A, 0.1)  # not where it was asked
    assert not a.pong_came(pings[B], B, 0.1)  # and once only
    assert not a.is_working(B)


def test_places_are_bounded():
    a = Remote(RELAY)
    for n in range(10 * MAX_PLACES):
        a.ping_came((f"198.51.100.{n % 256}", 1000 + n), 0.0)
    assert len(a.poll(0.0)) <= MAX_PLACES
    assert a.selected == RELAY and a.works


@pytest.mark.parametrize("seed", range(20))
def test_through_losses_the_direct_way_is_found_and_kept(seed):
    network = open_world(loss=0.2, seed=seed)
    network.run(10.0)
    assert (network.sides["a"].selected, network.sides["b"].selected) == (B, A)
    assert LOST >= 3
