"""Which connections there are between two peers: kept, shared, crossing, lost, and those of iroh's."""

import asyncio

import pytest
from native_net import ID, by_id, pair, peer, run, signed, until
from tidings.docs_sync.errors import SyncRefused
from tidings.docs_sync.model.native_messages import Digest
from tidings.docs_sync.sync import connections, exchange
from tidings.docs_sync.sync.native import Links
from tidings.transport import EndpointAddr, IpAddr, SecretKey
from tidings.transport.errors import ConnectionClosed, EndpointClosed, Unreachable


async def test_all_goes_over_one_connection_whoever_dialled():
    async with pair() as (a, b):
        for n in range(3):
            await a.store.insert(ID, [signed(b"a%d" % n, n + 1)])
            await b.store.insert(ID, [signed(b"b%d" % n, n + 1)])
            await a.sync_with(b)
            await b.sync_with(a)
            assert await b.links.digest(a.id, [digest := Digest(bytes(ID), bytes(32), 3)]) == {bytes(ID)}
            assert await a.links.digest(b.id, [digest]) == {bytes(ID)}
        assert len(a.connections()) == len(b.connections()) == 1
        assert a.connections()[0].alpn == Links.ALPN


async def test_many_at_once_share_a_dial():
    async with pair() as (a, b):
        await b.store.insert(ID, run(0, 20))
        await asyncio.gather(*(a.sync_with(b) for _ in range(20)))
        assert len(a.connections()) == len(b.connections()) == 1


async def test_two_that_dial_at_once_keep_one_connection(monkeypatch):
    monkeypatch.setattr(connections, "DRAINED", 0.05)
    async with pair() as (a, b):
        await a.store.insert(ID, run(0, 20))
        await b.store.insert(ID, run(10, 20))
        await asyncio.gather(a.sync_with(b), b.sync_with(a))
        assert await a.store.summary(ID) == await b.store.summary(ID)
        await until(lambda: len(a.connections()) == len(b.connections()) == 1)
        await a.sync_with(b)
        await b.sync_with(a)
        assert len(a.connections()) == len(b.connections()) == 1


async def test_of_crossing_dials_that_of_the_smaller_id_stays(monkeypatch):
    """Both are open before either side knows of the other's."""
    monkeypatch.setattr(connections, "DRAINED", 0.05)
    async with pair() as (a, b):
        one, other = await asyncio.gather(a.endpoint.connect(b.id, Links.ALPN), b.endpoint.connect(a.id, Links.ALPN))
        for side, connection in ((a, one), (b, other)):
            side.links._connections._keep(connection)
            side.links._start_serving(connection)
        await until(lambda: len(a.connections()) == len(b.connections()) == 1)
        small, _ = by_id(a, b)
        assert small.connections()[0].is_client


async def test_an_unused_connection_is_closed(monkeypatch):
    monkeypatch.setattr(connections, "IDLE", 0.1)
    async with pair() as (a, b):
        await a.sync_with(b)
        await until(lambda: not a.links._connections._peers and not b.links._connections._peers)
        await a.sync_with(b)


async def test_a_kept_connection_that_is_gone_is_dialled_again():
    async with pair() as (a, b):
        await a.sync_with(b)
        b.connections()[0].close(0, "restarted")  # a does not know yet
        await a.sync_with(b)
        await until(lambda: len(b.served) == 2)
        assert not a.served


async def test_a_peer_that_cannot_be_reached():
    async with peer() as a, peer() as b:
        with pytest.raises(Unreachable):
            await a.sync_with(b)
        with pytest.raises(Unreachable):
            await a.links.digest(b.id, [Digest(bytes(ID), bytes(32), 3)])


async def test_an_iroh_peer_gets_a_connection_for_each_sync():
    async with pair(native=False) as (a, b):
        await a.store.insert(ID, run(0, 50))
        await b.store.insert(ID, run(40, 50))
        await asyncio.gather(*(a.sync_with(b) for _ in range(3)))
        assert b.calls == 3
        assert await a.store.summary(ID) == await b.store.summary(ID)
        assert not a.connections() and not b.connections()
        assert await a.links.digest(b.id, [Digest(bytes(ID), bytes(32), 3)]) is None
        with pytest.raises(SyncRefused, match="iroh"):
            await a.sync_with(b, prefix=b"key/")
        with pytest.raises(SyncRefused, match="iroh"):
            await anext(a.links.follow(b.id, ID, b"key/"))


