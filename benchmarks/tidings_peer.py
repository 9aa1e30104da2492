"""A tidings node in a process of its own that obeys the same JSON lines as ``tests/interop/rust_peer.py``.

One driver then gives both implementations the same work, and each measures inside its own process.
"""

import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "interop"))
from rust_peer import Heard, obey, pattern, random_bytes, say
from tidings import BlobTicket, DocTicket, Endpoint, EndpointAddr, EndpointId, IpAddr, Node, Router
from tidings.blobs import BlobFormat, Hash
from tidings.blobs.bao import Decoder, encode
from tidings.blobs.provider import Provider as SlowProvider
from tidings.blobs.ranges import ChunkRanges
from tidings.blobs.settings import BlobSettings
from tidings.blobs.tree import batch_size
from tidings.docs_sync import ContentReady, InsertRemote
from tidings.gossip import NeighborUp, Received
from tidings.storage import tables

BIND = ["127.0.0.1:0"]


class Tidings:
    node = scratch = None

    async def start(self, directory=None, fsync=True):
        """On the disk, where the Rust peer is in memory: what we acknowledge is durable, and its cost belongs here."""
        self.scratch = tempfile.TemporaryDirectory(prefix="tidings-bench-")
        self.node = await Node.open(directory or self.scratch.name, bind=BIND, fsync=fsync)
        self.docs, self.events, self.topics, self.connections = [], [], [], []
        return {"id": str(self.node.id), "addrs": list(map(str, self.node.endpoint.bound()))}

    async def stop(self):
        if self.node is not None:
            await self.node.aclose()
            self.scratch.cleanup()

    async def learn(self, ticket):
        for addr in DocTicket.parse(ticket).nodes:
            self.node.endpoint.lookup.add(addr)

    # streams, on an endpoint of its own (the node's has a router)

    async def stream_start(self, alpns):
        from tidings import Endpoint

        self.endpoint = await Endpoint.bind(alpns=[bytes.fromhex(alpn) for alpn in alpns], bind=BIND)
        self.connections = []
        return {"id": str(self.endpoint.id), "addrs": list(map(str, self.endpoint.bound()))}

    async def accept(self):
        self.connections.append(await anext(self.endpoint.incoming()))
        return {"connection": len(self.connections) - 1}

    async def connect(self, peer, addrs, alpn):
        addr = EndpointAddr.of(EndpointId.parse(peer), map(IpAddr.parse, addrs))
        self.connections.append(await self.endpoint.connect(addr, bytes.fromhex(alpn)))
        return {"connection": len(self.connections) - 1}

    async def upload(self, connection, size):
        stream = await self.connections[connection].open_uni()
        block = bytes(1 << 20)
        start = time.perf_counter()
        for _ in range(size >> 20):
            await stream.write(block)
        await stream.finish()
        await stream.stopped()
        return time.perf_counter() - start

    async def download(self, connection):
        stream = await self.connections[connection].accept_uni()
        total = 0
        while data := await stream.read(1 << 20):
            total += len(data)
        return total

    # blobs

    async def blob_add_pattern(self, size):
        return str((await self.node.blobs.add_bytes(pattern(size))).hash)

    async def blob_ticket(self, hash):
        return str(self.node.blobs.ticket(hash))

    async def blob_add_file(self, size, refer=False):
        """Of random bytes, the same for all; what it takes to make it does not count."""
        path = Path(self.scratch.name) / "file"
        path.write_bytes(random_bytes(size))
        start = time.perf_counter()
        info = await self.node.blobs.add_path(path, refer=refer)
        return {"hash": str(info.hash), "seconds": time.perf_counter() - start}

    async def blob_add_sparse(self, size):
        path = Path(self.scratch.name) / "sparse"
        with path.open("wb") as file:
            for at in range(0, size, 1 << 30):
                file.seek(at)
                file.write(b"%d" % at)
            file.truncate(size)
        info = await self.node.blobs.add_path(path)
        return {"hash": str(info.hash), "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}

    async def blob_fetch(self, ticket):
        start = time.perf_counter()
        await self.node.blobs.fetch(ticket)
        return {"seconds": time.perf_counter() - start}

    async def blob_fetch_cpu(self, ticket):
        """CPU seconds of a fetch, and of verifying the same answer once more, all by itself."""
        begun = time.process_time()
        info = await self.node.blobs.fetch(ticket)
        fetching = time.process_time() - begun
        async with await self.node.blobs.reader(info.hash) as reader:
            decoder, verifying, batch = Decoder(info.hash, ChunkRanges.ALL, peer=None), 0.0, b""
            answer = encode(info.size, ChunkRanges.ALL, reader.data_at, reader.outboard_at)
            while not decoder.finished:
                while len(batch) < batch_size() and (piece := next(answer, b"")):
                    batch += piece
                begun = time.process_time()
                for _ in decoder.feed(batch):
                    pass
                verifying += time.process_time() - begun
                batch = b""
        return {"fetching": fetching, "verifying": verifying}

    async def blob_serve_slowly(self, hash, rate):
        """By an endpoint of its own, of so many bytes a second."""
        self.slow = await Endpoint.bind(bind=BIND)
        provider = self.node.blobs._provider
        blobs = SlowProvider(provider._store, provider._growing, BlobSettings(upload_rate=rate))
        self.slow_router = Router(self.slow, {self.node.blobs.ALPN: blobs.handle})
        await self.slow_router.__aenter__()
        return str(BlobTicket(self.slow.addr(), Hash.parse(hash)))

    async def blob_fetch_from(self, tickets):
        found = [BlobTicket.parse(ticket) for ticket in tickets]
        start = time.perf_counter()
        await self.node.blobs.fetch(found[0].hash, [ticket.addr for ticket in found])
        return {"seconds": time.perf_counter() - start}

    async def blob_open(self, ticket, offset, size):
        start = time.perf_counter()
        async with self.node.blobs.open(ticket) as file:
            await file.seek(offset)
            got = len(await file.read(size))
        assert got == size
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}

    async def blob_served(self):
        return {"bytes_sent": self.node.blobs.served.bytes_sent}

    async def collection_add_folder(self, folder):
        start = time.perf_counter()
        info = await self.node.blobs.add_folder(folder)
        seconds = time.perf_counter() - start
        return {"ticket": str(self.node.blobs.ticket(info.hash, BlobFormat.HASH_SEQ)), "seconds": seconds}

    async def collection_fetch(self, ticket):
        start = time.perf_counter()
        await self.node.blobs.fetch_collection(ticket)
        return {"seconds": time.perf_counter() - start}

    async def blob_download(self, ticket, check_pattern=None):
        start = time.perf_counter()
        info = await self.node.blobs.fetch(ticket)
        data = await self.node.blobs.read(info.hash)
        seconds = time.perf_counter() - start
        return {"same": data == pattern(check_pattern), "seconds": seconds}

    # documents

    def _keep(self, doc):
        self.docs.append(doc)
        self.events.append(doc.events())
        return {"doc": len(self.docs) - 1, "id": str(doc.id)}

    async def doc_create(self):
        return self._keep(await self.node.docs.create())

    async def doc_join(self, ticket):
        return self._keep(await self.node.docs.join(DocTicket.parse(ticket), timeout=300))

    async def doc_author(self):
        return None  # the default one

    async def doc_set(self, doc, author, key, value):
        now = time.time()
        await self.docs[doc].set(bytes.fromhex(key), bytes.fromhex(value))
        return now

    async def doc_fill(self, doc, author, count, prefix="key/"):
        start = time.perf_counter()
        for n in range(count):
            await self.docs[doc].set(f"{prefix}{n:08d}", f"value {n}".encode())
        return time.perf_counter() - start

    async def doc_fill_batch(self, doc, count, first=0, prefix="key/"):
        start = time.perf_counter()
        async with self.docs[doc].batch() as batch:
            for n in range(first, first + count):
                await batch.set(f"{prefix}{n:08d}", f"value {n}".encode())
        return time.perf_counter() - start

    async def doc_leave(self, doc):
        await self.docs[doc].close()

    async def doc_resync(self, doc, peer, count):
        """Open the document again and sync it; the seconds until ``count`` entries have come."""
        start = time.perf_counter()
        opened = self.docs[doc] = await self.node.docs.open(self.docs[doc].id)
        events = self.events[doc] = opened.events()
        syncing = asyncio.create_task(opened.synced(EndpointId.parse(peer), timeout=60))
        while count:
            count -= isinstance(await anext(events), InsertRemote)
        seconds = time.perf_counter() - start
        await syncing
        return seconds

    async def doc_forget(self):
        """Forget what was agreed on with which peer: the next sync is one with a stranger."""
        await self.node.database.write(lambda connection: connection.execute(sa.delete(tables.agreed)).rowcount)

    async def doc_share(self, doc, mode):
        return str(self.docs[doc].ticket(write=mode == "write"))

    async def doc_wait(self, doc, count):
        """Wait until so many entries are here; counted from the aggregate."""
        while (await self.docs[doc].status()).entries < count:
            await asyncio.sleep(0.01)

    async def doc_contents(self, doc, count):
        """Wait until so many contents are here."""
        while (await self.docs[doc].content_counts()).had < count:
            await asyncio.sleep(0.01)

    async def doc_drain(self, doc):
        """Throw away the events that wait."""
        self.events[doc] = self.docs[doc].events()

    async def doc_until(self, doc, kind):
        wanted = InsertRemote if "insert" in kind.lower() else ContentReady
        await anext(event async for event in self.events[doc] if isinstance(event, wanted))
        return {"time": time.time()}

    # gossip

    async def gossip_subscribe(self, topic, bootstrap, log=False):
        peers = [EndpointId.parse(peer) for peer in bootstrap]
        self.topics.append(await self.node.gossip.subscribe(bytes.fromhex(topic), bootstrap=peers, log=log))
        return len(self.topics) - 1

    async def gossip_broadcast(self, topic, data):
        now = time.time()
        await self.topics[topic].broadcast(bytes.fromhex(data))
        return now

    async def gossip_until(self, topic, kind):
        wanted = Received if "received" in kind.lower() else NeighborUp
        await anext(event async for event in self.topics[topic] if isinstance(event, wanted))
        return {"time": time.time()}

    async def gossip_listen(self, topic):
        self.heard = Heard()
        self.listening = asyncio.create_task(self._listen(self.topics[topic]))

    async def _listen(self, topic):
        async for event in topic:
            self.heard.note(event.content if isinstance(event, Received) else None, type(event).__name__)

    async def gossip_say(self, topic, first, count, size, pause=0.0):
        return await say(self.topics[topic].broadcast, first, count, size, pause)

    async def gossip_heard(self, first, count, times=False):
        return self.heard.of(first, count, times=times)


if __name__ == "__main__":
    asyncio.run(obey(Tidings()))
