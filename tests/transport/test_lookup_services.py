"""Several lookup services at once: what comes first is used first, and none can spoil it for the others."""

import asyncio

import pytest
from tidings.transport import EndpointAddr, IpAddr, SecretKey
from tidings.transport.errors import LookupFailed, Unreachable
from tidings.transport.lookup import service
from tidings.transport.lookup.records import Record
from tidings.transport.lookup.service import resolve

ID = SecretKey(bytes(32)).public
OTHER = SecretKey(b"\1" * 32).public


def record(port, id=ID):
    return Record(EndpointAddr.of(id, [IpAddr.of("192.0.2.1", port)]))


class Says:
    """Records with pauses before each; numbers are seconds, exceptions are raised."""

    def __init__(self, *steps):
        self.steps = steps
        self.published = []
        self.given_up = False

    async def resolve(self, id):
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Record):
                    yield step
                else:
                    await asyncio.sleep(step)
        except (asyncio.CancelledError, GeneratorExit):
            self.given_up = True
            raise

    async def publish(self, record):
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
        self.published.append(record)


async def ports(*services):
    return [found.addr.direct[0].port async for found in resolve(services, ID)]


async def test_records_come_as_they_are_found():
    assert await ports(Says(0.1, record(1)), Says(record(2), 0.2, record(3))) == [2, 1, 3]


async def test_a_service_that_fails_costs_nobody_else():
    assert await ports(Says(OSError("down")), Says(record(1)), Says(record(2), ValueError("broken"))) == [1, 2]


async def test_where_nobody_knows_it_is_told_why():
    with pytest.raises(LookupFailed, match=r"down.*ticket") as failed:
        await ports(Says(OSError("down")), Says())
    assert isinstance(failed.value, Unreachable)
    with pytest.raises(LookupFailed, match="0 services"):
        await ports()


async def test_records_of_others_and_without_an_address_are_nothing():
    with pytest.raises(LookupFailed):
        await ports(Says(record(1, OTHER), Record(EndpointAddr(ID))))


async def test_one_record_may_be_enough():
    slow = Says(60, record(9))
    found = resolve([slow, Says(record(1))], ID)
    assert (await anext(found)).addr.direct[0].port == 1
    await found.aclose()
    assert slow.given_up
    assert not [task for task in asyncio.all_tasks() if "where is" in task.get_name()]


async def test_a_service_that_says_very_much_waits(monkeypatch):
    monkeypatch.setattr(service, "WAITING", 4)
    chatty = Says(*[record(n) for n in range(1, 1000)])
    found = resolve([chatty], ID)
    assert (await anext(found)).addr.direct[0].port == 1
    await asyncio.sleep(0.01)
    await found.aclose()
