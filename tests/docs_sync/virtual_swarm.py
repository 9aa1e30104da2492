"""A swarm of tidings nodes and Rust-rule peers in virtual time, what befalls them, and what must hold in the end.

Everything comes from the seed: who writes what and when, who is cut off, killed, restarted, which messages are lost.
Many entries are of one author whose secret all tidings nodes hold, so that writes and deletes of one author at one
place, or above it, meet in every order. Clocks are apart, and step.

`Swarm.check` says, once all hosts are up, nothing is cut, nothing is lost and nobody writes any more:

1. *Convergence.* Within `REPAIR` seconds all tidings nodes hold the same entries. What a Rust-rule peer alone has
   seen until then may take `RUST_REPAIR`: such a peer tells nobody on its own of what gossip lost.
2. *Nothing lost, nothing invented.* They are what the put rule makes of the writes that were acknowledged and of those
   among them that are *doubtful*: cut short by the end of their host, or fragile. An entry is fragile if a Rust-rule
   peer wrote it and its own rule may lose it before anybody has it: a tombstone, or anything at the empty key. While a
   Rust-rule peer still holds a fragile entry, that counts as acknowledged.
3. *Rows.* In each node's database aggregate, heads and arrival numbers are those of its entries (`docs_checker`).
4. *Rust-rule peers* hold nothing that was not written. Once `RUST_SYNCS` tidings nodes at most have synced with one,
   other Rust-rule peers apart, it holds exactly what the tidings nodes hold. (Left to themselves two of them may pass
   deleted entries to and fro for ever.) Halfway it may be started again, for it can lock itself out.
5. *Rest.* Each node's state for each peer is seen idle, no session is counted as running, and nothing was logged as
   an error by any host alive.
6. *Repair without joining.* With every gossip message lost from then on, one more write of each node reaches all
   within `REPAIR` seconds.
7. *Contents.* Every node gets the content of every entry within `CONTENT_REPAIR` seconds.
"""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field

from docs_checker import Model, entries_of, verify_document
from tidings.blobs import Hash
from tidings.docs_sync.model.entry import EMPTY_HASH
from tidings.docs_sync.model.keys import Author
from tidings.errors import TidingsError
from tidings.node import node as node_module
from tidings.node.node import Node
from tidings.transport import EndpointAddr, IpAddr, SecretKey
from virtual_clock import EPOCH, Complaints, EventLog, Host, virtual_world
from virtual_network import Network
from virtual_rust import RustNode, RustStore

REPAIR = 300.0  # seconds: `digests.SELDOM` and a few neighbours of 60 s each
RUST_REPAIR = 5400.0  # a Rust-rule neighbour is synced with in full every ten minutes or so, a former one seldom
CONTENT_REPAIR = 900.0
RUST_SYNCS = 6  # that a Rust-rule peer gets to come to what we hold
IDLE_WITHIN = 60.0
LAST_CUT = 200.0  # seconds at most
MOST_SKEW = 60.0  # seconds that clocks are ahead or behind
FAULTS = {"cut": 5, "heal": 5, "loss": 3, "calm": 2, "step": 2, "stop": 3, "kill": 4, "start": 6}
KEYS = [b"a", b"b", b"a/1", b"a/2", b"a/1/x", b"a/1/y", b"b/1", b"c", b"\xff", b"\xff\xff", b"a\x00"]


class Violation(AssertionError):
    """Something that must hold does not."""


@dataclass(frozen=True)
class Scenario:
    seed: int
    nodes: int = 10
    rust: int = 2
    """How many of the nodes have the Rust rule."""
    seconds: float = 180.0
    """Of edits and faults."""
    edits: int = 120
    faults: int = 24
    contents: bool = True
    repair: float = REPAIR
    """What of `REPAIR` is allowed."""


@dataclass
class Member:
    name: str
    is_rust: bool
    place: str
    secret: SecretKey
    skew: float
    directory: object
    store: RustStore | None = None
    host: Host | None = None
    node: object = None
    doc: object = None
    busy: bool = False
    """It is being started or ended."""

    @property
    def up(self):
        return self.doc is not None

    @property
    def author(self):
        """Of a Rust-rule peer."""
        return Author(self.secret.to_bytes())

    @property
    def addr(self):
        return EndpointAddr.of(self.secret.public, [IpAddr.parse(self.place)])


@dataclass
class Result:
    seed: int
    digest: str
    events: int
    entries: int
    acknowledged: int
    repaired_after: float
    gossip_repaired_after: float
    virtual_seconds: float
    counts: dict = field(default_factory=dict)


