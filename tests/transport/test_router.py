import asyncio

import pytest
from tidings.transport import Endpoint, Router
from tidings.transport.errors import DecodeError, ProtocolRefused, Unreachable
from tidings.transport.router import HANDLER_FAILED


async def test_each_protocol_goes_to_its_handler():
    seen = []

    async def handler(connection):
        seen.append(connection.alpn)

    async with Endpoint.bind(bind=["127.0.0.1:0"]) as a, Endpoint.bind(bind=["127.0.0.1:0"]) as b:
        async with Router(b, {b"one/1": handler, b"two/1": handler}):
            for alpn in (b"two/1", b"one/1"):
                await a.connect(b.addr(), alpn)
            with pytest.raises(ProtocolRefused):
                await a.connect(b.addr(), b"three/1")
            while len(seen) < 2:
                await asyncio.sleep(0.01)
            assert seen == [b"two/1", b"one/1"]
            assert len(b.connections()) == 2  # a handler's return does not close


@pytest.mark.parametrize("error", [DecodeError("bad bytes"), RuntimeError("a bug")])
async def test_a_handler_that_raises_costs_its_own_connection(error, caplog):
    async def bad(connection):
        raise error

    async def good(connection):
        stream = await connection.accept_bi()
        await stream.send.write(await stream.recv.read_to_end(10))
        await stream.send.finish()

    async with Endpoint.bind(bind=["127.0.0.1:0"]) as a, Endpoint.bind(bind=["127.0.0.1:0"]) as b:
        async with Router(b, {b"bad/1": bad, b"good/1": good}):
            fine = await a.connect(b.addr(), b"good/1")
            broken = await a.connect(b.addr(), b"bad/1")
            end = await asyncio.wait_for(broken.wait_closed(), 5)
            assert (end.code, end.by) == (HANDLER_FAILED, "peer")
            stream = await fine.open_bi()
            await stream.send.write(b"ok")
            await stream.send.finish()
            assert await asyncio.wait_for(stream.recv.read_to_end(10), 5) == b"ok"
    assert ("a bug" in caplog.text) == isinstance(error, RuntimeError)


async def test_closing_cancels_handlers_and_waits_for_them():
    cancelled = asyncio.Event()

    async def forever(connection):
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    async with Endpoint.bind(bind=["127.0.0.1:0"]) as a, Endpoint.bind(bind=["127.0.0.1:0"]) as b:
        router = Router(b, {b"x/1": forever})
        await a.connect(b.addr(), b"x/1")
        while not router._tasks:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        await router.aclose()
        assert cancelled.is_set()
        with pytest.raises(Unreachable):  # rather than a connection that nobody serves
            await a.connect(b.addr(), b"x/1", timeout=0.2)
