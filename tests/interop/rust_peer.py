"""A real Rust peer in a process of its own, driven by JSON lines: ``python rust_peer.py iroh`` or ``aster``.

A request is ``{"id": 1, "do": "name", ...}`` on standard input, its answer ``{"id": 1, "ok": ...}`` or
``{"id": 1, "error": "..."}`` on standard output. Bytes travel as hex. Requests run side by side.
The process ends with its standard input, at once: Rust threads outlive the interpreter and would abort it.
"""

import asyncio
import ctypes
import json
import os
import sys
import tempfile
import time
from random import Random

NUMBER = 8  # bytes of its number at the beginning of a message of `say`


class Iroh:
    """An endpoint of the ``iroh`` package: connections, streams, datagrams."""

    async def start(self, alpns, secret=None, fast_copy=False, relay=None):
        import iroh

        if fast_copy:
            iroh.iroh_ffi._UniffiRustBufferBuilder.write = copy_at_once
        iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
        self.iroh = iroh
        options = iroh.EndpointOptions(
            preset=iroh.preset_minimal(),
            alpns=[bytes.fromhex(alpn) for alpn in alpns],
            relay_mode=iroh.RelayMode.custom_from_urls([relay]) if relay else iroh.RelayMode.disabled(),
            bind_addr="127.0.0.1:0",
            secret_key=bytes.fromhex(secret) if secret else os.urandom(32),
        )
        self.endpoint = await iroh.Endpoint.bind(options)
        self.connections = []
        self.streams = []
        return {"id": self.endpoint.id().to_bytes().hex(), "addrs": list(self.endpoint.bound_sockets())}

    def _keep(self, connection):
        self.connections.append(connection)
        return {"connection": len(self.connections) - 1, "remote": connection.remote_id().to_bytes().hex()}

    async def accept(self):
        incoming = await self.endpoint.accept_next()
        return self._keep(await (await incoming.accept()).connect())

    async def online(self):
        """Wait until the home relay is connected."""
        await self.endpoint.online()

    async def connect(self, peer, addrs, alpn, relay=None):
        addr = self.iroh.EndpointAddr(self.iroh.EndpointId.from_bytes(bytes.fromhex(peer)), relay, addrs)
        return self._keep(await self.endpoint.connect(addr, bytes.fromhex(alpn)))

    async def open_bi(self, connection):
        self.streams.append(await self.connections[connection].open_bi())
        return len(self.streams) - 1

    async def accept_bi(self, connection):
        self.streams.append(await self.connections[connection].accept_bi())
        return len(self.streams) - 1

    async def write(self, stream, data, finish=True):
        send = self.streams[stream].send()
        await send.write_all(bytes.fromhex(data))
        if finish:
            await send.finish()

    async def read_to_end(self, stream, limit):
        return bytes(await self.streams[stream].recv().read_to_end(limit)).hex()

    async def reset(self, stream, code):
        await self.streams[stream].send().reset(code)

    async def stop(self, stream, code):
        await self.streams[stream].recv().stop(code)

    async def echo(self, connection):
        """Send back one stream, whole."""
        stream = await self.connections[connection].accept_bi()
        data = await stream.recv().read_to_end(1 << 26)
        await stream.send().write_all(bytes(data))
        await stream.send().finish()
        await stream.send().stopped()
        return len(data)

    async def download(self, connection):
        """Read one incoming stream to its end; how many bytes."""
        stream = await self.connections[connection].accept_uni()
        total = 0
        while data := await stream.read(1 << 20):
            total += len(data)
        return total

    async def upload(self, connection, size):
        """Send ``size`` zero bytes on a new stream; the seconds it took, from the first byte to the peer's last ack."""
        stream = await self.connections[connection].open_uni()
        block = bytes(1 << 20)
        start = time.perf_counter()
        for _ in range(size >> 20):
            await stream.write_all(block)
        await stream.finish()
        await stream.stopped()
        return time.perf_counter() - start

    async def send_datagram(self, connection, data):
        self.connections[connection].send_datagram(bytes.fromhex(data))

    async def read_datagram(self, connection):
        return bytes(await self.connections[connection].read_datagram()).hex()

    async def close(self, connection, code, reason):
        self.connections[connection].close(code, reason.encode())


