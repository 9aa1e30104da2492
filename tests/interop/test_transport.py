"""Endpoints of PyPI ``iroh`` and of tidings, in both directions."""

import asyncio

import pytest
from tidings.transport import Endpoint, EndpointAddr, EndpointId, IpAddr, SecretKey
from tidings.transport.errors import ConnectionClosed, StreamReset, StreamStopped, WrongIdentity

from .rust import Rust, RustError, needs

pytestmark = [pytest.mark.interop, needs("iroh")]
ALPN = b"interop/1"


@pytest.fixture
async def rust():
    async with Rust("iroh") as rust:
        yield rust


@pytest.fixture
async def ours():
    async with Endpoint.bind(alpns=[ALPN], bind=["127.0.0.1:0"]) as endpoint:
        yield endpoint


def address_of(started):
    return EndpointAddr.of(EndpointId.parse(started["id"]), map(IpAddr.parse, started["addrs"]))


async def dialled_by_us(rust, ours):
    started = await rust.do("start", alpns=[ALPN.hex()])
    accepting = asyncio.create_task(rust.do("accept"))
    connection = await ours.connect(address_of(started), ALPN)
    return connection, await accepting


async def dialled_by_rust(rust, ours):
    await rust.do("start", alpns=[ALPN.hex()])
    dialling = asyncio.create_task(
        rust.do("connect", peer=str(ours.id), addrs=list(map(str, ours.bound())), alpn=ALPN.hex())
    )
    connection = await anext(ours.incoming())
    return connection, await dialling


@pytest.fixture(params=[dialled_by_us, dialled_by_rust])
async def connected(request, rust, ours):
    connection, theirs = await request.param(rust, ours)
    assert theirs["remote"] == str(ours.id)
    return connection, theirs["connection"]


async def test_a_stream_of_ours_is_echoed(rust, connected):
    connection, theirs = connected
    echo = asyncio.create_task(rust.do("echo", connection=theirs, timeout=60))
    stream = await connection.open_bi()
    data = bytes(range(256)) * 32_768  # 8 MiB
    await stream.send.write(data)
    await stream.send.finish()
    assert await stream.recv.read_to_end(len(data)) == data
    assert await echo == len(data)


async def test_a_stream_of_theirs_is_read_and_answered(rust, connected):
    connection, theirs = connected
    stream = await rust.do("open_bi", connection=theirs)
    await rust.do("write", stream=stream, data=b"ping".hex())
    accepted = await connection.accept_bi()
    assert await accepted.recv.read_to_end(100) == b"ping"
    await accepted.send.write(b"pong")
    await accepted.send.finish()
    assert await rust.do("read_to_end", stream=stream, limit=100) == b"pong".hex()


async def test_datagrams_both_ways(rust, connected):
    connection, theirs = connected
    connection.send_datagram(b"from python")
    assert await rust.do("read_datagram", connection=theirs) == b"from python".hex()
    await rust.do("send_datagram", connection=theirs, data=b"from rust".hex())
    assert await asyncio.wait_for(connection.read_datagram(), 10) == b"from rust"


async def test_reset_and_stop_arrive_with_their_codes(rust, connected):
    connection, theirs = connected
    stream = await rust.do("open_bi", connection=theirs)
    await rust.do("write", stream=stream, data=b"x".hex(), finish=False)
    accepted = await connection.accept_bi()
    assert await accepted.recv.read(1) == b"x"
    await rust.do("reset", stream=stream, code=42)
    with pytest.raises(StreamReset) as reset:
        await asyncio.wait_for(accepted.recv.read(), 10)
    assert reset.value.code == 42
    await rust.do("stop", stream=stream, code=43)
    assert await asyncio.wait_for(accepted.send.stopped(), 10) == 43
    with pytest.raises(StreamStopped):
        await accepted.send.write(b"too late")


async def test_close_arrives_with_code_and_reason(rust, connected):
    connection, theirs = connected
    await rust.do("close", connection=theirs, code=7, reason="enough")
    end = await asyncio.wait_for(connection.wait_closed(), 10)
    assert isinstance(end, ConnectionClosed)
    assert (end.code, end.reason, end.by) == (7, "enough", "peer")


async def test_another_key_than_the_dialled_one_is_refused_by_us(rust, ours):
    started = await rust.do("start", alpns=[ALPN.hex()])
    accepting = asyncio.create_task(rust.do("accept"))
    stranger = EndpointAddr.of(SecretKey.generate().public, address_of(started).addrs)
    with pytest.raises(WrongIdentity):
        await ours.connect(stranger, ALPN)
    with pytest.raises(RustError):
        await accepting


async def test_another_key_than_the_dialled_one_is_refused_by_rust(rust, ours):
    await rust.do("start", alpns=[ALPN.hex()])
    stranger = SecretKey.generate().public
    with pytest.raises(RustError):
        await rust.do("connect", peer=str(stranger), addrs=list(map(str, ours.bound())), alpn=ALPN.hex())


async def test_an_idle_connection_stays_up_by_their_heartbeat_or_ours(connected):
    connection, _ = connected
    await asyncio.sleep(6)
    assert connection.closed is None


async def until_ticket(endpoint):
    async with asyncio.timeout(5):
        while not endpoint._driver._tickets._given:
            await asyncio.sleep(0.01)


async def test_we_come_back_to_a_rust_endpoint_with_early_data():
    async with Rust("iroh") as rust, Endpoint.bind(bind=["127.0.0.1:0"]) as ours:
        started = await rust.do("start", alpns=[ALPN.hex()])
        addr = EndpointAddr.of(EndpointId.parse(started["id"]), map(IpAddr.parse, started["addrs"]))
        accepting = asyncio.create_task(rust.do("accept", timeout=20))
        first = await ours.connect(addr, ALPN)
        await accepting
        await until_ticket(ours)
        first.close()
        accepting = asyncio.create_task(rust.do("accept", timeout=20))
        connection = await ours.connect(addr, ALPN, early_data=True)
        assert connection.replayable
        stream = await connection.open_bi()
        await stream.send.write(b"early" * 100)
        await stream.send.finish()
        accepted = await accepting
        assert accepted["remote"] == str(ours.id)
        echo = asyncio.create_task(rust.do("echo", timeout=20, connection=accepted["connection"]))
        assert await stream.recv.read_to_end(limit=1000) == b"early" * 100
        await echo
        assert await connection.confirmed()


@pytest.mark.parametrize("early", [True, False])
async def test_a_rust_endpoint_comes_back_to_us(early):
    """It offers early data with every ticket that allows it."""
    options = {"early_data": [ALPN]} if early else {}
    async with Rust("iroh") as rust, Endpoint.bind(alpns=[ALPN], bind=["127.0.0.1:0"], **options) as ours:
        started = await rust.do("start", alpns=[ALPN.hex()])
        for attempt in range(3):
            dialling = asyncio.create_task(
                rust.do("connect", timeout=20, peer=str(ours.id), addrs=list(map(str, ours.bound())), alpn=ALPN.hex())
            )
            connection = await asyncio.wait_for(anext(ours.incoming()), 20)
            theirs = (await dialling)["connection"]
            assert str(connection.remote_id) == started["id"]
            assert connection.engine.tls.session_resumed is (attempt > 0)
            echo = asyncio.create_task(rust.do("echo", timeout=20, connection=theirs))
            stream = await connection.open_bi()
            await stream.send.write(b"hello")
            await stream.send.finish()
            assert await stream.recv.read_to_end(limit=1000) == b"hello"
            await echo
            assert await connection.confirmed() is (early and attempt > 0)
