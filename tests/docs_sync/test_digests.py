"""What gossip loses is found by comparing, with nobody joining."""

import asyncio
from pathlib import Path
from random import Random

from docs_net import eventually, node
from tidings.docs_sync.live import document as live
from tidings.docs_sync.model.keys import NamespaceId
from tidings.docs_sync.model.messages import Put
from tidings.docs_sync.model.reconcile import Summary
from tidings.docs_sync.sync import digests as module
from tidings.docs_sync.sync import sync_state
from tidings.docs_sync.sync.digests import Digests
from tidings.transport import EndpointId, SecretKey
from tidings.transport.errors import DecodeError, Unreachable


def lose(monkeypatch, key: bytes) -> list:
    """Whoever receives the entry at ``key`` by gossip loses it; gives how often that was."""
    lost, decode = [], live.decode_op

    def decode_op(content: bytes):
        op = decode(content)
        if isinstance(op, Put) and op.entry.id.key == key:
            lost.append(op)
            raise DecodeError("lost on purpose")
        return op

    monkeypatch.setattr(live, "decode_op", decode_op)
    return lost


async def joined(a, b):
    mine = await a.docs.create()
    theirs = await b.docs.join(mine.ticket(write=True))

    async def settled() -> bool:
        idle = not any(doc._live._sessions._peers for doc in (mine, theirs))
        return bool(mine.neighbors and theirs.neighbors and idle)

    await eventually(settled)
    return mine, theirs