class Aster:
    """A node of the ``aster-rpc`` package: gossip, documents, blobs."""

    async def start(self, secret=None, on_disk=False):
        from aster import _aster, blobs_client, docs_client, gossip_client

        secret_key = bytes.fromhex(secret) if secret else os.urandom(32)
        config = _aster.EndpointConfig([b"x/1"], relay_mode="disabled", bind_addr="127.0.0.1:0", secret_key=secret_key)
        self.module = _aster
        if on_disk:
            self.scratch = tempfile.TemporaryDirectory(prefix="aster-")
            self.node = await _aster.IrohNode.persistent_with_alpns(self.scratch.name, [b"x/1"], config)
        else:
            self.node = await _aster.IrohNode.memory_with_alpns([b"x/1"], config)
        self.blobs, self.docs, self.gossip = blobs_client(self.node), docs_client(self.node), gossip_client(self.node)
        self.handles, self.events, self.inserted, self.contents, self.pumps, self.topics = [], [], [], [], [], []
        addrs = self.node.node_addr_info().to_dict()["direct_addresses"]
        return {"id": self.node.node_id(), "addrs": [a for a in addrs if a.startswith("127.")]}

    async def learn(self, ticket):
        """Learn a peer's address: the package has no call for that, but keeps what a document's ticket says."""
        doc, _ = await self.docs.join_and_subscribe(ticket)
        await doc.leave()

    # blobs

    async def blob_add(self, data):
        return await self.blobs.add_bytes(bytes.fromhex(data))

    async def blob_add_pattern(self, size):
        return await self.blobs.add_bytes(pattern(size))

    async def blob_ticket(self, hash):
        return str(self.blobs.create_ticket(hash))

    async def blob_download(self, ticket, check_pattern=None):
        start = time.perf_counter()
        data = bytes(await self.blobs.download_blob(ticket))
        seconds = time.perf_counter() - start
        if check_pattern is not None:
            return {"same": data == pattern(check_pattern), "seconds": seconds}
        return {"data": data.hex(), "seconds": seconds}

    async def blob_add_file(self, size):
        data = random_bytes(size)
        start = time.perf_counter()
        hash = await self.blobs.add_bytes(data)
        return {"hash": hash, "seconds": time.perf_counter() - start}

    async def blob_fetch(self, ticket):
        start = time.perf_counter()
        await self.blobs.download_blob(ticket)
        return {"seconds": time.perf_counter() - start}

    async def blob_has(self, hash):
        return await self.blobs.blob_has(hash)

    async def blob_status(self, hash):
        return dict(await self.blobs.blob_status(hash))

    async def blob_begin_download(self, ticket):
        self.downloading = asyncio.ensure_future(self.blobs.download_blob(ticket))

    async def collection_add(self, entries):
        return await self.blobs.add_collection([(name, bytes.fromhex(data)) for name, data in entries])

    async def collection_add_patterns(self, sizes):
        return await self.blobs.add_collection([(f"file {at}", pattern(size)) for at, size in enumerate(sizes)])

    async def collection_ticket(self, hash):
        return str(self.blobs.create_collection_ticket(hash))

    async def collection_download(self, hash, node):
        entries = await self.blobs.download_collection_hash(hash, node)
        return [[name, bytes(data).hex()] for name, data in entries]

    # documents

    def _keep(self, doc, events):
        queue = asyncio.Queue()
        self.handles.append(doc)
        self.events.append(queue)
        self.inserted.append(0)
        self.contents.append(0)
        self.pumps.append(asyncio.ensure_future(self._pump(len(self.handles) - 1, events, queue)))
        return {"doc": len(self.handles) - 1, "id": doc.doc_id()}

    async def _pump(self, doc, events, queue):
        """Take events as they come: after 256 that nobody took, the Rust document stands still."""
        while True:
            event = await events.recv()
            queue.put_nowait((event, time.time()))
            if "insert_remote" in str(event.kind):
                self.inserted[doc] += 1
            elif str(event.kind) == "content_ready":
                self.contents[doc] += 1

    async def doc_create(self):
        doc = await self.docs.create()
        return self._keep(doc, await doc.subscribe())

    async def doc_join(self, ticket):
        doc, events = await self.docs.join_and_subscribe(ticket)
        return self._keep(doc, events)

    async def doc_author(self):
        return await self.docs.create_author()

    async def doc_set(self, doc, author, key, value):
        """The time just before the entry is made."""
        now = time.time()
        await self.handles[doc].set_bytes(author, bytes.fromhex(key), bytes.fromhex(value))
        return now

    async def doc_fill(self, doc, author, count, prefix="key/"):
        """Insert ``count`` entries one by one; the seconds it took."""
        start = time.perf_counter()
        for n in range(count):
            await self.handles[doc].set_bytes(author, f"{prefix}{n:08d}".encode(), f"value {n}".encode())
        return time.perf_counter() - start

    async def doc_share(self, doc, mode):
        return str(await self.handles[doc].share_with_addr(mode))

    async def doc_entries(self, doc, keys):
        """The entries at exactly these keys, of any author. (The package's query by prefix returns three at most.)"""
        rows = []
        for key in keys:
            entries = await self.handles[doc].query_key_exact(bytes.fromhex(key))
            rows += [[bytes(e.key).hex(), e.author_id, e.content_hash, e.content_len, e.timestamp] for e in entries]
        return rows

    async def doc_wait(self, doc, count):
        """Wait until ``count`` remote entries were inserted since the document is here."""
        while self.inserted[doc] < count:
            await asyncio.sleep(0.002)

    async def doc_contents(self, doc, count):
        """Wait until ``count`` contents have come since the document is here."""
        while self.contents[doc] < count:
            await asyncio.sleep(0.002)

    async def doc_get(self, doc, author, key):
        value = await self.handles[doc].get_exact(author, bytes.fromhex(key))
        return None if value is None else bytes(value).hex()

    async def doc_content(self, doc, hash):
        return bytes(await self.handles[doc].read_entry_content(hash)).hex()

    async def doc_event(self, doc):
        event, at = await self.events[doc].get()
        entry = event.entry
        return {"kind": str(event.kind), "key": bytes(entry.key).hex() if entry else None, "time": at}

    async def doc_sync(self, doc, peers):
        await self.handles[doc].start_sync(peers)

    async def doc_resync(self, doc, peer, count):
        """Sync the document with the peer after `doc_leave`; the seconds until ``count`` more entries have come."""
        wanted = self.inserted[doc] + count
        start = time.perf_counter()
        await self.handles[doc].start_sync([peer])
        while self.inserted[doc] < wanted:
            await asyncio.sleep(0.0005)
        return time.perf_counter() - start

    async def doc_leave(self, doc):
        await self.handles[doc].leave()

    # gossip

    async def gossip_subscribe(self, topic, bootstrap):
        self.topics.append(await self.gossip.subscribe(bytes.fromhex(topic), bootstrap))
        return len(self.topics) - 1

    async def gossip_broadcast(self, topic, data):
        """The time just before the message is given away."""
        now = time.time()
        await self.topics[topic].broadcast(bytes.fromhex(data))
        return now

    async def gossip_recv(self, topic):
        kind, data = await self.topics[topic].recv()
        return {"kind": str(kind), "data": bytes(data).hex() if data else "", "time": time.time()}

    async def gossip_until(self, topic, kind):
        """Events up to the first of ``kind``; it."""
        while True:
            event = await self.gossip_recv(topic)
            if kind.lower() in event["kind"].lower():
                return event

    async def gossip_listen(self, topic):
        """From now on note what comes; to be asked for with the commands of `Heard`."""
        self.heard = Heard()
        self.pumps.append(asyncio.ensure_future(self._listen(self.topics[topic])))

    async def _listen(self, topic):
        while True:
            kind, data = await topic.recv()
            self.heard.note(bytes(data) if data and "received" in str(kind).lower() else None, str(kind))

    async def gossip_say(self, topic, first, count, size, pause=0.0):
        return await say(self.topics[topic].broadcast, first, count, size, pause)

    async def gossip_heard(self, first, count, times=False):
        return self.heard.of(first, count, times=times)

    async def doc_drain(self, doc):
        """Throw away the events that wait."""
        while not self.events[doc].empty():
            self.events[doc].get_nowait()

    async def doc_until(self, doc, kind):
        """Events up to the first of ``kind``; it."""
        while True:
            event = await self.doc_event(doc)
            if kind.lower() in event["kind"].lower():
                return event


