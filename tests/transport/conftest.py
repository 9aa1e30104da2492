import pytest
from tidings.transport import Endpoint

LOOPBACK = ["127.0.0.1:0"]


@pytest.fixture
async def pair():
    """Two endpoints on loopback; the second accepts ``test/1``."""
    async with Endpoint.bind(bind=LOOPBACK) as a, Endpoint.bind(alpns=[b"test/1"], bind=LOOPBACK) as b:
        yield a, b


@pytest.fixture
async def connected(pair):
    """Both ends of one connection: (dialler's, accepter's)."""
    a, b = pair
    ours = await a.connect(b.addr(), b"test/1")
    yield ours, await anext(b.incoming())
