"""Bulk data through the engine in a tenth of the steps (``reference/aioquic.md`` C.4: three times the rate).

aioquic spends its time on bookkeeping: a header object, a buffer, a table of frame handlers for every packet. Nearly
all packets of a transfer are of one kind: short header, current keys and path, one STREAM frame in the middle of a
stream. Those take a straight path here; every other packet, and everything that is not plain data, goes through aioquic
unchanged.

- **Receive**: any doubt is settled before state changes, and then aioquic gets the datagram. What the straight path
  updates is what ``QuicConnection.receive_datagram`` updates for such a packet, in that order.
- **Send**: full packets of stream data are made in a run, their header protection in one call. One packet of the
  congestion window is left to aioquic in every turn, so that acknowledgements, window updates and the like, which it
  writes, never starve.

It leans on private names of aioquic 1.7 (the dependency is bounded so); the tests run it against stock aioquic.
"""

from __future__ import annotations

from typing import Any

from aioquic import tls
from aioquic.quic.connection import (
    END_STATES,
    QuicConnection,
    QuicConnectionError,
    QuicConnectionState,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicPacketType, QuicStreamFrame
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.stream import QuicStream
from cryptography.exceptions import InvalidTag

__all__ = ["FastPath"]

ONE_RTT = tls.Epoch.ONE_RTT
TAG_SIZE = 16  # of every AEAD that QUIC v1 has
SAMPLE_SIZE = 16  # bytes of ciphertext that header protection looks at
SAMPLE_OFFSET = 4  # from the packet number on, whatever its length (RFC 9001 5.4.2)
NUMBER_SIZE = 2  # bytes of the packet numbers we send, as aioquic's
MAX_ACK_RANGES = 64  # as aioquic's
MAX_RANGES = 256  # out of order on a stream: above, the way round counts them
RUN = 64  # packets of one stream before the next has its turn: one GSO call
STREAM = 0x08  # frame type; its low bits: 1 end, 2 length present, 4 offset present


class FastPath(QuicConnection):
    """A `QuicConnection` with a straight path for bulk stream data. ``accepted`` counts the packets that were the
    peer's."""

    accepted = 0

    # -- receive ----------------------------------------------------------------------------------------------------

    def _payload_received(self, context: QuicReceiveContext, plain: bytes, *args: Any, **options: Any) -> Any:
        self.accepted += 1
        return super()._payload_received(context, plain, *args, **options)

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        if not self._receive_fast(data, addr, now):
            super().receive_datagram(data, addr, now)

    def _receive_fast(self, data: bytes, addr: Any, now: float) -> bool:
        """Whether the datagram was dealt with; False has changed nothing."""
        at = 1 + len(self.host_cid)
        if (
            not self._handshake_confirmed
            or self._state is not QuicConnectionState.CONNECTED
            or self._close_pending
            or len(data) < at + SAMPLE_OFFSET + SAMPLE_SIZE
            or data[0] & 0xC0 != 0x40
            or data[1:at] != self.host_cid
            or self._network_paths[0].addr != addr
            or not self._network_paths[0].is_validated
            or self._quic_logger is not None
        ):
            return False
        keys = self._cryptos[ONE_RTT].recv
        protection: Any = keys.hp
        aead: Any = keys.aead
        if protection is None or protection._is_chacha20:
            return False
        mask = protection._encryptor.update(data[at + SAMPLE_OFFSET : at + SAMPLE_OFFSET + SAMPLE_SIZE])
        first = data[0] ^ (mask[0] & 0x1F)
        if first & 0x18 or (first >> 2) & 1 != keys.key_phase:
            return False  # reserved bits, or other keys: aioquic knows what to do
        size = (first & 3) + 1
        truncated = int.from_bytes(data[at : at + size], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        space = self._spaces[ONE_RTT]
        number = _packet_number(truncated, size, space.expected_packet_number)
        header = b"".join((bytes((first,)), self.host_cid, truncated.to_bytes(size, "big")))
        nonce = (aead._iv ^ number).to_bytes(12, "big")
        try:
            payload = aead._aead.decrypt(nonce, data[at + size :], header)
        except InvalidTag:
            return True  # not from the peer: dropped
        if number in space.received_packets:
            return True
        if number > space.expected_packet_number:
            space.expected_packet_number = number + 1
        if not self._is_client and self._cryptos[tls.Epoch.ZERO_RTT].recv.is_valid():
            self._cryptos[tls.Epoch.ZERO_RTT].recv.teardown()
        if number > self._spin_highest_pn:
            spin = bool(first & 0x20)
            self._spin_bit = not spin if self._is_client else spin
            self._spin_highest_pn = number
        eliciting = True
        if not self._take_stream_frame(payload):
            context = QuicReceiveContext(ONE_RTT, self.host_cid, self._network_paths[0], None, now, None)
            try:
                eliciting, _ = self._payload_received(context, payload)
            except QuicConnectionError as error:
                self._logger.warning(error)
                self.close(error.error_code, error.frame_type, error.reason_phrase)
            if self._state in END_STATES or self._close_pending:
                return True
        self.accepted += 1
        self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        if number > space.largest_received_packet:
            space.largest_received_packet = number
            space.largest_received_time = now
        space.ack_queue.add(number)
        space.received_packets.add(number)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        if eliciting and space.ack_at is None:
            space.ack_at = now + self._ack_delay
        return True

    def _take_stream_frame(self, payload: bytes) -> bool:
        """Take a payload that is one STREAM frame of a known stream, not its end, inside all limits."""
        if not payload or payload[0] & 0xF9 != STREAM:
            return False
        kind = payload[0]
        try:
            stream_id, at = _varint(payload, 1)
            offset, at = _varint(payload, at) if kind & 4 else (0, at)
            if kind & 2:
                length, at = _varint(payload, at)
                if at + length != len(payload):
                    return False  # more frames follow, or it is cut
            else:
                length = len(payload) - at
        except IndexError:
            return False
        stream = self._streams.get(stream_id)
        if stream is None or length <= 0:
            return False
        receiver, stop, limit = stream.receiver, offset + length, self._local_max_data
        fresh = max(0, stop - receiver.highest_offset)
        if (
            receiver.is_finished
            or receiver._final_size is not None
            or len(receiver._ranges) >= MAX_RANGES
            or stop > stream.max_stream_data_local
            or limit.used + fresh > limit.value
        ):
            return False
        limit.used += fresh
        if offset == receiver._buffer_start and not receiver._buffer:
            receiver._buffer_start = receiver.highest_offset = stop
            self._events.append(StreamDataReceived(data=payload[at:], end_stream=False, stream_id=stream_id))
        else:
            event = receiver.handle_frame(QuicStreamFrame(data=payload[at:], offset=offset))
            if event is not None:
                self._events.append(event)
        return True

    # -- send -------------------------------------------------------------------------------------------------------

    def _write_application(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float) -> None:
        if (
            self._handshake_confirmed
            and network_path.is_validated
            and not self._probe_pending
            and not self._datagrams_pending
            and self._quic_logger is None
            and builder._packet is None
            and not builder._buffer.tell()
        ):
            self._write_bulk(builder, now)
        super()._write_application(builder, network_path, now)

    def _write_bulk(self, builder: QuicPacketBuilder, now: float) -> None:
        keys = self._cryptos[ONE_RTT]
        if keys._update_key_requested or keys.send.hp is None or keys.send.hp._is_chacha20:
            return
        size = builder._buffer_capacity
        budget = self._packets_allowed(builder, size, now)
        busy = True
        while busy and budget > 1:
            busy = False
            for stream in self._streams_queue:
                sender = stream.sender
                if budget <= 1 or sender.buffer_is_empty or stream.is_blocked or sender.reset_pending:
                    continue
                sent = self._write_run(builder, stream, size, min(budget, RUN))
                budget -= sent
                busy = busy or sent > 0

    def _packets_allowed(self, builder: QuicPacketBuilder, size: int, now: float) -> int:
        """How many full packets congestion control and pacing let go now, but for the one that is aioquic's."""
        assert builder.max_flight_bytes is not None
        allowed = (builder.max_flight_bytes - builder._flight_bytes) // size - 1
        pacer = self._loss._pacer
        if allowed > 0 and pacer.packet_time is not None:
            pacer.update_bucket(now=now)
            allowed = min(allowed, int(pacer.bucket_time / pacer.packet_time))
        return allowed

    def _write_run(self, builder: QuicPacketBuilder, stream: QuicStream, size: int, most: int) -> int:
        """Write up to ``most`` full packets of the first pending range of a stream; how many."""
        sender, stream_id = stream.sender, stream.stream_id
        if not len(sender._pending) or stream_id is None or stream_id > 0x3FFF:
            return 0
        pending = sender._pending[0]
        stop = min(
            pending.stop,
            stream.max_stream_data_remote,
            sender.highest_offset + self._remote_max_data - self._remote_max_data_used,
        )
        cid = builder._peer_cid
        id_bytes = bytes((stream_id,)) if stream_id < 0x40 else (stream_id | 0x4000).to_bytes(2, "big")
        frame = bytes((STREAM | 4,)) + id_bytes  # offset present; the data runs to the end of the packet
        room = size - (1 + len(cid) + NUMBER_SIZE) - len(frame) - 8 - TAG_SIZE
        count = min(most, (stop - pending.start) // room)
        if count < 2:
            return 0  # a lone packet may carry other frames too: aioquic's
        packets = self._seal(
            builder, sender._buffer, pending.start - sender._buffer_start, pending.start, room, frame, count
        )
        handler = sender.on_data_delivery
        offset, number = pending.start, builder._packet_number
        sent: list[Any] = builder._packets
        for _ in packets:
            sent.append(SentPacket(number, size, handler, offset, offset + room))
            offset += room
            number += 1
        builder._datagrams += packets
        builder._packet_number = number
        builder._flight_bytes += count * size
        builder._total_bytes += count * size
        sender._pending.subtract(pending.start, offset)
        if offset > sender.highest_offset:
            self._remote_max_data_used += offset - sender.highest_offset
            sender.highest_offset = offset
        pacer = self._loss._pacer
        if pacer.packet_time is not None:
            pacer.bucket_time = max(0.0, pacer.bucket_time - count * pacer.packet_time)
        return count

    def _seal(
        self, builder: QuicPacketBuilder, buffer: bytearray, at: int, offset: int, room: int, frame: bytes, count: int
    ) -> list[bytes]:
        """``count`` packets with ``room`` bytes each of ``buffer`` from ``at``, which is ``offset`` in the stream."""
        keys = self._cryptos[ONE_RTT].send
        aead: Any = keys.aead
        protection: Any = keys.hp
        encrypt, iv = aead._aead.encrypt, aead._iv
        cid, number = builder._peer_cid, builder._packet_number
        first = 0x40 | builder._spin_bit << 5 | keys.key_phase << 2 | NUMBER_SIZE - 1
        head = bytes((first,)) + cid
        sealed = []
        with memoryview(buffer) as view:
            for n in range(number, number + count):
                plain = b"".join((frame, (offset | 3 << 62).to_bytes(8, "big"), view[at : at + room]))
                sealed.append(
                    encrypt((iv ^ n).to_bytes(12, "big"), plain, head + (n & 0xFFFF).to_bytes(NUMBER_SIZE, "big"))
                )
                at += room
                offset += room
        skip = SAMPLE_OFFSET - NUMBER_SIZE
        masks = protection._encryptor.update(b"".join([packet[skip : skip + SAMPLE_SIZE] for packet in sealed]))
        out = []
        for n, packet in enumerate(sealed):
            mask = masks[n * SAMPLE_SIZE : n * SAMPLE_SIZE + 1 + NUMBER_SIZE]
            masked = (number + n & 0xFFFF) ^ (mask[1] << 8 | mask[2])
            out.append(b"".join((bytes((first ^ mask[0] & 0x1F,)), cid, masked.to_bytes(NUMBER_SIZE, "big"), packet)))
        return out


class SentPacket:
    """aioquic's ``QuicSentPacket`` for a 1-RTT packet with one STREAM frame, with what is always the same shared."""

    __slots__ = ("delivery_handlers", "packet_number", "sent_bytes", "sent_time")

    epoch = ONE_RTT
    packet_type = QuicPacketType.ONE_RTT
    in_flight = True
    is_ack_eliciting = True
    is_crypto_packet = False

    def __init__(self, number: int, size: int, handler: Any, start: int, stop: int) -> None:
        self.packet_number = number
        self.sent_bytes = size
        self.sent_time: float | None = None
        self.delivery_handlers = ((handler, (start, stop, False)),)


def _packet_number(truncated: int, size: int, expected: int) -> int:
    """RFC 9000 A.3: the number nearest to the expected one that ends in these bytes."""
    window = 1 << 8 * size
    candidate = expected & ~(window - 1) | truncated
    if candidate <= expected - window // 2 and candidate < (1 << 62) - window:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A QUIC varint (RFC 9000 16) and where it ends; IndexError where it is cut."""
    first = data[at]
    stop = at + (1 << (first >> 6))
    if stop > len(data):
        raise IndexError
    return int.from_bytes(data[at:stop], "big") & ((1 << 8 * (stop - at) - 2) - 1), stop