class Heard:
    """When each message of `say` came for the first time, by its number; how many were copies, and other events."""

    def __init__(self):
        self.times, self.copies, self.others = {}, 0, {}

    def note(self, data, kind):
        if data is None:
            self.others[kind] = self.others.get(kind, 0) + 1
        else:
            number = int.from_bytes(data[:NUMBER], "big")
            self.copies += number in self.times
            self.times.setdefault(number, time.time())

    def of(self, first, count, times):
        """Of the messages from ``first`` on how many came, when the last did, copies of any; or when each came."""
        here = [self.times.get(number) for number in range(first, first + count)]
        if times:
            return here
        came = [at for at in here if at is not None]
        return {"count": len(came), "last": max(came, default=0), "copies": self.copies, "others": self.others}


async def say(broadcast, first, count, size, pause):
    """Broadcast ``count`` numbered messages of ``size`` bytes, ``pause`` seconds apart; when each was given away."""
    times = []
    for number in range(first, first + count):
        times.append(time.time())
        await broadcast(number.to_bytes(NUMBER, "big").ljust(size, b"."))
        if pause:
            await asyncio.sleep(pause)
    return times


def copy_at_once(builder, value):
    """What the iroh wheel's own method does with a loop over every byte sent."""
    with builder._reserve(len(value)):
        place = ctypes.cast(builder.rbuf.data, ctypes.c_void_p).value + builder.rbuf.len
        ctypes.memmove(place, bytes(value), len(value))


def pattern(size):
    """The reference's test content: byte i is i mod 251."""
    block = bytes(i % 251 for i in range(251))
    return (block * (size // 251 + 1))[:size]


def random_bytes(size):
    """The same for every peer; ``size`` in whole MiB where it is large."""
    make = Random(size)
    return b"".join(make.randbytes(min(1 << 20, size - at)) for at in range(0, size, 1 << 20))


async def obey(peer):
    """Answer requests with the methods of ``peer`` until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 28)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()

    async def serve(request):
        try:
            id, name = request.pop("id"), request.pop("do")
            answer = {"id": id, "ok": await getattr(peer, name)(**request)}
        except Exception as error:
            answer = {"id": id, "error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    while line := await reader.readline():
        task = asyncio.ensure_future(serve(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    sys.stdout.flush()
    if hasattr(peer, "stop"):
        await peer.stop()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(obey({"iroh": Iroh, "aster": Aster}[sys.argv[1]]()))
