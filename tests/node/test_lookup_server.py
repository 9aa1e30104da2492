"""``tidings lookup``: signed packets in by HTTP, out by HTTP and DNS."""

import asyncio
import base64
import random
import time

import dns.flags
import dns.message
import dns.rcode
import httpx
import pytest
from program import run, running
from tidings.errors import StoreError
from tidings.node.lookup_server.limiter import Limiter
from tidings.node.lookup_server.metrics import LookupMetrics
from tidings.node.lookup_server.server import LookupServer, PutLimit
from tidings.node.lookup_server.store import EXPIRY, Full, PacketStore
from tidings.node.lookup_server.zone import Zone
from tidings.transport import Endpoint, EndpointAddr, IpAddr, RelayUrl, SecretKey
from tidings.transport.errors import LookupFailed, Unreachable, WrongIdentity
from tidings.transport.lookup.dns import DnsLookup
from tidings.transport.lookup.http import PkarrLookup
from tidings.transport.lookup.pkarr import SignedPacket
from tidings.transport.lookup.records import Record
from tidings.transport.relay.server import RelayServer

ORIGIN = "lookup.test"
SECRET = SecretKey(bytes(32))


def record(*places, secret=SECRET):
    return Record(EndpointAddr.of(secret.public, [RelayUrl(p) if "/" in p else IpAddr.parse(p) for p in places]))


