"""The local network's lookup: messages, and endpoints of one machine that find each other by multicast."""

import asyncio
import logging

import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.errors import UsageError
from tidings.transport import Endpoint, EndpointAddr, IpAddr, RelayUrl, SecretKey
from tidings.transport.errors import DecodeError, LookupFailed, Unreachable
from tidings.transport.lookup import Record
from tidings.transport.lookup.local import LocalLookup
from tidings.transport.lookup.local_messages import Question, decode, encode_answer, encode_question
from tidings.transport.lookup.publisher import Publisher
from tidings.transport.lookup.services import service_of

SECRET = SecretKey(bytes(32))
ID = SECRET.public


def record(*places, text=None):
    addrs = [RelayUrl(place) if "/" in place else IpAddr.parse(place) for place in places]
    return Record(EndpointAddr.of(ID, addrs), text)


def test_the_question_is_iroh_s():
    message = dns.message.from_wire(encode_question())
    assert message.id == 0 and message.question[0].to_text() == "_irohv1._udp.local. IN PTR"
    assert isinstance(decode(encode_question()), Question)


@pytest.mark.parametrize(
    "told",
    [
        record("192.0.2.1:4433"),
        record("192.0.2.1:4433", "192.0.2.2:4433", "[2001:db8::1]:5544", "https://relay.example/", text="a lamp"),
        record("https://relay.example/"),
    ],
)
def test_an_answer_is_read_as_it_was_written(told):
    assert decode(encode_answer(told)) == [told]


def test_an_answer_has_the_names_of_iroh_s():
    text = dns.message.from_wire(encode_answer(record("192.0.2.1:4433"))).to_text()
    label = "hnvcppgow2sc2yvdvdicu3ynonsteflxdxrehjr2ybekdc2z3iuq"
    assert f"{label}._irohv1._udp.local. 0 IN SRV 0 0 4433 {label}-4433.local." in text
    assert f"{label}-4433.local. 0 IN A 192.0.2.1" in text


@given(st.binary(max_size=200))
def test_noise_is_refused(data):
    try:
        decode(data)
    except DecodeError:
        pass


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_answer_is_no_trouble(at, value):
    data = bytearray(encode_answer(record("192.0.2.1:4433", "[2001:db8::1]:5544", "https://relay.example/")))
    data[at % len(data)] = value
    try:
        for each in decode(bytes(data)):
            assert each.addr.direct is not None
    except DecodeError:
        pass


async def find(service, id=ID):
    async with asyncio.timeout(10):
        async for found in service.resolve(id):
            return found
    return None


async def test_two_of_one_link_find_each_other():
    one, other = LocalLookup(), LocalLookup()
    try:
        try:
            await one.publish(record("127.0.0.1:4433"))
            found = await find(other)
        except (LookupFailed, TimeoutError):
            pytest.skip("this machine has no multicast")
        if found is None:
            pytest.skip("this machine has no multicast")
        assert found == record("127.0.0.1:4433")
        assert [each.id for each in other.heard()] == [ID]
        assert await find(other) == found  # from memory, at once
    finally:
        await one.aclose()
        await other.aclose()


async def test_endpoints_of_one_link_dial_each_other_by_id():
    async with Endpoint.bind(alpns=[b"test/1"], lookup=["local"]) as b, Endpoint.bind(lookup=["local"]) as a:
        try:
            connection = await a.connect(b.id, b"test/1")
        except Unreachable:
            pytest.skip("this machine has no multicast")
        assert connection.remote_id == b.id


@pytest.mark.parametrize("text", ["", "lookup.example", "ftp://x", "dns:", "local:x", "dns://x/" + "a" * 70])
async def test_a_service_that_is_none(text):
    with pytest.raises(UsageError):
        service_of(text, SECRET)


async def test_services_by_name():
    for text in ("https://lookup.example/pkarr", "dns:lookup.example", "dns://192.0.2.1/lookup.example", "local"):
        await service_of(text, SECRET).aclose()


class Taking:
    """A service that is told where we are; the first ``failures`` times in vain."""

    def __init__(self, failures=0, hang=False):
        self.failures, self.hang = failures, hang
        self.told = asyncio.Queue()

    async def resolve(self, id):
        return
        yield

    async def publish(self, record):
        if self.hang:
            await asyncio.sleep(3600)
        if self.failures:
            self.failures -= 1
            raise OSError("out of order")
        self.told.put_nowait(record)


class TakingAll(Taking):
    publishes_direct = True


async def test_publishing_is_filtered_and_goes_on_after_failures(caplog):
    everything = record("192.0.2.1:4433", "https://relay.example/").addr
    now = everything
    careful, open_one, broken, hung = Taking(), TakingAll(), Taking(failures=1), Taking(hang=True)
    publisher = Publisher([careful, open_one, broken, hung], lambda: now)
    try:
        async with asyncio.timeout(10):
            assert (await careful.told.get()).addr == EndpointAddr.of(ID, everything.relays)
            assert (await open_one.told.get()).addr == everything
            assert (await broken.told.get()).addr.relays
            now = EndpointAddr.of(ID, [])
            publisher.update()
            assert (await careful.told.get()).addr.addrs == frozenset()
        publisher.update()
        await asyncio.sleep(0.2)
        assert careful.told.empty()  # nothing new
    finally:
        await publisher.aclose()
    assert "out of order" in caplog.text


async def test_a_service_that_cannot_be_asked(caplog):
    caplog.set_level(logging.INFO)
    async with Endpoint.bind(bind=["127.0.0.1:0"], lookup=["http://127.0.0.1:9/pkarr"]) as endpoint:
        with pytest.raises(Unreachable):
            await endpoint.connect(ID, b"test/1", timeout=5)


async def test_an_endpoint_that_is_refused_leaves_nothing_open():
    with pytest.raises(UsageError):
        await Endpoint.bind(bind=["127.0.0.1:0"], lookup=["https://lookup.example/pkarr", "nonsense"])
