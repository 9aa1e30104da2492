"""What befalls two devices, and what is expected then. Each scenario builds its networks, runs, and adds rows.

Two agents meet over a relay alone: who dials is told no direct address, so finding one is the endpoints' work. Where
this version's endpoint cannot do what a scenario is about, its rows say "not available"; they never pass.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from . import nat
from .agents import Agent, AgentError, Relay
from .cable import LADDER, Quality
from .cable_check import check_cable
from .namespaces import LabError
from .report import FAILED, NOT_AVAILABLE, OK, Report, Row
from .topology import V4, V6, Device, Home, Lab

__all__ = ["SCENARIOS", "Options", "matrix_cell"]

FOUND = 45.0  # seconds until a direct way is found that was not there before
HOLD = 8.0  # seconds that a relayed connection is watched, before it is said to stay relayed
PATIENCE = 20.0  # seconds for a direct path that is expected
RECOVERY = 60.0  # seconds for a transfer to go on after what befell it
SETTLED = 3.0  # seconds that it has to flow again
LOOK = 0.1  # seconds between two questions to an agent
RATE = 500_000  # bytes a second of a transfer: far below what the machine can do, so a stall has one cause
LONGEST_TRANSFER = 300.0  # seconds
OUTAGE = 10.0  # seconds without a link, or asleep
RELAY_DOWN = 3.0  # seconds until a killed relay is there again


@dataclass
class Options:
    """Of a run. ``folder`` gets the logs; those of what went well are deleted."""

    report: Report
    folder: Path
    repeat: int = 3
    seed: int = 1
    levels: Sequence[int] = tuple(range(len(LADDER)))
    kinds: Sequence[str] = tuple(nat.KINDS)
    failed: list[Path] = field(default_factory=list)


class NotAvailableError(Exception):
    """This version has no such thing."""


class UnexpectedError(Exception):
    """Something else was seen than is expected."""


@dataclass
class Two:
    """Two agents that have bound their endpoints; ``one`` dials."""

    one: Agent
    other: Agent
    relays: list[Relay]
    relay_urls: list[str]

    async def bind(self) -> None:
        await asyncio.gather(*(agent.do("bind", relays=self.relay_urls) for agent in (self.one, self.other)))

    async def online(self, timeout: float = 10) -> None:
        await asyncio.gather(*(agent.do("online", timeout=timeout) for agent in (self.one, self.other)))

    async def unbind(self) -> None:
        await asyncio.gather(self.one.do("unbind"), self.other.do("unbind"))

    async def meet(self, *, direct: bool = False, timeout: float = 10) -> Meeting:
        """``one`` dials ``other``: by its relays, or where ``direct`` by its addresses."""
        addr = await self.other.do("addr")
        places = {"direct": addr["direct"]} if direct else {"relays": addr["relays"]}
        if not any(places.values()):
            raise UnexpectedError(f"the other's address names no {'address' if direct else 'relay'}")
        accepting = asyncio.create_task(self.other.do("accept", timeout=timeout))
        try:
            dialled = await self.one.do("connect", id=addr["id"], timeout=timeout, **places)
            return Meeting(self, dialled["peer"], await accepting, dialled["seconds"])
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)


@dataclass
class Meeting:
    """One connection, by the numbers that it has at both agents."""

    two: Two
    at_one: int
    at_other: int
    seconds: float

    @property
    def sides(self) -> list[tuple[Agent, int]]:
        return [(self.two.one, self.at_one), (self.two.other, self.at_other)]

    async def ping(self, timeout: float = 10) -> float:
        """Both ways; the longer time."""
        return max([await agent.do("ping", peer=peer, timeout=timeout) for agent, peer in self.sides])

    async def selected(self) -> list[dict | None]:
        """The path in use at both sides."""
        return [selected((await agent.do("paths", peer=peer))["now"]) for agent, peer in self.sides]

    async def until_direct(self, patience: float) -> float | None:
        """Seconds from the handshake until both sides use a direct path; None where they do not in time."""
        deadline = time.monotonic() + patience
        while True:
            found = [await agent.do("paths", peer=peer) for agent, peer in self.sides]
            if all(is_direct(paths["now"]) for paths in found):
                return max(first_direct(paths) - paths["since"] for paths in found)
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(LOOK)


def selected(paths: list[dict]) -> dict | None:
    return next((path for path in paths if path["selected"]), None)


def is_direct(paths: list[dict]) -> bool:
    path = selected(paths)
    return path is not None and path["kind"] == "direct"


def first_direct(told: dict) -> float:
    """When; a path that was never noted as changed to is the one in use now."""
    return next((change["at"] for change in told["changes"] if is_direct(change["paths"])), time.monotonic())


def way(path: dict | None) -> str:
    """In few words, such as "direct v6"."""
    if path is None:
        return "no path"
    if path["kind"] == "direct":
        return f"direct {V6 if path['addr'].startswith('[') else V4}"
    return f"{path['kind']} {path['addr']}"


@asynccontextmanager
async def agents(
    options: Options,
    lab: Lab,
    one: Device,
    other: Device,
    name: str,
    *,
    relays: int = 1,
    both: bool = False,
    patience: float = 10,
) -> AsyncIterator[Two]:
    """Relays (``both``: of both families), and two agents that are bound to them and online; and their logs."""
    folder = options.folder / re.sub(r"\W+", "-", name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        async with AsyncExitStack() as stack:
            two = [
                await stack.enter_async_context(Agent(device, folder / f"{device.name}.log")) for device in (one, other)
            ]
            running, urls = [], []
            if relays:
                require(two[0], "relays", "online")
                running = [
                    Relay(host, folder / f"{host.name}.log", folder, both_families=both) for host in lab.hosts[:relays]
                ]
                for relay in running:
                    await stack.enter_async_context(relay)
                urls = [relay.url for relay in running]
                note_discovery(options, running[0])
            pair = Two(*two, running, urls)
            await pair.bind()
            if relays:
                await pair.online(patience)
            yield pair
    except NotAvailableError:
        shutil.rmtree(folder)
        raise
    except BaseException:
        options.failed.append(folder)
        raise
    shutil.rmtree(folder)


def note_discovery(options: Options, relay: Relay) -> None:
    line = "address discovery at relays: " + ("enabled" if relay.discovery else "this version's relay has none")
    if line not in options.report.facts:
        options.report.facts.append(line)
        options.report.note(line)


def require(agent: Agent, *features: str) -> None:
    missing = [feature for feature in features if not agent.features[feature]]
    if missing:
        raise NotAvailableError(f"this version's endpoint has no {', '.join(missing)}")


async def judged(options: Options, scenario: str, case: str, expected: str, work: Awaitable[str]) -> None:
    """A row for what ``work`` says it saw, or for what it raised."""
    try:
        seen, verdict = await work, OK
    except NotAvailableError as error:
        seen, verdict = str(error), NOT_AVAILABLE
    except (UnexpectedError, AgentError, LabError) as error:
        seen, verdict = str(error).partition("\n")[0], FAILED
        if isinstance(error, AgentError):
            seen = f"{error.kind}: {seen}"
    options.report.add(Row(scenario, case, expected, seen, verdict))


# -- direct dials: what needs no relay ------------------------------------------------------------------------------


async def direct(options: Options) -> None:
    """A device behind each NAT, and behind each bad link, dials one with a public address."""
    for kind in options.kinds:
        await judged(options, "direct", f"{kind} dials none", "direct", direct_dial(options, kind, None))
    for level in options.levels:
        quality = LADDER[level]
        expected = f"direct and a ping in {budget(level):.0f} s"
        case = f"level {level}, {quality.name}"
        await judged(options, "direct", case, expected, direct_dial(options, "restricted", level))


async def direct_dial(options: Options, kind: str, level: int | None) -> str:
    quality = None if level is None else LADDER[level]
    timeout = 10.0 if level is None else budget(level)
    async with Lab() as lab:
        one = await lab.device("dialler", quality, options.seed, wifi=lab.home(kind))
        other = await lab.device("accepter", wifi=lab.home("none"))
        async with agents(options, lab, one, other, f"direct {kind} {level}", relays=0) as two:
            began = time.monotonic()
            meeting = await two.meet(direct=True, timeout=timeout)
            ping = await meeting.ping(timeout=max(1.0, timeout - (time.monotonic() - began)))
            if not all(path and path["kind"] == "direct" for path in await meeting.selected()):
                raise UnexpectedError("not direct")
            return f"connected in {1000 * meeting.seconds:.0f} ms, ping {1000 * ping:.0f} ms"


# -- the matrix of NATs ---------------------------------------------------------------------------------------------


async def matrix(options: Options) -> None:
    """Every kind of NAT against every other, over and over."""
    async with Lab() as lab:
        ones = {kind: await lab.device(f"a-{kind}", wifi=lab.home(kind)) for kind in options.kinds}
        others = {kind: await lab.device(f"b-{kind}", wifi=lab.home(kind)) for kind in options.kinds}
        for one, other in itertools.product(options.kinds, repeat=2):
            work = matrix_cell(options, lab, ones[one], others[other])
            expected = "direct" if nat.goes_direct(one, other) else "relayed"
            await judged(options, "matrix", f"{one} dials {other}", expected, work)


async def matrix_cell(options: Options, lab: Lab, one: Device, other: Device) -> str:
    """Each time with new keys and ports. What is not as expected in one of them fails the cell."""
    expected = nat.goes_direct(one.home.kind, other.home.kind)
    times: list[float | None] = []
    async with agents(options, lab, one, other, f"matrix {one.name} {other.name}") as two:
        for attempt in range(options.repeat):
            if attempt:
                await two.unbind()
                await two.bind()
                await two.online()
            meeting = await two.meet()
            times.append(await meeting.until_direct(PATIENCE if expected else HOLD))
            await meeting.ping()
        seconds = sorted(one for one in times if one is not None)
        counts = f"{len(seconds)} direct, {len(times) - len(seconds)} relayed"
        if len(seconds) != (len(times) if expected else 0):
            raise UnexpectedError(counts)
    return f"{counts}; after {median(seconds):.2f} s, at most {seconds[-1]:.2f} s" if seconds else counts


# -- UDP blocked ----------------------------------------------------------------------------------------------------


async def udp(options: Options) -> None:
    """Where routers drop UDP: before the dial, or while a transfer runs on a direct path."""
    for blocked in (("dialler",), ("accepter",), ("dialler", "accepter")):
        work = udp_blocked(options, blocked)
        await judged(options, "udp", f"blocked at {' and '.join(blocked)}", "relayed", work)
    for side in ("dialler", "accepter"):
        work = udp_lost(options, side)
        await judged(options, "udp", f"blocked later at {side}", "goes on, relayed", work)
    for side in ("dialler", "accepter"):
        for sender in (0, 1):
            case = f"let through later at {side}, {'accepter' if sender else 'dialler'} sends"
            await judged(options, "udp", case, "goes on, direct", udp_found(options, side, sender))


async def udp_blocked(options: Options, blocked: Iterable[str]) -> str:
    async with Lab() as lab:
        devices = await two_restricted(lab)
        for name in blocked:
            devices[name].home.block_udp()
        async with agents(options, lab, *devices.values(), f"udp {blocked}") as two:
            meeting = await two.meet()
            if await meeting.until_direct(HOLD) is not None:
                raise UnexpectedError("direct, where UDP cannot pass")
            ping = await meeting.ping()
            return f"relayed, connected in {1000 * meeting.seconds:.0f} ms, ping {1000 * ping:.0f} ms"


async def udp_lost(options: Options, side: str) -> str:
    async with Lab() as lab:
        devices = await two_restricted(lab)
        async with agents(options, lab, *devices.values(), f"udp later {side}") as two:
            meeting = await two.meet()
            await expect_direct(meeting)

            async def block() -> None:
                devices[side].home.block_udp()

            return await transfer(options, meeting, block, least_stall=0.0)


async def udp_found(options: Options, side: str, sender: int) -> str:
    """From the relay to the direct way in the middle of a transfer."""
    async with Lab() as lab:
        devices = await two_restricted(lab)
        devices[side].home.block_udp()
        async with agents(options, lab, *devices.values(), f"udp found {side} {sender}") as two:
            meeting = await two.meet()

            async def unblock() -> None:
                devices[side].home.block_udp(False)
                if await meeting.until_direct(FOUND) is None:
                    raise UnexpectedError(f"not direct within {FOUND:.0f} s")

            return await transfer(options, meeting, unblock, least_stall=0.0, sender=sender)


async def two_restricted(lab: Lab) -> dict[str, Device]:
    return {name: await lab.device(name, wifi=lab.home("restricted")) for name in ("dialler", "accepter")}


# -- transfers that something befalls -------------------------------------------------------------------------------


async def transfer(
    options: Options,
    meeting: Meeting,
    event: Callable[[], Awaitable[None]],
    *,
    least_stall: float,
    sender: int = 0,
) -> str:
    """Bytes flow, ``event`` happens, they have to flow again and arrive whole. ``sender`` is 0 for who dialled.

    A stall shorter than ``least_stall`` seconds fails: the event then did not do what it is for.
    """
    (sending, sending_peer), (receiving, receiving_peer) = meeting.sides[sender], meeting.sides[1 - sender]
    before = (await meeting.selected())[sender]
    await sending.do("send", peer=sending_peer, rate=RATE, most=LONGEST_TRANSFER, seed=options.seed)
    began = time.monotonic()
    await until_flowing(receiving, receiving_peer, began + 1.0)
    await event()
    happened = time.monotonic()
    await until_flowing(receiving, receiving_peer, happened + SETTLED)
    sent = await sending.do("sent", peer=sending_peer, stop=True, timeout=RECOVERY)
    received = await receiving.do("received", peer=receiving_peer)
    after = (await meeting.selected())[sender]
    if error := sent["error"] or received["error"]:
        raise UnexpectedError(error)
    if (sent["bytes"], sent["hash"]) != (received["bytes"], received["hash"]) or not received["ended"]:
        raise UnexpectedError(f"{sent['bytes']} bytes were sent, {received['bytes']} came, or others")
    if received["stall"] < least_stall:
        raise UnexpectedError(f"a stall of {received['stall']:.1f} s only: the lab did not do what it meant to")
    ways, size = f"{way(before)} to {way(after)}", received["bytes"] / 1e6
    return f"{ways}, longest stall {received['stall']:.2f} s, {size:.1f} MB whole"


async def until_flowing(agent: Agent, peer: int, moment: float) -> None:
    """Until bytes have come after ``moment``."""
    deadline = moment + RECOVERY
    while True:
        told = await agent.do("received", peer=peer, timeout=RECOVERY)
        if told["error"]:
            raise UnexpectedError(told["error"])
        if told["last"] >= moment:
            return
        if time.monotonic() > deadline:
            closed = (await agent.do("paths", peer=peer))["closed"]
            raise UnexpectedError(f"no byte for {time.monotonic() - told['last']:.0f} s, {closed or 'connection open'}")
        await asyncio.sleep(LOOK)


async def expect_direct(meeting: Meeting) -> None:
    if await meeting.until_direct(PATIENCE) is None:
        raise UnexpectedError("no direct path before anything happened")


# -- relays that die ------------------------------------------------------------------------------------------------


async def relay(options: Options) -> None:
    """A relay is killed in the middle of a transfer."""
    for case, kind, relays, restart in (
        ("killed and restarted, the only one", "symmetric", 1, True),
        ("killed and restarted, of two", "symmetric", 2, True),
        ("killed for good, of two", "symmetric", 2, False),
        ("killed for good, path is direct", "restricted", 1, False),
    ):
        await judged(options, "relay", case, "goes on", relay_dies(options, case, kind, relays, restart))


async def relay_dies(options: Options, case: str, kind: str, relays: int, restart: bool) -> str:
    async with Lab() as lab:
        one = await lab.device("dialler", wifi=lab.home(kind))
        other = await lab.device("accepter", wifi=lab.home(kind))
        async with agents(options, lab, one, other, f"relay {case}", relays=relays) as two:
            meeting = await two.meet()
            if kind == "restricted":
                await expect_direct(meeting)

            async def die() -> None:
                path = (await meeting.selected())[0]
                used = next((one for one in two.relays if path and path["addr"] == one.url), two.relays[0])
                await used.kill()
                if restart:
                    await asyncio.sleep(RELAY_DOWN)
                    await used.start()

            return await transfer(options, meeting, die, least_stall=0.0)


# -- devices that move, links that go away --------------------------------------------------------------------------

MOVES = (
    ((V4,), (V4,)),
    ((V4,), (V6,)),
    ((V6,), (V4,)),
    ((V6,), (V6,)),
    ((V4, V6), (V4,)),
    ((V4, V6), (V6,)),
    ((V4,), (V4, V6)),
    ((V6,), (V4, V6)),
)


async def uplink(options: Options) -> None:
    """Wi-Fi is left for LTE while a transfer runs; the other side has both families and stays where it is."""
    for side, (old, new) in itertools.product(("dialler", "accepter"), MOVES):
        case = f"{side} from {'+'.join(old)} to {'+'.join(new)}"

        async def switch(device: Device, agent: Agent) -> None:
            device.use("lte")

        await moved(options, "uplink", case, side, (old, new), switch, least_stall=0.0)
    for side in ("dialler", "accepter"):

        async def there_and_back(device: Device, agent: Agent) -> None:
            device.use("lte")
            await asyncio.sleep(OUTAGE)
            device.use("wifi")

        case = f"{side} from v4 to v6 and back"
        await moved(options, "uplink", case, side, ((V4,), (V6,)), there_and_back, least_stall=0.0)


async def outage(options: Options) -> None:
    """A home loses its way to the internet for some seconds; devices' own links stay up."""
    for side in ("dialler", "accepter"):

        async def cut(device: Device, agent: Agent) -> None:
            device.home.link(False)
            await asyncio.sleep(OUTAGE)
            device.home.link(True)

        await moved(options, "outage", f"{side}, {OUTAGE:.0f} s", side, ((V4,), (V4,)), cut, least_stall=OUTAGE - 1)


