"""Push: blobs that are given to a peer unasked, in the form of the answer to a Get (reference 3.2).

A provider takes none unless a hook allows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from ..transport.connection import Connection
from ..transport.errors import StreamReset, StreamStopped
from ..transport.keys import EndpointId
from ..transport.stream import RecvStream
from .answers import Answers
from .arrival import Arrival
from .bao import encode
from .errors import Stalled
from .growing import GrowingBlobs
from .hash import HASH_SIZE, Hash
from .messages import PushRequest, ResetCode, refusal
from .ranges import ChunkRanges, ChunkRangesSeq
from .store import BlobStore

__all__ = ["push_blob", "receive_push"]

PATIENCE = 60.0  # seconds with next to nothing, on either side


async def receive_push(
    store: BlobStore, growing: GrowingBlobs, request: PushRequest, recv: RecvStream, peer: EndpointId
) -> int:
    """Keep what follows the request; how many blobs are complete by it. Raises as `Answers.blob`."""
    answers, count = Answers(recv, peer, PATIENCE), 0
    async for hash, ranges in _wanted(store, request):
        async with Arrival(store, growing, hash) as arrival:
            async with aclosing(answers.blob(hash, ranges)) as verified:
                async for size, items in verified:
                    await arrival.write(size, items, peer)
            if arrival.complete:
                await arrival.finish()
                count += 1
    await answers.end()
    return count


async def push_blob(connection: Connection, store: BlobStore, hash: Hash) -> None:
    """Give the peer a blob that is here. `Refused` where it does not want it, `NotFound`, `Stalled`."""
    peer = connection.remote_id
    async with await store.reader(hash) as reader:
        try:
            stream = await connection.open_bi()
            async with asyncio.timeout(PATIENCE):
                await stream.send.write(PushRequest(hash, ChunkRangesSeq.blob()).encode())
            pieces = encode(reader.info.size, ChunkRanges.ALL, reader.data_at, reader.outboard_at)
            while piece := await store.run(next, pieces, b""):
                async with asyncio.timeout(PATIENCE):
                    await stream.send.write(piece)
            await stream.send.finish()
            async with asyncio.timeout(PATIENCE):
                await stream.recv.read_to_end(0)  # its end says that all was taken
        except (StreamReset, StreamStopped) as error:
            raise refusal(error.code, hash, peer) from error
        except TimeoutError as error:
            raise Stalled(f"peer {peer.short()} does not take blob {hash.short()}: try again later") from error
        finally:
            stream.recv.stop(ResetCode.INTERNAL)


async def _wanted(store: BlobStore, request: PushRequest) -> AsyncIterator[tuple[Hash, ChunkRanges]]:
    for index, ranges in request.ranges.wanted():
        if index == 0:
            yield request.hash, ranges
            continue
        async with await store.reader(request.hash) as root:
            child = await root.read((index - 1) * HASH_SIZE, HASH_SIZE)
        if len(child) < HASH_SIZE:
            return
        yield Hash(child), ranges
