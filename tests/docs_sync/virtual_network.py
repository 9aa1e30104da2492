"""A network in memory: what stands in for `Endpoint` and `Connection` in virtual time. Streams are the real ones.

Each pair of hosts has a latency, each packet some more. A stream's bytes come in order and without loss, streams are
not in order among each other, and the end of a connection may overtake what was sent before it. While two hosts are
cut off from each other nothing passes; what was sent waits (QUIC sends it again), and a connection that is cut for
`IDLE_TIMEOUT` seconds is lost on both sides. A host that was killed says nothing: its peers lose it in the same way.
Gossip messages are lost with `Network.loss`, of the kinds that a full queue may drop (`gossip.outbound`).
"""

import asyncio
import random
from collections import deque
from itertools import combinations

from blake3 import blake3
from tidings.errors import UsageError
from tidings.gossip import Gossip
from tidings.transport import BiStream, EndpointAddr, EndpointId, IpAddr, MemoryLookup, PathInfo, RecvStream, SendStream
from tidings.transport.errors import ConnectionClosed, EndpointClosed, ProtocolRefused, Unreachable, WrongIdentity
from tidings.transport.opening import Opening
from virtual_clock import HOST

IDLE_TIMEOUT = 30.0  # transport.driver
KEEP_ALIVE = 5.0
LATENCY = (0.002, 0.080)  # seconds one way, of a pair
JITTER = 0.5  # of it, more at most, of a packet
DROPPABLE = {(1, 0), (1, 3), (0, 2), (0, 3)}  # Payload, IHave, Shuffle, ShuffleReply
TOPIC_FRAME = 4 + 32


class Network:
    def __init__(self, seed, log):
        self.rng = random.Random(f"network {seed}")
        self.log = log
        self.loss = 0.0
        self.lost = 0
        self.packets = 0
        self.connections = []
        self._endpoints = {}
        self._latency = {}
        self._cut = {}  # of a pair of names: a mark of when

    # Who is there

    def endpoint_class(self):
        """With the name and the constructor of the real one."""
        network = self

        class Endpoint(VirtualEndpoint):
            @classmethod
            def bind(cls, *, secret_key, alpns=(), bind=(), **without_relays):
                async def open():
                    return cls(network, secret_key, [IpAddr.parse(place) for place in bind], alpns)

                return Opening(open)

        return Endpoint

    def add(self, endpoint):
        for place in endpoint.bound():
            self._endpoints[place] = endpoint

    def at(self, places):
        for place in places:
            endpoint = self._endpoints.get(place)
            if endpoint is not None and endpoint.host.alive and not endpoint.closed:
                return endpoint
        return None

    def latency(self, a, b):
        pair = frozenset((a, b))
        if pair not in self._latency:
            self._latency[pair] = self.rng.uniform(*LATENCY)
        return self._latency[pair]

    # Faults

    def is_cut(self, a, b):
        return frozenset((a, b)) in self._cut

    def cut(self, groups):
        """Nothing passes between hosts of different ``groups``, lists of names."""
        for some, others in combinations(groups, 2):
            for a in some:
                for b in others:
                    self._cut.setdefault(frozenset((a, b)), object())
        loop = asyncio.get_running_loop()
        self.connections = [connection for connection in self.connections if connection.closed is None]
        for connection in self.connections:
            mark = self._cut.get(connection.pair)
            if mark is not None and connection.cut_by is not mark:
                connection.cut_by = mark
                silence = IDLE_TIMEOUT - self.rng.uniform(0, KEEP_ALIVE)
                loop.call_later(silence, self._idle_out, connection, mark, context=connection.host.context)

    def heal(self):
        self._cut.clear()
        for connection in self.connections:
            connection.cut_by = None
            connection.send_held()

    def host_died(self, host):
        loop = asyncio.get_running_loop()
        for connection in self.connections:
            if connection.twin.host is host and connection.host.alive and connection.closed is None:
                silence = IDLE_TIMEOUT - self.rng.uniform(0, KEEP_ALIVE)
                loop.call_later(silence, connection.lose, context=connection.host.context)

    def _idle_out(self, connection, mark):
        if connection.cut_by is mark and self._cut.get(connection.pair) is mark:
            connection.lose()


