"""What a node lets its peers do: hooks, events, the quota, and turns."""

import asyncio
from pathlib import Path

import pytest
from tidings.blobs import (
    BlobSettings,
    Hash,
    Measured,
    Meter,
    NotProvided,
    ProvidersExhausted,
    QuotaExceeded,
    Refused,
    RequestEvent,
)
from tidings.blobs.turns import Turns
from tidings.errors import UsageError
from tidings.transport import EndpointId

from .peers import MakePeer
from .peers import peers as peers

A, B = bytes(range(250)) * 400, b"b" * 50_000


async def test_a_hook_may_wait_and_is_asked_for_each_blob_of_a_collection(peers: MakePeer) -> None:
    asked: list[Hash] = []

    async def allow(peer: EndpointId, hash: Hash) -> bool:
        asked.append(hash)
        await asyncio.sleep(0)
        return hash != Hash.of(B)

    a, b = await peers(allow=allow), await peers()
    one, two = await a.blobs.add_bytes(A), await a.blobs.add_bytes(B)
    await b.blobs.fetch(one.hash, [a.endpoint.addr()])
    with pytest.raises(ProvidersExhausted) as refused:
        await b.blobs.fetch(two.hash, [a.endpoint.addr()])
    assert isinstance(refused.value.reasons[str(a.endpoint.id)], Refused)
    folder = await a.blobs.add_collection([("one", one.hash), ("two", two.hash)])
    with pytest.raises(ProvidersExhausted):
        await b.blobs.fetch_collection(folder.hash, [a.endpoint.addr()])
    assert not await b.blobs.has(two.hash)
    assert set(asked) > {one.hash, two.hash, folder.hash}


async def test_a_hook_that_fails_refuses(peers: MakePeer) -> None:
    def allow(peer: EndpointId, hash: Hash) -> bool:
        raise RuntimeError("the table of rights is not here")

    a, b = await peers(allow=allow), await peers()
    blob = await a.blobs.add_bytes(A)
    with pytest.raises(ProvidersExhausted):
        await b.blobs.fetch(blob.hash, [a.endpoint.addr()], retries=0)


async def test_events(peers: MakePeer) -> None:
    events: list[RequestEvent] = []

    def on_request(event: RequestEvent) -> None:
        events.append(event)
        raise RuntimeError("of the program, not of tidings")

    a, b = await peers(allow=lambda _, blob: blob != Hash.of(B), on_request=on_request), await peers()
    blob = await a.blobs.add_bytes(A)
    await b.blobs.fetch(blob.hash, [a.endpoint.addr()])
    with pytest.raises(ProvidersExhausted):
        await b.blobs.fetch(Hash.of(B), [a.endpoint.addr()])
    with pytest.raises(Refused):
        await b.blobs.push(blob.hash, a.endpoint.addr())
    missing = Hash.of(b"nobody has it")
    with pytest.raises(ProvidersExhausted):
        await b.blobs.fetch(missing, [a.endpoint.addr()], retries=0)
    seen = [(event.kind, event.hash, event.state) for event in events if event.kind != "observe"]
    assert seen == [
        ("get", blob.hash, "started"),
        ("get", blob.hash, "done"),
        ("get", Hash.of(B), "refused"),
        ("push", blob.hash, "refused"),
        ("get", missing, "started"),
        ("get", missing, "broken"),
    ]
    assert {event.peer for event in events} == {b.endpoint.id}
    assert events[1].sent > len(A)
    assert events[1].seconds > 0


async def test_a_quota_holds_for_all_that_comes(peers: MakePeer, tmp_path: Path) -> None:
    a = await peers()
    b = await peers(quota=300_000, allow_push=lambda *_: True)
    (tmp_path / "file").write_bytes(bytes(1) + A)
    kept = await b.blobs.add_bytes(A + A, tag="old")
    with pytest.raises(QuotaExceeded, match="200000 bytes of 300000, and 100001 more"):
        await b.blobs.add_path(tmp_path / "file")
    await b.blobs.add_path(tmp_path / "file", refer=True)
    with pytest.raises(QuotaExceeded):
        await b.blobs.add_bytes(b"c" * 100_001)
    large = await a.blobs.add_bytes(b"d" * 5_000_000)
    small = [(await a.blobs.add_bytes(bytes([i]) * 16_000)) for i in range(10)]
    folder = await a.blobs.add_collection([(str(i), info.hash) for i, info in enumerate(small)])
    with pytest.raises(QuotaExceeded):
        await b.blobs.fetch(large.hash, [a.endpoint.addr()])
    with pytest.raises(QuotaExceeded):
        await b.blobs.fetch_collection(folder.hash, [a.endpoint.addr()])
    with pytest.raises(Refused):
        await a.blobs.push(large.hash, b.endpoint.addr())
    assert await b.blobs.read(kept.hash) == A + A
    await b.blobs.tags.delete("old")
    await b.blobs.collect(grace=0)
    await b.blobs.fetch_collection(folder.hash, [a.endpoint.addr()])


