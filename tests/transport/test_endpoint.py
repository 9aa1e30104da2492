import asyncio

import pytest
from tidings.errors import UsageError
from tidings.transport import Endpoint, EndpointAddr, IpAddr, SecretKey
from tidings.transport.errors import (
    ConnectionClosed,
    EndpointClosed,
    InvalidAddress,
    InvalidKey,
    ProtocolRefused,
    Unreachable,
    WrongIdentity,
)

LOOPBACK = ["127.0.0.1:0"]


async def soon(awaitable, timeout=10):
    return await asyncio.wait_for(awaitable, timeout)


async def test_dialling_by_id_text_and_address(pair):
    a, b = pair
    a.lookup.add(b.addr())
    for target in (b.id, str(b.id), b.id.base32(), b.addr()):
        connection = await a.connect(target, b"test/1")
        assert connection.remote_id == b.id
    with pytest.raises(InvalidKey):
        await a.connect("nobody", b"test/1")


async def test_many_connections_in_and_out_share_one_port(pair):
    a, b = pair
    a.set_alpns([b"back/1"])
    out = [await a.connect(b.addr(), b"test/1") for _ in range(5)]
    back = await b.connect(a.addr(), b"back/1")
    ports = {connection.paths()[0].addr for connection in out}
    assert ports == {b.bound()[0]}
    assert back.paths()[0].addr == a.bound()[0]
    seen = [await anext(b.incoming()) for _ in range(5)]
    assert {connection.paths()[0].addr for connection in seen} == {a.bound()[0]}
    assert len(a.connections()) == 6


@pytest.mark.parametrize("bind", [["[::1]:0"], ["127.0.0.1:0", "[::1]:0"]])
async def test_both_address_families(bind):
    async with Endpoint.bind(bind=bind) as a, Endpoint.bind(alpns=[b"test/1"], bind=bind) as b:
        assert {addr.ip.version for addr in b.addr().direct} == {addr.ip.version for addr in b.bound()}
        for addr in b.bound():
            connection = await a.connect(EndpointAddr.of(b.id, [addr]), b"test/1")
            assert connection.paths()[0].addr == addr


async def test_where_a_peer_has_proved_its_key_it_is_dialled_again(pair):
    a, b = pair
    await a.connect(b.addr(), b"test/1")
    await anext(b.incoming())
    assert (await a.connect(b.id, b"test/1")).remote_id == b.id
    a.set_alpns([b"back/1"])
    assert (await b.connect(a.id, b"back/1")).remote_id == a.id


async def test_who_holds_another_key_is_refused_and_never_learns_ours(pair):
    a, b = pair
    stranger = EndpointAddr.of(SecretKey.generate().public, b.addr().addrs)
    with pytest.raises(WrongIdentity):
        await a.connect(stranger, b"test/1")
    assert not b.connections()


async def test_an_unknown_protocol_is_refused_by_name(pair):
    a, b = pair
    with pytest.raises(ProtocolRefused, match="nope/1"):
        await a.connect(b.addr(), b"nope/1")


async def test_of_several_protocols_offered_the_peer_takes_its_first(pair):
    a, b = pair
    b.set_alpns([b"ours/2", b"ours/1"])
    assert (await a.connect(b.addr(), b"ours/1", b"ours/2")).alpn == b"ours/2"
    b.set_alpns([b"ours/1"])
    assert (await a.connect(b.addr(), b"ours/2", b"ours/1")).alpn == b"ours/1"
    with pytest.raises(ProtocolRefused, match="'no/1' or 'no/2'"):
        await a.connect(b.addr(), b"no/1", b"no/2")


async def test_silence_is_unreachable_after_the_timeout(pair):
    a, b = pair
    nobody = EndpointAddr.of(b.id, [IpAddr.parse("127.0.0.1:9")])
    with pytest.raises(Unreachable, match=r"0\.2 s at 127\.0\.0\.1:9"):
        await a.connect(nobody, b"test/1", timeout=0.2)


async def test_no_address_says_what_to_do(pair):
    a, b = pair
    with pytest.raises(Unreachable, match="ticket"):
        await a.connect(b.id, b"test/1")
    with pytest.raises(Unreachable, match="reached from here"):
        await a.connect(EndpointAddr.of(b.id, [IpAddr.parse("[::1]:5")]), b"test/1")


