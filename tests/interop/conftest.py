"""A Rust node beside one of ours, and what both need to know of each other."""

import pytest
from tidings import Node
from tidings.transport import EndpointAddr, EndpointId, IpAddr

from .rust import Rust


@pytest.fixture
async def node():
    async with Node.open(None, bind=["127.0.0.1:0"]) as node:
        yield node


@pytest.fixture
async def aster(node):
    """A Rust node with gossip, documents and blobs; each side knows the other's address."""
    async with Rust("aster") as rust:
        started = await rust.do("start")
        rust.addr = EndpointAddr.of(EndpointId.parse(started["id"]), map(IpAddr.parse, started["addrs"]))
        introduction = await node.docs.create()
        await rust.do("learn", ticket=str(introduction.ticket()))
        await introduction.close()
        yield rust
