"""What a relay holds, forwards and adds: ``python -m benchmarks relay``. PyPI has no Rust relay to stand beside.

The relay is ``tidings relay`` in a process of its own, its clients in others. ``python -m benchmarks.relay CLIENT ...``
is such a process: it prints a line when it is ready and ends with its standard input.
"""

import asyncio
import contextlib
import socket
import sys
import time
from pathlib import Path

from tidings.transport import RelayUrl, SecretKey
from tidings.transport.relay import RelayClient

__all__ = ["relay"]

CLIENTS = 2_000
SIZE = 1_200  # bytes of a datagram, as QUIC's
RUN = 50  # datagrams that are sent at once
SECONDS = 5.0
PINGS = 500


def ignore(peer, datagrams):
    """What comes is not looked at."""


async def connected(url, secret, on_datagrams):
    client = RelayClient(RelayUrl(url), secret, on_datagrams=on_datagrams)
    if not await client.connected(30):
        raise SystemExit(f"the relay does not let us in: {client.status.problem}")
    return client


async def until_told():
    await asyncio.to_thread(sys.stdin.read)


async def crowd(url, count):
    """Clients that are only there."""
    clients = []
    for _ in range(int(count) // 50):
        clients += await asyncio.gather(*(connected(url, SecretKey.generate(), ignore) for _ in range(50)))
    print("ready", len(clients), flush=True)
    await until_told()


async def sink(url, seed):
    """Counts what comes; prints bytes a second at the end."""
    got = [0, 0.0, 0.0]

    def count(peer, datagrams):
        got[0] += sum(map(len, datagrams))
        got[1] = got[1] or time.perf_counter()
        got[2] = time.perf_counter()

    await connected(url, SecretKey(bytes.fromhex(seed)), count)
    print("ready", flush=True)
    await until_told()
    print(got[0] / max(1e-9, got[2] - got[1]), flush=True)


async def source(url, peer):
    """Sends as fast as the relay takes it, for a while."""
    client = await connected(url, SecretKey.generate(), ignore)
    id = SecretKey(bytes.fromhex(peer)).public
    run = [bytes(SIZE)] * RUN
    print("ready", flush=True)
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        if not client.send(id, run):
            await asyncio.sleep(0.0005)
        else:
            await asyncio.sleep(0)
    print("sent", flush=True)
    await until_told()


async def deaf(url, seed):
    """A client that lets nothing out of its socket: connected by hand, authenticated, then never read."""
    from tidings.transport.relay import auth
    from tidings.transport.relay.frames import VERSIONS, Confirmed, decode, encode
    from websockets.asyncio.client import connect

    secret = SecretKey(bytes.fromhex(seed))
    ws = url.replace("http", "ws") + "relay"
    websocket = await connect(ws, subprotocols=list(VERSIONS), compression=None, max_queue=1, ping_interval=None)
    version = websocket.subprotocol
    challenge = decode(await websocket.recv(), by="server", version=version)
    await websocket.send(encode(auth.prove(secret, challenge), by="client"))
    assert isinstance(decode(await websocket.recv(), by="server", version=version), Confirmed)
    websocket.transport.pause_reading()
    print("ready", flush=True)
    await until_told()


class Process:
    def __init__(self, *call):
        self.call = [sys.executable, "-m", *call]

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(*self.call, stdin=-1, stdout=-1)
        return self

    async def line(self):
        return (await asyncio.wait_for(self.process.stdout.readline(), 180)).decode().split()

    def tell(self):
        self.process.stdin.close()

    async def __aexit__(self, *exc_info):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def memory(self):
        """Bytes of memory that are this process's."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Private", "Pss_Anon")))

    def seconds(self):
        """Seconds of processor that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.asynccontextmanager
async def served():
    port = free_port()
    async with Process("tidings", "--json", "relay", "--listen", f"127.0.0.1:{port}") as relay:
        await relay.line()
        yield relay, f"http://127.0.0.1:{port}/"


async def held(report):
    async with served() as (relay, url), Process("tidings.benchmarks.relay", "crowd", url, "100") as first:
        await first.line()
        before = relay.memory()
        async with Process("tidings.benchmarks.relay", "crowd", url, str(CLIENTS)) as clients:
            start = time.perf_counter()
            await clients.line()
            report.row(f"relay: {CLIENTS:,} clients let in", "/s", [CLIENTS / (time.perf_counter() - start)])
            report.row("relay: memory of a client", "kB", [(relay.memory() - before) / CLIENTS / 1000])
            used, start = relay.seconds(), time.perf_counter()
            await asyncio.sleep(20)
            share = (relay.seconds() - used) / (time.perf_counter() - start)
            report.row(f"relay: processor with {CLIENTS:,} idle", "%", [100 * share], digits=2)
            report.row("relay: added to a round trip of 1,200 bytes", "ms", await added(url), digits=2)


async def forwarded(url):
    seed = SecretKey.generate().to_bytes().hex()
    async with Process("tidings.benchmarks.relay", "sink", url, seed) as receiving:
        await receiving.line()
        async with Process("tidings.benchmarks.relay", "source", url, seed) as sending:
            await sending.line()
            assert await sending.line() == ["sent"]
            await asyncio.sleep(0.5)
            receiving.tell()
            return float((await receiving.line())[0]) / 1e6


async def added(url):
    """Milliseconds of a datagram there and back through the relay, one at a time."""
    answers = asyncio.Queue()
    secrets = SecretKey.generate(), SecretKey.generate()
    there = await connected(url, secrets[1], lambda *what: there.send(*what))  # noqa: PLW0108 - not there yet
    here = await connected(url, secrets[0], lambda peer, datagrams: answers.put_nowait(datagrams))
    times = []
    for _ in range(PINGS):
        start = time.perf_counter()
        here.send(secrets[1].public, [bytes(SIZE)])
        await asyncio.wait_for(answers.get(), 5)
        times.append(1000 * (time.perf_counter() - start))
        await asyncio.sleep(0.002)
    await asyncio.gather(here.aclose(), there.aclose())
    return times


async def relay(report):
    async with served() as (process, url):
        rates = [await forwarded(url) for _ in range(3)]
        report.row("relay: forwarded, one pair", "MB/s", rates)
    async with served() as (process, url):
        seed = SecretKey.generate().to_bytes().hex()
        async with Process("tidings.benchmarks.relay", "deaf", url, seed) as deaf_one:
            await deaf_one.line()
            before = process.memory()
            async with Process("tidings.benchmarks.relay", "source", url, seed) as sending:
                await sending.line()
                rates = [await forwarded(url)]
                report.row("relay: the same beside one that does not read", "MB/s", rates)
                report.row("relay: memory that one costs", "MB", [(process.memory() - before) / 1e6])
    await held(report)


if __name__ == "__main__":
    asyncio.run({"crowd": crowd, "sink": sink, "source": source, "deaf": deaf}[sys.argv[1]](*sys.argv[2:]))