async def test_an_endpoint_does_not_dial_itself(pair):
    a, _ = pair
    with pytest.raises(UsageError, match="itself"):
        await a.connect(a.addr(), b"test/1")


@pytest.mark.parametrize("alpn", [b"", b"x" * 256, b"\xff"])
async def test_protocol_names_are_checked(pair, alpn):
    a, b = pair
    with pytest.raises(UsageError):
        await a.connect(b.addr(), alpn)
    with pytest.raises(UsageError):
        b.set_alpns([alpn])


async def test_an_endpoint_that_accepts_nothing_answers_nobody():
    async with Endpoint.bind(bind=LOOPBACK) as a, Endpoint.bind(bind=LOOPBACK) as b:
        with pytest.raises(Unreachable):
            await a.connect(b.addr(), b"test/1", timeout=0.2)


@pytest.mark.parametrize("bind", [[], ["127.0.0.1:0", "127.0.0.2:0"], ["nonsense"], ["192.0.2.1:0"]])
async def test_addresses_that_cannot_be_bound_are_refused(bind):
    with pytest.raises(InvalidAddress):
        await Endpoint.bind(bind=bind)


async def test_the_default_binding_has_addresses_to_give():
    async with Endpoint.bind() as endpoint:
        assert endpoint.addr().direct
        assert all(addr.port and not addr.ip.is_unspecified for addr in endpoint.addr().direct)


async def test_closing_reaches_the_peer_and_refuses_further_use(pair, connected):
    a, _ = pair
    _, theirs = connected
    await a.aclose()
    await a.aclose()
    end = await soon(theirs.wait_closed())
    assert (end.code, end.by) == (0, "peer")
    with pytest.raises(EndpointClosed):
        await a.connect(theirs.remote_id, b"x")
    assert [connection async for connection in a.incoming()] == []


async def test_a_closed_endpoint_is_not_kept_by_a_timer(pair, connected):
    ours, theirs = connected
    ours.close()
    await soon(theirs.wait_closed())
    await asyncio.sleep(0.2)  # both are forgotten; what was known of their ways lingers
    for endpoint in pair:
        await endpoint.aclose()
    timers = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]
    assert not any(timer._callback.__module__.startswith("tidings.") for timer in timers)


async def test_cancelling_a_dial_leaves_no_connection(pair):
    a, b = pair
    task = asyncio.create_task(a.connect(EndpointAddr.of(b.id, [IpAddr.parse("127.0.0.1:9")]), b"test/1"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not a.connections()


async def test_a_dialler_whose_key_is_refused_learns_it_before_connect_returns(pair, monkeypatch):
    from aioquic import tls
    from tidings.transport.raw_public_key import RawKeyContext

    def refuse(self, input_buf, *args):
        raise tls.AlertBadCertificate("we do not like this key")

    monkeypatch.setattr(RawKeyContext, "_server_handle_certificate", refuse)
    a, b = pair
    from tidings.transport.errors import IdentityRefused

    with pytest.raises(IdentityRefused, match="do not like"):
        await a.connect(b.addr(), b"test/1")


async def test_a_restarted_peer_ends_old_connections_at_once(pair):
    """A stateless reset (RFC 9000 10.3): the new process answers packets of a connection it does not know."""
    a, _ = pair
    secret = SecretKey.generate()
    first = await Endpoint.bind(secret_key=secret, alpns=[b"test/1"], bind=LOOPBACK)
    place = str(first.bound()[0])
    connection = await a.connect(first.addr(), b"test/1")
    await asyncio.sleep(0.05)
    for socket in first._driver.sockets:  # a crash: nothing is said to the peer
        asyncio.get_running_loop().remove_reader(socket.fileno())
        socket.close()
    async with Endpoint.bind(secret_key=secret, alpns=[b"test/1"], bind=[place]):
        stream = await connection.open_uni()
        await stream.write(bytes(500))
        end = await soon(connection.wait_closed())
        assert end.by == "network"
        assert "restarted" in end.reason
        with pytest.raises(ConnectionClosed):
            await stream.write(b"x")


async def test_closing_ends_a_dial_at_once(pair):
    a, b = pair
    places = [IpAddr.parse(f"127.0.0.1:{port}") for port in (9, 10, 11)]
    task = asyncio.create_task(a.connect(EndpointAddr.of(b.id, places), b"test/1", timeout=60))
    await asyncio.sleep(0.05)
    await a.aclose()
    with pytest.raises(EndpointClosed):
        await soon(task, 5)
