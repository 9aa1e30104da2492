"""Counters of a lookup server, under the names that operators of Rust servers know."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["LookupMetrics"]


class LookupMetrics:
    """In a registry of its own, so that several servers fit one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.updates = self._counter("pkarr_publish_update", "Packets that were taken")
        self.noops = self._counter("pkarr_publish_noop", "Packets that were older than the one we have")
        self.refused = self._counter("pkarr_publish_refused", "Packets that were wrong, or too many")
        self.dns_requests = self._counter("dns_requests", "Questions of DNS")
        self.dns_over_udp = self._counter("dns_requests_udp", "Of them, by UDP")
        self.dns_over_http = self._counter("dns_requests_https", "Of them, by HTTP")
        self.found = self._counter("dns_lookup_success", "Questions with an answer")
        self.not_found = self._counter("dns_lookup_notfound", "Questions for what is not here")
        self.errors = self._counter("dns_lookup_error", "Questions that were none, or are answered elsewhere")
        self.limited = self._counter("requests_limited", "Requests of clients that ask too often")
        self.inserted = self._counter("store_packets_inserted", "Packets of ids that were new")
        self.updated = self._counter("store_packets_updated", "Packets in place of older ones")
        self.expired = self._counter("store_packets_expired", "Packets that were not renewed")
        self.packets = Gauge("dns_server_store_packets", "Packets that are stored", registry=self.registry)

    def _counter(self, name: str, help: str) -> Counter:
        return Counter(f"dns_server_{name}", help, registry=self.registry)