async def test_a_digest_finds_out_that_a_peer_speaks_iroh_only():
    async with pair(native=False) as (a, b):
        assert await a.links.digest(b.id, [Digest(bytes(ID), bytes(32), 3)]) is None
        assert a.links._connections.speaks_iroh_only(b.id)
        await b.sync_with(a)  # and may still dial us


async def test_an_iroh_peer_that_learned_more_is_noticed_by_the_next_sync():
    async with pair(native=False) as (a, b):
        await a.sync_with(b)
        await b.speak(native=True, iroh=True)
        await a.sync_with(b)
        assert len(a.connections()) == 1
        assert await a.links.digest(b.id, [Digest(bytes(ID), bytes(32), 3)]) == {bytes(ID)}


async def test_connections_of_one_peer_are_few():
    async with pair() as (a, b):
        made = [await a.endpoint.connect(b.id, Links.ALPN) for _ in range(connections.MAX_OF_PEER + 3)]
        await until(lambda: len([each for each in made if each.closed is None]) <= connections.MAX_OF_PEER)
        assert len(b.connections()) <= connections.MAX_OF_PEER
        await a.sync_with(b)


async def test_a_peer_that_does_not_answer_is_dialled_anew(monkeypatch):
    monkeypatch.setattr(exchange, "ANSWER_TIMEOUT", 0.1)
    async with pair() as (a, b):
        await a.sync_with(b)
        answers = b.links._answer
        b.links._answer = lambda *_: asyncio.sleep(1)
        old = a.connections()
        with pytest.raises(TimeoutError):
            await a.sync_with(b)
        b.links._answer = answers
        monkeypatch.setattr(exchange, "ANSWER_TIMEOUT", 15)
        await a.sync_with(b)
        assert a.connections() != old


async def test_when_there_are_too_many_connections_unused_ones_go(monkeypatch):
    monkeypatch.setattr(connections, "MAX_KEPT", 1)
    async with peer() as a, peer() as b, peer() as c:
        a.endpoint.lookup.add(b.endpoint.addr())
        c.endpoint.lookup.add(b.endpoint.addr())
        await a.sync_with(b)
        await c.sync_with(b)
        assert [each.remote_id for each in b.connections()] == [c.id]
        await until(lambda: not b.links._connections._open[b.connections()[0]].users)
        use = b.links._connections.serving(b.connections()[0])
        with pytest.raises(ConnectionClosed):
            await a.sync_with(b)
        use.release()
        await a.sync_with(b)


async def test_a_dial_that_nobody_waits_for_any_more_leaves_nothing_open():
    async with pair(native=False) as (a, b):
        dialling = asyncio.create_task(a.links._connections.use(b.id))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)
        use, _ = await a.links._connections.use(b.id)  # another's dial is not disturbed
        assert not use.kept
        use.release()


async def test_closing_while_it_dials():
    async with peer() as a, peer() as b:
        a.endpoint.lookup.add(EndpointAddr.of(b.id, [IpAddr.parse("127.0.0.1:9")]))
        dialling = asyncio.create_task(a.links._connections.use(b.id))
        await asyncio.sleep(0.05)
        await a.links.aclose()
        with pytest.raises(EndpointClosed):
            await dialling
        with pytest.raises(EndpointClosed):
            await a.links._connections.use(b.id)


async def test_what_is_known_of_peers_is_bounded(monkeypatch):
    monkeypatch.setattr(connections, "MAX_KNOWN", 3)
    async with peer() as a:
        for _ in range(10):
            with pytest.raises(Unreachable):
                await a.links._connections.use(SecretKey.generate().public)
        assert len(a.links._connections._peers) <= 3


async def test_a_dial_ends_where_the_peers_own_connection_comes(monkeypatch):
    async with pair() as (a, b):
        never = asyncio.Event()
        monkeypatch.setattr(a.links._connections, "_connect", lambda peer: never.wait())
        waiting = asyncio.create_task(a.sync_with(b))
        await until(lambda: a.links._connections._peers)
        await b.sync_with(a)
        async with asyncio.timeout(10):
            await waiting
        assert len(a.connections()) == 1
