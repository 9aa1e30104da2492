"""What an endpoint finds out about the network it is in."""

import asyncio
from http import HTTPStatus

from tidings.transport import Endpoint, RelayUrl
from tidings.transport.discovery.discovery_server import AddressDiscoveryServer
from tidings.transport.relay import server as relay_server
from tidings.transport.relay.pages import Page
from tidings.transport.relay.relays import RelayConfig
from tidings.transport.relay.server import RelayServer
from tidings.transport.report import better_home

A, B, C = (RelayUrl(f"https://{name}.example/") for name in "abc")


def config_of(relay, discovery=None):
    port = None if discovery is None else discovery.bound()[0].port
    return RelayConfig(RelayUrl(f"http://{relay.bound()[0]}/"), discovery_port=port)


async def test_a_network_without_obstacles():
    async with RelayServer.open() as relay, AddressDiscoveryServer.open("127.0.0.1:0") as discovery:
        gone = RelayConfig(RelayUrl("http://127.0.0.1:9/"), discovery_port=None)
        async with Endpoint.bind(bind=["127.0.0.1:0"], relays=[config_of(relay, discovery), gone]) as endpoint:
            await endpoint.online(5)
            report = await endpoint.report()
            assert report.udp_v4 is True and report.udp_v6 is None
            assert list(report.seen) == endpoint.bound() and report.varies_v4 is None
            assert 0 < report.latencies[endpoint.relays.home] < 5
            assert "cannot be reached" in report.problems[gone.url]
            assert report.captive_portal is False
            assert report.home == endpoint.relays.home


async def test_udp_that_nobody_answers():
    async with RelayServer.open() as relay:
        config = RelayConfig(RelayUrl(f"http://{relay.bound()[0]}/"), discovery_port=9)
        async with Endpoint.bind(bind=["127.0.0.1:0"], relays=[config]) as endpoint:
            assert (await endpoint.report()).udp_v4 is False


async def test_somebody_who_answers_in_place_of_the_relay(monkeypatch):
    monkeypatch.setattr(relay_server, "answer", lambda *args, **options: Page(HTTPStatus.OK, "log in first", {}))
    async with RelayServer.open() as relay:
        async with Endpoint.bind(bind=["127.0.0.1:0"], relays=[config_of(relay)]) as endpoint:
            assert (await endpoint.report()).captive_portal is True


async def test_no_relay_at_all():
    async with Endpoint.bind(bind=["127.0.0.1:0"], relays=[]) as endpoint:
        report = await endpoint.report()
        assert report.udp_v4 is None and not report.latencies and report.captive_portal is None


def test_the_home_changes_for_much_alone():
    assert better_home(None, {A: 0.03, B: 0.02}) == B
    assert better_home(A, {A: 0.03, B: 0.021}) == A
    assert better_home(A, {A: 0.03, B: 0.019}) == B
    assert better_home(A, {A: 0.003, B: 0.0001}) == A  # both are next door
    assert better_home(A, {B: 0.5}) == B
    assert better_home(A, {}) == A


async def test_the_relay_that_is_preferred_becomes_the_home():
    async with RelayServer.open() as one, RelayServer.open() as two:
        configs = [config_of(one), config_of(two)]
        async with Endpoint.bind(bind=["127.0.0.1:0"], relays=configs) as endpoint:
            await endpoint.online(5)
            other = next(each.url for each in configs if each.url != endpoint.relays.home)
            endpoint.relays.prefer(other)
            async with asyncio.timeout(5):
                while endpoint.relays.home != other:
                    await asyncio.sleep(0.01)
