"""The lab's networks, built from namespaces, veth pairs and bridges.

    relay host 1   relay host 2           203.0.113.0/24 and 2001:db8::/64
          |             |                      |
    ======+======= public network ========+====+=========+===
                                          |              |
                                   router of home    router of home     each with a kind of NAT
                                          |              |
                                      device (wifi)  device (lte)       one device may hang on both, one at a time

Every home with a NAT has the same private network, 192.168.1.0/24, as homes do: an address that a device tells of
itself is then an address of the other's network, too. Homes without NAT have public addresses of 198.51.100.0/24.
Addresses are those that documents may use (RFC 5737, RFC 3849).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from . import nat
from .cable import Cable, Quality
from .namespaces import Namespace, Namespaces, sweep

__all__ = ["Device", "Home", "Host", "Lab"]

V4, V6 = "v4", "v6"
RELAY_PORT = 3340


class Host:
    """A machine of the public network, with both families."""

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        self.name = f"{name}.lab"  # resolvable in devices
        self.v4, self.v6 = f"203.0.113.{number}", f"2001:db8::{number}"
        self.namespace = lab.attach(name, number)


class Home:
    """A router, and the network behind it. ``families`` are those that the home has at all."""

    def __init__(self, lab: Lab, name: str, number: int, kind: str, families: Sequence[str]) -> None:
        self.kind, self.families, self._number = kind, families, number
        self.wan4 = f"203.0.113.{number}"
        self.router = lab.attach(name, number)
        self.router.ip("link add lan type bridge", "link set lan up")
        if V4 in families:
            self._network4 = f"198.51.100.{8 * (number - FIRST_HOME)}/29" if kind == "none" else "192.168.1.0/24"
            self.router.ip(f"address add {self._host4(1)}/{self._bits4} dev lan")
            if kind == "none":
                lab.public.ip(f"route add {self._network4} via {self.wan4}")
        if V6 in families:
            self.router.ip(f"address add {self._host6(1)}/64 dev lan nodad")
            lab.public.ip(f"route add {self._host6('')}/64 via 2001:db8::{number}")
        self.router.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        if rules := nat.rules(kind):
            self.router.nft(rules)

    @property
    def _bits4(self) -> str:
        return self._network4.partition("/")[2]

    def _host4(self, host: int) -> str:
        start, _, last = self._network4.partition("/")[0].rpartition(".")
        return f"{start}.{int(last) + host}"

    def _host6(self, host: object) -> str:
        return f"2001:db8:{self._number:x}::{host}"

    def addresses(self) -> list[str]:
        """What a device here is given, with prefix lengths. Numbers differ between homes, the private network not."""
        host = 2 if self.kind == "none" else self._number
        return [
            *([f"{self._host4(host)}/{self._bits4}"] if V4 in self.families else []),
            *([f"{self._host6(host)}/64"] if V6 in self.families else []),
        ]

    def gateways(self) -> list[str]:
        return [
            *([self._host4(1)] if V4 in self.families else []),
            *([self._host6(1)] if V6 in self.families else []),
        ]

    def block_udp(self, blocked: bool = True) -> None:
        self.router.nft(nat.BLOCK_UDP if blocked else nat.UNBLOCK_UDP)

    def link(self, up: bool) -> None:
        """The router's way to the public network: while it is down the device's own interface stays up."""
        self.router.ip(f"link set wan {'up' if up else 'down'}")
        if up:
            self.router.ip(*_public_routes(self._number))


class Device:
    """A machine with an interface for each uplink, of which one is up, or none."""

    def __init__(self, namespace: Namespace, name: str, uplinks: dict[str, Home]) -> None:
        self.namespace, self.name, self.uplinks = namespace, name, uplinks
        self.uplink: str | None = None
        self.cables: list[Cable] = []

    @property
    def home(self) -> Home:
        assert self.uplink is not None, "no uplink is up"
        return self.uplinks[self.uplink]

    def use(self, uplink: str | None) -> None:
        """Leave the network it is in, and enter another; at once, as when Wi-Fi is lost and LTE is there."""
        if self.uplink is not None:
            self.namespace.ip(f"address flush dev {self.uplink}", f"link set {self.uplink} down")
        self.uplink = uplink
        if uplink is not None:
            home = self.uplinks[uplink]
            self.namespace.ip(
                f"link set {uplink} up",
                *(f"address add {addr} dev {uplink} {'nodad' if ':' in addr else ''}" for addr in home.addresses()),
                *(f"route add default via {addr} dev {uplink}" for addr in home.gateways()),
            )

    def address(self, family: str = V4) -> str:
        return next(addr for addr in self.home.addresses() if (":" in addr) == (family == V6)).partition("/")[0]


FIRST_HOME = 100  # a home's number is its last byte in the public network


class Lab:
    """``async with Lab() as lab``: afterwards nothing of it is left."""

    def __init__(self) -> None:
        self._namespaces = Namespaces()
        self._stack = AsyncExitStack()
        self._homes = 0
        self.hosts: list[Host] = []

    async def __aenter__(self) -> Lab:
        sweep()
        self._stack.callback(self._namespaces.close)
        try:
            self.public = self._namespaces.make("public")
            self.public.sysctl(
                ipv4__ip_forward=1,
                ipv6__conf__all__forwarding=1,
                ipv4__conf__all__send_redirects=0,
                ipv4__conf__default__send_redirects=0,
            )
            self.public.ip(
                "link add public type bridge",
                "link set public up",
                "address add 203.0.113.1/24 dev public",
                "address add 2001:db8::1/64 dev public nodad",
            )
            self.hosts = [Host(self, "relay-1", 10), Host(self, "relay-2", 11)]
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def attach(self, name: str, number: int) -> Namespace:
        """A namespace with the interface ``wan`` in the public network."""
        namespace = self._namespaces.make(name)
        port = f"port{number}"
        run_link = f"link add {port} type veth peer name wan netns {namespace.name}"
        self.public.ip(run_link, f"link set {port} master public up")
        namespace.ip(
            f"address add 203.0.113.{number}/24 dev wan",
            "link set wan up",
            *_public_routes(number),
        )
        return namespace

    def home(self, kind: str, families: Sequence[str] = (V4,)) -> Home:
        number = FIRST_HOME + self._homes
        self._homes += 1
        return Home(self, f"home{number}-{kind}", number, kind, families)

    async def device(self, name: str, quality: Quality | None = None, seed: int = 0, **uplinks: Home) -> Device:
        """With the first uplink up. ``quality`` makes each uplink a bad one."""
        namespace = self._namespaces.make(name)
        namespace.hosts({host.name: [host.v4, host.v6] for host in self.hosts})
        device = Device(namespace, name, uplinks)
        for uplink, home in uplinks.items():
            port = f"port-{name}"[:15]
            if quality is None:
                home.router.ip(f"link add {port} type veth peer name {uplink} netns {namespace.name}")
            else:
                cable = await Cable.plug(home.router, port, uplink, quality, seed)
                self._stack.push_async_callback(cable.unplug)
                device.cables.append(cable)
                home.router.ip(f"link set {uplink} netns {namespace.name}")
            home.router.ip(f"link set {port} master lan up")
        device.use(next(iter(uplinks)))
        return device


def _public_routes(number: int) -> list[str]:
    """What is lost whenever the interface goes down."""
    return [
        f"address replace 2001:db8::{number}/64 dev wan nodad",
        "route replace default via 203.0.113.1",
        "route replace default via 2001:db8::1 dev wan",
    ]
