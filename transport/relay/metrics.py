"""Counters of a relay, under the names that operators of Rust relays know."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["RelayMetrics"]


class RelayMetrics:
    """In a registry of its own, so that several relays fit one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.bytes_received = self._counter("bytes_recv", "Bytes of messages that clients sent")
        self.bytes_sent = self._counter("bytes_sent", "Bytes of messages that clients were sent")
        self.packets_received = self._counter("send_packets_recv", "Frames of datagrams that clients sent")
        self.packets_sent = self._counter("send_packets_sent", "Frames of datagrams that were queued for a client")
        self.packets_dropped = self._counter("send_packets_dropped", "Frames of datagrams for nobody, or a full queue")
        self.others_received = self._counter("other_packets_recv", "Other frames that clients sent")
        self.pings = self._counter("got_ping", "Pings of clients")
        self.pongs = self._counter("sent_pong", "Pongs to clients")
        self.bad_frames = self._counter("unknown_frames", "Frames that ended their connection")
        self.limited_bytes = self._counter("bytes_rx_ratelimited_total", "Bytes that had to wait for the rate limit")
        self.limited_clients = self._counter("conns_rx_ratelimited_total", "Connections that met the rate limit")
        self.accepts = self._counter("accepts", "Clients that were let in")
        self.denials = self._counter("denials", "Clients that were not")
        self.disconnects = self._counter("disconnects", "Clients that left")
        self.refused = self._counter("conns_refused", "Connections beyond the limits")
        self.discovery_incoming = self._counter("qad_incoming", "Clients that began to ask for their address")
        self.discovery_errors = self._counter("qad_incoming_error", "Of them, those that did not come far enough")
        self.discovery_connections = self._counter("qad_connections", "Of them, those that were told")
        self.discovery_closed = self._counter("qad_connections_closed", "Of those, the ones that have left")
        self.clients = self._gauge("clients", "Clients that are connected")
        self.ids = self._gauge("unique_client_keys", "Ids that are connected")

    def _counter(self, name: str, help: str) -> Counter:
        return Counter(f"relayserver_{name}", help, registry=self.registry)

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(f"relayserver_{name}", help, registry=self.registry)
