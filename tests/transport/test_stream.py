import asyncio

import pytest
from tidings.transport.engine import CONNECTION_WINDOW, STREAM_WINDOW
from tidings.transport.errors import ConnectionClosed, DecodeError, StreamReset, StreamStopped
from tidings.transport.stream import FAIR_SHARE, SEND_BUFFER, SHARED_SEND_BUFFER, SMALL_CHUNK, RecvStream


async def soon(awaitable, timeout=10):
    return await asyncio.wait_for(awaitable, timeout)


async def test_bytes_arrive_whole_in_both_directions(connected):
    ours, theirs = connected
    data = bytes(range(256)) * 8192  # 2 MiB: more than a window and a send buffer

    async def answer():
        stream = await theirs.accept_bi()
        await stream.send.write(await stream.recv.read_to_end(len(data)))
        await stream.send.finish()

    task = asyncio.create_task(answer())
    stream = await ours.open_bi()
    await stream.send.write(data)
    await stream.send.finish()
    assert await soon(stream.recv.read_to_end(len(data))) == data
    assert await soon(stream.send.stopped()) is None
    await task


async def test_a_writer_waits_for_a_reader_that_does_not_read(connected):
    ours, theirs = connected
    stream = await ours.open_uni()
    written = 0

    async def write():
        nonlocal written
        while True:
            await stream.write(bytes(65_536))
            written += 65_536

    task = asyncio.create_task(write())
    unread = await soon(theirs.accept_uni())
    await asyncio.sleep(0.3)
    stuck = written
    assert stuck <= STREAM_WINDOW + SEND_BUFFER + 65_536
    await asyncio.sleep(0.2)
    assert written == stuck
    while written <= stuck:  # reading makes room
        await soon(unread.read())
    task.cancel()


async def test_one_unread_stream_does_not_hold_another(connected):
    ours, theirs = connected
    blocked = await ours.open_uni()
    task = asyncio.create_task(blocked.write(bytes(16 << 20)))
    await soon(theirs.accept_uni())
    free = await ours.open_uni()
    await free.write(b"through")
    await free.finish()
    assert await soon((await soon(theirs.accept_uni())).read_to_end(100)) == b"through"
    task.cancel()


