"""What documents name is not collected; what they named once is, when nothing needs it any more."""

import asyncio
import os

from tidings import Node


async def test_contents_of_entries_stay_and_replaced_ones_go(tmp_path):
    async with Node.open(tmp_path) as node:
        doc = await node.docs.create()
        large = os.urandom(40_000)
        await doc.set("large", large)
        await doc.set("replaced", os.urandom(50_000))
        await doc.set("replaced", b"now")
        await doc.set("small", b"kept")
        before = len(await node.blobs.list())
        gone = await node.blobs.collect(grace=-1)
        assert gone.bytes == 50_000 and len(await node.blobs.list()) == before - 1
        for key, content in [("large", large), ("replaced", b"now"), ("small", b"kept")]:
            assert await (await doc.get(key)).content() == content


async def test_what_came_from_a_peer_stays():
    content = os.urandom(100_000)
    async with Node.open(None) as ana, Node.open(None) as ben:
        doc = await ana.docs.create()
        await doc.set("k", content)
        his = await ben.docs.join(doc.ticket(write=True))
        async with asyncio.timeout(20):
            while (entry := await his.get("k")) is None:
                await asyncio.sleep(0.05)
        assert await entry.content() == content
        assert (await ben.blobs.collect(grace=-1)).blobs == 0
        assert await entry.content() == content


async def test_a_node_collects_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr("tidings.blobs.api.GRACE", -1.0)
    async with Node.open(tmp_path, collect_every=0.1) as node:
        await node.blobs.add_bytes(b"nobody's", tag=False)
        async with asyncio.timeout(10):
            while await node.blobs.list():
                await asyncio.sleep(0.05)
