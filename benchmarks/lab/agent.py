"""A device's process: an endpoint that does what it is told, ``python -m benchmarks.lab.agent``.

A request is ``{"n": 1, "do": "name", ...}`` on standard input, its answer ``{"n": 1, "ok": ...}`` or
``{"n": 1, "error": "..."}`` on standard output; requests run side by side. The log goes to standard error. The process
ends with its standard input.

Times are of the monotonic clock, which all processes of a machine share, so the lab compares those of several agents.

Every connection, whoever dialled, answers what the other opens: a stream that begins with ``P`` is sent back, one that
begins with ``T`` is a transfer, whose bytes are hashed as they come.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
import sys
import time
from dataclasses import dataclass, field

from blake3 import blake3
from tidings import Endpoint, EndpointAddr
from tidings.transport import Connection, EndpointId, IpAddr, RelayUrl

ALPN = b"tidings/lab/1"
BLOCK = 4096  # bytes that a transfer writes at once
POLL = 0.05  # seconds between two looks at the paths, where they cannot be watched
READ = 65536
PING_LIMIT = 1024


class NotAvailable(Exception):
    """The endpoint of this version cannot do that."""


@dataclass
class Transfer:
    """One stream's bytes so far, sent or received."""

    hash: blake3 = field(default_factory=blake3)
    bytes: int = 0
    began: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    stall: float = 0.0  # the longest time without a byte
    stalled_at: float = 0.0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    error: str | None = None
    stop: bool = False

    def add(self, data: bytes) -> None:
        self.pause()
        self.hash.update(data)
        self.bytes += len(data)
        self.last = time.monotonic()

    def pause(self) -> None:
        now = time.monotonic()
        if now - self.last > self.stall:
            self.stall, self.stalled_at = now - self.last, self.last

    def told(self) -> dict:
        return {
            "bytes": self.bytes,
            "hash": self.hash.hexdigest(),
            "began": self.began,
            "last": self.last,
            "stall": self.stall,
            "stalled_at": self.stalled_at,
            "ended": self.ended.is_set(),
            "error": self.error,
        }


class Peer:
    """A connection, what happens on it, and the tasks that look after it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.since = time.monotonic()
        self.changes: list[dict] = []
        self.sent = Transfer()
        self.received = Transfer()
        self.arrived = asyncio.Event()  # the first stream of a transfer
        self.tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._answer())]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    # -- paths

    async def _watch(self) -> None:
        self._note(self.connection.paths())
        if hasattr(self.connection, "watch_paths"):
            async for paths in self.connection.watch_paths():
                self._note(paths)
        else:
            while self.connection.closed is None:
                await asyncio.sleep(POLL)
                self._note(self.connection.paths())

    def _note(self, paths: list) -> None:
        seen = [described(path) for path in paths]
        key = [(path["kind"], path["addr"], path["selected"]) for path in seen]
        if not self.changes or key != self.changes[-1]["key"]:
            self.changes.append({"at": time.monotonic(), "key": key, "paths": seen})

    # -- streams

    async def _answer(self) -> None:
        async with asyncio.TaskGroup() as group:
            while self.connection.closed is None:
                group.create_task(self._serve(await self.connection.accept_bi()))

    async def _serve(self, stream) -> None:
        try:
            if await stream.recv.read_exactly(1) == b"P":
                await stream.send.write(await stream.recv.read_to_end(limit=PING_LIMIT))
                await stream.send.finish()
            else:
                self.received = Transfer()
                self.arrived.set()
                await self._receive(stream, self.received)
        except Exception as error:
            logging.info("a stream ended: %s", error)

    async def _receive(self, stream, transfer: Transfer) -> None:
        try:
            while data := await stream.recv.read(READ):
                transfer.add(data)
        except Exception as error:
            transfer.error = f"{type(error).__name__}: {error}"
        transfer.pause()
        transfer.ended.set()
        await stream.send.write(transfer.hash.digest())
        await stream.send.finish()

    async def send(self, rate: float, most: float, seed: int) -> None:
        """Random bytes, ``rate`` a second, until told to stop or for ``most`` seconds; then the receiver's word."""
        transfer = self.sent = Transfer()
        rng = random.Random(seed)
        try:
            stream = await self.connection.open_bi()
            await stream.send.write(b"T")
            while not transfer.stop and time.monotonic() - transfer.began < most:
                data = rng.randbytes(BLOCK)
                await stream.send.write(data)
                transfer.add(data)
                # What a stall kept back is not made up for at once: the pace goes on from here.
                await asyncio.sleep(BLOCK / rate)
            await stream.send.finish()
            digest = await stream.recv.read_to_end(limit=PING_LIMIT)
            if digest != transfer.hash.digest():
                transfer.error = "the receiver has another hash"
        except Exception as error:
            transfer.error = f"{type(error).__name__}: {error}"
        transfer.ended.set()


def described(path) -> dict:
    return {
        "kind": path.kind,
        "addr": str(path.addr),
        "selected": path.selected,
        "rtt": path.rtt,
        "why": getattr(path, "why", None),
    }


