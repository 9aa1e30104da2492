"""What gossip counts."""

from prometheus_client import CollectorRegistry, generate_latest
from tidings.gossip.metrics import GossipCollector

from .swarm import heard, members


async def test_what_was_said_is_counted():
    async with members(2) as made:
        registry = CollectorRegistry()
        registry.register(GossipCollector(made[1].gossip))
        first = await made[0].gossip.subscribe("counted", log=True)
        second = await made[1].gossip.subscribe("counted", [made[0].addr], log=True)
        await second.joined(10)
        for number in range(3):
            await first.broadcast(b"%d" % number)
            await heard(second, b"%d" % number)
        await second.broadcast(b"plain", signed=False)
        assert not await second.broadcast(b"plain", signed=False)
        value = registry.get_sample_value
        assert value("tidings_gossip_delivered_total") == 3
        assert value("tidings_gossip_refused_total") == 1
        assert value("tidings_gossip_missed_total") == value("tidings_gossip_forged_total") == 0
        assert value("tidings_gossip_received_total", {"kind": "Payload"}) == 3
        assert value("tidings_gossip_sent_total", {"kind": "Payload"}) == 1
        assert (value("tidings_gossip_topics"), value("tidings_gossip_neighbors")) == (1, 1)
        assert value("tidings_gossip_delay_seconds_count") == 3
        assert value("tidings_gossip_delay_seconds_bucket", {"le": "60.0"}) == 3
        assert b"tidings_gossip_delay_seconds_sum" in generate_latest(registry)
        assert second.roles() == {made[0].endpoint.id: "eager"}
