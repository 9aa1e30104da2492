"""A cable with bad quality, for kernels without netem: two TAP interfaces and a process between them.

    python -m benchmarks.lab.cable NEAR FAR QUALITY-AS-JSON SEED      in the namespace where both are to appear

One end is then moved to the device's namespace, the other joins the router's network. The process copies whole Ethernet
frames, so neither addresses nor routes know of it, and the kernel cuts and checksums packets before it hands them to a
TAP. The interfaces vanish with the process.

`Channel` is one direction and knows no clock: a frame waits for those before it (the rate, with a queue that drops at
its tail), may be lost, and then travels. Jitter wanders: how long frames travel changes with time, so slowly that none
overtakes another (netem with a rate does not reorder either). Loss is Gilbert's: in the bad state every frame is lost;
the state changes with each frame, not with time, as netem's does. So where few frames are sent a burst lasts long.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .namespaces import LabError, Namespace, end_with_parent

__all__ = ["LADDER", "Cable", "Channel", "Quality"]

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME = 65536
LEAST_QUEUE = 24_000  # bytes: sixteen full packets, where a round trip holds less
PERIODS = 2.5  # jitters from one value of it to the next: from 2 on no frame can overtake another
START_TIMEOUT = 10.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Quality:
    """Of both directions. ``rtt`` seconds is added to a round trip, half of it each way; up to ``jitter`` seconds more
    or less each way; ``rate`` bits a second, 0 for any; ``loss`` a part of the frames; ``burst`` how many are lost in a
    row on average."""

    name: str
    rate: float
    rtt: float
    jitter: float
    loss: float
    burst: float

    @property
    def queue(self) -> float:
        """Bytes that wait for the rate, one round trip of them: what a link is given as a rule of thumb."""
        return max(LEAST_QUEUE, self.rate * self.rtt / 8)


# The degradation ladder of iroh's network lab (reference/papers.md). Where it names no burst, losses are single.
LADDER = [
    Quality("good wifi", 100e6, 0.016, 0, 0.001, 1),
    Quality("congested wifi", 25e6, 0.040, 0.012, 0.01, 6),
    Quality("weak 4G", 8e6, 0.090, 0.015, 0.02, 8),
    Quality("slow 3G", 3e6, 0.200, 0.030, 0.03, 10),
    Quality("congested cellular", 1.5e6, 0.300, 0.040, 0.05, 12),
    Quality("very bad cellular", 800e3, 0.450, 0.060, 0.08, 20),
    Quality("satellite", 25e6, 0.600, 0.040, 0.015, 6),
    Quality("barely usable", 500e3, 0.450, 0.080, 0.12, 25),
    Quality("absurd", 256e3, 0.800, 0.150, 0.25, 40),
]


class Channel:
    """One direction. Times are seconds of any one clock."""

    def __init__(self, quality: Quality, rng: random.Random) -> None:
        self._quality, self._rng = quality, rng
        self._wandering = random.Random(rng.random())  # its own, so that which frames are lost depends on no clock
        self._period = PERIODS * quality.jitter
        self._turn, self._last, self._next = 0.0, 0.0, 0.0  # when the jitter is at the next of its random values
        self._free = 0.0  # when the line has sent all that was given to it
        self._latest = 0.0  # when the last frame arrives
        self._bad = rng.random() < quality.loss
        self.offered = self.lost = self.overflowed = 0

    def offer(self, now: float, size: int) -> float | None:
        """When a frame of ``size`` bytes that is sent now arrives; None: never."""
        quality = self._quality
        self.offered += 1
        if self._is_lost():
            self.lost += 1
            return None
        start = max(now, self._free)
        if quality.rate:
            if (start - now) * quality.rate / 8 > quality.queue:
                self.overflowed += 1
                return None
            self._free = start = start + 8 * size / quality.rate
        self._latest = max(self._latest, start + quality.rtt / 2 + self._jitter(start))
        return self._latest

    def _jitter(self, now: float) -> float:
        """Goes straight from one random value to the next."""
        limit = self._quality.jitter
        if not limit:
            return 0.0
        if now >= self._turn:
            self._last = self._next if now < self._turn + self._period else self._wandering.uniform(-limit, limit)
            self._next = self._wandering.uniform(-limit, limit)
            self._turn = now + self._period
        return self._next + (self._last - self._next) * (self._turn - now) / self._period

    def _is_lost(self) -> bool:
        """The stationary share of the bad state is ``loss``, its mean stay ``burst`` frames."""
        loss, burst = self._quality.loss, self._quality.burst
        leave = 1 / burst
        enter = leave * loss / (1 - loss)
        self._bad = self._rng.random() < (1 - leave if self._bad else enter)
        return self._bad

    def counts(self) -> dict[str, int]:
        return {"offered": self.offered, "lost": self.lost, "overflowed": self.overflowed}


class Cable:
    """The lab's end of the process."""

    def __init__(self, process: asyncio.subprocess.Process, quality: Quality) -> None:
        self._process, self.quality = process, quality

    @classmethod
    async def plug(cls, namespace: Namespace, near: str, far: str, quality: Quality, seed: int) -> Cable:
        """Both interfaces exist in the namespace when this returns."""
        arguments = [near, far, json.dumps(asdict(quality)), str(seed)]
        process = await asyncio.create_subprocess_exec(
            *namespace.command(sys.executable, "-m", "benchmarks.lab.cable", *arguments),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=end_with_parent,
        )
        cable = cls(process, quality)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                ready = await process.stdout.readline()
        except TimeoutError:
            ready = b""
        if not ready:
            await cable.unplug()
            raise LabError("the process of a bad cable did not start: is there /dev/net/tun?")
        return cable

    async def counts(self) -> list[dict[str, int]]:
        """Of both directions: what the device sent, and what it was sent."""
        self._process.stdin.write(b"\n")
        async with asyncio.timeout(START_TIMEOUT):
            return json.loads(await self._process.stdout.readline())

    async def unplug(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._process._transport.close()  # or the pipes complain of a closed loop


def open_tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def serve(near: str, far: str, quality: Quality, seed: int) -> None:
    """Copy frames until standard input ends; a line there asks for the counts."""
    ends = [open_tap(far), open_tap(near)]
    channels = [Channel(quality, random.Random(f"{seed} {direction}")) for direction in range(2)]
    travelling: list[deque[tuple[float, bytes]]] = [deque(), deque()]  # in order: a channel does not reorder
    print("ready", flush=True)
    while True:
        pending = [line[0][0] for line in travelling if line]
        timeout = max(0.0, min(pending) - time.monotonic()) if pending else None
        readable, _, _ = select.select([0, *ends], [], [], timeout)
        if 0 in readable:
            if not os.read(0, FRAME):
                return
            print(json.dumps([channel.counts() for channel in channels]), flush=True)
        for direction, end in enumerate(ends):
            if end in readable:
                for frame in frames(end):
                    arrives = channels[direction].offer(time.monotonic(), len(frame))
                    if arrives is not None:
                        travelling[direction].append((arrives, frame))
        now = time.monotonic()
        for direction, line in enumerate(travelling):
            while line and line[0][0] <= now:
                deliver(ends[1 - direction], line.popleft()[1])


def frames(end: int, most: int = 64) -> list[bytes]:
    """What waits there, a bounded number, so that neither direction starves the other."""
    found = []
    with suppress(OSError):  # nothing more, or the interface is down
        while len(found) < most:
            found.append(os.read(end, FRAME))
    return found


def deliver(end: int, frame: bytes) -> None:
    with suppress(OSError):  # the interface is down: a cable that nobody holds
        os.write(end, frame)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], Quality(**json.loads(sys.argv[3])), int(sys.argv[4]))
