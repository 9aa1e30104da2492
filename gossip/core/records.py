"""Signed records: what a peer says of its own addresses, so that nobody else can say it (`PeerData` of iroh's).

A record is what iroh peers expect, and behind it, where their decoder does not look,
``signature (64) | time (8, little endian, microseconds) | MAGIC``, the signature being Ed25519 over
``MAGIC | id | time | addresses``. Of two records of a peer the later holds; one that is not signed never takes the
place of one that is, and one with a wrong signature is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from ...transport.errors import InvalidKey
from ...transport.keys import EndpointId, SecretKey
from .messages import ForwardJoin, Join, Message, Neighbor, PeerInfo, Shuffle, ShuffleReply

__all__ = ["Claims", "RecordBook", "check_records", "seal_record"]

MAGIC = b"\xd1tidings-record\x01"
TRAILER = 64 + 8 + len(MAGIC)
MAX_RECORDS = 4096  # about 2 MB
MAX_CHECKS = 10  # signatures of one message that are checked; a Shuffle of ours and of iroh's names eight peers


def seal_record(secret: SecretKey, addresses: bytes, time: int) -> bytes:
    """``time`` in microseconds of Unix time."""
    stamp = time.to_bytes(8, "little")
    return addresses + secret.sign(MAGIC + bytes(secret.public) + stamp + addresses) + stamp + MAGIC


Claims = list[tuple[bytes, bytes]]
"""Of a peer, what is said to be its record."""


def check_records(claims: Claims) -> dict[tuple[bytes, bytes], int]:
    """The time of each that its peer did sign. Takes some tenth of a millisecond for each."""
    times = {}
    for peer, data in claims:
        addresses, trailer = data[:-TRAILER], data[-TRAILER:]
        signature, stamp = trailer[:64], trailer[64:72]
        with suppress(InvalidKey):
            if EndpointId(peer).verify(MAGIC + peer + stamp + addresses, signature):
                times[peer, data] = int.from_bytes(stamp, "little")
    return times


class RecordBook:
    """The latest signed record of each peer that we heard of."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()

    def unchecked(self, message: Message, sender: bytes) -> Claims:
        """What of ``message`` is to be given to `check_records` before `vet`; mostly nothing."""
        return [
            (peer, data)
            for peer, data in _said(message, sender)
            if data is not None and _is_signed(data) and (peer not in self._records or self._records[peer][1] != data)
        ][:MAX_CHECKS]

    def vet(self, message: Message, sender: bytes, times: Mapping[tuple[bytes, bytes], int]) -> Message:
        """The same message with the record that holds in place of each that it brought."""
        for (peer, data), time in times.items():
            if peer not in self._records or time > self._records[peer][0]:
                self._records[peer] = (time, data)
                self._records.move_to_end(peer)
                if len(self._records) > MAX_RECORDS:
                    self._records.popitem(last=False)
        match message:
            case Join(data=said_data) | Neighbor(data=said_data):
                return replace(message, data=self._holds(sender, said_data))
            case ForwardJoin(peer=said):
                return replace(message, peer=self._info(said))
            case Shuffle(nodes=nodes) | ShuffleReply(nodes=nodes):
                return replace(message, nodes=tuple(map(self._info, nodes)))
            case _:
                return message

    def _info(self, said: PeerInfo) -> PeerInfo:
        return PeerInfo(said.id, self._holds(said.id, said.data))

    def _holds(self, peer: bytes, data: bytes | None) -> bytes | None:
        if peer in self._records:
            return self._records[peer][1]
        return None if data is not None and _is_signed(data) else data


def _is_signed(data: bytes) -> bool:
    return len(data) >= TRAILER and data.endswith(MAGIC)


def _said(message: Message, sender: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    match message:
        case Join(data) | Neighbor(_, data):
            yield sender, data
        case ForwardJoin(peer):
            yield peer.id, peer.data
        case Shuffle(nodes=nodes) | ShuffleReply(nodes=nodes):
            for node in nodes:
                yield node.id, node.data
