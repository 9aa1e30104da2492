"""Contents between whole nodes on loopback: late providers, restarts, policies, and providers that lie."""

import asyncio
from pathlib import Path

import pytest
from docs_net import eventually, node
from tidings.blobs import ALPN, Hash
from tidings.blobs.bao import HEADER
from tidings.blobs.messages import GetManyRequest, decode_request
from tidings.docs_sync import ContentCounts, DownloadPolicy, PendingContentReady, Prefix, errors
from tidings.transport import Endpoint, Router, SecretKey


async def counts(doc, **expected: int) -> None:
    async def same() -> bool:
        return await doc.content_counts() == ContentCounts(**expected)

    await eventually(same)


async def fill(doc, count: int, prefix: str = "k/") -> dict[bytes, bytes]:
    values = {f"{prefix}{n:05d}".encode(): b"value %d of %s" % (n, prefix.encode()) for n in range(count)}
    async with doc.batch() as batch:
        for key, value in values.items():
            await batch.set(key, value)
    return values


async def here(blobs, values: dict[bytes, bytes]) -> int:
    found = await blobs._store.small([Hash.of(value) for value in values.values()])
    return len(found)


async def test_thousands_come_after_a_join(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        values = await fill(mine, 3000)
        theirs = await b.docs.join(mine.ticket())
        await counts(theirs, had=3000)
        assert await here(b.blobs, values) == 3000
        [some] = [content async for content in theirs.contents("had") if content.key == b"k/00007"]
        assert (some.peer, some.size, some.error, some.next_try) == (a.id, len(b"value 7 of k/"), None, None)
        await mine.set("live", b"soon there")
        await counts(theirs, had=3001)


async def test_a_provider_that_comes_later(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        late = b"not here yet" * 10
        await mine.set_hash("late", Hash.of(late), len(late))
        large = bytes(100_000)
        await mine.set_hash("large", Hash.of(large), len(large))
        theirs = await b.docs.join(mine.ticket())
        await counts(theirs, failed=2)
        [content] = [content async for content in theirs.contents("failed") if content.key == b"late"]
        assert content.peer == a.id
        assert content.error is not None
        assert "does not have" in content.error
        await a.blobs.add_bytes(late)
        await a.blobs.add_bytes(large)
        await theirs.synced()
        await counts(theirs, had=2)


async def test_a_third_node_has_what_the_first_lacks(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        await mine.set_hash("k", Hash.of(b"only at c"), 9)
        theirs = await b.docs.join(mine.ticket())
        await counts(theirs, failed=1)
        async with node(tmp_path / "c") as c:
            await c.blobs.add_bytes(b"only at c")
            await c.docs.join(mine.ticket())
            await counts(theirs, had=1)
            await counts(mine, had=1)


async def test_what_is_wanted_survives_a_restart(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a:
        mine = await a.docs.create()
        values = [b"value %d" % n for n in range(50)]
        for n, value in enumerate(values):
            await mine.set_hash(f"k{n}", Hash.of(value), len(value))
        async with node(tmp_path / "b", in_memory=False) as b:
            theirs = await b.docs.join(mine.ticket())
            await counts(theirs, failed=50)
        for value in values:
            await a.blobs.add_bytes(value)
        async with node(tmp_path / "b", in_memory=False) as b:
            await counts(await b.docs.open(mine.id), had=50)


async def test_a_policy_is_kept_and_changed(tmp_path: Path) -> None:
    photos = DownloadPolicy.nothing_except([Prefix(b"photos/")])
    async with node(tmp_path / "a") as a:
        mine = await a.docs.create()
        wanted, other = await fill(mine, 30, "photos/"), await fill(mine, 700, "films/")
        async with node(tmp_path / "b", in_memory=False) as b:
            theirs = await b.docs.join(mine.ticket(), policy=photos)
            await counts(theirs, had=30)
            assert await theirs.download_policy() == photos
            assert (await here(b.blobs, wanted), await here(b.blobs, other)) == (30, 0)
            entry = await theirs.get("films/00001")
            assert await entry.content() == other[b"films/00001"]
            await mine.set("films/new", b"not wanted")
            await eventually(lambda: theirs.get("films/new"))
        async with node(tmp_path / "b", in_memory=False) as b:
            [handle] = [doc async for doc in b.docs.list()]
            assert await handle.download_policy() == photos
            theirs = await b.docs.open(mine.id)
            await theirs.synced()
            await theirs.set_download_policy(DownloadPolicy.everything_except(["exact:utf8:films/new"]))
            await counts(theirs, had=30 + 700 - 1)  # one was read
            assert await here(b.blobs, other) == 700
            assert not await b.blobs.has(Hash.of(b"not wanted"))


async def test_policies_of_encrypted_documents(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create(encrypted=True)
        await fill(mine, 5, "photos/")
        await fill(mine, 5, "films/")
        policy = DownloadPolicy.nothing_except(["prefix:utf8:photos/", "exact:utf8:films/00002"])
        theirs = await b.docs.join(mine.ticket(), policy=policy)
        await counts(theirs, had=6)
        assert await theirs.download_policy() == policy
        keys = {content.key async for content in theirs.contents()}
        assert keys == {b"films/00002", *(b"photos/%05d" % n for n in range(5))}
        with pytest.raises(errors.BadPolicy):
            await theirs.set_download_policy(DownloadPolicy.nothing_except(["prefix:utf8:pho"]))


async def test_pending_content_ready_comes_after_the_last(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        values = await fill(mine, 400)
        theirs = await b.docs.join(mine.ticket())
        async with asyncio.timeout(15):
            async for event in theirs.events():
                if isinstance(event, PendingContentReady):
                    break
        assert await here(b.blobs, values) == 400


async def test_protected_hashes(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a:
        first, second = await a.docs.create(), await a.docs.create()
        await first.set("k", b"one")
        await second.set("k", b"two")
        await second.delete("k")
        assert Hash.of(b"one") in {hash async for hash in a.docs.protected_hashes()}


def wrong_bytes(hash: Hash) -> bytes:
    return HEADER.pack(5) + b"wrong"


def too_large(hash: Hash) -> bytes:
    return HEADER.pack(1 << 40)


def half(hash: Hash) -> bytes:
    return HEADER.pack(5) + b"v"


@pytest.mark.parametrize("lie", [wrong_bytes, too_large, half, None])
async def test_a_provider_that_lies_or_stalls(tmp_path: Path, lie, monkeypatch: pytest.MonkeyPatch) -> None:
    """The liar says by gossip and sync nothing; it is only asked first. The honest one delivers all the same."""
    monkeypatch.setattr("tidings.blobs.api.Blobs.fetch_small.__kwdefaults__", {"stall_timeout": 0.5}, raising=False)
    asked = []

    async def serve(connection) -> None:
        while True:
            stream = await connection.accept_bi()
            request = decode_request(await stream.recv.read_to_end(1 << 20))
            hashes = request.hashes if isinstance(request, GetManyRequest) else (request.hash,)
            asked.append(hashes)
            if lie is not None:
                await stream.send.write(lie(hashes[0]))
                await stream.send.finish()

    secret = SecretKey.generate()
    async with Endpoint.bind(secret_key=secret, bind=["127.0.0.1:0"]) as liar, Router(liar, {ALPN: serve}):
        async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
            b.endpoint.lookup.add(liar.addr())
            mine = await a.docs.create()
            theirs = await b.docs.join(mine.ticket())
            honest = theirs._live.candidates
            monkeypatch.setattr(
                type(theirs._live), "candidates", lambda live: [bytes(secret.public), *honest()], raising=True
            )
            stored = b.docs._downloads.stored
            monkeypatch.setattr(b.docs._downloads, "stored", lambda doc, many, _, peer: stored(doc, many, (), peer))
            values = await fill(mine, 40)
            await counts(theirs, had=40)
            assert asked
            assert await here(b.blobs, values) == 40
            peers = {content.peer async for content in theirs.contents("had")}
            assert peers == {a.id}