async def test_a_range_of_a_blob_above_the_quota(peers: MakePeer) -> None:
    a, b = await peers(), await peers(quota=500_000)
    blob = await a.blobs.add_bytes(b"e" * 10_000_000)
    async with b.blobs.open(blob.hash, [a.endpoint.addr()]) as file:
        await file.seek(5_000_000)
        assert await file.read(100_000) == b"e" * 100_000


@pytest.mark.parametrize("wrong", [{"downloads": 0}, {"upload_rate": 0}, {"quota": -1}])
def test_settings_that_make_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        BlobSettings(**wrong)


async def test_fetches_wait_for_their_turn_by_priority(peers: MakePeer) -> None:
    a, b = await peers(upload_rate=2_000_000), await peers(downloads=1)
    blobs = [await a.blobs.add_bytes(bytes([i]) * 200_000) for i in range(4)]
    done: list[int] = []

    async def fetch(number: int, priority: int) -> None:
        await b.blobs.fetch(blobs[number].hash, [a.endpoint.addr()], priority=priority)
        done.append(number)

    async with asyncio.TaskGroup() as group:
        for number, priority in enumerate((0, -1, 0, 5)):
            group.create_task(fetch(number, priority))
    assert done == [0, 3, 2, 1]


async def test_a_turn_that_is_given_to_who_was_cancelled_is_passed_on() -> None:
    turns, order = Turns(1), list[str]()

    async def use(name: str) -> None:
        async with turns.take():
            order.append(name)

    async with turns.take():
        tasks = [asyncio.create_task(use(name)) for name in ("first", "second", "third")]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
    tasks[1].cancel()  # its turn has come, and it has not run since
    await asyncio.wait_for(tasks[2], 5)
    assert order == ["third"]
    async with asyncio.timeout(5), turns.take():
        pass


async def test_many_blobs_by_few_requests(peers: MakePeer) -> None:
    requests: list[RequestEvent] = []
    a, b = await peers(on_request=requests.append), await peers()
    datas = [bytes([i % 251]) * (1 + i * 937 % 40_000) for i in range(300)]
    infos = [await a.blobs.add_bytes(data) for data in datas]
    hashes = [info.hash for info in infos]
    assert await b.blobs.fetch_many(hashes + hashes[:2], [a.endpoint.addr()]) == infos + infos[:2]
    assert [await b.blobs.read(hash) for hash in hashes] == datas
    assert [event.kind for event in requests if event.state == "started"] == ["get_many"]
    with pytest.raises(ProvidersExhausted, match="1 of 3 blobs") as failed:
        await b.blobs.fetch_many([Hash.of(b"?"), *hashes[:2]], [a.endpoint.addr()], stall_timeout=2)
    assert isinstance(failed.value.reasons[str(a.endpoint.id)], NotProvided)


async def test_reading_does_not_wait_for_a_fetch_of_all(peers: MakePeer) -> None:
    a, b = await peers(upload_rate=1_000_000), await peers()
    data = b"".join(i.to_bytes(4) for i in range(2_000_000))
    blob = await a.blobs.add_bytes(data)
    fetching = asyncio.create_task(b.blobs.fetch(blob.hash, [a.endpoint.addr()]))
    await asyncio.sleep(0.3)
    async with b.blobs.open(blob.hash, [a.endpoint.addr()]) as file:
        await file.seek(7_000_000)
        assert await file.read(1000) == data[7_000_000:7_001_000]
    assert not fetching.done()
    fetching.cancel()


def test_a_meter_knows_speed_and_time_left() -> None:
    now, seen = [100.0], list[Measured]()
    meter = Meter(seen.append, clock=lambda: now[0])
    meter(1000, 9000)  # of an earlier run
    for second in range(1, 5):
        now[0] = 100.0 + second
        meter(1000 + second * 1000, 9000)
    assert seen[0] == Measured(1000, 9000, 0.0, None)
    assert seen[-1] == Measured(5000, 9000, 1000.0, 4.0)
    for second in range(5, 12):
        now[0] = 100.0 + second
        meter(5000, 9000)
    assert seen[-1].rate == 0
    assert seen[-1].seconds_left is None
    meter(9000, 9000)
    assert seen[-1].seconds_left == 0
