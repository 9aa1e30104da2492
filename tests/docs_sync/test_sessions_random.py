"""The syncs of a document whatever happens to them: refused, failed, stuck, cancelled, crossed. Nothing stays locked.

The links are made up; the rest is the real engine on a real loop, with short delays.
"""

import asyncio
from random import Random

import pytest
from docs_net import eventually
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.errors import DocumentClosed, NotAllowed, SyncRefused, SyncTimeout, SyncViolation
from tidings.docs_sync.model.keys import NamespaceId
from tidings.docs_sync.model.messages import AbortReason
from tidings.docs_sync.model.reconcile import Tally
from tidings.docs_sync.sync import sessions as module
from tidings.docs_sync.sync import sync_state
from tidings.docs_sync.sync.dialer import Dialer
from tidings.docs_sync.sync.sessions import SessionContext, Sessions
from tidings.transport import SecretKey
from tidings.transport.errors import ConnectionClosed, DecodeError, Unreachable

ME, *PEERS = sorted((SecretKey(bytes([n]) * 32).public for n in range(1, 5)), key=bytes)
NAMESPACE = NamespaceId(bytes(32))
ERRORS = {
    "unreachable": Unreachable("nobody there"),
    "not allowed": NotAllowed("no"),
    "not found": SyncRefused("not found", AbortReason.NOT_FOUND),
    "crossed": SyncRefused("already syncing", AbortReason.ALREADY_SYNCING),
    "lost": ConnectionClosed(0, "lost", by="network"),
    "violation": SyncViolation("too long"),
    "garbage": DecodeError("garbage"),
    "slow": TimeoutError(),
    "bug": ZeroDivisionError(),
}
OUTCOMES = ["ok", "stuck", "cancelled", *ERRORS]


@pytest.fixture(autouse=True, scope="module")
def quickly():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, "OPEN_TIMEOUT", 0.02)
        monkeypatch.setattr(module, "SUPERSEDE_GRACE", 0.005)
        monkeypatch.setattr(sync_state, "RETRY_FIRST", 0.002)
        monkeypatch.setattr(sync_state, "RETRY_MOST", 0.02)
        yield


class World:
    """Links, calls, the live document and the endpoint in one."""

    def __init__(self, outcomes: list[tuple[str, str]], me=ME) -> None:
        self.id = me
        self.outcomes = outcomes
        self.running = 0
        self.opened = 0
        self.closed = 0
        self.finished = 0
        self.over = asyncio.Event()  # from now on everything goes well
        self.context = SessionContext(self, None, self, Random(1), Dialer(Random(1)), None, None)
        self.sessions = Sessions(self.context, NAMESPACE, self)

    @property
    def endpoint(self):
        return self

    def next(self) -> tuple[str, str]:
        return self.outcomes.pop(0) if self.outcomes and not self.over.is_set() else ("ok", "ok")

    async def meet(self, outcome: str) -> None:
        if outcome == "stuck":
            await self.over.wait()
        elif outcome == "cancelled":
            asyncio.current_task().cancel()
        await asyncio.sleep(0)
        if outcome in ERRORS:
            raise ERRORS[outcome]

    # Links

    async def open_sync(self, peer, namespace, on_stored, prefix=None):
        opening, dialling = self.next()
        await self.meet(opening)
        self.opened += 1
        return Sync(self, peer, dialling)

    # Host

    async def stored(self, peer, values, missing) -> None: ...

    async def synced(self, event, tally) -> None:
        self.finished += 1

    def is_known(self, peer) -> bool:
        return not self.over.is_set()

    def nearest(self):
        return PEERS


class Sync:
    """A session of either side."""

    def __init__(self, world: World, peer, outcome: str, admits: bool = True) -> None:
        self.world = world
        self.peer = peer
        self.outcome = outcome
        self.prefix = None
        self.admits = admits
        self.tally = Tally()

    async def dial(self) -> None:
        self.world.running += 1
        try:
            await self.world.meet(self.outcome)
        finally:
            self.world.running -= 1

    async def aclose(self) -> None:
        self.world.closed += 1
        await asyncio.sleep(0)

    async def admit(self) -> bool:
        await asyncio.sleep(0)
        return self.admits

    async def refuse(self, reason) -> None:
        await asyncio.sleep(0)

    async def accept(self, on_stored) -> None:
        await self.dial()


