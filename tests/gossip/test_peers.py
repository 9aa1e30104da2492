"""One peer's state machine, with a dial that does what the test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from random import Random

import pytest
from tidings.gossip.core.messages import Message, Prune
from tidings.gossip.net.outbound import Outbound
from tidings.gossip.net.peers import Dialing, Idle, Peer
from tidings.transport import Connection, Endpoint, EndpointId, frame
from tidings.transport.errors import ConnectionClosed, Unreachable

ITEM = Outbound(bytes(32), Prune(), b"\0\0\0\2\1\1")


class Host:
    def __init__(self) -> None:
        self.lost: list[bool] = []

    def on_message(self, peer: Peer, topic: bytes, message: Message) -> None:
        raise AssertionError("nobody is there")

    def admits(self, peer: Peer, topic: bytes) -> bool:
        raise AssertionError("nobody is there")

    def on_lost(self, peer: Peer, *, alive: bool) -> None:
        assert isinstance(peer.state, Idle) and not peer.queue, "a failed dial leaves nothing behind"
        self.lost.append(alive)


class Dials:
    """Counts dials; each waits for ``answer`` and then fails."""

    def __init__(self) -> None:
        self.made = 0
        self.answer = asyncio.Event()
        self.error: Exception = Unreachable("nobody is there")

    async def __call__(self) -> Connection:
        self.made += 1
        await self.answer.wait()
        raise self.error


@pytest.fixture
async def dials() -> Dials:
    return Dials()


@pytest.fixture
async def peer(dials: Dials) -> AsyncIterator[Peer]:
    made = Peer(EndpointId(bytes(32)), Host(), dials, Random(1))
    yield made
    await made.aclose()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_there_is_one_dial_at_a_time(peer: Peer, dials: Dials) -> None:
    for _ in range(5):
        peer.send(ITEM)
        await settle()
    assert dials.made == 1 and isinstance(peer.state, Dialing) and len(peer.queue) == 5


async def test_a_failed_dial_is_told_and_the_next_send_dials_again_later(peer: Peer, dials: Dials) -> None:
    dials.answer.set()
    peer.send(ITEM)
    await settle()
    assert peer._host.lost == [False]  # type: ignore[attr-defined]
    assert not peer.forgettable, "its back-off is still to be known"
    peer.send(ITEM)
    await settle()
    assert dials.made == 1 and isinstance(peer.state, Dialing), "not at once"
    await asyncio.sleep(0.4)
    assert dials.made == 2 and peer._host.lost == [False, False]  # type: ignore[attr-defined]


async def test_a_fault_while_dialling_is_a_failed_dial(peer: Peer, dials: Dials) -> None:
    dials.answer.set()
    dials.error = KeyError("a bug")
    peer.send(ITEM)
    await settle()
    assert peer._host.lost == [False]  # type: ignore[attr-defined]


async def test_closing_ends_a_dial(peer: Peer, dials: Dials) -> None:
    peer.send(ITEM)
    await settle()
    await peer.aclose()
    assert not peer._tasks and peer._host.lost == []  # type: ignore[attr-defined]


async def test_a_peer_that_does_not_read_is_retired_in_order(caplog: pytest.LogCaptureFixture) -> None:
    """Its streams cannot be finished while a write waits for room: the connection is closed, and nothing is a fault."""
    here = ["127.0.0.1:0"]
    async with Endpoint.bind(bind=here) as a, Endpoint.bind(alpns=[b"t/1"], bind=here) as b:
        peer = Peer(b.id, Host(), lambda: a.connect(b.addr(), b"t/1"), Random(1))
        for _ in range(3000):
            peer.send(Outbound(bytes(32), Prune(), frame(bytes(1000))))
        async with asyncio.timeout(10):
            stream = await (await anext(b.incoming())).accept_uni()
            while len(peer.queue) > 1500:
                await asyncio.sleep(0.01)
            assert peer._writing
            retired = asyncio.create_task(peer.retire())
            await asyncio.sleep(0.1)
            with contextlib.suppress(ConnectionClosed):
                while await stream.read():
                    pass
            await retired
            await peer.aclose()
    assert "fault" not in caplog.text
    assert not peer._writing