async def asleep(options: Options) -> None:
    """A device sleeps, is carried to another network, and wakes."""
    for side in ("dialler", "accepter"):

        async def sleep(device: Device, agent: Agent) -> None:
            agent.stop()
            device.use("lte")
            await asyncio.sleep(OUTAGE)
            agent.go_on()

        await moved(options, "asleep", f"{side}, {OUTAGE:.0f} s", side, ((V4,), (V4,)), sleep, least_stall=OUTAGE - 1)


Event = Callable[[Device, Agent], Awaitable[None]]
Families = tuple[Sequence[str], Sequence[str]]  # of the uplink before, and of the one after


async def moved(
    options: Options, scenario: str, case: str, side: str, families: Families, event: Event, *, least_stall: float
) -> None:
    """A row behind port-restricted NATs, with a relay. Where the endpoint has no relays that row is not available, and
    the easier case, where everybody has public addresses, is another row of its own."""
    relayed = await has_relays(options)
    name = f"{scenario} {case}"
    await judged(
        options, scenario, case, "goes on", moves(options, name, side, families, event, least_stall, behind_nat=True)
    )
    if not relayed:
        work = moves(options, f"{name} public", side, families, event, least_stall, behind_nat=False)
        await judged(options, scenario, f"{case}, public addresses", "goes on", work)


