"""Keeps the ways to the peers of an endpoint: signals with those that can, and moves the connections of all.

- With a **tidings** peer: over a connection of its own (`signal`) both ends say where they are and how pings to them
  are sealed; from then on the connections between the two go by what `Remote` selects. The side that dialled opens it,
  as soon as a relay has to do with the two: without any there is no other way to find.
- With **others**: a client that was answered through a relay asks the addresses it knows with QUIC's own path
  validation, and moves (``reference/iroh-transport.md`` 2b, "Upgrade matrix"). As a server it follows the client.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from ..addr import EndpointAddr, RelayUrl, TransportAddr
from ..connection import Connection
from ..dial import dial
from ..driver import Driver
from ..errors import ConnectionClosed, DecodeError, ProtocolRefused
from ..framing import frame, read_frame
from ..keys import EndpointId
from ..lookup import MemoryLookup
from ..relay.relays import Relays
from ..stream import BiStream
from .info import PathInfo
from .place import Place, RelayPlace, place_of, transport_addr
from .probes import Kind, Probe, ProbeKey, tag_of
from .remote import Remote
from .signal import MAX_MESSAGE, PATHS_ALPN, Signal

__all__ = ["PathKeeper", "Peer"]

logger = logging.getLogger(__name__)

DIAL_TIMEOUT = 10.0  # seconds for the signalling connection
HELLO_TIMEOUT = 5.0  # for what it begins with
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds until another attempt to signal, doubled each time
LINGER = 2.0  # seconds that signalling goes on without any other connection
MESSAGES, MESSAGES_IN = 30, 10.0  # a peer that tells more in that many seconds is shut out
PROBE_WAIT = 0.5  # seconds for a server to answer at another address
MAX_NAMED = 16
RESCUE_PAUSE = 0.5  # seconds between two looks for connections that hear nothing
PROBE_PAUSES = (1.5, 0.5, 2.0, 5.0, 60.0)  # seconds before each round of it; the last for ever
MISBEHAVED = 0x71D2  # application close code


class Peer:
    """The ways to one peer and the connections that go by them. ``remote`` is None where it signals none."""

    def __init__(self, keeper: PathKeeper, id: EndpointId) -> None:
        self.id = id
        self.remote: Remote | None = None
        self.connections: dict[Connection, None] = {}
        self.sessions: dict[Session, None] = {}
        self.named: dict[TransportAddr, None] = {}  # addresses that the program gave
        self.tasks: list[asyncio.Task[None]] = []  # where signalling is opened from here
        self.refused = asyncio.Event()  # the peer does not know what signalling is
        self.leaving: asyncio.TimerHandle | None = None  # without any connection
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._shown: tuple[object, ...] = ()

    # -- what routes ask -------------------------------------------------------------------------------------------

    @property
    def selected(self) -> Place:
        assert self.remote is not None
        return self.remote.selected

    def paths(self) -> list[PathInfo]:
        assert self.remote is not None
        return self.remote.paths()

    def heard(self, place: Place, now: float) -> None:
        if self.remote is not None and self.remote.heard(place, now):
            self.update()

    def sent(self) -> None:
        if self.remote is not None and self.remote.sent(self._loop.time()):
            self._arm()

    # -- signalling ------------------------------------------------------------------------------------------------

    def attach(self, session: Session, first: Place) -> None:
        """The peer has said how to ping it."""
        self.sessions[session] = None
        if self.remote is None:
            direct = [place for each in self.connections if not isinstance(place := each.place, RelayPlace | None)]
            self.remote = Remote(direct[0] if direct else first)
        for connection in (*self.connections, session.connection):
            self.lead(connection)

    def lead(self, connection: Connection) -> None:
        """Have a connection go by what is selected, now and later."""
        if connection.place != self.selected:
            connection.engine.path_changed(self._loop.time())
            self._keeper.driver.touch(connection)
        connection.route.attach(self)
        connection.note_paths()

    def detach(self, session: Session) -> None:
        session.connection.route.detach()
        if self.sessions.pop(session, self) is None and not self.sessions:
            for connection in self.connections:
                connection.route.detach()
            self.remote = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def tell(self, *, again: bool = True) -> None:
        """Consider all places that may be the peer's.

        Those are what it says, our home, and where nothing works every relay of ours.
        """
        if self.remote is None:
            return
        relays = self._keeper.relays
        addrs: dict[TransportAddr, None] = {}
        for session in self.sessions:
            addrs |= dict.fromkeys(session.told)
        if relays is not None:
            if relays.home is not None:
                addrs[relays.home] = None
            if not self.remote.works:
                addrs |= dict.fromkeys(config.url for config in relays.configs())
        places = [place for addr in addrs if self._keeper.is_usable(addr) and (place := place_of(addr, self.id))]
        self.remote.tell(places, self._loop.time(), again=again)
        self.update()

    # -- pings -----------------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Do what is due, and let the connections follow."""
        if self.remote is None:
            return
        now = self._loop.time()
        works = self.remote.works
        pings = self.remote.poll(now)
        if works and not self.remote.works:
            self.tell()
            return
        session = next(reversed(self.sessions), None)
        for number, place in pings:
            if session is not None:
                self._keeper.driver.send([(session.key_there.seal(Probe(Kind.PING, number)), place)])
        self.follow()
        self._arm()

    def follow(self) -> None:
        if self.remote is None:
            return
        shown = (self.remote.selected, frozenset(path.addr for path in self.remote.paths()))
        if shown == self._shown:
            return
        moved = bool(self._shown) and shown[0] != self._shown[0]
        self._shown = shown
        self._keeper.lookup.add(EndpointAddr.of(self.id, [transport_addr(self.remote.selected)]))
        if moved:
            logger.info("%s: by %s: %s", self.id.short(), transport_addr(self.remote.selected), self.remote.why)
        now = self._loop.time()
        for connection in (*self.connections, *(session.connection for session in self.sessions)):
            if moved:
                connection.engine.path_changed(now)
                self._keeper.driver.touch(connection)
            connection.note_paths()

    def _arm(self) -> None:
        assert self.remote is not None
        at = self.remote.deadline()
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = None if at == math.inf else self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.update()


