"""Nodes that know of each other only through a relay."""

import asyncio
from dataclasses import replace

from program import running
from tidings import DocTicket, EndpointAddr, Node
from tidings.transport.relay.server import RelayServer


async def test_a_document_through_a_relay():
    async with RelayServer.open() as relay:
        url = f"http://{relay.bound()[0]}/"
        async with (
            Node.open(None, bind=["127.0.0.1:0"], relays=[url]) as a,
            Node.open(None, bind=["127.0.0.1:0"], relays=[url]) as b,
        ):
            await asyncio.gather(a.endpoint.online(5), b.endpoint.online(5))
            doc = await a.docs.create()
            await doc.set("greeting", b"hello" * 10_000)
            ticket = doc.ticket(write=True)
            relayed = replace(ticket, nodes=tuple(EndpointAddr.of(each.id, each.relays) for each in ticket.nodes))
            other = await b.docs.join(relayed, timeout=20)
            assert await (await other.get("greeting")).content() == b"hello" * 10_000
            await other.set("answer", b"hi")
            async with asyncio.timeout(20):
                while (entry := await doc.get("answer")) is None:
                    await asyncio.sleep(0.05)
                assert await entry.content() == b"hi"


async def test_the_command_line_names_its_relay_in_tickets(tmp_path):
    async with RelayServer.open() as relay:
        url = f"http://{relay.bound()[0]}/"
        async with running(tmp_path / "a", "--relay", url, "--json", "sync", tmp_path / "folder") as program:
            ticket = (await program.hear("started"))["ticket"]
        assert [str(each) for node in DocTicket.parse(ticket).nodes for each in node.relays] == [url]