async def settled(world: World) -> None:
    """Everything that runs goes well from now on: then nothing is left."""
    world.over.set()

    async def done() -> bool:
        idle = not (world.sessions._peers or world.sessions._queued or world.sessions._dialling)
        return idle and not world.sessions._accepting and not world.context.tasks._tasks

    await eventually(done, 5)
    assert world.running == 0
    assert world.opened == world.closed
    assert world.context.admittance.total == 0
    queue = world.context.dialer._queue
    assert queue._running == 0
    assert not any(each.urgent or each.patient or each.running for each in queue._peers.values())


steps = st.lists(
    st.tuples(
        st.sampled_from(["want", "want", "call", "call", "synced", "wait", "cancel"]),
        st.integers(0, len(PEERS) - 1),
        st.sampled_from(OUTCOMES),
        st.booleans(),
    ),
    max_size=25,
)
outcomes = st.lists(
    st.tuples(st.sampled_from(["ok", "ok", *OUTCOMES]), st.sampled_from(["ok", *OUTCOMES])), max_size=40
)


@settings(max_examples=50, deadline=None)
@given(steps, outcomes, st.booleans())
def test_whatever_happens_every_peer_ends_idle(steps: list, outcomes: list, smallest: bool) -> None:
    async def run() -> None:
        world = World(list(outcomes), ME if smallest else PEERS[-1])
        calls: list[asyncio.Task] = []
        for step, number, outcome, flag in steps:
            peer = PEERS[number]
            match step:
                case "want":
                    world.sessions.want(peer, "report")
                case "call":
                    calls.append(asyncio.create_task(world.sessions.accept(Sync(world, peer, outcome, flag))))
                case "synced":
                    calls.append(asyncio.create_task(world.sessions.synced(peer if flag else None, 0.02)))
                case "wait":
                    await asyncio.sleep(0.003 * flag)
                case "cancel" if calls:
                    calls[number % len(calls)].cancel()
        await asyncio.sleep(0.01)
        await settled(world)
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert result is None or isinstance(result, module.Synced | SyncTimeout | asyncio.CancelledError)
        world.sessions.want(PEERS[0], "asked")  # and all goes on as at the beginning
        assert world.sessions._peers or world.id == PEERS[0]
        await settled(world)
        await world.sessions.aclose()

    asyncio.run(run())


@settings(max_examples=30, deadline=None)
@given(steps, outcomes)
def test_closed_at_any_moment(steps: list, outcomes: list) -> None:
    async def run() -> None:
        world = World(list(outcomes))
        calls: list[asyncio.Task] = []
        for step, number, outcome, flag in steps:
            if step == "want":
                world.sessions.want(PEERS[number], "report")
            elif step == "call":
                calls.append(asyncio.create_task(world.sessions.accept(Sync(world, PEERS[number], outcome, flag))))
            elif step == "synced":
                calls.append(asyncio.create_task(world.sessions.synced(PEERS[number], 5)))
            else:
                await asyncio.sleep(0.002 * flag)
        async with asyncio.timeout(2):
            await world.sessions.aclose()
            results = await asyncio.gather(*calls, return_exceptions=True)
        expected = module.Synced | DocumentClosed | asyncio.CancelledError
        assert all(result is None or isinstance(result, expected) for result in results)
        world.sessions.want(PEERS[0], "asked")
        assert not world.sessions._dialling
        assert world.running == 0
        assert world.context.admittance.total == 0
        await world.context.tasks.aclose()

    asyncio.run(run())


async def test_who_waits_is_served_first() -> None:
    world = World([("stuck", "ok")] * 100)
    others = [Sessions(world.context, NamespaceId(bytes([n]) * 32), world) for n in range(1, 60)]
    for each in others:
        each.want(PEERS[0], "again")
    async with asyncio.timeout(5):
        world.outcomes.insert(0, ("ok", "ok"))
        assert (await world.sessions.synced(PEERS[1], 5)).peer == PEERS[1]
    world.over.set()
    for each in others:
        await each.aclose()
    await settled(world)


async def test_a_sync_that_ran_before_does_not_count() -> None:
    world = World([("ok", "stuck"), ("ok", "ok")])
    world.sessions.want(PEERS[0], "report")

    async def runs() -> bool:
        return world.running == 1

    await eventually(runs)
    waiting = asyncio.ensure_future(world.sessions.synced(PEERS[0], 5))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    world.over.set()
    await waiting
    assert world.opened == 2
    await settled(world)


async def test_a_call_does_not_stand_for_ours() -> None:
    """What the peer sent at the beginning of its own may be older than the call of `synced`."""
    world = World([])
    waiting = asyncio.ensure_future(world.sessions.synced(PEERS[0], 5))
    await asyncio.gather(*(world.sessions.accept(Sync(world, PEERS[0], "ok")) for _ in range(5)))
    await waiting
    assert world.opened >= 1
    await settled(world)
