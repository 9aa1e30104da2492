"""An author's times only go forward: over writes, documents, restarts, and a clock that is set back and forth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from docs_model import AUTHORS
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.errors import ClockBehind, TooFarAhead
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.entry import Record, sign_entry
from tidings.docs_sync.model.keys import Author, NamespaceSecret
from tidings.docs_sync.model.validity import MAX_AHEAD_US
from tidings.docs_sync.store.documents import SIGN_AHEAD, DocsStore, NewEntry
from tidings.storage import Database

SECRETS = [NamespaceSecret(bytes([n]) * 32) for n in (1, 2)]
CAPABILITIES = [Capability(secret.id, secret) for secret in SECRETS]
ALICE, BOB = AUTHORS[:2]
START_US = 1_700_000_000_000_000
MINUTE = 60_000_000
HOUR = 60 * MINUTE


class Device:
    """A store and a clock that the test sets. `restart` keeps what is in the database alone."""

    def __init__(self, path: Path) -> None:
        self.now = START_US
        self._path = path

    async def start(self) -> None:
        self.database = await Database.open(self._path)
        self.store = DocsStore(self.database, clock=lambda: self.now)
        for capability in CAPABILITIES:
            await self.store.add_namespace(capability)
        for author in (ALICE, BOB):
            await self.store.add_author(author)

    async def stop(self) -> None:
        await self.store.aclose()
        await self.database.aclose()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def write(self, *, author: Author = ALICE, document: int = 0, count: int = 1) -> list[int]:
        """The times that were given."""
        batch = [NewEntry(b"key/%03d" % n, bytes(32), 1) for n in range(count)]
        written = await self.store.write_batch(CAPABILITIES[document], author, batch)
        for entry, _ in written:
            held = await self.store.get(CAPABILITIES[document].id, entry.id.key, entry.id.author)
            assert held is not None
            assert held.record.timestamp >= entry.record.timestamp  # more, where another task wrote meanwhile
        return [each.entry.record.timestamp for each in written]

    async def receive(self, timestamp: int, *, author: Author = ALICE, document: int = 0) -> object:
        """From another device of the author."""
        entry = sign_entry(SECRETS[document], author, b"other", Record(1, bytes(32), timestamp))
        (outcome,) = (await self.store.insert(CAPABILITIES[document].id, [entry])).outcomes
        return outcome


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    device = Device(tmp_path / "node.db")
    await device.start()
    yield device
    await device.stop()


def assert_forward(times: list[int]) -> None:
    assert all(earlier < later for earlier, later in pairwise(times))


async def test_the_time_is_the_clocks_where_that_goes_forward(device: Device) -> None:
    assert await device.write() == [START_US]
    device.now += 5
    assert await device.write() == [START_US + 5]
    assert await device.write(author=BOB) == [START_US + 5]


async def test_a_clock_that_stands_still(device: Device) -> None:
    """Microseconds are coarse for some machines. One entry replaces the other in the order of the writes."""
    for _ in range(3):
        times = await device.write() + await device.write(count=40) + await device.write()
        assert_forward(times)
    assert_forward(await device.write(document=0) + await device.write(document=1) + await device.write(document=0))


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("count", [1, SIGN_AHEAD + 10])
async def test_nine_minutes_back(device: Device, restarts: bool, count: int) -> None:
    """Writes go on: what follows the author's newest entry is within what every peer accepts."""
    times = await device.write(count=count)
    device.now -= 9 * MINUTE
    for _ in range(3):
        if restarts:
            await device.restart()
        times += await device.write(count=count)
        times += await device.write(count=count, document=1)
    assert_forward(times)
    assert times[-1] < START_US + 10 * count
    device.now = START_US + MINUTE
    assert (await device.write())[0] == START_US + MINUTE


