import asyncio

import pytest
from tidings.transport.connection import MAX_DATAGRAMS, MAX_UNACCEPTED, OVERLOADED
from tidings.transport.errors import ConnectionClosed, DatagramTooLarge


async def soon(awaitable, timeout=10):
    return await asyncio.wait_for(awaitable, timeout)


async def test_both_ends_know_the_other(pair, connected):
    (a, b), (ours, theirs) = pair, connected
    assert (ours.remote_id, theirs.remote_id) == (b.id, a.id)
    assert ours.alpn == theirs.alpn == b"test/1"
    assert (ours.is_client, theirs.is_client) == (True, False)
    (path,) = ours.paths()
    assert path.kind == "direct"
    assert path.selected
    assert path.addr == b.bound()[0]
    assert 0 < ours.rtt < 1


async def test_datagrams_of_every_size_up_to_the_limit(connected):
    ours, theirs = connected
    for size in (0, 1, 100, ours.max_datagram_size):
        ours.send_datagram(bytes(size))
        assert await soon(theirs.read_datagram()) == bytes(size)


async def test_a_datagram_that_does_not_fit_is_refused_and_blocks_nothing(connected):
    ours, theirs = connected
    with pytest.raises(DatagramTooLarge, match=str(ours.max_datagram_size)):
        ours.send_datagram(bytes(ours.max_datagram_size + 1))
    ours.send_datagram(b"next")
    assert await soon(theirs.read_datagram()) == b"next"


async def test_datagram_queues_are_bounded_on_both_sides(connected):
    ours, theirs = connected
    for _ in range(MAX_DATAGRAMS + 100):
        ours.send_datagram(b"burst")
    assert ours.dropped_datagrams == 100
    for _ in range(3):
        await asyncio.sleep(0.05)
        for _ in range(500):
            ours.send_datagram(b"more")
    await asyncio.sleep(0.2)
    assert len(theirs._received) <= MAX_DATAGRAMS


async def test_close_tells_everybody_who_waits(connected):
    ours, theirs = connected
    waits = [
        asyncio.create_task(wait)
        for wait in (theirs.accept_bi(), theirs.accept_uni(), theirs.read_datagram(), ours.accept_bi())
    ]
    await asyncio.sleep(0)
    ours.close(17, "done here")
    ours.close(18, "twice is once")
    end = await soon(theirs.wait_closed())
    assert (end.code, end.reason, end.by, end.application) == (17, "done here", "peer", True)
    assert ours.closed is not None
    assert (ours.closed.code, ours.closed.by) == (17, "local")
    for wait in waits:
        with pytest.raises(ConnectionClosed):
            await soon(wait)
    for use in (lambda: ours.send_datagram(b""), lambda: theirs.send_datagram(b"")):
        with pytest.raises(ConnectionClosed):
            use()
    with pytest.raises(ConnectionClosed):
        await ours.open_bi()


async def test_a_long_reason_is_cut_at_a_character(connected):
    ours, theirs = connected
    ours.close(1, "ä" * 500)
    end = await soon(theirs.wait_closed())
    assert end.reason == "ä" * 100


async def test_streams_that_nobody_accepts_end_the_connection_at_a_bound(connected):
    ours, theirs = connected
    with pytest.raises(ConnectionClosed):
        for _ in range(MAX_UNACCEPTED + 200):
            stream = await soon(ours.open_uni())
            await stream.write(b"x")
            await stream.finish()
    assert (await soon(ours.wait_closed())).code == OVERLOADED
    assert len(theirs._uni) <= MAX_UNACCEPTED


async def test_a_cancelled_wait_leaves_nothing_behind(connected):
    _, theirs = connected
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await theirs.accept_bi()
    assert not theirs._waiting.get("bi")


async def test_unread_datagrams_are_bounded_in_bytes(connected, monkeypatch):
    monkeypatch.setattr("tidings.transport.connection.MAX_DATAGRAM_BYTES", 5000)
    ours, theirs = connected
    for n in range(10):
        ours.send_datagram(bytes((n,)) * 1000)
    while theirs.dropped_datagrams < 5:
        await asyncio.sleep(0.01)
    assert [(await theirs.read_datagram())[0] for _ in range(5)] == [5, 6, 7, 8, 9]
    assert theirs._received_size == 0
