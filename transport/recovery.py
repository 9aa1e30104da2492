"""How fast to send: aioquic's Cubic and pacer with three faults mended (``reference/aioquic.md`` C).

- The window does not grow while the application, not the window, is the limit (RFC 9002 7.8).
- It has a ceiling, so that a fast loopback does not leave a window that floods a slower path later.
- The pacer may burst two milliseconds: event loops wake in steps of one, and a smaller bucket caps the rate at
  16 packets a millisecond whatever the machine could do.
"""

from __future__ import annotations

from aioquic.quic.congestion.base import QuicRttMonitor, register_congestion_control
from aioquic.quic.congestion.cubic import CubicCongestionControl
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer

__all__ = ["CONGESTION_CONTROL", "BurstPacer"]

CONGESTION_CONTROL = "tidings-cubic"
MAX_WINDOW = 32 << 20  # bytes: 250 MB/s over 128 ms
BURST = 0.002  # seconds
BURST_PACKETS = 64  # one GSO call


class UtilisedCubic(CubicCongestionControl):
    """Cubic that counts only acknowledgements of packets sent while the window was in use."""

    _last_utilised = -1.0

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        super().on_packet_sent(packet=packet)
        if packet.sent_time is not None and 2 * self.bytes_in_flight >= self.congestion_window:
            self._last_utilised = packet.sent_time

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        if packet.sent_time is None or packet.sent_time > self._last_utilised:
            self.bytes_in_flight -= packet.sent_bytes
            return
        super().on_packet_acked(now=now, packet=packet)
        self.congestion_window = min(self.congestion_window, MAX_WINDOW)

    def start_over(self, now: float) -> None:
        """On another path (RFC 9000 9.4). What was lost before ``now`` says nothing of it."""
        self.reset()
        self._congestion_recovery_start_time = now
        self._rtt_monitor = QuicRttMonitor()


class BurstPacer(QuicPacketPacer):
    """A token bucket that holds at least two milliseconds of packets."""

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        super().update_rate(congestion_window, smoothed_rtt)
        if self.packet_time is not None:
            self.bucket_max = max(self.bucket_max, BURST, BURST_PACKETS * self.packet_time)


register_congestion_control(CONGESTION_CONTROL, UtilisedCubic)
