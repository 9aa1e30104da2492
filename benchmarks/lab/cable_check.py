"""What a cable really does, compared with its quality, before anything is said about tidings behind it.

Delay and rate are measured at both ends with UDP, on the same cable without its loss: datagrams far below the rate,
then a flood above it. Jitter, loss and bursts are counted on the `Channel` alone, over many frames, for chance needs
hundreds of bursts to show its mean. That the process loses what its channel says, and nothing else, is checked on the
lossy cable: what was offered and not lost must have arrived, to the datagram.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, replace
from statistics import median

from .cable import Channel, Quality
from .topology import Device, Lab

__all__ = ["CableMeasured", "check_cable", "count_losses"]

NUMBER = struct.Struct(">Id")
SMALL, LARGE = 80, 1200  # bytes of a datagram
HEADERS = 42  # Ethernet, IPv4, UDP
BURSTS = 2000  # to count
SECONDS = 2.0  # of each measurement
SURE_RATE = 60e6  # bits a second: what the process of a cable moves on slow machines, too


@dataclass(frozen=True)
class CableMeasured:
    """One direction, the device sends. ``delay`` is the median of one way, ``spread`` half of the distance between
    its shortest and its longest, ``overtaken`` how many came before an earlier one; seconds, and bits a second;
    ``vanished`` datagrams were neither lost by the channel nor arrived."""

    delay: float
    spread: float
    rate: float
    loss: float
    burst: float
    overtaken: int
    vanished: int

    def faults(self, quality: Quality) -> list[str]:
        """What is not as claimed. The machine may add some milliseconds; chance is given five percent."""
        found = []
        if not -0.002 <= self.delay - quality.rtt / 2 + quality.jitter <= 0.010 + 2 * quality.jitter:
            found.append(f"delay {1000 * self.delay:.1f} ms, not {500 * quality.rtt:g}")
        if not 0.9 * quality.jitter <= self.spread <= quality.jitter + 1e-6:
            found.append(f"jitter {1000 * self.spread:.1f} ms, not {1000 * quality.jitter:g}")
        if not 0.8 * min(quality.rate, SURE_RATE) <= self.rate <= 1.05 * quality.rate:
            found.append(f"rate {self.rate / 1e6:.2f} Mbit/s, not {quality.rate / 1e6:g}")
        if not 0.9 * quality.loss <= self.loss <= 1.1 * quality.loss:
            found.append(f"loss {self.loss:.2%}, not {quality.loss:.2%}")
        if not 0.9 * quality.burst <= self.burst <= 1.1 * quality.burst:
            found.append(f"bursts of {self.burst:.1f}, not {quality.burst:g}")
        if self.overtaken:
            found.append(f"{self.overtaken} datagrams overtook another")
        if self.vanished:
            found.append(f"{self.vanished} datagrams vanished")
        return found


def count_losses(quality: Quality, rng: random.Random) -> tuple[float, float]:
    """The lost part, and the mean length of a burst, of so many frames that `BURSTS` are to be expected."""
    channel = Channel(replace(quality, rate=0), rng)
    lost = [channel.offer(0.0, SMALL) is None for _ in range(int(BURSTS * quality.burst / quality.loss))]
    bursts = sum(1 for before, this in zip([False, *lost], lost, strict=False) if this and not before)
    return sum(lost) / len(lost), sum(lost) / bursts


def spread_of_delays(quality: Quality, rng: random.Random) -> float:
    """Half of the distance between the shortest and the longest time that a frame travels, one each millisecond."""
    channel = Channel(replace(quality, rate=0, loss=0), rng)
    delays = [channel.offer(now / 1000, SMALL) - now / 1000 for now in range(100_000)]
    return (max(delays) - min(delays)) / 2


async def check_cable(quality: Quality, seed: int) -> CableMeasured:
    loss, burst = count_losses(quality, random.Random(seed))
    async with Lab() as lab:
        home = lab.home("none")
        clean = await lab.device("clean", replace(quality, loss=0), seed, wifi=home)
        with Line(clean, lab) as line:
            arrived = await asyncio.to_thread(line.drip)
            overtaken = sum(1 for one, next in itertools.pairwise(arrived) if next[0] < one[0])
            rate = await asyncio.to_thread(line.flood)
    async with Lab() as lab:
        lossy = await lab.device("lossy", quality, seed, wifi=lab.home("none"))
        with Line(lossy, lab) as line:
            before = await lossy.cables[0].counts()
            count = len(await asyncio.to_thread(line.drip))
            after = await lossy.cables[0].counts()
        # Neighbour discovery may add a frame or two of its own to the counts.
        lost = after[0]["lost"] - before[0]["lost"]
        offered = after[0]["offered"] - before[0]["offered"]
        vanished = max(0, line.dripped - count - lost) + max(0, line.dripped - offered)
    return CableMeasured(
        delay=median(came - left for left, came in arrived),
        spread=spread_of_delays(quality, random.Random(seed)),
        rate=rate,
        loss=loss,
        burst=burst,
        overtaken=overtaken,
        vanished=vanished,
    )


class Line:
    """From a device to a host: a socket at each end."""

    def __init__(self, device: Device, lab: Lab) -> None:
        self._quality = device.cables[0].quality
        with device.namespace.entered():
            self._near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with lab.hosts[0].namespace.entered():
            self._far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._far.bind(("0.0.0.0", 0))
        self._far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._near.connect((lab.hosts[0].v4, self._far.getsockname()[1]))
        self.dripped = 0

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._near.close()
        self._far.close()

    def drip(self) -> list[tuple[float, float]]:
        """When those that arrived had left, and when they came; far below the rate."""
        rate = min(500.0, self._quality.rate / (8 * (SMALL + HEADERS) * 4))  # a second
        self._warm()
        self.dripped = int(rate * SECONDS)
        return self._send(self.dripped, rate, SMALL)

    def flood(self) -> float:
        """Bits a second, headers counted, while the line is full."""
        rate = 1.3 * self._quality.rate / (8 * (LARGE + HEADERS))
        came = [came for _, came in self._send(int(rate * SECONDS), rate, LARGE)]
        return 8 * (LARGE + HEADERS) * (len(came) - 1) / (came[-1] - came[0])

    def _warm(self) -> None:
        """Until one has got through: by then both ends know each other's hardware address."""
        self._far.settimeout(self._quality.rtt + 0.5)
        for _ in range(1000):
            self._near.send(b"warm")
            try:
                self._far.recv(LARGE)
                time.sleep(self._quality.rtt + self._quality.jitter + 0.1)
                return
            except TimeoutError:
                continue

    def _send(self, count: int, rate: float, size: int) -> list[tuple[float, float]]:
        found: list[tuple[float, float]] = []
        receiving = threading.Thread(target=self._receive, args=(found,))
        self._far.settimeout(
            self._quality.rtt + self._quality.jitter + self._quality.queue * 8 / self._quality.rate + 1
        )
        receiving.start()
        begin = time.monotonic()
        for number in range(count):
            self._near.send(NUMBER.pack(number, time.monotonic()).ljust(size, b"\0"))
            time.sleep(max(0.0, begin + (number + 1) / rate - time.monotonic()))
        receiving.join()
        return found

    def _receive(self, found: list[tuple[float, float]]) -> None:
        """Until nothing comes for longer than anything can take."""
        try:
            while True:
                data = self._far.recv(LARGE)
                if len(data) >= NUMBER.size:
                    found.append((NUMBER.unpack_from(data)[1], time.monotonic()))
        except TimeoutError:
            pass
