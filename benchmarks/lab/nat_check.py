"""What the routers really do, measured with plain UDP before anything is said about tidings (after RFC 5780).

Mapping: one socket behind the router sends to three places of the public network (two ports of one host, another
host), and each says from where it was seen. Filtering: others than the one that was sent to try to get in. Then what
makes or breaks hole punching: whether packets that came too early spoil the mapping, and, for every pair of kinds,
whether two sockets that know each other's mapping get through.
"""

from __future__ import annotations

import itertools
import socket
import time
from dataclasses import dataclass

from . import nat
from .namespaces import LabError
from .topology import Device, Home, Host, Lab

__all__ = ["Measured", "Pair", "check_kinds", "check_pairs", "measure", "punches"]

PATIENCE = 0.3  # seconds for a datagram that should arrive: round trips here take microseconds
SILENCE = 0.1  # seconds after which one is taken not to come
Addr = tuple[str, int]


@dataclass(frozen=True)
class Measured:
    mapping: str
    filtering: str
    keeps_port: bool
    survives_early: bool | None  # None: not asked, each flow has a mapping of its own anyway

    def agrees(self, kind: str) -> bool:
        claimed = nat.KINDS[kind]
        return (self.mapping, self.filtering) == (
            claimed.mapping,
            claimed.filtering,
        ) and self.survives_early is not False


@dataclass(frozen=True)
class Pair:
    one: str
    other: str
    expected: bool
    direct: bool


class Socket:
    """A UDP socket in a namespace."""

    def __init__(self, place: Device | Host, port: int = 0) -> None:
        with place.namespace.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("0.0.0.0", port))
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, to: Addr, data: bytes = b"?") -> None:
        try:
            self._socket.sendto(data, to)
        except OSError:  # an ICMP error of an earlier datagram is told here
            self._socket.sendto(data, to)

    def receive(self, timeout: float, data: bytes = b"?") -> Addr | None:
        """From where the next such datagram came; None: there was none in time."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                got, source = self._socket.recvfrom(2048)
            except TimeoutError:
                return None
            except OSError:
                continue
            if got == data:
                return source
        return None


def measure(device: Device, hosts: list[Host]) -> Measured:
    """The behaviour of the router that the device is behind. ``hosts`` are two of the public network."""
    with (
        Socket(hosts[0]) as near,
        Socket(hosts[0]) as near_other_port,
        Socket(hosts[1]) as far,
        Socket(device) as inside,
        Socket(device) as early,
    ):
        mapped = _mapped(inside, hosts[0], near)
        by_port = _mapped(inside, hosts[0], near_other_port)
        by_host = _mapped(inside, hosts[1], far)
        if mapped[0] == device.address():
            mapping = "none"
        elif mapped == by_port == by_host:
            mapping = nat.INDEPENDENT
        elif mapped == by_port:
            mapping = "address-dependent"
        else:
            mapping = nat.DEPENDENT
        filtering = _filtering(device, hosts)
        keeps_port = mapped[1] == inside.port
        survives = None
        if mapping in ("none", nat.INDEPENDENT):
            # Somebody knows where we will be seen, and sends before we do. Then we send to him, and to another.
            place = mapped[0], early.port
            for _ in range(3):
                far.send(place)
            time.sleep(SILENCE)
            survives = _mapped(early, hosts[1], far) == place == _mapped(early, hosts[0], near)
        return Measured(mapping, filtering, keeps_port, survives)


def _mapped(inside: Socket, host: Host, observer: Socket) -> Addr:
    data = f"{time.monotonic_ns()}".encode()
    inside.send((host.v4, observer.port), data)
    seen = observer.receive(PATIENCE, data)
    if seen is None:
        raise LabError(f"a datagram from behind a router did not reach {host.v4}")
    return seen


def _filtering(device: Device, hosts: list[Host]) -> str:
    """With a fresh socket that has sent to one place only."""
    with (
        Socket(device) as inside,
        Socket(hosts[0]) as asked,
        Socket(hosts[0]) as other_port,
        Socket(hosts[1]) as other_host,
    ):
        place = _mapped(inside, hosts[0], asked)
        asked.send(place, b"answer")
        if inside.receive(PATIENCE, b"answer") is None:
            raise LabError(f"an answer to {place} did not get in again")
        other_host.send(place, b"host")
        if inside.receive(SILENCE, b"host"):
            return nat.INDEPENDENT
        other_port.send(place, b"port")
        if inside.receive(SILENCE, b"port"):
            return "address-dependent"
        return nat.DEPENDENT


def punches(one: Device, other: Device, host: Host) -> bool:
    """Whether two sockets reach each other both ways, when each was told how a host of the public network sees the
    other, both send at once, and an answer goes to where the question came from."""
    with Socket(host) as observer, Socket(one) as mine, Socket(other) as theirs:
        places = [_mapped(mine, host, observer), _mapped(theirs, host, observer)]
        for _ in range(3):
            mine.send(places[1])
            theirs.send(places[0])
            time.sleep(SILENCE / 4)
            for ours, peer in ((mine, theirs), (theirs, mine)):
                if source := ours.receive(SILENCE / 4):
                    ours.send(source, b"!")
                    if back := peer.receive(PATIENCE, b"!"):
                        peer.send(back, b"!!")
                        return ours.receive(PATIENCE, b"!!") is not None
    return False


async def devices_of_each_kind(lab: Lab, name: str) -> dict[str, Device]:
    homes: dict[str, Home] = {kind: lab.home(kind) for kind in nat.KINDS}
    return {kind: await lab.device(f"{name}-{kind}", wifi=home) for kind, home in homes.items()}


async def check_kinds() -> dict[str, Measured]:
    """Each kind of NAT, in a lab of its own."""
    async with Lab() as lab:
        devices = await devices_of_each_kind(lab, "a")
        return {kind: measure(device, lab.hosts) for kind, device in devices.items()}


async def check_pairs() -> list[Pair]:
    """Hole punching with plain sockets: what the kernel allows is what the matrix may expect."""
    async with Lab() as lab:
        ones, others = await devices_of_each_kind(lab, "a"), await devices_of_each_kind(lab, "b")
        return [
            Pair(one, other, nat.goes_direct(one, other), punches(ones[one], others[other], lab.hosts[0]))
            for one, other in itertools.product(nat.KINDS, repeat=2)
        ]