def packet(*places, at=None, secret=SECRET):
    return SignedPacket.sign(secret, record(*places, secret=secret), at or time.time_ns() // 1000)


def opened(**options):
    return LookupServer.open(dns="127.0.0.1:0", zones=(Zone.of(ORIGIN, ["ns1.lookup.test"]),), **options)


def url(server):
    return f"http://{server.http}/pkarr"


async def found(service, id=SECRET.public):
    return [each async for each in service.resolve(id)]


async def test_what_is_published_is_found_by_http_and_by_dns():
    async with opened() as server:
        service = PkarrLookup(url(server), SECRET)
        told = record("https://relay.example/", "192.0.2.1:4433")
        await service.publish(told)
        assert await found(service) == [told]
        assert await found(DnsLookup(ORIGIN, str(server.dns))) == [told]
        await service.publish(record("https://other.example/"))
        assert await found(service) == [record("https://other.example/")]
        assert await found(DnsLookup(ORIGIN, str(server.dns))) == [record("https://other.example/")]
        assert await found(service, SecretKey.generate().public) == []
        assert await found(DnsLookup(ORIGIN, str(server.dns)), SecretKey.generate().public) == []
        await service.aclose()


async def test_two_endpoints_find_each_other_by_their_ids():
    async with opened() as server, RelayServer.open() as relay:
        relays = [f"http://{relay.bound()[0]}/"]
        options = {"bind": ["127.0.0.1:0"], "relays": relays}
        async with Endpoint.bind(alpns=[b"test/1"], lookup=[url(server)], **options) as b:
            for service in (url(server), f"dns://{server.dns}/{ORIGIN}"):
                async with Endpoint.bind(lookup=[service], **options) as a:
                    async with asyncio.timeout(10):
                        while True:
                            try:
                                connection = await a.connect(b.id, b"test/1")
                                break
                            except Unreachable:
                                await asyncio.sleep(0.05)
                    assert connection.remote_id == b.id
        published = PkarrLookup(url(server))
        assert [each.addr.direct for each in await found(published, b.id)] == [[]]  # relays alone
        await published.aclose()


async def test_a_packet_that_is_older_changes_nothing():
    async with opened() as server, httpx.AsyncClient() as client:
        new, old = packet("https://new.example/", at=2000), packet("https://old.example/", at=1000)
        at = f"{url(server)}/{SECRET.public.z32()}"
        for each in (old, new, old, new):
            assert (await client.put(at, content=each.payload())).status_code == 204
        assert (await client.get(at)).content == new.payload()


async def test_a_lookup_does_not_go_back_in_time():
    async with opened() as one, opened() as other, httpx.AsyncClient() as client:
        service = PkarrLookup(url(one))
        z32 = SECRET.public.z32()
        await client.put(f"{url(one)}/{z32}", content=packet("https://new.example/").payload())
        await client.put(f"{url(other)}/{z32}", content=packet("https://old.example/", at=1000).payload())
        assert await found(service) == [record("https://new.example/")]
        service.url = url(other)  # as if somebody on the way had kept the old one
        assert await found(service) == [record("https://new.example/")]
        await service.aclose()


async def test_a_clock_that_was_set_back_does_not_hide_what_is_new():
    async with opened() as server, httpx.AsyncClient() as client:
        ahead = packet("https://old.example/", at=time.time_ns() // 1000 + 60_000_000)
        await client.put(f"{url(server)}/{SECRET.public.z32()}", content=ahead.payload())
        service = PkarrLookup(url(server), SECRET)
        await service.publish(record("https://new.example/"))
        assert await found(service) == [record("https://new.example/")]
        await service.aclose()


async def test_what_is_wrong_is_refused():
    async with opened() as server, httpx.AsyncClient() as client:
        good = packet("https://relay.example/")
        at = f"{url(server)}/{SECRET.public.z32()}"
        future = packet("https://relay.example/", at=(int(time.time()) + 86_400) * 1_000_000)
        damaged = bytearray(good.payload())
        damaged[-1] ^= 1
        for body in (b"", b"x" * 70, bytes(damaged), good.payload() + b"x" * 2000, future.payload()):
            answer = await client.put(at, content=body)
            assert answer.status_code == 400, answer.text
        other = f"{url(server)}/{SecretKey.generate().public.z32()}"
        assert (await client.put(other, content=good.payload())).status_code == 400
        assert (await client.put(f"{url(server)}/nonsense", content=good.payload())).status_code == 400
        assert (await client.get(f"{url(server)}/nonsense")).status_code == 400
        assert (await client.get(at)).status_code == 404
        assert (await client.get(f"http://{server.http}/nothing")).status_code == 404


async def test_who_publishes_too_often_waits():
    async with opened(put_limit=PutLimit(0.01, 3)) as server:
        service = PkarrLookup(url(server), SECRET)
        for _ in range(3):
            await service.publish(record("https://relay.example/"))
        with pytest.raises(LookupFailed, match="429"):
            await service.publish(record("https://relay.example/"))
        await service.aclose()


async def ask_udp(server, data):
    heard = asyncio.get_running_loop().create_future()

    class Hear(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            if not heard.done():
                heard.set_result(data)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Hear, remote_addr=(str(server.dns.ip), server.dns.port)
    )
    try:
        transport.sendto(data)
        return await asyncio.wait_for(heard, 2)
    finally:
        transport.close()


async def test_dns_answers_as_an_authority():
    async with opened() as server:

        async def ask(name, kind):
            return dns.message.from_wire(await ask_udp(server, dns.message.make_query(name, kind).to_wire()))

        soa = await ask(f"{ORIGIN}.", "SOA")
        assert soa.flags & dns.flags.AA and soa.answer
        assert "ns1.lookup.test." in (await ask(f"{ORIGIN}.", "NS")).answer[0].to_text()
        missing = await ask(f"_iroh.{SECRET.public.z32()}.{ORIGIN}.", "TXT")
        assert missing.rcode() == dns.rcode.NXDOMAIN and missing.authority
        assert (await ask("example.org.", "A")).rcode() == dns.rcode.REFUSED
        service = PkarrLookup(url(server), SECRET)
        await service.publish(record("https://relay.example/"))
        name = f"_iroh.{SECRET.public.z32()}.{ORIGIN}."
        assert "relay=https://relay.example/" in (await ask(name, "TXT")).answer[0].to_text()
        shouted = await ask(name.upper(), "TXT")
        assert shouted.answer and shouted.question[0].name.to_text() == name.upper()
        nothing = await ask(name, "A")
        assert nothing.rcode() == dns.rcode.NOERROR and not nothing.answer and nothing.authority
        async with httpx.AsyncClient() as client:
            query = dns.message.make_query(name, "TXT").to_wire()
            posted = await client.post(f"http://{server.http}/dns-query", content=query)
            assert dns.message.from_wire(posted.content).answer
            text = base64.urlsafe_b64encode(query).rstrip(b"=").decode()
            fetched = await client.get(f"http://{server.http}/dns-query?dns={text}")
            assert dns.message.from_wire(fetched.content).answer
            assert (await client.get(f"http://{server.http}/dns-query?dns=x")).status_code == 400
        await service.aclose()


async def test_an_answer_by_udp_is_no_amplifier():
    async with opened() as server, httpx.AsyncClient() as client:
        large = packet(*[f"192.0.2.{n}:4433" for n in range(1, 30)])
        await client.put(f"{url(server)}/{SECRET.public.z32()}", content=large.payload())
        query = dns.message.make_query(f"_iroh.{SECRET.public.z32()}.{ORIGIN}.", "TXT").to_wire()
        answer = await ask_udp(server, query)
        assert len(answer) <= 3 * len(query)
        assert dns.message.from_wire(answer).flags & dns.flags.TC
        assert await found(DnsLookup(ORIGIN, str(server.dns))) == [large.record()]  # by TCP


async def test_noise_costs_nothing():
    async with opened() as server:
        noise = random.Random(5)
        for _ in range(200):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask_udp(server, noise.randbytes(noise.randrange(1, 11))), 0.005)
        reader, writer = await asyncio.open_connection(str(server.dns.ip), server.dns.port)
        writer.write(b"\xff\xff" + bytes(100))
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert await found(DnsLookup(ORIGIN, str(server.dns))) == []


async def test_the_store_keeps_what_it_took(tmp_path):
    path, metrics = tmp_path / "packets.db", LookupMetrics()
    store = PacketStore(path, metrics)
    now = time.time()
    assert await store.put(packet("https://a.example/", at=10), now)
    assert not await store.put(packet("https://b.example/", at=9), now)
    await store.aclose()
    store = PacketStore(path, metrics, limit=1)
    assert (await store.get(SECRET.public)).timestamp == 10
    with pytest.raises(Full):
        await store.put(packet("https://a.example/", secret=SecretKey.generate()), now)
    assert not await store.put(packet("https://a.example/", at=10), now + EXPIRY / 2)  # said again: renewed
    assert await store.expire(now + EXPIRY + 1) == 0
    assert await store.expire(now + 2 * EXPIRY) == 1
    assert await store.get(SECRET.public) is None
    await store.aclose()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError):
        PacketStore(path, metrics)