class Swarm:
    def __init__(self, scenario, loop, directory, complaints, log, mutate=None):
        self.scenario = scenario
        self._mutate = mutate
        self.loop = loop
        self.log = log
        self.complaints = complaints
        self.rng = random.Random(f"script {scenario.seed}")
        self.network = Network(scenario.seed, log)
        self.counts = {}
        self.acknowledged = {}  # (author, key, hash, timestamp): entry
        self.intended = set()  # (author, key, hash)
        self.fragile = set()
        self.shared = Author.generate()
        self.values = 0
        self.namespace = None
        self.capability = None
        self._operations = set()
        self.members = [self._member(number, directory) for number in range(scenario.nodes)]

    def _member(self, number, directory):
        is_rust = 0 < number <= self.scenario.rust
        name = f"{'rust' if is_rust else 'node'}{number}"
        skew = 0.0 if number == 0 else self.rng.uniform(-MOST_SKEW, MOST_SKEW)
        return Member(name, is_rust, f"10.0.0.{number + 1}:4433", SecretKey.generate(), skew, directory / name)

    @property
    def ours(self):
        return [member for member in self.members if not member.is_rust]

    @property
    def rusts(self):
        return [member for member in self.members if member.is_rust]

    # Nodes come and go.

    async def begin(self):
        first = self.members[0]
        await self._open_node(first)
        first.doc = await self._in(first, first.node.docs.create())
        self.namespace = first.doc.id
        self.capability = first.doc._capability
        await asyncio.gather(*(self.start(member) for member in self.members[1:]))

    async def start(self, member):
        """Start it, or start it again."""
        self._note("start", member.name)
        member.busy = True
        try:
            if member.is_rust:
                await self._start_rust(member)
                return
            known = member.node is not None
            await self._open_node(member)
            if known:
                member.doc = await self._in(member, member.node.docs.open(self.namespace))
            else:
                ticket = self.members[0].doc.ticket(write=True)
                member.doc = await self._in(member, self._join(member, ticket))
        finally:
            member.busy = False

    async def _join(self, member, ticket):
        with suppress(TidingsError):
            return await member.node.docs.join(ticket, timeout=20)
        return await member.node.docs.open(self.namespace)

    async def _open_node(self, member):
        again = member.node is not None
        member.host = Host(member.name, member.skew)

        async def open_node():
            member.directory.mkdir(parents=True, exist_ok=True)
            if not again:
                (member.directory / "identity").write_bytes(member.secret.to_bytes())
                (member.directory / "identity").chmod(0o600)
            node = await Node.open(member.directory, bind=[member.place])
            if not again:
                await node.docs._store.add_author(self.shared)
            return node

        member.node = await self._in(member, open_node())
        if self._mutate is not None:
            self._mutate(member)

    async def _start_rust(self, member):
        member.host = Host(member.name, member.skew)
        if member.store is None:
            member.store = RustStore(self.namespace)
        peers = [peer.addr for peer in self.rng.sample(self.members, min(4, len(self.members))) if peer is not member]

        async def open_rust():
            member.directory.mkdir(parents=True, exist_ok=True)
            endpoint = self.network.endpoint_class()(self.network, member.secret, [IpAddr.parse(member.place)])
            for addr in peers:
                endpoint.lookup.add(addr)
            clock = _rising(lambda: round((EPOCH + self.loop.time() + member.skew) * 1e6))
            node = RustNode(endpoint, member.store, self.capability.secret, member.author, clock, member.directory)
            await node.start(peers)
            return node

        member.node = member.doc = await self._in(member, open_rust())

    async def stop(self, member):
        """In good order."""
        self._note("stop", member.name)
        member.busy = True
        member.doc = None
        await self._in(member, member.node.aclose())
        member.busy = False

    async def kill(self, member):
        self._note("kill", member.name)
        member.busy = True
        member.doc = None
        self.network.host_died(member.host)
        await member.host.kill()
        member.busy = False

    async def _in(self, member, work):
        return await member.host.start(work)

    # Edits.

    def operate(self, member, what):
        task = member.host.start(self._operation(member, what))
        self._operations.add(task)
        task.add_done_callback(self._operations.discard)

    async def _operation(self, member, what):
        try:
            await what(member)
        except TidingsError as error:
            self.log.add(member.name, "operation failed", type(error).__name__)

    def _value(self):
        self.values += 1
        return b"value %d" % self.values

    async def write(self, member):
        key, value = self._key(), self._value()
        if member.is_rust:
            await self._write_rust(member, key, value)
            return
        author = await self._author(member)
        self._intend(author, key, bytes(Hash.of(value)))
        entry = await member.doc.set(key, value, author=author)
        self._acknowledge(entry.signed)

    async def delete(self, member):
        key = self._key() if self.rng.random() > 0.1 else b""
        if member.is_rust:
            await self._write_rust(member, key, None)
            return
        await self._batch(member, [(key, None)])

    async def batch(self, member):
        if not member.is_rust:
            values = [self._value() for _ in range(self.rng.randint(2, 25))]
            await self._batch(member, [(self._key(), value) for value in values])

    async def _batch(self, member, plan):
        author = await self._author(member)
        for key, value in plan:
            self._intend(author, key, EMPTY_HASH if value is None else bytes(Hash.of(value)))
        async with member.doc.batch(author=author) as batch:
            for key, value in plan:
                await (batch.delete(key) if value is None else batch.set(key, value))
        for entry in batch.entries:
            self._acknowledge(entry.signed)

    async def _write_rust(self, member, key, value):
        self._intend(member.author.id, key, EMPTY_HASH if value is None else bytes(Hash.of(value)))
        entry = await member.doc.write(key, value)
        if entry is not None:
            self._acknowledge(entry)
            if value is None or key == b"":
                self.fragile.add(_mark(entry))

    def _intend(self, author, key, hash):
        self.intended.add((bytes(author), key, hash))

    def _acknowledge(self, entry):
        self.acknowledged[_mark(entry)] = entry
        self.log.add("acknowledged", entry.id.key.hex(), entry.record.timestamp)

    def _key(self):
        key = self.rng.choice(KEYS)
        return key if self.rng.random() < 0.6 else key + b"/%d" % self.rng.randrange(20)

    async def _author(self, member):
        return self.shared.id if self.rng.random() < 0.6 else await member.node.docs.default_author()

    # The script.

    async def play(self):
        scenario, rng = self.scenario, self.rng
        end = self.loop.time() + scenario.seconds
        total = scenario.edits + scenario.faults
        while self.loop.time() < end:
            await asyncio.sleep(rng.expovariate(total / scenario.seconds))
            if rng.random() * total < scenario.edits:
                self._edit()
            else:
                await self._fault()
        if rng.random() < 0.5:  # so long that every connection ends, and both sides forget the other
            self._cut()
            for _ in range(rng.randrange(10)):
                await asyncio.sleep(rng.uniform(0, LAST_CUT / 10))
                self._edit()

    def _edit(self):
        rng = self.rng
        up = [member for member in self.members if member.up and not member.busy]
        what = rng.choices([self.write, self.delete, self.batch], [70, 22, 8])[0]
        member = rng.choice(up) if up else None
        for _ in range(rng.choice((1, 1, 1, 4)) if member else 0):
            self.operate(member, what)
        self._note(what.__name__, member.name if member else "nobody")

    def _cut(self):
        names = [member.name for member in self.members]
        self.rng.shuffle(names)
        where = self.rng.randint(1, len(names) - 1)
        self._note("cut", *names[:where])
        self.network.cut([names[:where], names[where:]])

    async def _fault(self):
        rng = self.rng
        up = [member for member in self.members if member.up and not member.busy]
        down = [member for member in self.members if not member.up and not member.busy]
        match rng.choices(list(FAULTS), list(FAULTS.values()))[0]:
            case "cut":
                self._cut()
            case "heal":
                self._note("heal")
                self.network.heal()
            case "loss":
                self.network.loss = rng.choice((0.1, 0.3, 0.6, 1.0))
                self._note("loss", self.network.loss)
            case "calm":
                self.network.loss = 0.0
            case "step" if up:
                member = rng.choice(up)
                member.skew = member.host.skew = rng.uniform(-MOST_SKEW, MOST_SKEW)
                self._note("step", member.name)
            case "stop" if len(up) > 2:
                self._background(self.stop(rng.choice(up)))
            case "kill" if len(up) > 2:
                self._background(self.kill(rng.choice(up)))
            case "start" if down:
                self._background(self.start(rng.choice(down)))

    def _background(self, work):
        task = asyncio.ensure_future(work)
        self._operations.add(task)
        task.add_done_callback(self._operations.discard)
        task.add_done_callback(lambda task: task.result())

    async def settle(self):
        """Everything is up, and nobody writes."""
        self.network.heal()
        self.network.loss = 0.0
        while self._operations:
            await asyncio.gather(*self._operations, return_exceptions=True)
        await asyncio.gather(*(self.start(member) for member in self.members if not member.up))
        self._note("settled")

    def _note(self, what, *args):
        self.counts[what] = self.counts.get(what, 0) + 1
        self.log.add(what, *args)

    # What must hold.

    async def check(self):
        repaired = await self._converge("edits and faults")
        await self._check_rows()
        await self._check_rusts()
        await self._check_idle()
        lost = await self._check_repair_of_gossip()
        if self.scenario.contents:
            await self._check_contents()
        await self._check_idle()
        self._check_complaints()
        return repaired, lost

    def expected(self, held, *, unseen=True):
        """What the tidings nodes must hold, given that some doubtful entries are among ``held``.

        Without ``unseen``: leaving out what Rust-rule peers wrote and is not among ``held``.
        """
        rust_held = {_mark(entry) for member in self.rusts for entry in member.store.held}
        rust_authors = {bytes(member.author.id) for member in self.rusts}
        model = Model()
        for mark, entry in self.acknowledged.items():
            lost = mark in self.fragile and mark not in rust_held
            if mark in held or not (lost or (mark[0] in rust_authors and not unseen)):
                model.put(entry)
        for mark, entry in held.items():
            if mark not in self.acknowledged:
                if (entry.id.author, entry.id.key, entry.record.hash) not in self.intended:
                    raise Violation(f"an entry that nobody wrote: {entry.id.key!r} at {entry.record.timestamp}")
                model.put(entry)
        return {_mark(entry): entry for entry in model.entries}

    async def held(self, member):
        namespace = bytes(self.namespace)
        entries = await self._in(member, member.node.database.read(lambda c: entries_of(c, namespace)))
        return {_mark(entry): entry for entry in entries}

    async def _converge(self, after):
        """Seconds until all tidings nodes hold what they must."""
        began, late = self.loop.time(), False
        while True:
            sets = {member.name: await self.held(member) for member in self.ours}
            union = {mark: entry for held in sets.values() for mark, entry in held.items()}
            expected = self.expected(union)
            took = self.loop.time() - began
            if all(held.keys() == expected.keys() for held in sets.values()):
                self.log.add("converged", len(expected))
                return 0.0 if late else took
            if took > self.scenario.repair and not late:
                self._check_only_late(sets, union, after)
                late = True
                self._count("writes late from Rust-rule peers", 1)
            if took > RUST_REPAIR:
                raise Violation(f"not repaired {RUST_REPAIR:g} s after {after}: {_differences(sets, expected)}")
            await asyncio.sleep(1.0 if not late else 10.0)

    def _check_only_late(self, sets, union, after):
        """Nothing but writes that no tidings node has seen is missing."""
        expected = self.expected(union, unseen=False)
        if any(held.keys() != expected.keys() for held in sets.values()):
            what = f"not repaired {self.scenario.repair:g} s after {after}"
            raise Violation(f"{what}: {_differences(sets, expected)}")

    async def _check_rows(self):
        namespace = bytes(self.namespace)
        for member in self.ours:
            await self._in(member, member.node.database.write(lambda c: verify_document(c, namespace, signatures=5)))

    async def _check_rusts(self):
        truth = await self.held(self.ours[0])
        for member in self.rusts:
            for entry in member.store.held:
                if _mark(entry) not in self.acknowledged and not self._was_intended(entry):
                    raise Violation(f"{member.name} holds what nobody wrote: {_show(entry)}")
            self._count("rust peers equal by themselves", _marks(member.store.held) == truth.keys())
        self.network.cut([[member.name] for member in self.rusts])
        for member in self.rusts:
            await self._sync_rust(member, truth)
        self.network.heal()

    async def _sync_rust(self, member, truth):
        for attempt in range(RUST_SYNCS):
            if attempt == RUST_SYNCS // 2:  # it believes that it syncs: who runs one has to start it again
                self._count("rust peers that had to be started again", 1)
                await self.stop(member)
                await self.start(member)
            other = self.ours[attempt % len(self.ours)]
            await self._in(other, other.doc._live.join([member.secret.public]))
            for _ in range(20):
                if _marks(member.store.held) == truth.keys():
                    return
                await asyncio.sleep(1.0)
        lacks = [_show(truth[mark]) for mark in truth.keys() - _marks(member.store.held)]
        more = [_show(entry) for entry in member.store.held if _mark(entry) not in truth]
        raise Violation(f"{member.name} after {RUST_SYNCS} syncs lacks {lacks[:5]} and has {more[:5]}")

    async def _check_idle(self):
        seen = set()
        for _ in range(round(IDLE_WITHIN / 0.5)):
            busy = set().union(*[await self._in(member, _busy(member)) for member in self.ours])
            seen = busy if not seen else seen & busy
            if not seen:
                return
            await asyncio.sleep(0.5)
        raise Violation(f"not idle at any moment of {IDLE_WITHIN:g} s: {sorted(seen)}")

    async def _check_repair_of_gossip(self):
        self.network.loss = 1.0
        for member in self.ours:
            self.operate(member, self.write)
        while self._operations:
            await asyncio.gather(*self._operations)
        repaired = await self._converge("the loss of all gossip")
        self.network.loss = 0.0
        return repaired

    async def _check_contents(self):
        began = self.loop.time()
        while True:
            missing = {member.name: await self._in(member, self._missing(member)) for member in self.ours}
            if not any(missing.values()):
                return
            if self.loop.time() - began > CONTENT_REPAIR:
                raise Violation(f"contents that did not come in {CONTENT_REPAIR:g} s: {missing}")
            await asyncio.sleep(5.0)

    async def _missing(self, member):
        held = await self.held(member)
        return [_show(entry) for entry in held.values() if not await member.node.blobs.has(Hash(entry.record.hash))]

    def _check_complaints(self):
        if self.complaints.found:
            raise Violation(f"{len(self.complaints.found)} errors were logged: " + "; ".join(self.complaints.found[:5]))

    def _was_intended(self, entry):
        return (entry.id.author, entry.id.key, entry.record.hash) in self.intended

    def _count(self, what, number):
        self.counts[what] = self.counts.get(what, 0) + number

    async def end(self):
        for member in self.members:
            if member.up:
                await self.stop(member)
        left = [task for member in self.members for task in member.host.tasks]
        if left:
            raise Violation(f"tasks that outlive their node: {left[:5]}")
        await asyncio.sleep(1.0)
        open_ones = [connection for connection in self.network.connections if connection.closed is None]
        if any(connection.host.alive for connection in open_ones):
            raise Violation(f"{len(open_ones)} connections outlive their nodes")