async def moves(
    options: Options,
    name: str,
    side: str,
    families: Families,
    event: Event,
    least_stall: float,
    *,
    behind_nat: bool,
) -> str:
    """The device on ``side`` has two uplinks of these families; who stays sends."""
    kind = "restricted" if behind_nat else "none"
    both = any(V6 in each for each in families)
    async with Lab() as lab:
        uplinks = {name: lab.home(kind, each) for name, each in zip(("wifi", "lte"), families, strict=True)}
        mover = await lab.device(side, **uplinks)
        stays = "accepter" if side == "dialler" else "dialler"
        stayer = await lab.device(stays, wifi=lab.home(kind, (V4, V6) if both else (V4,)))
        one, other = (mover, stayer) if side == "dialler" else (stayer, mover)
        async with agents(options, lab, one, other, name, relays=int(behind_nat), both=both) as two:
            meeting = await two.meet(direct=not behind_nat)
            await expect_direct(meeting)
            agent, sender = (two.one, 1) if side == "dialler" else (two.other, 0)
            return await transfer(options, meeting, lambda: event(mover, agent), least_stall=least_stall, sender=sender)


_features: dict[str, bool] = {}  # of this version: the same for every agent


async def has_relays(options: Options) -> bool:
    if not _features:
        log = options.folder / "features.log"
        async with Lab() as lab, Agent(await lab.device("asked", wifi=lab.home("none")), log) as agent:
            _features.update(agent.features)
        log.unlink()
    return _features["relays"] and _features["online"]


