"""`Node`: identity, blobs, gossip and documents in one directory, on one endpoint.

A directory holds ``identity`` (the secret key), ``node.db`` (documents, authors, small blobs), ``blobs/`` (large
blobs) and ``ports`` (the UDP ports of the last run). It belongs to one process at a time, and to its owner alone.

Several nodes, each with a directory and an identity of its own, may serve one PostgreSQL database in place of
``node.db``. Their large blobs should lie in one folder: what one node adds, the others then have.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from os import PathLike
from pathlib import Path

from ..blobs import Blobs, BlobSettings
from ..docs_sync import Access, Docs
from ..errors import TidingsError
from ..gossip import Gossip
from ..storage import Database
from ..storage.files import FileLock, make_private_dir
from ..storage.secret_files import read_or_create_secret
from ..transport import Endpoint, EndpointAddr, EndpointId, Lookup, RelayConfig, RelayUrl, Router, SecretKey
from ..transport.endpoint import ANY
from ..transport.errors import InvalidAddress
from ..transport.opening import Opening
from .gossip_carrier import BlobCarrier
from .gossip_keeper import DatabaseKeeper
from .ports import read_ports, with_ports, write_ports

__all__ = ["Node"]

logger = logging.getLogger(__name__)


class Node:
    """Made by `Node.open`. Its parts are ``endpoint``, ``gossip``, ``blobs`` and ``docs``."""

    def __init__(
        self, stack: AsyncExitStack, database: Database, endpoint: Endpoint, gossip: Gossip, blobs: Blobs, docs: Docs
    ) -> None:
        self._stack = stack
        self.database = database
        self.endpoint = endpoint
        self.gossip = gossip
        self.blobs = blobs
        self.docs = docs

    @classmethod
    def open(
        cls,
        directory: str | PathLike[str] | None,
        *,
        bind: Sequence[str] = ANY,
        database: str | None = None,
        blobs: str | PathLike[str] | None = None,
        blob_settings: BlobSettings | None = None,
        access: Access | None = None,
        fsync: bool = True,
        collect_every: float | None = 3600.0,
        relays: Sequence[RelayConfig | RelayUrl | str] | None = None,
        lookup: Sequence[Lookup | str] = (),
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> Opening[Node]:
        """Open the node that lives in ``directory``, or make one; ``await`` it, or use it with ``async with``.

        None: everything in memory under a new identity, but for blobs above 16 KiB, which lie in a temporary directory
        until the node closes. ``bind``, ``relays``, ``lookup``, ``tls`` and ``proxy`` are as for `Endpoint.bind`.
        ``database``, the URL of a PostgreSQL database
        (``postgresql+psycopg://user@host/database``), holds the documents, authors and small blobs instead; ``blobs``
        is the folder of the large ones, which nodes of one database share. ``blob_settings``: who may fetch and push
        blobs, how fast, and how much is kept. ``access`` says which peer may read which
        document, and from whom entries are taken (`tidings.docs_sync.access.control`).

        ``fsync=False``: a write returns when the system has it, without waiting for the disk. ``kill -9`` loses nothing
        then either; a power cut may undo the last writes, each whole and the newest first. For disks that are slow to
        sync, such as SD cards.

        Every ``collect_every`` seconds the blobs that no tag and no entry keeps are removed; None: never, but by
        `Blobs.collect`.

        Raises StoreError: the directory is in use by another process, damaged, or from a newer version; the database
        cannot be reached.
        """
        path = None if directory is None else Path(directory)
        folder = None if blobs is None else Path(blobs)

        def bind_endpoint(secret: SecretKey, places: Sequence[str]) -> Opening[Endpoint]:
            return Endpoint.bind(secret_key=secret, bind=places, relays=relays, lookup=lookup, tls=tls, proxy=proxy)

        return Opening(
            lambda: cls._open(
                path,
                partial(cls._bind, path, bind, bind_endpoint),
                database,
                folder,
                blob_settings,
                access,
                fsync,
                collect_every,
            )
        )

    @classmethod
    async def _open(
        cls,
        path: Path | None,
        bind: Callable[[SecretKey], Awaitable[Endpoint]],
        url: str | None,
        blob_path: Path | None,
        blob_settings: BlobSettings | None,
        access: Access | None,
        fsync: bool,
        collect_every: float | None,
    ) -> Node:
        async with AsyncExitStack() as stack:
            if path is None and blob_path is None:
                blob_path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidings-")))
            if path is not None and url is not None:
                lock = await asyncio.to_thread(_lock_directory, path)
                stack.callback(lock.release)
            database = await Database.open(url or (path and path / "node.db"), fsync=fsync)
            stack.push_async_callback(database.aclose)
            if path is None:
                secret = SecretKey.generate()
            else:  # under the directory's lock: no second process makes another identity
                secret = SecretKey(await asyncio.to_thread(read_or_create_secret, path / "identity"))
                blob_path = blob_path or path / "blobs"
            assert blob_path is not None
            endpoint = await bind(secret)
            stack.push_async_callback(endpoint.aclose)
            blobs = Blobs(endpoint, database, blob_path, blob_settings)
            stack.push_async_callback(blobs.aclose)
            gossip = Gossip(endpoint, carrier=BlobCarrier(blobs), keeper=DatabaseKeeper(database, endpoint.id))
            stack.push_async_callback(gossip.aclose)
            docs = Docs(endpoint, database, blobs, gossip, access=access)
            stack.push_async_callback(docs.aclose)
            handlers = {**gossip.handlers, blobs.ALPN: blobs.handle}
            router = Router(endpoint, handlers | dict.fromkeys(docs.ALPNS, docs.handle))
            stack.push_async_callback(router.aclose)
            if collect_every is not None:
                collecting = asyncio.create_task(_collect(blobs, collect_every), name="collect blobs")
                stack.push_async_callback(_end, collecting)
            return cls(stack.pop_all(), database, endpoint, gossip, blobs, docs)

    @staticmethod
    async def _bind(
        path: Path | None,
        bind: Sequence[str],
        open: Callable[[SecretKey, Sequence[str]], Opening[Endpoint]],
        secret: SecretKey,
    ) -> Endpoint:
        """Bind where the last run was bound, so that its tickets stay true; elsewhere if that port is taken."""
        if path is None:
            return await open(secret, bind)
        known = await asyncio.to_thread(read_ports, path / "ports")
        try:
            endpoint = await open(secret, with_ports(bind, known))
        except InvalidAddress:
            endpoint = await open(secret, bind)
        try:
            await asyncio.to_thread(write_ports, path / "ports", endpoint.bound(), known)
        except BaseException:
            await endpoint.aclose()
            raise
        return endpoint

    @property
    def id(self) -> EndpointId:
        """The public key that others dial."""
        return self.endpoint.id

    def addr(self) -> EndpointAddr:
        """The id with the addresses where this node can be reached now."""
        return self.endpoint.addr()

    async def aclose(self) -> None:
        """Leave the topics, close the connections and the store. Safe to call twice."""
        await self._stack.aclose()

    def __repr__(self) -> str:
        return f"<Node {self.id.short()}>"


def _lock_directory(path: Path) -> FileLock:
    """The lock that comes with ``node.db``, where another database is used."""
    make_private_dir(path)
    return FileLock(path / "node.db.lock", path)


async def _collect(blobs: Blobs, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        try:
            gone = await blobs.collect()
        except TidingsError as error:
            logger.warning("blobs are not collected for now: %s", error)
        else:
            if gone.blobs:
                logger.info("%d blobs of %d bytes that nothing keeps were removed", gone.blobs, gone.bytes)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