class Agent:
    endpoint: Endpoint | None = None

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.waiting: asyncio.Queue[int] = asyncio.Queue()
        self.accepting: asyncio.Task | None = None

    async def features(self) -> dict:
        """What this version's endpoint can do."""
        return {
            "relays": "relays" in inspect.signature(Endpoint.bind).parameters,
            "online": hasattr(Endpoint, "online"),
            "watch_paths": hasattr(Connection, "watch_paths"),
        }

    async def bind(self, relays=(), bind=None) -> dict:
        options = {} if bind is None else {"bind": bind}
        if relays:
            if not (await self.features())["relays"]:
                raise NotAvailable("Endpoint.bind(relays=...)")
            options["relays"] = relays
        self.endpoint = await Endpoint.bind(alpns=[ALPN], **options)
        self.accepting = asyncio.create_task(self._accept())
        return {"id": str(self.endpoint.id), "bound": list(map(str, self.endpoint.bound()))}

    async def _accept(self) -> None:
        async for connection in self.endpoint.incoming():
            self.waiting.put_nowait(self._keep(connection))

    def _keep(self, connection: Connection) -> int:
        self.peers.append(Peer(connection))
        return len(self.peers) - 1

    async def online(self, timeout=10) -> float:
        """Seconds until the home relay was reached."""
        began = time.monotonic()
        if not hasattr(self.endpoint, "online"):
            raise NotAvailable("Endpoint.online")
        await self.endpoint.online(timeout=timeout)
        return time.monotonic() - began

    async def addr(self) -> dict:
        addr = self.endpoint.addr()
        return {
            "id": str(addr.id),
            "direct": [str(one) for one in addr.direct],
            "relays": [str(one) for one in addr.relays],
        }

    async def connect(self, id, direct=(), relays=(), timeout=10) -> dict:
        addrs = [*map(IpAddr.parse, direct), *map(RelayUrl, relays)]
        began = time.monotonic()
        target = EndpointAddr.of(EndpointId.parse(id), addrs)
        connection = await self.endpoint.connect(target, ALPN, timeout=timeout)
        return {"peer": self._keep(connection), "seconds": time.monotonic() - began}

    async def accept(self, timeout=10) -> int:
        async with asyncio.timeout(timeout):
            return await self.waiting.get()

    async def ping(self, peer, timeout=10) -> float:
        """Seconds for some bytes there and back on a new stream."""
        began = time.monotonic()
        async with asyncio.timeout(timeout):
            stream = await self.peers[peer].connection.open_bi()
            await stream.send.write(b"Pping")
            await stream.send.finish()
            if await stream.recv.read_to_end(limit=PING_LIMIT) != b"ping":
                raise ValueError("the echo is another")
        return time.monotonic() - began

    async def send(self, peer, rate, most, seed) -> None:
        """Begin to send; `sent` tells how it goes."""
        one = self.peers[peer]
        one.tasks.append(asyncio.create_task(one.send(rate, most, seed)))

    async def sent(self, peer, stop=False, timeout=60) -> dict:
        """How far the sending is; with ``stop``, stop and wait until the receiver has told what it got."""
        transfer = self.peers[peer].sent
        if stop:
            transfer.stop = True
            async with asyncio.timeout(timeout):
                await transfer.ended.wait()
        return transfer.told()

    async def received(self, peer, timeout=10) -> dict:
        """How far the receiving is, once it has begun."""
        one = self.peers[peer]
        async with asyncio.timeout(timeout):
            await one.arrived.wait()
        return one.received.told()

    async def paths(self, peer) -> dict:
        """As they are now, every change so far, and when the connection came to be."""
        one = self.peers[peer]
        return {
            "since": one.since,
            "now": [described(path) for path in one.connection.paths()],
            "changes": [{"at": change["at"], "paths": change["paths"]} for change in one.changes],
            "closed": None if one.connection.closed is None else str(one.connection.closed),
        }

    async def unbind(self) -> None:
        """Close the endpoint; another may be bound then."""
        if self.endpoint is not None:
            endpoint, self.endpoint = self.endpoint, None
            await endpoint.aclose()
            self.accepting.cancel()
            await asyncio.gather(self.accepting, return_exceptions=True)
            for peer in self.peers:
                await peer.close()
            self.peers, self.waiting = [], asyncio.Queue()


async def obey(agent: Agent) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def serve(request: dict) -> None:
        number, name = request.pop("n"), request.pop("do")
        logging.info("told: %s %s", name, request)
        try:
            answer = {"n": number, "ok": await getattr(agent, name)(**request)}
        except Exception as error:
            logging.info("cannot %s: %s: %s", name, type(error).__name__, error)
            answer = {"n": number, "error": str(error) or type(error).__name__, "type": type(error).__name__}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    async with asyncio.TaskGroup() as group:
        while line := await reader.readline():
            group.create_task(serve(json.loads(line)))
    await agent.unbind()


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s.%(msecs)03d %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("quic").setLevel(logging.WARNING)
    asyncio.run(obey(Agent()))