# -- the degradation ladder -----------------------------------------------------------------------------------------


def budget(level: int) -> float:
    return 20.0 + 10.0 * level


async def ladder(options: Options) -> None:
    """Links get worse and worse on one side: connect, find a direct path, ping."""
    for level in options.levels:
        for side in ("dialler", "accepter"):
            case = f"level {level}, {LADDER[level].name}, {side}"
            expected = f"direct and a ping in {budget(level):.0f} s"
            await judged(options, "ladder", case, expected, rung(options, level, side))


async def rung(options: Options, level: int, side: str) -> str:
    quality: Quality = LADDER[level]
    async with Lab() as lab:
        devices = {}
        for name in ("dialler", "accepter"):
            home: Home = lab.home("restricted")
            devices[name] = await lab.device(name, quality if name == side else None, options.seed, wifi=home)
        async with agents(options, lab, *devices.values(), f"ladder {level} {side}", patience=budget(level)) as two:
            deadline = time.monotonic() + budget(level)
            meeting = await two.meet(timeout=budget(level))
            seconds = await meeting.until_direct(max(0.0, deadline - time.monotonic()))
            if seconds is None:
                raise UnexpectedError(f"connected in {meeting.seconds:.1f} s, no direct path in time")
            ping = await meeting.ping(timeout=max(0.1, deadline - time.monotonic()))
            return f"connected in {meeting.seconds:.1f} s, direct {seconds:.1f} s later, ping {ping:.1f} s"


async def cables(options: Options) -> None:
    """What the links of the ladder are measured to be."""
    for level in options.levels:
        quality = LADDER[level]

        async def check(quality: Quality = quality) -> str:
            measured = await check_cable(quality, options.seed)
            if faults := measured.faults(quality):
                raise LabError("; ".join(faults))
            return (
                f"{measured.rate / 1e6:.2f} Mbit/s, {2000 * measured.delay:.0f} ms, {1000 * measured.spread:.0f} ms, "
                f"{measured.loss:.2%}, {measured.burst:.1f}"
            )

        claim = (
            f"{quality.rate / 1e6:g} Mbit/s, rtt {1000 * quality.rtt:.0f} ms, jitter {1000 * quality.jitter:.0f} ms, "
            f"loss {quality.loss:.1%}, bursts {quality.burst:g}"
        )
        await judged(options, "cables", f"level {level}, {quality.name}", claim, check())


SCENARIOS = {f.__name__: f for f in (direct, matrix, udp, relay, uplink, outage, asleep, cables, ladder)}