async def _busy(member):
    """What of a node's engine is not idle."""
    status = await member.doc.status()
    busy = {(member.name, f"{peer.state} with {peer.peer.short()}") for peer in status.peers if peer.state != "idle"}
    served = member.node.docs._context.admittance.total
    return busy | ({(member.name, f"{served} syncs served")} if served else set())


def _differences(sets, expected):
    wrong = []
    for name, held in sets.items():
        lacks = [_show(expected[mark]) for mark in expected.keys() - held.keys()]
        more = [_show(held[mark]) for mark in held.keys() - expected.keys()]
        if lacks or more:
            wrong.append(f"{name} lacks {sorted(lacks)[:5]} ({len(lacks)}), has {sorted(more)[:5]} ({len(more)})")
    return "; ".join(wrong)


def _mark(entry):
    return entry.id.author, entry.id.key, entry.record.hash, entry.record.timestamp


def _marks(entries):
    return {_mark(entry) for entry in entries}


def _show(entry):
    what = "tombstone" if entry.record.is_tombstone else "entry"
    return f"{what} {entry.id.key!r} of {entry.id.author[:3].hex()} at {entry.record.timestamp / 1e6 - EPOCH:.6f}"


def _rising(clock):
    last = 0

    def read():
        nonlocal last
        last = max(clock(), last + 1)
        return last

    return read