class VirtualEndpoint:
    def __init__(self, network, secret, places, alpns=()):
        self.host = HOST.get()
        self.lookup = MemoryLookup()
        self.closed = False
        self.alpns = list(alpns)
        self._network = network
        self._secret = secret
        self._places = places
        self._incoming = deque()
        self._arrived = asyncio.Event()
        self._connections = []
        network.add(self)

    @property
    def id(self):
        return self._secret.public

    @property
    def secret_key(self):
        return self._secret

    def bound(self):
        return list(self._places)

    def addr(self):
        return EndpointAddr.of(self.id, self._places)

    def set_alpns(self, alpns):
        self._check_open()
        self.alpns = list(alpns)

    async def connect(self, target, alpn, *others, timeout=10.0):
        self._check_open()
        if isinstance(target, str):
            target = EndpointId.parse(target)
        wanted = target if isinstance(target, EndpointAddr) else EndpointAddr(target)
        if wanted.id == self.id:
            raise UsageError("an endpoint cannot dial itself")
        known = self.lookup.get(wanted.id)
        places = [*wanted.direct, *(known.direct if known else ())]
        if not places:
            raise Unreachable(f"no address of it is known: {wanted.id}")
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + timeout, 0.2
        while (peer := self._reachable(places)) is None:
            if loop.time() + pause > deadline:
                await asyncio.sleep(deadline - loop.time())
                self._check_open()
                raise Unreachable(f"{wanted.id.short()} did not answer within {timeout:g} s")
            await asyncio.sleep(pause)
            pause *= 2
        way = self._network.latency(self.host.name, peer.host.name)
        await asyncio.sleep(2 * way)
        self._check_open()
        if peer.id != wanted.id:
            raise WrongIdentity("whoever is there holds another key", peer=wanted.id)
        chosen = next((name for name in peer.alpns if name in (alpn, *others)), None)
        if chosen is None:
            raise ProtocolRefused("the peer does not accept the protocol", peer=wanted.id)
        if self._reachable(peer.bound()) is not peer:
            await asyncio.sleep(max(0.0, deadline - loop.time()))
            raise Unreachable(f"{wanted.id.short()} went away in the handshake")
        ours = VirtualConnection(self._network, self, peer, chosen, is_client=True)
        theirs = VirtualConnection(self._network, peer, self, chosen, is_client=False)
        ours.twin, theirs.twin = theirs, ours
        self._network.connections += (ours, theirs)
        loop.call_later(way, peer.take, theirs, context=peer.host.context)
        try:
            await asyncio.sleep(2 * way)
        except asyncio.CancelledError:
            ours.close()
            raise
        self._connections.append(ours)
        self.lookup.add(EndpointAddr.of(peer.id, peer.bound()))
        return ours

    def take(self, connection):
        """A peer has dialled."""
        if self.closed or not self.host.alive or connection.closed is not None:
            connection.close(0, "closed")
            return
        self._connections.append(connection)
        self._incoming.append(connection)
        self._arrived.set()
        self.lookup.add(EndpointAddr.of(connection.remote_id, [path.addr for path in connection.paths()]))

    async def incoming(self):
        while True:
            while self._incoming:
                connection = self._incoming.popleft()
                if connection.closed is None:
                    yield connection
            if self.closed:
                return
            self._arrived.clear()
            await self._arrived.wait()

    def connections(self):
        self._connections = [connection for connection in self._connections if connection.closed is None]
        return list(self._connections)

    async def aclose(self):
        if not self.closed:
            self.closed = True
            self._arrived.set()
            for connection in self.connections():
                connection.close(0)
            await asyncio.sleep(0)

    def _reachable(self, places):
        peer = self._network.at(places)
        return peer if peer is not None and not self._network.is_cut(self.host.name, peer.host.name) else None

    def _check_open(self):
        if self.closed or not self.host.alive:
            raise EndpointClosed("this endpoint is closed: bind a new one")