@pytest.mark.parametrize("restarts", [False, True])
async def test_ahead_and_back(device: Device, restarts: bool) -> None:
    """Nine minutes are within what every peer accepts: all later writes go on from there."""
    times = await device.write()
    device.now += 9 * MINUTE
    times += await device.write(count=30)
    device.now -= 9 * MINUTE
    if restarts:
        await device.restart()
    for _ in range(5):
        times += await device.write(count=30)
        device.now += MINUTE
    assert_forward(times)
    device.now = START_US + 10 * MINUTE
    assert await device.write() == [START_US + 10 * MINUTE]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("count", [1, SIGN_AHEAD + 10])
@pytest.mark.parametrize("minutes", [20, 60])
async def test_far_back(device: Device, restarts: bool, count: int, minutes: int) -> None:
    """No peer would take an entry that is 20 minutes ahead, and an older one would change nothing: the write says so,
    until the clock is near."""
    device.now += minutes * MINUTE
    times = await device.write(count=count)
    device.now -= minutes * MINUTE
    if restarts:
        await device.restart()
    for document in (0, 1):
        with pytest.raises(ClockBehind, match=rf"{minutes} minutes ahead.*set the clock, or write as another author"):
            await device.write(count=count, document=document)
    before = await device.store.summary(CAPABILITIES[0].id)
    assert await device.write(author=BOB, count=count) == [START_US + n for n in range(count)]
    assert (await device.store.summary(CAPABILITIES[0].id)).size == before.size + count
    device.now += (minutes - 10) * MINUTE + 10 * count
    times += await device.write(count=count) + await device.write(count=count, document=1)
    assert_forward(times)
    assert times[-1] <= device.now + MAX_AHEAD_US


async def test_another_device_of_the_author_is_ahead(device: Device) -> None:
    """What it wrote is superseded by what is written after it came, although this clock is behind."""
    assert await device.write() == [START_US]
    await device.receive(START_US + 8 * MINUTE)
    assert await device.write() == [START_US + 8 * MINUTE + 1]
    await device.restart()
    assert_forward([START_US + 8 * MINUTE + 1, *await device.write()])
    refused = await device.receive(START_US + MAX_AHEAD_US + 1)
    assert isinstance(refused, TooFarAhead)
    assert (await device.write())[0] < START_US + 9 * MINUTE


async def test_writes_at_the_same_time(device: Device) -> None:
    rng = random.Random(3)
    written: list[tuple[int, ...]] = []

    async def write() -> None:
        for _ in range(10):
            device.now += rng.randrange(-MINUTE // 5, MINUTE // 10)
            written.append(tuple(await device.write(count=rng.choice((1, 3, 40)), document=rng.randrange(2))))

    await asyncio.gather(*(write() for _ in range(4)))
    written.sort()
    assert_forward([time for times in written for time in times])


steps = st.one_of(
    st.tuples(st.just("set clock"), st.integers(-2 * HOUR, 2 * HOUR)),
    st.tuples(st.just("pass"), st.integers(0, 15 * MINUTE)),
    st.tuples(st.just("write"), st.sampled_from((1, 2, SIGN_AHEAD))),
    st.tuples(st.just("receive"), st.integers(-HOUR, MAX_AHEAD_US)),
    st.tuples(st.just("restart"), st.just(0)),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(steps, max_size=25), st.randoms(use_true_random=False))
def test_times_go_forward_whatever_the_clock_does(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int]], rng: random.Random
) -> None:
    async def main() -> None:
        device = Device(tmp_path_factory.mktemp("clock") / "node.db")
        await device.start()
        times, known = [0], [0, 0]  # known: the newest of the author in each document
        for step, number in history:
            document = rng.randrange(2)
            match step:
                case "set clock" | "pass":
                    device.now += number
                case "restart":
                    await device.restart()
                case "receive":
                    await device.receive(device.now + number, document=document)
                    known[document] = max(known[document], device.now + number)
                case _:
                    last = max(times[-1], known[document])
                    try:
                        given = await device.write(count=number, document=document)
                    except ClockBehind:
                        assert last + number > device.now + MAX_AHEAD_US
                    else:
                        assert given == [max(device.now, last + 1) + n for n in range(number)]
                        times += given
                        known[document] = given[-1]
        assert_forward(times)
        await device.stop()

    asyncio.run(main())