def test_the_limit_is_for_each_client():
    limiter = Limiter(1, 2)
    assert [limiter.allows("192.0.2.1", 0) for _ in range(3)] == [True, True, False]
    assert limiter.allows("192.0.2.2", 0)
    assert limiter.allows("192.0.2.1", 1.5)
    assert [limiter.allows(f"2001:db8::{n}", 0) for n in range(3)] == [True, True, False]
    assert limiter.allows("2001:db8:0:1::1", 0)


async def test_the_command(tmp_path):
    options = ["--listen", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--origin", ORIGIN, "--metrics", "127.0.0.1:0"]
    options += ["--database", tmp_path / "packets.db"]
    async with running(tmp_path / "unused", "--json", "lookup", *options) as server:
        http = (await server.hear("listening"))["addr"]
        names = (await server.hear("dns"))["addr"]
        metrics = (await server.hear("metrics"))["addr"]
        service = PkarrLookup(f"http://{http}/pkarr", SECRET)
        await service.publish(record("https://relay.example/"))
        assert await found(DnsLookup(ORIGIN, names)) == [record("https://relay.example/")]
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://{metrics}/metrics")).text
            assert "dns_server_pkarr_publish_update_total 1.0" in text
            assert "dns_server_store_packets_inserted_total 1.0" in text
        await service.aclose()
        assert await server.interrupt() == 0
    assert "--origin" in (await run(None, "lookup", "--dns", "127.0.0.1:0")).refused()
    assert "HTTP" in (await run(None, "lookup", "--listen", "192.0.2.1:9")).refused()


@pytest.mark.parametrize("by_dns", [False, True])
async def test_a_lie_about_a_place_leads_nowhere(by_dns):
    async with opened() as server, Endpoint.bind(alpns=[b"test/1"], bind=["127.0.0.1:0"]) as somebody_else:
        liar = PkarrLookup(url(server), SECRET, direct=True)
        await liar.publish(Record(EndpointAddr.of(SECRET.public, somebody_else.addr().addrs)))
        service = f"dns://{server.dns}/{ORIGIN}" if by_dns else url(server)
        async with Endpoint.bind(bind=["127.0.0.1:0"], lookup=[service]) as a:
            with pytest.raises(WrongIdentity):
                await a.connect(SECRET.public, b"test/1", timeout=5)
        assert somebody_else.connections() == []
        await liar.aclose()
