"""One QUIC connection as a sans-IO engine: aioquic's, with the parts replaced that trust the peer too much.

What differs from stock aioquic, and why (``reference/aioquic.md``):

- **Identity**: raw public keys both ways (`raw_public_key`).
- **Receive windows** grow when the application has *read* bytes, not when they arrive; so a slow reader holds a fast
  writer back, and a peer can make us store one window, no more.
- **Sending**: own congestion window and pacer (`recovery`); keys are updated long before the AEAD's limit.
- **Stateless resets** (RFC 9000 10.3): tokens come from a key derived from our secret, so a restarted process can tell
  peers that it no longer knows their connection, and the peer's reset ends a connection at once.

The verbs are aioquic's: ``receive_datagram``, ``datagrams_to_send``, ``get_timer``, ``handle_timer``, ``next_event``;
time is a parameter.
"""

from __future__ import annotations

import hmac
import logging
import math
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnectionAdapter,
    QuicConnectionError,
    QuicConnectionState,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicProtocolVersion
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.stream import QuicStream
from aioquic.tls import SessionTicket
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .fast_path import FastPath
from .keys import EndpointId, SecretKey
from .raw_public_key import RawKeyCertificate, RawKeyContext, make_raw_key_context
from .recovery import CONGESTION_CONTROL, BurstPacer
from .resumption import Issued, Tickets

__all__ = ["CID_SIZE", "Engine", "make_configuration"]

quic_logger = logging.getLogger("tidings.quic")
quic_logger.setLevel(logging.ERROR)

CID_SIZE = 8  # bytes of each connection id that we hand out; short headers are told apart by it
STREAM_WINDOW = 1_250_000  # bytes a peer may have unread on a stream (iroh's figure)
CONNECTION_WINDOW = 8 << 20  # and on the whole connection
MAX_DATAGRAM_FRAME = 65_535
DATAGRAM_SIZE = 1200  # bytes of UDP payload that every path carries (RFC 9000 14)
KEY_UPDATE_PACKETS = 1 << 22  # AES-GCM allows 2^23 packets under one key (RFC 9001 6.6)
RESET_TOKEN_SIZE = 16
PROBES_IN_VAIN = 3  # in a row: a black-out rather than a few losses
INTERNAL_ERROR = 0x01  # QUIC's code for a fault on this side
MAX_GAPS = 512  # missing pieces inside what came of a stream: a window of full packets half of which are lost has 260


def make_configuration(
    secret: SecretKey,
    *,
    is_client: bool,
    alpns: Sequence[bytes],
    idle: float,
    ticket: SessionTicket | None = None,
) -> QuicConfiguration:
    """aioquic's configuration of one side; ``idle`` is the idle timeout in seconds."""
    certificate: Any = RawKeyCertificate(secret.public)
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[alpn.decode("ascii") for alpn in alpns],
        certificate=certificate,
        private_key=Ed25519PrivateKey.from_private_bytes(secret.to_bytes()),
        verify_mode=ssl.CERT_NONE,  # no X.509 chain: the raw key check stands in its place
        supported_versions=[QuicProtocolVersion.VERSION_1],
        connection_id_length=CID_SIZE,
        congestion_control_algorithm=CONGESTION_CONTROL,
        idle_timeout=idle,
        max_data=CONNECTION_WINDOW,
        max_stream_data=STREAM_WINDOW,
        max_datagram_frame_size=MAX_DATAGRAM_FRAME,
        max_datagram_size=DATAGRAM_SIZE,
        session_ticket=ticket,
    )