class Session:
    """One signalling connection with a peer. ``told`` is where the peer says it is."""

    def __init__(self, keeper: PathKeeper, peer: Peer, connection: Connection, stream: BiStream) -> None:
        self.connection = connection
        self.key_here = ProbeKey.generate()
        self.key_there = self.key_here  # until the peer has named its own
        self.told: tuple[TransportAddr, ...] = ()
        self.peer = peer
        self._keeper = keeper
        self._stream = stream
        self._changed = asyncio.Event()

    def on_probe(self, datagram: bytes, place: Place) -> None:
        remote = self.peer.remote
        if remote is None:
            return
        try:
            probe = self.key_here.open(datagram)
        except DecodeError as error:
            self.connection.close(MISBEHAVED, str(error))
            return
        if probe is None:
            return
        now = asyncio.get_running_loop().time()
        if probe.kind is Kind.PING:
            self._keeper.driver.send([(self.key_there.seal(Probe(Kind.PONG, probe.number)), place)])
            remote.ping_came(place, now)
        else:
            remote.pong_came(probe.number, place, now)
        self.peer.update()

    def tell(self) -> None:
        """What is ours has changed: the peer should know."""
        self._changed.set()

    async def run(self) -> None:
        """Until the connection is over. ConnectionClosed, DecodeError, TimeoutError."""
        first = self.connection.place
        assert first is not None
        await self._say(self.key_here)
        async with asyncio.timeout(HELLO_TIMEOUT):
            hello = await self._hear()
        if hello is None or hello.key is None:
            raise DecodeError("a peer that signals ways begins with its key")
        self.key_there, self.told = hello.key, hello.addrs
        self._keeper.by_tag[self.key_here.tag] = self
        self.peer.attach(self, first)
        self.peer.tell()
        telling = asyncio.create_task(self._tell(), name=f"tell {self.peer.id.short()}")
        try:
            await self._listen()
        finally:
            telling.cancel()
            del self._keeper.by_tag[self.key_here.tag]
            self.peer.detach(self)
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await telling

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        since, count = loop.time(), 0
        while (signal := await self._hear()) is not None:
            if loop.time() > since + MESSAGES_IN:
                since, count = loop.time(), 0
            count += 1
            if count > MESSAGES:
                raise DecodeError("the peer tells us of its ways without end")
            self.told = signal.addrs
            self.peer.tell()

    async def _tell(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._say()

    async def _hear(self) -> Signal | None:
        data = await read_frame(self._stream.recv, MAX_MESSAGE)
        return None if data is None else Signal.decode(data)

    async def _say(self, key: ProbeKey | None = None) -> None:
        await self._stream.send.write(frame(Signal(tuple(self._keeper.own_addrs()), key).encode()))


class PathKeeper:
    """``own_addrs`` says where we are; ``is_usable`` whether an address can be reached from here at all."""

    def __init__(
        self,
        driver: Driver,
        relays: Relays | None,
        lookup: MemoryLookup,
        *,
        own_addrs: Callable[[], Sequence[TransportAddr]],
        is_usable: Callable[[TransportAddr], bool],
    ) -> None:
        self.driver, self.relays, self.lookup = driver, relays, lookup
        self.own_addrs, self.is_usable = own_addrs, is_usable
        self.by_tag: dict[bytes, Session] = {}
        self._peers: dict[EndpointId, Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._up: frozenset[RelayUrl] = frozenset()  # relays that are connected
        self._rng = random.Random()  # noqa: S311 - pauses
        driver.on_probe = self._on_probe
        driver.on_end = self._on_end

    # -- connections -----------------------------------------------------------------------------------------------

    def add(self, connection: Connection, named: Sequence[TransportAddr] = ()) -> None:
        """Keep the ways of an established connection; ``named`` are addresses that the program knew of the peer."""
        peer = self._peers.get(connection.remote_id)
        if peer is None:
            self._peers[connection.remote_id] = peer = Peer(self, connection.remote_id)
        peer.connections[connection] = None
        peer.named = dict.fromkeys([*named, *peer.named][:MAX_NAMED])
        if peer.remote is not None:
            peer.lead(connection)
        relayed = isinstance(connection.place, RelayPlace) or any(isinstance(addr, RelayUrl) for addr in named)
        has_home = self.relays is not None and self.relays.home is not None
        if connection.is_client and (relayed or has_home) and not peer.tasks:
            name = f"ways to {peer.id.short()}"
            peer.tasks = [self._start(work(peer), name) for work in (self._signal, self._upgrade, self._rescue)]

    def accept(self, connection: Connection) -> None:
        """A peer has opened a signalling connection."""
        peer = self._peers.get(connection.remote_id)
        if peer is None or len(peer.sessions) > 1:
            connection.close(0, "there is no connection whose ways could be kept")
            return
        self._start(self._accept(peer, connection), f"ways of {peer.id.short()}")

    def _on_end(self, connection: Connection) -> None:
        if not connection.established:
            return
        peer = self._peers.get(connection.remote_id)
        if peer is not None and connection in peer.connections:
            del peer.connections[connection]
            if not peer.connections:
                if peer.leaving is not None:
                    peer.leaving.cancel()
                peer.leaving = asyncio.get_running_loop().call_later(LINGER, self._leave, peer)

    def _leave(self, peer: Peer) -> None:
        if peer.connections:
            return
        if self._peers.get(peer.id) is peer:
            del self._peers[peer.id]
        for task in peer.tasks:
            task.cancel()
        for session in list(peer.sessions):
            session.connection.close(0, "no connection is left whose ways could be kept")

    # -- signalling ------------------------------------------------------------------------------------------------

    async def _signal(self, peer: Peer) -> None:
        pause = FIRST_PAUSE
        while True:
            places = [place for each in peer.connections if (place := each.place) is not None]
            if places and not peer.sessions:
                addrs = list(dict.fromkeys(map(transport_addr, places)))
                try:
                    connection = await dial(self.driver, peer.id, [PATHS_ALPN], addrs, DIAL_TIMEOUT)
                    pause = FIRST_PAUSE
                    await self._run(peer, connection)
                except ProtocolRefused:
                    peer.refused.set()
                    return
                except Exception as error:
                    logger.debug("no signalling with %s: %s", peer.id.short(), error)
            await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def _accept(self, peer: Peer, connection: Connection) -> None:
        await self._run(peer, connection)

    async def _run(self, peer: Peer, connection: Connection) -> None:
        try:
            if connection.is_client:
                stream = await connection.open_bi()
            else:
                async with asyncio.timeout(HELLO_TIMEOUT):
                    stream = await connection.accept_bi()
            await Session(self, peer, connection, stream).run()
        except DecodeError as error:
            logger.info("%s signals what is no way: %s", peer.id.short(), error)
            connection.close(MISBEHAVED, str(error))
        except (ConnectionClosed, TimeoutError) as error:
            logger.debug("signalling with %s ended: %s", peer.id.short(), error)
        except Exception:
            logger.exception("signalling with %s failed", peer.id.short())
        finally:
            connection.close()

    # -- peers that do not signal ----------------------------------------------------------------------------------

    async def _upgrade(self, peer: Peer) -> None:
        """Ask the server at each address we know, while connections go through a relay."""
        with suppress(TimeoutError):  # one that only does not answer may be busy, or of a kind that does not accept now
            async with asyncio.timeout(PROBE_PAUSES[0]):
                await peer.refused.wait()
        rounds = 0
        while True:
            for connection in list(peer.connections):
                if peer.remote is None and connection.is_client and isinstance(connection.place, RelayPlace):
                    await self._move(connection, self._known(peer).direct)
            rounds += 1
            await asyncio.sleep(PROBE_PAUSES[min(rounds, len(PROBE_PAUSES) - 1)])

    async def _rescue(self, peer: Peer) -> None:
        """Ask the server at every address we know, relays first, while nothing comes back from where it was."""
        while True:
            await asyncio.sleep(RESCUE_PAUSE)
            for connection in list(peer.connections):
                if peer.remote is None and connection.is_client and connection.engine.is_silent:
                    here = None if connection.place is None else transport_addr(connection.place)
                    await self._move(connection, [addr for addr in self._known(peer).sorted() if addr != here])

    def _known(self, peer: Peer) -> EndpointAddr:
        known = self.lookup.get(peer.id) or EndpointAddr(peer.id)
        return EndpointAddr.of(peer.id, [*peer.named, *known.sorted()])

    async def _move(self, connection: Connection, addrs: Iterable[TransportAddr]) -> None:
        """To the first of these where the server answers."""
        engine = connection.engine
        for addr in filter(self.is_usable, addrs):
            place = place_of(addr, connection.remote_id)
            if connection.closed is not None or not engine.probe_place(place):
                return
            self.driver.touch(connection)
            with suppress(TimeoutError):
                async with asyncio.timeout(PROBE_WAIT):
                    async for _ in connection.watch_paths():
                        if engine.peer_place == place:
                            break
            if engine.peer_place == place:
                engine.path_changed(asyncio.get_running_loop().time())
                self.driver.touch(connection)
                return
            engine.forget_probe()

    # -- what changes ----------------------------------------------------------------------------------------------

    def addresses_changed(self) -> None:
        """Ours have: peers that we signal with are told."""
        for peer in self._peers.values():
            for session in peer.sessions:
                session.tell()

    def relays_changed(self) -> None:
        """A relay came or went, or is the home now."""
        now = asyncio.get_running_loop().time()
        up = frozenset(() if self.relays is None else self.relays.connected())
        came, self._up = up - self._up, up
        for connection in self.driver.connections() if came else ():
            if isinstance(connection.place, RelayPlace) and connection.place.relay in came:
                connection.engine.path_changed(now)  # what was sent while it was away is lost
                self.driver.touch(connection)
        for peer in list(self._peers.values()):
            if peer.remote is not None and self.relays is not None:
                for place in peer.remote.relays():
                    peer.remote.relay_changed(place, self.relays.is_connected(place.relay), now)
                peer.tell(again=False)

    def network_changed(self) -> None:
        """Ours has: nothing that worked is certain."""
        now = asyncio.get_running_loop().time()
        for peer in self._peers.values():
            if peer.remote is not None:
                peer.remote.network_changed(now)
                peer.update()
                continue
            for connection in peer.connections:
                if connection.is_client:  # what it sends from its new address tells the server of it
                    connection.engine.path_changed(now)
                    self.driver.touch(connection)
        self.addresses_changed()

    def _on_probe(self, datagram: bytes, place: Place) -> None:
        session = self.by_tag.get(tag_of(datagram) or b"")
        if session is not None:
            session.on_probe(datagram, place)

    def _start(self, work: object, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self._peers.values():
            if peer.leaving is not None:
                peer.leaving.cancel()
            for session in list(peer.sessions):
                peer.detach(session)
        self._peers.clear()
