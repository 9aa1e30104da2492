"""Fetches against blobs that come, fail, and come late."""

import asyncio
from random import Random

import pytest
from tidings.blobs import Hash
from tidings.docs_sync.download import CONCURRENT, Downloads
from tidings.docs_sync.errors import ContentMissing
from tidings.docs_sync.keys import NamespaceSecret
from tidings.errors import NetworkError
from tidings.transport import SecretKey

DOC = NamespaceSecret(b"\1" * 32).id
PEER = SecretKey(b"\2" * 32).public


class Blobs:
    """As far as downloads use the real ones."""

    def __init__(self) -> None:
        self.here: dict[Hash, bytes] = {}
        self.elsewhere: dict[Hash, bytes] = {}
        self.asked: list[tuple[Hash, list, int]] = []
        self.running = self.most = 0

    async def has(self, hash: Hash) -> bool:
        return hash in self.here

    async def read(self, hash: Hash) -> bytes:
        return self.here[hash]

    async def fetch(self, hash: Hash, providers: list, *, max_size: int) -> None:
        self.asked.append((hash, list(providers), max_size))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.01)
            if hash not in self.elsewhere:
                raise NetworkError("nobody has it")
            self.here[hash] = self.elsewhere[hash]
        finally:
            self.running -= 1


class Document:
    def __init__(self) -> None:
        self.near: list[bytes] = []
        self.settled: list[tuple[bytes, bool]] = []

    def candidates(self) -> list[bytes]:
        return self.near

    def content_settled(self, hash: bytes, *, here: bool) -> None:
        self.settled.append((hash, here))


@pytest.fixture
async def downloads():
    downloads = Downloads(Blobs(), Random(1))
    yield downloads
    await downloads.aclose()


async def test_an_offered_content(downloads: Downloads) -> None:
    blobs, document, hash = downloads._blobs, Document(), Hash.of(b"x")
    blobs.elsewhere[hash] = b"x"
    downloads.join(DOC, document)
    assert downloads.want(DOC, bytes(hash), 1, bytes(PEER))
    assert await downloads.content(DOC, hash, 1, 5) == b"x"
    assert blobs.asked == [(hash, [PEER], 1)]
    assert document.settled == [(bytes(hash), True)]


async def test_a_failure_and_a_late_announcement(downloads: Downloads) -> None:
    blobs, document, hash = downloads._blobs, Document(), Hash.of(b"x")
    downloads.join(DOC, document)
    downloads.want(DOC, bytes(hash), 1, bytes(PEER))
    with pytest.raises(ContentMissing):
        await downloads.content(DOC, hash, 1, 0.1)
    assert document.settled == [(bytes(hash), False)]
    blobs.elsewhere[hash] = b"x"
    downloads.announced(bytes(hash), bytes(PEER))
    assert await downloads.content(DOC, hash, 1, 5) == b"x"


async def test_fetches_are_bounded(downloads: Downloads) -> None:
    blobs, document = downloads._blobs, Document()
    downloads.join(DOC, document)
    for n in range(50):
        blobs.elsewhere[Hash.of(b"%d" % n)] = b"%d" % n
        downloads.want(DOC, bytes(Hash.of(b"%d" % n)), 2, bytes(PEER))
    async with asyncio.timeout(5):
        while len(document.settled) < 50:
            await asyncio.sleep(0.01)
    assert blobs.most == CONCURRENT


async def test_asking_makes_an_unannounced_content_urgent(downloads: Downloads) -> None:
    blobs, document, hash = downloads._blobs, Document(), Hash.of(b"x")
    document.near = [bytes(PEER)]
    blobs.elsewhere[hash] = b"x"
    downloads.join(DOC, document)
    async with asyncio.timeout(1):
        assert await downloads.content(DOC, hash, 1, 5) == b"x"


async def test_content_that_came_by_another_way(downloads: Downloads) -> None:
    blobs, hash = downloads._blobs, Hash.of(b"x")
    waiting = asyncio.ensure_future(downloads.content(DOC, hash, 1, 5))
    await asyncio.sleep(0.01)
    blobs.here[hash] = b"x"
    assert await waiting == b"x"


async def test_a_document_that_left(downloads: Downloads) -> None:
    blobs, document = downloads._blobs, Document()
    downloads.join(DOC, document)
    downloads.want(DOC, bytes(32), 1, None)
    downloads.leave(DOC)
    await asyncio.sleep(0.05)
    assert blobs.asked == []
    assert document.settled == []