def run(scenario, directory, *, mutate=None, lines=None):
    """The whole of one seed. Raises Violation.

    ``mutate(member)`` may break a tidings node just after it was opened; ``lines`` gets all that happens.
    """
    complaints, log = Complaints(), EventLog(lines)
    with virtual_world(scenario.seed, complaints) as loop:
        endpoint = node_module.Endpoint
        try:
            return loop.run_until_complete(_run(scenario, loop, directory, complaints, log, mutate))
        finally:
            node_module.Endpoint = endpoint
            _end_tasks(loop)


async def _run(scenario, loop, directory, complaints, log, mutate):
    swarm = Swarm(scenario, loop, directory, complaints, log, mutate)
    node_module.Endpoint = swarm.network.endpoint_class()
    await swarm.begin()
    await swarm.play()
    await swarm.settle()
    repaired, lost = await swarm.check()
    entries = len(await swarm.held(swarm.ours[0]))
    await swarm.end()
    counts = swarm.counts | {"packets": swarm.network.packets, "lost messages": swarm.network.lost}
    return Result(
        scenario.seed,
        log.digest,
        log.count,
        entries,
        len(swarm.acknowledged),
        repaired,
        lost,
        loop.time(),
        counts,
    )


def _end_tasks(loop):
    """After a violation."""
    tasks = asyncio.all_tasks(loop)
    for _ in range(20):
        for task in tasks:
            task.cancel()
        with suppress(Exception):
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0) if tasks else asyncio.sleep(0))
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            return
