"""Gossip messages as postcard bytes (``reference/iroh-protocols.md`` 1.2 and Appendix A).

The bytes here are the payload of one frame; the frame's big-endian length is the transport's. A frame is at most
`MAX_MESSAGE` long, in the whole network: iroh readers refuse more, and iroh writers refuse as much.
"""

from __future__ import annotations

from ...transport.addr import EndpointAddr, IpAddr, RelayUrl, read_ip_addr, read_relay_url, write_ip_addr
from ...transport.keys import EndpointId
from ...transport.postcard import U16, Reader, Writer
from .messages import (
    Disconnect,
    ForwardJoin,
    Graft,
    IHave,
    Join,
    Message,
    Neighbor,
    Payload,
    PeerInfo,
    Priority,
    Prune,
    Shuffle,
    ShuffleReply,
)

__all__ = [
    "MAX_CONTENT",
    "MAX_MESSAGE",
    "decode",
    "decode_addresses",
    "encode",
    "encode_addresses",
]

MAX_MESSAGE = 4096  # iroh's network-wide default
ID = 32
MAX_CONTENT = MAX_MESSAGE - 1 - (1 + 1 + ID + 2 + 1 + 1)  # 4057: kinds, id, length of the content, scope, round
MAX_DIRECT = 8  # addresses of our own that we send: a Shuffle carries eight nodes and must fit one frame
MAX_DIRECT_READ = 64  # addresses of one peer that we read

_MEMBERSHIP, _BROADCAST = 0, 1


def encode(message: Message) -> bytes:
    out = Writer()
    match message:
        case Payload(id, content, round):
            out.u8(_BROADCAST).u8(0).raw(id).octets(content)
            if round is None:
                out.u8(1)
            else:
                out.u8(0).varint(round)
        case Prune():
            out.u8(_BROADCAST).u8(1)
        case Graft(wanted, round):
            out.u8(_BROADCAST).u8(2)
            if wanted is None:
                out.u8(0)
            else:
                out.u8(1).raw(wanted)
            out.varint(round)
        case IHave(announced):
            out.u8(_BROADCAST).u8(3).varint(len(announced))
            for id, round in announced:
                out.raw(id).varint(round)
        case Join(data):
            out.u8(_MEMBERSHIP).u8(0)
            _write_data(out, data)
        case ForwardJoin(peer, ttl):
            out.u8(_MEMBERSHIP).u8(1)
            _write_peer(out, peer)
            out.varint(ttl)
        case Shuffle(origin, nodes, ttl):
            out.u8(_MEMBERSHIP).u8(2).raw(origin)
            _write_peers(out, nodes)
            out.varint(ttl)
        case ShuffleReply(nodes):
            out.u8(_MEMBERSHIP).u8(3)
            _write_peers(out, nodes)
        case Neighbor(priority, data):
            out.u8(_MEMBERSHIP).u8(4).u8(priority)
            _write_data(out, data)
        case Disconnect(alive):
            # The second flag ("respond") is obsolete and always false.
            out.u8(_MEMBERSHIP).u8(5).flag(alive).flag(False)
    return out.finish()


def decode(data: bytes) -> Message:
    """One message and nothing after it; `DecodeError` for anything else."""
    reader = Reader(data)
    message = _read_membership(reader) if reader.variant(2) == _MEMBERSHIP else _read_broadcast(reader)
    reader.end()
    return message


def _read_broadcast(data: Reader) -> Message:
    match data.variant(4):
        case 0:
            id, content = data.raw(ID), data.octets(MAX_MESSAGE)
            return Payload(id, content, data.varint(U16) if data.variant(2) == 0 else None)
        case 1:
            return Prune()
        case 2:
            return Graft(data.raw(ID) if data.flag() else None, data.varint(U16))
        case _:
            count = data.count(MAX_MESSAGE, each=ID + 1)
            return IHave(tuple((data.raw(ID), data.varint(U16)) for _ in range(count)))


def _read_membership(data: Reader) -> Message:
    match data.variant(6):
        case 0:
            return Join(_read_data(data))
        case 1:
            return ForwardJoin(_read_peer(data), data.varint(U16))
        case 2:
            return Shuffle(data.raw(ID), _read_peers(data), data.varint(U16))
        case 3:
            return ShuffleReply(_read_peers(data))
        case 4:
            return Neighbor(Priority(data.variant(2)), _read_data(data))
        case _:
            alive = data.flag()
            data.flag()
            return Disconnect(alive)


def _write_data(out: Writer, data: bytes | None) -> None:
    if data is None:
        out.u8(0)
    else:
        out.u8(1).octets(data)


def _read_data(data: Reader) -> bytes | None:
    return data.octets(MAX_MESSAGE) if data.flag() else None


def _write_peer(out: Writer, peer: PeerInfo) -> None:
    out.raw(peer.id)
    _write_data(out, peer.data)


def _read_peer(data: Reader) -> PeerInfo:
    return PeerInfo(data.raw(ID), _read_data(data))


def _write_peers(out: Writer, peers: tuple[PeerInfo, ...]) -> None:
    out.varint(len(peers))
    for peer in peers:
        _write_peer(out, peer)


def _read_peers(data: Reader) -> tuple[PeerInfo, ...]:
    return tuple(_read_peer(data) for _ in range(data.count(MAX_MESSAGE, each=ID + 1)))


def encode_addresses(addr: EndpointAddr) -> bytes:
    """PeerData: one relay and at most `MAX_DIRECT` IP addresses of ``addr``; its id is not part of it."""
    out = Writer()
    if addr.relays:
        out.u8(1).string(addr.relays[0].url)
    else:
        out.u8(0)
    direct = addr.direct[:MAX_DIRECT]
    out.varint(len(direct))
    for ip in direct:
        write_ip_addr(out, ip)
    return out.finish()


def decode_addresses(id: bytes, data: bytes) -> EndpointAddr:
    """What PeerData says of peer ``id``; `DecodeError` where it is not that. Empty bytes: nothing known.

    What is behind the addresses is skipped, as by iroh: a signature, for one (`records`).
    """
    if not data:
        return EndpointAddr(EndpointId(id))
    reader = Reader(data)
    addrs: list[IpAddr | RelayUrl] = [read_relay_url(reader)] if reader.flag() else []
    addrs += [read_ip_addr(reader) for _ in range(reader.count(MAX_DIRECT_READ, each=6))]
    return EndpointAddr.of(EndpointId(id), addrs)