async def test_a_lost_message_is_repaired_once_it_is_quiet(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(live, "QUIET", 0.2)
    lost = lose(monkeypatch, b"lost")
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine, theirs = await joined(a, b)
        await mine.set("lost", b"v")
        await eventually(lambda: theirs.get("lost"), 10)
        assert lost


async def test_a_lost_message_is_repaired_by_the_periodic_digest(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "EVERY", (0.2, 0.4))
    monkeypatch.setattr(module, "SYNC_ANYWAY", 0.0)
    monkeypatch.setattr(live, "QUIET", 1000.0)
    lost = lose(monkeypatch, b"lost")
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine, theirs = await joined(a, b)
        await mine.set("lost", b"v")
        await eventually(lambda: theirs.get("lost"), 10)
        assert lost
        assert mine._live._context.digests.speaks(b.id) or theirs._live._context.digests.speaks(a.id)
        # What is equal is compared, and not synced.
        await asyncio.sleep(0.3)
        before = (await theirs.status()).peers[0].synced_at
        await asyncio.sleep(1)
        assert (await theirs.status()).peers[0].synced_at == before


# The schedule alone, with links that answer as they are told.


class Document:
    def __init__(self, number: int) -> None:
        self.namespace = NamespaceId(number.to_bytes(32, "big"))
        self.wanted: list[tuple[EndpointId, str]] = []

    def want(self, peer: EndpointId, reason: str) -> None:
        self.wanted.append((peer, reason))


class Links:
    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.asked: list[list[bytes]] = []

    async def digest(self, peer, digests):
        self.asked.append([digest.namespace for digest in digests])
        answer = self.answers.pop(0) if self.answers else set()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Store:
    async def summaries(self, namespaces):
        return {each: Summary(0, bytes(32)) for each in namespaces}


class Access:
    async def is_restricted(self, namespace) -> bool:
        return bytes(namespace)[-1] == 99


async def compared(links: Links, documents: list[Document], peer: EndpointId, **how) -> Digests:
    digests = Digests(links, Store(), Access(), Random(1))
    for document in documents:
        digests.compare(document, peer, **how)

    async def done() -> bool:
        return not digests._peers

    await eventually(done)
    return digests


async def test_one_request_for_all_documents_of_a_peer() -> None:
    documents, links = [Document(n) for n in range(50)], Links({bytes(Document(7).namespace)})
    peer = SecretKey.generate().public
    await (await compared(links, documents, peer, otherwise="join")).aclose()
    assert [len(asked) for asked in links.asked] == [50]
    assert [document.wanted for document in documents] == [[(peer, "digest")] if n == 7 else [] for n in range(50)]


async def test_a_peer_that_cannot_compare_is_synced_with() -> None:
    for answer in (None, Unreachable("nobody there")):
        documents, links = [Document(1), Document(2)], Links(answer)
        peer = SecretKey.generate().public
        await (await compared(links, documents, peer, otherwise="join")).aclose()
        assert [document.wanted for document in documents] == [[(peer, "join")]] * 2


async def test_many_documents_of_a_peer_that_is_not_there_wait_for_it(monkeypatch) -> None:
    monkeypatch.setattr(sync_state, "RETRY_FIRST", 0.01)
    documents = [Document(n) for n in range(50)]
    links = Links(Unreachable("nobody there"), TimeoutError(), {bytes(Document(7).namespace)})
    peer = SecretKey.generate().public
    await (await compared(links, documents, peer, otherwise="join")).aclose()
    assert [len(asked) for asked in links.asked] == [50, 50, 50]
    assert [document.wanted for document in documents] == [[(peer, "digest")] if n == 7 else [] for n in range(50)]


async def test_a_restricted_document_is_synced() -> None:
    documents, links = [Document(1), Document(99)], Links()
    peer = SecretKey.generate().public
    await (await compared(links, documents, peer, otherwise="join")).aclose()
    assert links.asked == [[bytes(documents[0].namespace)]]
    assert [document.wanted for document in documents] == [[], [(peer, "join")]]


async def test_documents_are_compared_when_a_neighbour_comes_and_from_then_on(monkeypatch) -> None:
    monkeypatch.setattr(module, "EVERY", (0.05, 0.1))
    documents, links = [Document(n) for n in range(10)], Links()
    peer = SecretKey.generate().public
    digests = Digests(links, Store(), Access(), Random(1))
    for document in documents:
        digests.meet(document, peer)

    async def compared_again() -> bool:
        return len(links.asked) >= 3 and all(
            reason == "again" for document in documents for _, reason in document.wanted
        )

    await eventually(compared_again)
    assert len(links.asked[-1]) == 10
    for document in documents:
        digests.part(document, peer)
    for document in documents:
        digests.leave(document)
    assert not digests._peers or digests._peers[peer].asking
    await digests.aclose()


async def test_now_and_then_a_document_that_seems_equal_is_synced(monkeypatch) -> None:
    monkeypatch.setattr(module, "EVERY", (0.01, 0.02))
    documents = [Document(n) for n in range(5)]
    peer = SecretKey.generate().public
    digests = Digests(Links(), Store(), Access(), Random(1))
    for document in documents:
        digests.meet(document, peer)

    async def each_was_synced() -> bool:
        return all((peer, "again") in document.wanted for document in documents)

    await eventually(each_was_synced)
    await digests.aclose()


async def test_who_was_a_neighbour_is_still_compared_with(monkeypatch) -> None:
    """The swarm may have come apart."""
    monkeypatch.setattr(module, "EVERY", (1000.0, 1000.0))
    monkeypatch.setattr(module, "SELDOM", (0.05, 0.1))
    monkeypatch.setattr(module, "MAX_APART", 2)
    document = Document(1)
    links = Links(*[{bytes(document.namespace)}] * 100)
    peers = [SecretKey.generate().public for _ in range(3)]
    digests = Digests(links, Store(), Access(), Random(1))
    for peer in peers:
        digests.meet(document, peer)

    async def compared_once() -> bool:
        return len(document.wanted) == 3

    await eventually(compared_once)
    document.wanted.clear()
    for peer in peers:
        digests.part(document, peer)

    async def compared_often() -> bool:
        return len(document.wanted) >= 4

    await eventually(compared_often)
    assert set(document.wanted) == {(peer, "digest") for peer in peers[1:]}
    digests.leave(document)
    await digests.aclose()
