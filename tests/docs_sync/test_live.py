"""Live documents among several nodes, and hostile gossip."""

import asyncio
import random
import time
from pathlib import Path

from docs_net import contents, eventually, node
from tidings.docs_sync.model.entry import Record, sign_entry
from tidings.docs_sync.model.keys import Author, NamespaceSecret
from tidings.docs_sync.model.messages import Put, SyncReport, encode_op


async def test_bad_gossip_costs_one_message(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        theirs = await b.docs.join(mine.ticket())
        topic = await b.gossip.subscribe(bytes(mine.id))
        await topic.joined()
        now = time.time_ns() // 1000
        author, record = Author.generate(), Record(1, b"\1" * 32, now)
        secret = mine._capability.secret
        good = sign_entry(secret, author, b"good", record)
        for payload in [
            b"",
            b"\xff" * 50,
            b"\0short",
            encode_op(Put(good._replace(namespace_signature=bytes(64)))),
            encode_op(Put(sign_entry(NamespaceSecret.generate(), author, b"other", record))),
            encode_op(Put(sign_entry(secret, author, b"late", record._replace(timestamp=now + 660_000_000)))),
            encode_op(Put(sign_entry(secret, author, b"empty", record._replace(size=0)))),
            encode_op(SyncReport(bytes(32), {bytes(32): now})),
            encode_op(SyncReport(bytes(mine.id), {bytes(32): 2**64 - 1})),
            encode_op(Put(good)),
        ]:
            await topic.broadcast(payload)
        await eventually(lambda: mine.get("good"))
        assert [entry.key async for entry in mine.entries()] == [b"good"]
        await mine.set("k", b"v")
        await eventually(lambda: theirs.get("k"))


async def test_an_entry_that_gossip_cannot_carry(tmp_path: Path) -> None:
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        mine = await a.docs.create()
        theirs = await b.docs.join(mine.ticket())

        async def joined() -> bool:
            return bool(mine.neighbors and theirs.neighbors)

        await eventually(joined)
        key = b"k" * 4000
        await mine.set(key, b"v")
        await eventually(lambda: theirs.get(key))


async def test_a_swarm_converges(tmp_path: Path) -> None:
    """Four nodes write, delete, leave and come back, all at once; in the end all hold the same."""
    rng = random.Random(7)
    async with (
        node(tmp_path / "a") as a,
        node(tmp_path / "b") as b,
        node(tmp_path / "c") as c,
        node(tmp_path / "d") as d,
    ):
        first = await a.docs.create()
        ticket = first.ticket(write=True)
        docs = [first, *[await n.docs.join(ticket) for n in (b, c, d)]]

        async def edit(index: int) -> None:
            for n in range(30):
                doc = docs[index]
                if rng.random() < 0.2:
                    await doc.delete(rng.choice(["", "x/", "y/"]) + rng.choice(["", "1"]))
                elif rng.random() < 0.05 and index:
                    await doc.close()
                    docs[index] = await doc._docs.open(doc.id)
                else:
                    await doc.set(rng.choice(["x/", "y/"]) + str(rng.randint(0, 12)), b"%d %d" % (index, n))
                await asyncio.sleep(rng.random() * 0.01)

        await asyncio.gather(*map(edit, range(4)))

        async def same() -> bool:
            states = [await doc._docs._store.initial_message(doc.id) for doc in docs]
            return all(state == states[0] for state in states)

        await eventually(same, 20)
        expected = await contents(docs[0])
        for doc in docs[1:]:
            assert await contents(doc) == expected
