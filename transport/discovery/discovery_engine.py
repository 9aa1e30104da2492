"""The QUIC connection of address discovery: ordinary TLS with a name and a certificate, one frame, no streams.

The parameter that offers it is in no other connection of ours: whoever offers it gets the frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import EPOCHS, QuicConnection, QuicReceiveContext
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.quic.packet_builder import QuicPacketBuilder

from ..addr import IpAddr
from ..engine import CID_SIZE, DATAGRAM_SIZE, Engine
from ..keys import EndpointId
from ..recovery import CONGESTION_CONTROL
from .observed_address import (
    FRAME_SIZE,
    OBSERVED_V4,
    OBSERVED_V6,
    RECEIVES,
    SENDS,
    encode_parameter,
    frame_type,
    pull_observed,
    push_observed,
)

__all__ = ["DISCOVERY_ALPN", "DiscoveryEngine", "discovery_configuration"]

DISCOVERY_ALPN = "/iroh-qad/0"
INITIAL_RTT = 0.111  # seconds (iroh's figure)
IDLE_TIMEOUT = 35.0  # seconds (iroh's)


def discovery_configuration(*, is_client: bool, **options: Any) -> QuicConfiguration:
    """aioquic's configuration; ``options`` are its own, of certificates."""
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[DISCOVERY_ALPN],
        supported_versions=[QuicProtocolVersion.VERSION_1],
        connection_id_length=CID_SIZE,
        congestion_control_algorithm=CONGESTION_CONTROL,
        initial_rtt=INITIAL_RTT,
        idle_timeout=IDLE_TIMEOUT,
        max_datagram_size=DATAGRAM_SIZE,
        max_data=0,
        max_stream_data=0,
        **options,
    )


class DiscoveryEngine(Engine):
    """``observe`` reports an address to a client; ``observed`` is what a server has reported to us last."""

    def __init__(
        self, *, configuration: QuicConfiguration, reset_token: Callable[[bytes], bytes], **options: Any
    ) -> None:
        self.observed: IpAddr | None = None
        self._observed_sequence = -1
        self._report: IpAddr | None = None
        self._sequence = 0
        super().__init__(configuration=configuration, reset_token=reset_token, **options)
        handlers: dict[int, Any] = self._QuicConnection__frame_handlers  # type: ignore[attr-defined]
        for type in (OBSERVED_V4, OBSERVED_V6) if self._is_client else ():
            handlers[type] = (self._handle_observed, EPOCHS("1"))

    def observe(self, addr: IpAddr) -> None:
        """Tell the client that its packets come from ``addr``."""
        self._report = addr

    @property
    def peer_id(self) -> EndpointId | None:
        return None  # no key of ours is proved here

    def _initialize(self, peer_cid: bytes) -> None:
        QuicConnection._initialize(self, peer_cid)  # with certificates: `Engine` would put raw keys in their place

    def _alpn_handler(self, alpn_protocol: str) -> None:
        QuicConnection._alpn_handler(self, alpn_protocol)

    def _serialize_transport_parameters(self) -> bytes:
        return super()._serialize_transport_parameters() + encode_parameter(RECEIVES if self._is_client else SENDS)

    def _handle_observed(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        sequence, addr = pull_observed(buf, frame_type)
        if sequence > self._observed_sequence:
            self._observed_sequence, self.observed = sequence, addr

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: Any) -> None:
        super()._write_connection_limits(builder, space)
        addr = self._report
        if addr is not None:
            self._report = None
            self._sequence += 1
            frame = builder.start_frame(
                frame_type(addr), capacity=FRAME_SIZE, handler=self._on_report_delivery, handler_args=(addr,)
            )
            push_observed(frame, self._sequence, addr)

    def _on_report_delivery(self, delivery: Any, addr: IpAddr) -> None:
        if delivery.name == "LOST" and self._report is None:
            self._report = addr
