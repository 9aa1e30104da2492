"""Coming back to a peer with a ticket: without proofs, and with data in the first packet."""

import asyncio

import pytest
from aioquic.tls import SessionTicket
from tidings.transport import Endpoint, EndpointAddr, SecretKey
from tidings.transport.errors import ConnectionClosed
from tidings.transport.resumption import MAX_GIVEN, MAX_GIVEN_BY_ONE, MAX_ISSUED, Issued, Tickets

ALPN, OTHER = b"test/1", b"other/1"


@pytest.fixture
async def two():
    """A dialler, and an accepter that takes early data for ``ALPN``."""
    async with (
        Endpoint.bind(bind=["127.0.0.1:0"]) as a,
        Endpoint.bind(alpns=[ALPN, OTHER], bind=["127.0.0.1:0"], early_data=[ALPN]) as b,
    ):
        yield a, b


async def meet(a, b, alpn=ALPN, **options):
    dialled = await a.connect(b.addr(), alpn, **options)
    return dialled, await anext(b.incoming())


async def with_ticket(a, b, alpn=ALPN):
    """A connection was there, and has left a ticket."""
    dialled, accepted = await meet(a, b, alpn)
    async with asyncio.timeout(5):
        while not a._driver._tickets._given:
            await asyncio.sleep(0.01)
    dialled.close()
    return accepted


async def test_a_resumed_handshake_knows_both_keys(two):
    a, b = two
    await with_ticket(a, b)
    dialled, accepted = await meet(a, b)
    assert (dialled.remote_id, accepted.remote_id) == (b.id, a.id)
    assert dialled.engine.tls.session_resumed and accepted.engine.tls.session_resumed
    assert not dialled.replayable and not await dialled.confirmed()
    stream = await dialled.open_bi()
    await stream.send.write(b"x")
    assert await (await accepted.accept_bi()).recv.read(1) == b"x"


async def test_data_in_the_first_packet(two):
    a, b = two
    await with_ticket(a, b)
    dialled = await a.connect(b.addr(), ALPN, early_data=True)
    assert dialled.remote_id == b.id
    stream = await dialled.open_bi()
    await stream.send.write(b"early")
    await stream.send.finish()
    accepted = await anext(b.incoming())
    assert accepted.remote_id == a.id
    there = await accepted.accept_bi()
    assert await there.recv.read_to_end(limit=100) == b"early"
    await there.send.write(b"answer")
    await there.send.finish()
    assert await stream.recv.read_to_end(limit=100) == b"answer"
    assert await dialled.confirmed() and await accepted.confirmed()
    assert not dialled.replayable and not accepted.replayable


async def test_without_a_ticket_it_is_an_ordinary_dial(two):
    a, b = two
    dialled, _ = await meet(a, b, early_data=True)
    assert not dialled.replayable and not await dialled.confirmed()


async def test_a_protocol_that_was_not_opted_in_takes_no_early_data(two):
    a, b = two
    await with_ticket(a, b, OTHER)
    dialled, accepted = await meet(a, b, OTHER, early_data=True)
    assert not accepted.engine.early_data_accepted
    assert not await dialled.confirmed()


async def test_a_ticket_is_good_for_its_protocol_and_once(two):
    a, b = two
    await with_ticket(a, b)
    dialled, _ = await meet(a, b, OTHER)
    assert not dialled.engine.tls.session_resumed
    (id, alpn), (ticket,) = next(iter(a._driver._tickets._given.items()))
    await meet(a, b)
    a._driver._tickets.keep(id, alpn, ticket)
    dialled = await a.connect(b.addr(), ALPN, early_data=True)  # a copy of it: the handshake is a whole one
    stream = await dialled.open_bi()
    await stream.send.write(b"sent again")
    accepted = await anext(b.incoming())
    assert not await dialled.confirmed()
    assert await (await accepted.accept_bi()).recv.read_exactly(10) == b"sent again"


async def test_a_peer_that_has_forgotten_its_tickets_gets_the_data_later(two):
    a, b = two
    await with_ticket(a, b)
    b._driver._tickets._issued.clear()
    dialled = await a.connect(b.addr(), ALPN, early_data=True)
    stream = await dialled.open_bi()
    data = bytes(range(256)) * 40
    await stream.send.write(data)
    await stream.send.finish()
    accepted = await anext(b.incoming())
    assert not accepted.replayable
    assert await (await accepted.accept_bi()).recv.read_to_end(limit=1 << 20) == data
    assert not await dialled.confirmed()


async def test_an_early_dial_that_nobody_answers_fails_in_use(two, monkeypatch):
    a, b = two
    await with_ticket(a, b)
    addr = b.addr()
    await b.aclose()
    async with Endpoint.bind(alpns=[ALPN], bind=[str(addr.direct[0])]) as impostor:
        dialled = await a.connect(EndpointAddr.of(addr.id, impostor.bound()), ALPN, early_data=True)
        assert dialled.replayable
        with pytest.raises(ConnectionClosed):
            await dialled.confirmed()


def ticket(name):
    return SessionTicket(1, None, None, None, b"", "", name)


def test_tickets_are_bounded():
    tickets = Tickets()
    id = SecretKey.generate().public
    for n in range(2 * MAX_GIVEN):
        tickets.keep(id, f"alpn/{n}", ticket(b"x"))
    for n in range(3 * MAX_GIVEN_BY_ONE):
        tickets.keep(id, "one", ticket(bytes([n])))
    assert len(tickets._given) == MAX_GIVEN and len(tickets._given[id, "one"]) == MAX_GIVEN_BY_ONE
    for n in range(2 * MAX_ISSUED):
        tickets.issue(Issued(ticket(n.to_bytes(4, "big")), id, "one"))
    assert len(tickets._issued) == MAX_ISSUED
    assert tickets.redeem(bytes(4)) is None