async def test_streams_that_are_stopped_or_reset_give_their_share_of_the_window_back(connected):
    """Otherwise a connection would stand still after CONNECTION_WINDOW bytes thrown away."""
    ours, theirs = connected
    for turn in range(3 * CONNECTION_WINDOW // STREAM_WINDOW):
        stream = await ours.open_uni()
        with pytest.raises((StreamStopped, TimeoutError)):
            async with asyncio.timeout(0.05 if turn % 2 else 10):
                task = asyncio.create_task(theirs.accept_uni())
                await stream.write(b"x")
                accepted = await task
                if turn % 2 == 0:
                    accepted.stop(1)
                await stream.write(bytes(8 << 20))
        if turn % 2:
            stream.reset(2)
            with pytest.raises(StreamReset):
                while True:
                    await soon(accepted.read())
    last = await ours.open_uni()
    await last.write(b"alive")
    await last.finish()
    assert await soon((await soon(theirs.accept_uni())).read_to_end(10)) == b"alive"


async def test_reset_reaches_the_reader_with_its_code(connected):
    ours, theirs = connected
    stream = await ours.open_bi()
    await stream.send.write(b"x")
    accepted = await soon(theirs.accept_bi())
    assert await soon(accepted.recv.read()) == b"x"
    stream.send.reset(42)
    with pytest.raises(StreamReset) as reset:
        await soon(accepted.recv.read())
    assert reset.value.code == 42
    assert str(ours.remote_id)[:10] not in str(reset.value)
    assert str(theirs.remote_id)[:10] in str(reset.value)
    with pytest.raises(RuntimeError):
        await stream.send.write(b"y")


async def test_stop_reaches_the_writer_with_its_code(connected):
    ours, theirs = connected
    stream = await ours.open_bi()
    await stream.send.write(b"x")
    accepted = await soon(theirs.accept_bi())
    accepted.recv.stop(43)
    accepted.recv.stop(44)  # the first stands
    assert await soon(stream.send.stopped()) == 43
    with pytest.raises(StreamStopped):
        await stream.send.write(b"y")
    with pytest.raises(RuntimeError):
        await accepted.recv.read()


async def test_an_empty_stream_ends_at_once(connected):
    ours, theirs = connected
    stream = await ours.open_uni()
    await stream.finish()
    await stream.finish()  # twice is once
    accepted = await soon(theirs.accept_uni())
    assert await soon(accepted.read()) == b""
    assert await soon(accepted.read()) == b""
    with pytest.raises(RuntimeError):
        await stream.write(b"late")


async def test_read_exactly_and_read_to_end_hold_their_limits(connected):
    ours, theirs = connected
    for data, read in [(b"abc", lambda s: s.read_exactly(4)), (b"abcd", lambda s: s.read_to_end(3))]:
        stream = await ours.open_uni()
        await stream.write(data)
        await stream.finish()
        with pytest.raises(DecodeError):
            await soon(read(await soon(theirs.accept_uni())))


async def test_reads_cut_chunks_where_they_are_asked_to(connected):
    ours, theirs = connected
    stream = await ours.open_uni()
    await stream.write(b"abcdefgh")
    await stream.finish()
    accepted = await soon(theirs.accept_uni())
    assert await soon(accepted.read(3)) == b"abc"
    assert await soon(accepted.read_exactly(2)) == b"de"
    assert await soon(accepted.read(100)) == b"fgh"


async def test_what_arrived_before_the_end_of_the_connection_can_be_read(connected):
    ours, theirs = connected
    stream = await ours.open_uni()
    await stream.write(b"last words")
    accepted = await soon(theirs.accept_uni())
    ours.close(9, "bye")
    await soon(theirs.wait_closed())
    assert await accepted.read() == b"last words"
    with pytest.raises(ConnectionClosed, match="bye"):
        await accepted.read()
    with pytest.raises(ConnectionClosed):
        await stream.write(b"x")
    with pytest.raises(ConnectionClosed):
        await stream.stopped()


async def test_more_streams_than_the_peer_allows_wait_and_all_arrive(connected):
    ours, theirs = connected
    count = 400

    async def ask(n):
        stream = await ours.open_bi()
        await stream.send.write(n.to_bytes(2, "big"))
        await stream.send.finish()
        return await stream.recv.read_to_end(2)

    async def serve():
        while True:
            stream = await theirs.accept_bi()
            await stream.send.write(await stream.recv.read_to_end(2))
            await stream.send.finish()

    task = asyncio.create_task(serve())
    answers = await soon(asyncio.gather(*map(ask, range(count))), 30)
    assert answers == [n.to_bytes(2, "big") for n in range(count)]
    assert not ours._recv
    task.cancel()


async def test_a_stop_that_comes_before_any_data_is_not_lost(connected):
    ours, theirs = connected
    stream = await ours.open_bi()
    stream.recv.stop(7)
    accepted = await soon(theirs.accept_bi())
    await stream.send.write(b"request")
    await stream.send.finish()
    assert await soon(accepted.recv.read_to_end(10)) == b"request"
    with pytest.raises(StreamStopped) as stopped:
        await accepted.send.write(b"answer")
    assert stopped.value.code == 7
    assert await soon(accepted.send.stopped()) == 7
    for _ in range(100):
        if not (ours._send or ours._recv or theirs._send or theirs._recv):
            break
        await asyncio.sleep(0.01)
    assert not (ours._send or ours._recv or theirs._send or theirs._recv)


async def test_a_stream_whose_end_comes_alone_leaves_nothing_behind(connected):
    ours, theirs = connected
    for _ in range(3):
        stream = await ours.open_uni()
        await stream.write(b"x")
        accepted = await soon(theirs.accept_uni())
        assert await soon(accepted.read()) == b"x"
        await stream.finish()
        assert await soon(accepted.read()) == b""
    assert not theirs.engine._read_of


async def test_all_streams_together_hold_no_more_than_the_shared_buffer(connected):
    """But each may have its fair share, so that none stands still behind the others."""
    ours, _ = connected
    count = 20
    tasks = [asyncio.create_task((await ours.open_uni()).write(bytes(4 << 20))) for _ in range(count)]
    await asyncio.sleep(1.0)
    assert ours.unacknowledged_total() <= SHARED_SEND_BUFFER + SEND_BUFFER + count * FAIR_SHARE
    late = await ours.open_uni()
    task = asyncio.create_task(late.write(bytes(1 << 20)))
    await asyncio.sleep(0.05)
    assert ours.unacknowledged(late.id) <= FAIR_SHARE
    for writer in (*tasks, task):
        writer.cancel()


def test_small_pieces_are_joined():
    class Fake:
        def credit(self, id, size, *, stream_too=True):
            pass

    stream = RecvStream(Fake(), 0)
    for n in range(5000):
        stream.on_data(bytes((n % 256, 0)), False)
    assert len(stream._chunks) <= 2 * 10_000 // SMALL_CHUNK + 1
    out = b""
    while stream._chunks:
        out += stream._take(999)
    assert out[::2] == bytes(n % 256 for n in range(5000))


async def test_the_error_that_all_share_does_not_grow(connected):
    ours, _ = connected
    stream = await ours.open_bi()
    ours.close()
    for use in (lambda: stream.send.write(b""), stream.recv.read, ours.open_bi) * 20:
        with pytest.raises(ConnectionClosed):
            await use()
    depth, at = 0, ours.closed.__traceback__
    while at is not None:
        depth, at = depth + 1, at.tb_next
    assert depth < 10
