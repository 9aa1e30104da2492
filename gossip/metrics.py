"""What gossip counts, for Prometheus: ``registry.register(GossipCollector(gossip))``; made of `Stats` when asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from .stats import DELAYS

if TYPE_CHECKING:
    from .api import Gossip

__all__ = ["GossipCollector"]


class GossipCollector:
    """All topics of one `Gossip` together."""

    def __init__(self, gossip: Gossip) -> None:
        self._gossip = gossip

    def collect(self) -> Iterable[Metric]:
        stats = self._gossip.stats
        for name, help, counts in (
            ("sent", "Messages for peers, by kind", stats.sent),
            ("received", "Messages of peers, by kind", stats.received),
            ("faults", "What peers did that no honest peer does, by kind", stats.faults),
        ):
            family = CounterMetricFamily(f"tidings_gossip_{name}", help, labels=["kind"])
            for kind, count in counts.items():
                family.add_metric([kind], count)
            yield family
        for name, help, count in (
            ("dropped", "Messages dropped, since a peer did not read fast enough", self._gossip.dropped),
            ("delivered", "Messages that subscribers got", stats.delivered),
            ("caught_up", "Of them, those from neighbours' logs", stats.caught_up),
            ("missed", "Messages of authors that were given up", stats.missed),
            ("forged", "Signed messages whose signature did not hold", stats.forged),
            ("refused", "Broadcasts that were refused", stats.refused),
            ("trades", "Neighbours that were traded for nearer ones", stats.trades),
        ):
            yield CounterMetricFamily(f"tidings_gossip_{name}", help, value=count)
        topics, neighbors = self._gossip.sizes()
        yield GaugeMetricFamily("tidings_gossip_topics", "Topics that are subscribed", value=topics)
        yield GaugeMetricFamily("tidings_gossip_neighbors", "Neighbours, over all topics", value=neighbors)
        total, buckets = 0, []
        for bound, count in zip((*map(str, DELAYS), "+Inf"), stats.delays, strict=True):
            total += count
            buckets.append((bound, float(total)))
        delay = HistogramMetricFamily("tidings_gossip_delay_seconds", "From signing to delivery, by the author's clock")
        delay.add_metric([], buckets, stats.delay_sum)
        yield delay