class VirtualConnection:
    """One side of one. The methods below "what streams call" are what `StreamHost` asks for."""

    def __init__(self, network, endpoint, remote, alpn, *, is_client):
        self.host = endpoint.host
        self.alpn = alpn
        self.is_client = is_client
        self.closed = None
        self.twin = None
        self.cut_by = None
        self.pair = frozenset((endpoint.host.name, remote.host.name))
        self._network = network
        self._remote = remote.id
        self._remote_places = remote.bound()
        self._way = network.latency(endpoint.host.name, remote.host.name)
        self._opened = {False: 0, True: 0}
        self._send = {}
        self._recv = {}
        self._bi = deque()
        self._uni = deque()
        self._waiting = {}
        self._held = []
        self._sequence = {}  # of the next packet of each stream that we send
        self._expected = {}  # of the next packet of each stream that we receive
        self._early = {}
        self._unacknowledged = {}
        self._finished = set()  # streams whose end the peer has
        self._topics = set()  # gossip streams whose header was sent

    @property
    def remote_id(self):
        return self._remote

    @property
    def rtt(self):
        return 2 * self._way

    def paths(self):
        return [PathInfo("direct", place, True, self.rtt) for place in self._remote_places[:1]]

    async def open_bi(self):
        id = self._open(unidirectional=False)
        stream = BiStream(SendStream(self, id), RecvStream(self, id))
        self._send[id], self._recv[id] = stream.send, stream.recv
        return stream

    async def open_uni(self):
        id = self._open(unidirectional=True)
        self._send[id] = stream = SendStream(self, id)
        return stream

    async def accept_bi(self):
        while not self._bi:
            await self._wait("bi")
        return self._bi.popleft()

    async def accept_uni(self):
        while not self._uni:
            await self._wait("uni")
        return self._uni.popleft()

    def close(self, code=0, reason=""):
        if self.closed is None:
            self._end(ConnectionClosed(code, reason, by="local", peer=self._remote))
            self._transmit(None, self.twin._peer_closed, code, reason)

    async def wait_closed(self):
        while self.closed is None:
            await self._wait("closed")
        return self.closed

    def lose(self):
        """Silence for too long."""
        self._end(ConnectionClosed(0, "no packet from the peer for too long", by="network", application=False))

    # What streams call.

    def write_stream(self, id, data, *, end=False):
        self._check_open()
        data = self._lossy(id, data)
        self._unacknowledged[id] = self._unacknowledged.get(id, 0) + len(data)
        self._transmit(id, self.twin._on_data, id, data, end)

    def reset_stream(self, id, code):
        if self.closed is None and id not in self._finished:
            self._finished.add(id)
            self._transmit(id, self.twin._on_reset, id, code)

    def stop_stream(self, id, code):
        if self.closed is None:
            self._transmit(("stop", id), self.twin._on_stop, id, code)

    def credit(self, id, size, *, stream_too=True):
        pass

    def unacknowledged(self, id):
        return self._unacknowledged.get(id, 0)

    def unacknowledged_total(self):
        return sum(self._unacknowledged.values())

    def send_finished(self, id):
        return id in self._finished

    # Packets.

    def send_held(self):
        held, self._held = self._held, []
        for packet in held:
            self._fly(*packet)

    def _transmit(self, stream, arrive, *args):
        """``stream`` None: the end of the connection, which is sent once and is lost with the packet."""
        if not self.host.alive or not self.twin.host.alive:
            return
        number = self._sequence.get(stream, 0)
        self._sequence[stream] = number + 1
        self._fly(stream, number, arrive, args)

    def _fly(self, stream, number, arrive, args):
        delay = self._way * (1 + self._network.rng.uniform(0, JITTER))
        loop = asyncio.get_running_loop()
        loop.call_later(delay, self._land, stream, number, arrive, args, context=self.twin.host.context)

    def _land(self, stream, number, arrive, args):
        if not self.twin.host.alive or self.twin.closed is not None:
            return
        network = self._network
        if network.is_cut(self.host.name, self.twin.host.name):
            if stream is not None:
                self._held.append((stream, number, arrive, args))
            return
        network.packets += 1
        said = [blake3(each).hexdigest(6) if isinstance(each, bytes) else each for each in args]
        network.log.add(self.host.name, self.twin.host.name, stream, number, *said)
        self.twin._receive(stream, number, arrive, args)

    def _receive(self, stream, number, arrive, args):
        early = self._early.setdefault(stream, {})
        early[number] = (arrive, args)
        while (packet := early.pop(self._expected.get(stream, 0), None)) is not None:
            self._expected[stream] = self._expected.get(stream, 0) + 1
            packet[0](*packet[1])

    def _on_data(self, id, data, end):
        stream = self._receiving(id)
        if stream is not None:
            stream.on_data(data, end)
        self._transmit(("ack", id), self.twin._on_ack, id, len(data), end)

    def _on_ack(self, id, size, end):
        self._unacknowledged[id] -= size
        if end:
            self._finished.add(id)
            del self._unacknowledged[id]
        if (stream := self._send.get(id)) is not None:
            stream.on_progress()
            if end:
                del self._send[id]

    def _on_reset(self, id, code):
        stream = self._receiving(id)
        if stream is not None:
            stream.on_reset(code, 0)

    def _on_stop(self, id, code):
        if id not in self._finished:
            self._receiving(id)
        if (stream := self._send.get(id)) is not None:
            stream.on_stopped(code)

    def _receiving(self, id):
        stream = self._recv.get(id)
        if stream is not None or (id & 1 == 0) == self.is_client:
            return stream
        self._recv[id] = stream = RecvStream(self, id)
        if id & 2:
            self._uni.append(stream)
            self._wake("uni")
        else:
            self._send[id] = SendStream(self, id)
            self._bi.append(BiStream(self._send[id], stream))
            self._wake("bi")
        return stream

    def _lossy(self, id, data):
        """Of a gossip stream, without the messages that are lost."""
        network = self._network
        if self.alpn != Gossip.ALPN or not data:
            return data
        position = 0 if id in self._topics else TOPIC_FRAME
        self._topics.add(id)
        if not network.loss:
            return data
        kept = [data[:position]]
        while position < len(data):
            end = position + 4 + int.from_bytes(data[position : position + 4])
            kind = (data[position + 4], data[position + 5])
            if kind in DROPPABLE and network.rng.random() < network.loss:
                network.lost += 1
            else:
                kept.append(data[position:end])
            position = end
        return b"".join(kept)

    # The end.

    def _peer_closed(self, code, reason):
        self._end(ConnectionClosed(code, reason, by="peer", peer=self._remote))

    def _end(self, closed):
        if self.closed is not None:
            return
        self.closed = closed
        self._held.clear()
        for stream in (*self._send.values(), *self._recv.values()):
            stream.on_lost(closed)
        self._wake("closed")
        for what in list(self._waiting):
            for waiter in self._waiting.pop(what):
                if not waiter.done():
                    waiter.set_exception(closed)

    def _open(self, *, unidirectional):
        self._check_open()
        number = self._opened[unidirectional]
        self._opened[unidirectional] += 1
        return 4 * number + (0 if self.is_client else 1) + (2 if unidirectional else 0)

    def _check_open(self):
        if self.closed is not None:
            raise self.closed.with_traceback(None)

    async def _wait(self, what):
        self._check_open()
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(what, []).append(waiter)
        await waiter

    def _wake(self, what):
        for waiter in self._waiting.pop(what, ()):
            if not waiter.done():
                waiter.set_result(None)
