"""X-BOT: links become short, and the swarm stays one."""

from statistics import fmean

import pytest
from tidings.gossip import MembershipConfig, TopicConfig, XBotConfig
from tidings.gossip.core.log_messages import decode_log, encode_log
from tidings.gossip.core.swap_messages import Optimize, OptimizeReply, Replace, ReplaceReply, Switch, SwitchReply

from benchmarks.gossip_sim.links import Link, plane
from benchmarks.gossip_sim.network import Network, node_id

from .swarm import heard, members, until

A, B = b"a" * 32, b"b" * 32


@pytest.mark.parametrize(
    "message", [Optimize(A), Replace(A, B), Switch(A), OptimizeReply(True), ReplaceReply(False), SwitchReply(True)]
)
def test_messages_come_back(message) -> None:
    assert decode_log(encode_log(message)) == message


def swarm(xbot, nodes=150, seed=3, seconds=400):
    way = plane(0.002, 0.1, seed)
    network = Network(seed, TopicConfig(xbot=xbot), Link(way))
    first, *others = network.add(*range(nodes))
    for other in others:
        network.join(other, first)
        network.run(0.1)
    network.run(seconds)
    return network, way


def length(network, way):
    return fmean(way(id, peer) for id, core in network.nodes.items() for peer in core.neighbors)


def reached(network, start):
    seen, todo = {start}, [start]
    while todo:
        for peer in network.nodes[todo.pop()].neighbors:
            if peer not in seen:
                seen.add(peer)
                todo.append(peer)
    return len(seen)


def test_links_become_short_and_the_swarm_stays_one() -> None:
    plain, way = swarm(None)
    short, _ = swarm(XBotConfig(interval=5))
    assert length(short, way) < 0.7 * length(plain, way)
    degree = fmean(len(core.neighbors) for core in short.nodes.values())
    assert degree >= 0.95 * fmean(len(core.neighbors) for core in plain.nodes.values())
    assert all(reached(short, id) == len(short.nodes) for id in short.nodes)
    short.run(30)
    pairs = [(id, peer) for id, core in short.nodes.items() for peer in core.neighbors]
    asymmetric = [(id, peer) for id, peer in pairs if id not in short.nodes[peer].neighbors]
    assert len(asymmetric) <= 4, "trades that are under way"


def test_nodes_that_do_not_trade_refuse_and_are_left_alone() -> None:
    config = TopicConfig(xbot=XBotConfig(interval=5))
    way = plane(0.002, 0.1, 1)
    network = Network(1, config, Link(way))
    trading = network.add(*range(20))
    network.config = TopicConfig()
    network.add(*range(20, 40))
    for number in range(1, 40):
        network.join(node_id(number), trading[0])
        network.run(0.1)
    network.run(200)
    assert all(reached(network, id) == 40 for id in network.nodes)


def test_a_trade_ends_where_its_nodes_die() -> None:
    network, _ = swarm(XBotConfig(interval=1, trade_timeout=3, answer_timeout=1), nodes=60, seconds=60)
    for dead in (list(network.nodes)[::3], list(network.nodes)[1::6]):
        for id in dead:
            network.kill(id)
        network.run(0.3)
    network.run(30)
    assert all(reached(network, id) == len(network.nodes) for id in network.nodes)
    assert all(len(core.membership._kept_slots) <= 2 for core in network.nodes.values())


async def test_endpoints_measure_and_trade() -> None:
    eager = XBotConfig(interval=0.1, unbiased=0, gain=1e6)
    config = TopicConfig(membership=MembershipConfig(active_capacity=3, shuffle_interval=0.5), xbot=eager)
    async with members(8, config) as made:
        first = await made[0].gossip.subscribe("near")
        topics = [first, *[await each.gossip.subscribe("near", [made[0].addr]) for each in made[1:]]]
        for topic in topics:
            await topic.joined(10)
        await until(lambda: any(each.gossip.stats.trades for each in made), 20)
        for each in made:
            each.gossip._driver._topics[first.id].core.xbot._config = XBotConfig(interval=1000)
        await until(lambda: all(not topic._joined.core.xbot._trade for topic in topics), 20)
        await until(lambda: all(topic.neighbors() for topic in topics))
        await first.broadcast(b"everybody", signed=True)
        for topic in topics[1:]:
            await heard(topic, b"everybody", 20)
