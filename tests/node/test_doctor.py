"""``tidings doctor``: sentences about the network, and about a peer."""

import json

import pytest
from program import run
from tidings.errors import UsageError
from tidings.node.doctor import of_network, of_port_mapping, of_publishing, of_target
from tidings.node.doctor_command import targets_of
from tidings.node.lookup_server.server import LookupServer
from tidings.transport import Endpoint, EndpointAddr, EndpointTicket, IpAddr, RelayUrl, SecretKey
from tidings.transport.relay.server import RelayServer
from tidings.transport.report import NetReport

ID = SecretKey(bytes(32)).public
PLACE = IpAddr.parse("192.0.2.1:4433")
RELAY = RelayUrl("https://relay.example/")
OWN = EndpointAddr.of(ID, [PLACE])


def said(findings, about):
    return [(each.mark, each.text) for each in findings if each.about == about]


def test_a_network_without_obstacles():
    report = NetReport(True, None, (IpAddr.parse("198.51.100.7:4433"),), False, None, {RELAY: 0.02}, {}, False, RELAY)
    findings = list(of_network(OWN, report))
    assert {each.mark for each in findings} == {"good"}
    assert "20 ms, and is where others find us" in said(findings, "relay")[0][1]


@pytest.mark.parametrize(
    ("own", "report", "about", "mark", "words"),
    [
        (EndpointAddr(ID), None, "addresses", "bad", "no network"),
        (OWN, None, "relays", "note", "tidings relay"),
        (OWN, NetReport(False, None, problems={RELAY: "no"}, captive_portal=True), "portal", "bad", "browser"),
        (OWN, NetReport(False, None, problems={RELAY: "it is down"}), "relay", "bad", "it is down"),
        (OWN, NetReport(False, None, latencies={RELAY: 0.02}), "home", "bad", "token"),
        (OWN, NetReport(False, False, latencies={RELAY: 0.02}, home=RELAY), "udp", "bad", "let UDP out"),
        (OWN, NetReport(latencies={RELAY: 0.02}, home=RELAY), "udp", "note", "7842"),
        (OWN, NetReport(True, None, (PLACE,), True, home=RELAY), "nat", "note", "symmetric"),
        (OWN, NetReport(True, None, (PLACE,), None, home=RELAY), "nat", "note", "second relay"),
    ],
)
def test_what_is_wrong_has_a_sentence(own, report, about, mark, words):
    (found,) = said(of_network(own, report), about)
    assert found[0] == mark and words in found[1]


def test_peers_and_services():
    assert of_publishing("x", None).mark == "good" and "429" in of_publishing("x", "429").text
    assert of_port_mapping(PLACE, "").mark == "good" and "refuses" in of_port_mapping(None, "it refuses").text
    assert said(of_target([], {}, "nothing"), "known")[0][0] == "bad"
    relayed = list(of_target([PLACE, RELAY], {PLACE: "no answer", RELAY: 0.1}, 0.1))
    assert "through a relay alone" in said(relayed, "peer")[0][1] and "no answer" in said(relayed, "place")[0][1]
    assert said(of_target([PLACE], {PLACE: "no"}, "nobody there"), "peer")[0][0] == "bad"


def test_targets():
    assert targets_of(str(ID)) == [EndpointAddr(ID)]
    assert targets_of(str(EndpointTicket(OWN))) == [OWN]
    for text in ("", "doc", "blobaaaa", "endpointxyz", "somebody"):
        with pytest.raises(UsageError):
            targets_of(text)


async def test_the_command():
    async with RelayServer.open() as relay, LookupServer.open() as lookup:
        options = ["--bind", "127.0.0.1:0", "--relay", f"http://{relay.bound()[0]}/"]
        options += ["--lookup", f"http://{lookup.http}/pkarr"]
        async with Endpoint.bind(bind=["127.0.0.1:0"], alpns=[b"other/1"]) as peer:
            ticket = str(EndpointTicket(peer.addr()))
            text = (await run(None, *options, "doctor", ticket)).out.decode()
            assert "The peer is there, and proved its key" in text
            assert "was told where this endpoint is" in text and f"relay http://{relay.bound()[0]}/" in text
            lines = (await run(None, "--json", *options, "doctor", str(peer.id))).out.decode().splitlines()
            assert {"addresses", "relay", "known"} <= {json.loads(line)["about"] for line in lines}
        gone = await run(None, *options, "doctor", ticket)
        assert gone.code == 1 and "cannot be reached" in gone.out.decode()
