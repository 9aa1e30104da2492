import asyncio

import pytest
from tidings.transport import frame, read_frame
from tidings.transport.errors import DecodeError


async def received(connected, data):
    ours, theirs = connected
    stream = await ours.open_uni()
    await stream.write(data)
    await stream.finish()
    return await asyncio.wait_for(theirs.accept_uni(), 5)


async def test_messages_come_back_one_by_one(connected):
    stream = await received(connected, frame(b"one") + frame(b"") + frame(b"three"))
    assert [await read_frame(stream, 10) for _ in range(4)] == [b"one", b"", b"three", None]


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0", b"\0\0\0\x05abcd", b"\0\0\0\x0babcdefghijk", b"\xff\xff\xff\xffx"])
async def test_cut_and_oversize_messages_are_refused(connected, data):
    stream = await received(connected, data)
    with pytest.raises(DecodeError):
        await asyncio.wait_for(read_frame(stream, 10), 5)
