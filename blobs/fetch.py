"""Fetching a whole blob: providers are asked one after another, and every group is verified before it is written.

Received bytes wait in the stream, whose window bounds them, until enough are there to be verified in one go: the
numpy tree costs 3 ms a call, and 7 ms for a whole MiB. That runs on the event loop, a slice of at most 1 MiB at a
time: each of numpy's thousands of short calls gives the interpreter's lock away, and a thread beside one that is always
busy waits up to 5 ms to have it back (measured: 150 MiB/s alone, under 0.5 beside it). Fetching alone, both ways gave
the same rate; so the one that cannot starve is taken. Files are written in threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from ..errors import NetworkError, PeerError, TidingsError, UsageError
from ..transport.connection import Connection
from ..transport.errors import ConnectionClosed, StreamReset
from ..transport.stream import RecvStream
from .bao import Decoder
from .errors import NotProvided, ProvidersExhausted, Stalled
from .geometry import GROUP
from .hash import Hash
from .messages import GetRequest, ResetCode, refusal
from .pool import ConnectionPool, Provider, provider_id
from .ranges import ChunkRangesSeq
from .store import BlobInfo, BlobStore, Progress

__all__ = ["STALL_TIMEOUT", "fetch_blob"]

logger = logging.getLogger(__name__)

STALL_TIMEOUT = 20.0  # seconds without STALL_BYTES before the next provider is asked
STALL_BYTES = GROUP  # a byte now and then must not keep a fetch, and its turn, for ever
BATCH = 1 << 20  # bytes verified in one go at most: about 7 ms of the event loop
GATHER = 0.02  # seconds to wait for a batch to fill


async def fetch_blob(
    store: BlobStore,
    pool: ConnectionPool,
    hash: Hash,
    providers: Sequence[Provider],
    *,
    progress: Progress | None = None,
    max_size: int | None = None,
    stall_timeout: float = STALL_TIMEOUT,
) -> BlobInfo:
    """Fetch one blob into ``store``; `ProvidersExhausted` where every provider failed.

    A broken fetch leaves nothing behind; the next provider begins anew.
    """
    reasons: dict[str, TidingsError] = {}
    for provider in providers:
        retry = True
        while retry:
            retry = False
            try:
                async with pool.connection(provider) as (connection, reused):
                    try:
                        return await _fetch_from(connection, store, hash, progress, max_size, stall_timeout)
                    except ConnectionClosed:
                        if not reused:
                            raise
                        retry = True  # the peer had closed an idle connection: dial once more
            except (PeerError, NetworkError, UsageError) as error:
                logger.info("blob %s: %s", hash.short(), error)
                reasons[_name(provider)] = error
    raise ProvidersExhausted(f"blob {hash.short()}", reasons)


def _name(provider: Provider) -> str:
    try:
        return str(provider_id(provider))
    except UsageError:
        return str(provider)


async def _fetch_from(
    connection: Connection,
    store: BlobStore,
    hash: Hash,
    progress: Progress | None,
    max_size: int | None,
    stall_timeout: float,
) -> BlobInfo:
    peer = connection.remote_id
    decoder = Decoder(hash, max_size=max_size, peer=peer)
    incoming = store.incoming(hash)
    try:
        async with asyncio.timeout(stall_timeout):
            stream = await connection.open_bi()
            await stream.send.write(GetRequest(hash, ChunkRangesSeq.blob()).encode())
            await stream.send.finish()
        loop = asyncio.get_running_loop()
        arrived, look_at = 0, loop.time() + stall_timeout
        try:
            while not decoder.finished:
                data = await _batch(stream.recv, decoder, stall_timeout)
                arrived += len(data)
                if loop.time() >= look_at:
                    if arrived < STALL_BYTES:
                        raise TimeoutError
                    arrived, look_at = 0, loop.time() + stall_timeout
                if not data:
                    if decoder.size is None:
                        raise NotProvided(f"the peer does not have blob {hash.short()}", peer=peer)
                    decoder.end()
                if items := list(decoder.feed(data)):
                    await incoming.write(items)
                    if progress is not None and decoder.size is not None:
                        progress(incoming.received, decoder.size)
        finally:
            stream.recv.stop(ResetCode.INTERNAL)  # harmless after the end
        return await incoming.commit()
    except StreamReset as error:
        raise refusal(error.code, hash, peer) from error
    except TimeoutError as error:
        raise Stalled(
            f"peer {peer.short()} sent next to nothing for {stall_timeout:g} s: try again, or another peer"
        ) from error
    finally:
        await incoming.discard()


async def _batch(recv: RecvStream, decoder: Decoder, stall_timeout: float) -> bytes:
    """What comes next: of a large blob as much as comes in a moment, up to a batch. Empty at the end."""
    async with asyncio.timeout(stall_timeout):
        data = await recv.read(BATCH)
    if not data or decoder.size is None or decoder.size <= GROUP or len(data) >= BATCH // 2:
        return data
    pieces, size = [data], len(data)
    try:
        async with asyncio.timeout(GATHER):
            while size < min(BATCH, decoder.missing) and (data := await recv.read(BATCH - size)):
                pieces.append(data)
                size += len(data)
    except TimeoutError:
        pass
    return b"".join(pieces)