class Engine(FastPath):
    """``expected`` is the id that was dialled, None when accepting; ``reset_token`` gives a connection id's token."""

    tls: RawKeyContext

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        expected: EndpointId | None = None,
        reset_token: Callable[[bytes], bytes],
        tickets: Tickets | None = None,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        self._expected = expected
        self._reset_token = reset_token
        self._tickets = tickets or Tickets()
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
            session_ticket_fetcher=self._redeem,
            session_ticket_handler=self._on_ticket,
        )
        # A peer's bad bytes are its fault and no news to the program: aioquic's notes go to a quiet logger of ours.
        self._logger = QuicConnectionAdapter(quic_logger, {"id": self.host_cid.hex()})
        self._loss._logger = self._logger
        self._loss._pacer = BurstPacer(max_datagram_size=configuration.max_datagram_size)
        self._read_total = 0
        self._read_of: dict[int, int] = {}
        self._next_key_update = KEY_UPDATE_PACKETS
        if not configuration.is_client:
            self._host_cids[0].stateless_reset_token = reset_token(self.host_cid)

    # -- identity ------------------------------------------------------------------------------------------------

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        make_raw_key_context(self.tls, is_client=self._is_client, expected=self._expected)

    @property
    def expected(self) -> EndpointId | None:
        """The id that was dialled; None on the accepting side."""
        return self._expected

    @property
    def peer_id(self) -> EndpointId | None:
        return self.tls.peer_id if hasattr(self, "tls") else None

    def _on_ticket(self, ticket: SessionTicket) -> None:
        """The peer has given us a ticket, or is about to get one."""
        id, alpn = self.peer_id, self.tls.alpn_negotiated
        if id is None or alpn is None:
            return
        if self._is_client:
            self._tickets.keep(id, alpn, ticket)
        else:
            self._tickets.issue(Issued(ticket, id, alpn))

    def _redeem(self, ticket: bytes) -> SessionTicket | None:
        issued = self._tickets.redeem(ticket)
        if issued is None or issued.alpn != self.tls.alpn_negotiated:
            return None  # another protocol: data for the one must not reach the other (RFC 8446 4.2.10)
        if self.tls.offers_early_data and issued.ticket.max_early_data_size is None:
            return None
        self.tls.ticket_id = issued.id
        return issued.ticket

    def _alpn_handler(self, alpn_protocol: str) -> None:
        super()._alpn_handler(alpn_protocol)
        if not self._is_client and alpn_protocol not in self._tickets.early:
            self.tls._max_early_data = None

    @property
    def alpn(self) -> bytes:
        """The protocol that was agreed on; before that, the one that was offered with early data."""
        offered = self.configuration.alpn_protocols or [""]
        return (self.tls.alpn_negotiated or offered[0]).encode("ascii")

    @property
    def early(self) -> bool:
        """Data may be sent, or has come, before the handshake is over: it may be a copy of what was sent before."""
        if self.confirmed or not hasattr(self, "tls"):
            return False
        return bool(self._cryptos[tls.Epoch.ZERO_RTT].send.is_valid() or self.tls.early_data_accepted)

    @property
    def early_data_accepted(self) -> bool:
        return self.tls.early_data_accepted

    @property
    def confirmed(self) -> bool:
        """Both sides have accepted the other's key (RFC 9001 4.1.2): HANDSHAKE_DONE was sent, or has arrived."""
        return self._handshake_confirmed

    # -- the end -------------------------------------------------------------------------------------------------

    @property
    def ending(self) -> ConnectionTerminated | None:
        """Why the connection is ending, as soon as that is known: before the closing period is over."""
        return self._close_event

    @property
    def ended_by_peer(self) -> bool:
        return self._state is QuicConnectionState.DRAINING

    @property
    def peer_spoke(self) -> bool:
        """At least one packet of the peer could be decrypted."""
        return self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def over(self) -> bool:
        """The closing period has passed; nothing will be sent any more."""
        return self._state is QuicConnectionState.TERMINATED

    def is_reset(self, datagram: bytes) -> bool:
        """Whether a datagram with an unknown connection id is the peer's stateless reset of this connection."""
        token = datagram[-RESET_TOKEN_SIZE:]
        return any(
            hmac.compare_digest(token, cid.stateless_reset_token)
            for cid in (self._peer_cid, *self._peer_cid_available)
            if cid.stateless_reset_token
        )

    def end_silently(self, reason: str) -> None:
        """The connection is over for a reason that no packet can carry; nothing more is sent."""
        if self._close_event is None:
            self._close_event = ConnectionTerminated(
                error_code=INTERNAL_ERROR, frame_type=QuicFrameType.PADDING, reason_phrase=reason
            )
        if self._state is not QuicConnectionState.TERMINATED:
            self._close_end()

    # -- streams -------------------------------------------------------------------------------------------------

    def open_stream(self, *, unidirectional: bool) -> int | None:
        """The id of a new stream, or None while the peer allows no more of them."""
        limit = self._remote_max_streams_uni if unidirectional else self._remote_max_streams_bidi
        stream_id = self.get_next_available_stream_id(is_unidirectional=unidirectional)
        if stream_id // 4 >= limit:
            return None
        self._get_or_create_stream_for_send(stream_id)
        return stream_id

    def unacknowledged(self, stream_id: int) -> int:
        """Bytes written to a stream that the peer has not acknowledged."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.sender._buffer_stop - stream.sender._buffer_start

    def send_finished(self, stream_id: int) -> bool:
        """Everything written, and the end of the stream, has been acknowledged."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.sender.is_finished

    def received(self, stream_id: int) -> int:
        """The highest offset that the peer has used on a stream: what it holds of the connection's window."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.receiver.highest_offset

    def credit(self, stream_id: int, size: int, *, stream_too: bool = True) -> bool:
        """``size`` bytes of a stream were read (or thrown away): let the peer send as many more.

        True when a window update is due, so that `datagrams_to_send` should be called.
        """
        self._read_total += size
        due = self._read_total + CONNECTION_WINDOW - self._local_max_data.value >= CONNECTION_WINDOW // 4
        stream = self._streams.get(stream_id)
        if stream_too and stream is not None and not stream.receiver.is_finished:
            self._read_of[stream_id] = read = self._read_of.get(stream_id, 0) + size
            due = due or read + STREAM_WINDOW - stream.max_stream_data_local >= STREAM_WINDOW // 4
        else:
            self._read_of.pop(stream_id, None)
        return due

    # aioquic keeps what came out of order as a list that it searches from the start: a peer that sends every second
    # byte would cost seconds of CPU for 100 kB, in CRYPTO frames even before it has shown any key.

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(start)
        super()._handle_stream_frame(context, frame_type, buf)
        stream = self._streams.get(stream_id)
        if stream is not None:
            _check_gaps(stream, QuicErrorCode.INTERNAL_ERROR, frame_type)

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_crypto_frame(context, frame_type, buf)
        _check_gaps(self._crypto_streams[context.epoch], QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type)

    def stop_receiving(self, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            self.stop_stream(stream_id, code)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: Any) -> None:
        data = self._local_max_data
        wanted = self._read_total + CONNECTION_WINDOW
        if wanted - data.value >= CONNECTION_WINDOW // 4:
            data.value = wanted
        for limit in (data, self._local_max_streams_bidi, self._local_max_streams_uni):
            # Streams are granted in batches: only when the peer has fewer left than the update would add.
            if limit is not data and limit.sent - limit.used >= limit.value - limit.sent:
                continue
            if limit.value != limit.sent:
                frame = builder.start_frame(
                    limit.frame_type,
                    capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
                    handler=self._on_connection_limit_delivery,
                    handler_args=(limit,),
                )
                frame.push_uint_var(limit.value)
                limit.sent = limit.value

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: Any, stream: QuicStream) -> None:
        if stream.stream_id is None or not stream.max_stream_data_local or stream.receiver.is_finished:
            return
        wanted = self._read_of.get(stream.stream_id, 0) + STREAM_WINDOW
        if wanted - stream.max_stream_data_local >= STREAM_WINDOW // 4:
            stream.max_stream_data_local = wanted
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            frame = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            frame.push_uint_var(stream.stream_id)
            frame.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    # -- datagrams -----------------------------------------------------------------------------------------------

    @property
    def max_datagram(self) -> int:
        """Bytes of the largest datagram that fits one packet to this peer; 0 where it takes none."""
        room = self._max_datagram_size - 1 - len(self._peer_cid.cid) - 4 - 16  # first byte, number, AEAD tag
        frame = min(room, self._remote_max_datagram_frame_size or 0)
        return max(0, frame - 3)  # type and length

    @property
    def queued_datagrams(self) -> int:
        return len(self._datagrams_pending)

    # -- engine --------------------------------------------------------------------------------------------------

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds, once measured."""
        return self._loss._rtt_smoothed if self._loss._rtt_initialized else None

    def keep_alive(self) -> None:
        """Have the peer answer, also where the congestion window is full of what a dead path has swallowed.

        Probes by timeout come ever later (RFC 9002 6.2.1): after half an idle timeout of silence the next one would be
        too late, though the path be back.
        """
        self._probe_pending = True

    @property
    def peer_place(self) -> Any:
        """Where packets for the peer go, by what the engine knows; None before the first has come."""
        return self._network_paths[0].addr if self._network_paths else None

    def rename_path(self, place: Any) -> None:
        """Call the address in use ``place`` from now on; nothing else changes."""
        self._network_paths[0].addr = place

    def path_changed(self, now: float) -> None:
        """Packets go another way from now on: what is known of the old one's speed and delay is forgotten."""
        self._loss._cc.start_over(now)  # type: ignore[attr-defined]
        self._loss._rtt_initialized = False
        self._loss._rtt_min = math.inf
        self._loss._pto_count = 0
        self._probe_pending = True  # its answer tells what the old way has swallowed

    def probe_place(self, place: Any) -> bool:
        """A client asks whether the server is at ``place`` too, and moves there where it answers (RFC 9000 8.2, 9).

        False where it cannot: each place needs a connection ID that the server has given and nobody uses.
        """
        if not (self._handshake_confirmed and self._is_client and self._peer_cid_available):
            return False
        self.forget_probe()
        path = QuicNetworkPath(place)
        path.peer_cid = self._peer_cid_available.pop(0)
        self._add_network_path(path)
        return True

    def forget_probe(self) -> None:
        """Give up what `probe_place` has asked and nobody has answered."""
        for path in self._network_paths[1:]:
            if path.peer_cid is not None:
                self._retire_peer_cid(path.peer_cid)
        del self._network_paths[1:]

    @property
    def is_silent(self) -> bool:
        """The peer has answered nothing of late, though it was asked again and again."""
        return self._loss._pto_count >= PROBES_IN_VAIN and self._handshake_confirmed

    def end_silence(self) -> None:
        """To be called when something has arrived: after several probes in vain the path is back, so ask at once."""
        if self.is_silent:
            self._probe_pending = True

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        if self._packet_number >= self._next_key_update:
            self._next_key_update += KEY_UPDATE_PACKETS
            self.request_key_update()
        return super().datagrams_to_send(now)

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        for cid in self._host_cids:
            if not cid.was_sent:
                cid.stateless_reset_token = self._reset_token(cid.cid)


def _check_gaps(stream: QuicStream, code: QuicErrorCode, frame_type: int) -> None:
    if len(stream.receiver._ranges) > MAX_GAPS:
        raise QuicConnectionError(error_code=code, frame_type=frame_type, reason_phrase="too many pieces out of order")
