"""One document as a program uses it; `Docs` makes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..blobs import Hash
from ..blobs.store import Write
from ..transport import EndpointAddr, EndpointId
from .access.control import IssuedShare, share_id
from .access.encryption import DocumentCipher, sealed_pieces, whole_paths
from .access.share_store import Rules
from .access.tickets import DocTicket
from .bulk.batch import Batch, checked_hash
from .bulk.folders import Copied, OnFile, export_entries, import_files
from .bulk.history import Superseded
from .bulk.jsonl import Exported, Imported, Progress, Source, export_lines, import_lines
from .bulk.watch import WatchEvent, watch
from .contents.plain_contents import plain_contents, plain_policy, stored_policy
from .doc_entry import CONTENT_TIMEOUT, Entry, pack_value
from .entries import Entries, Fits
from .errors import (
    BadKey,
    DocumentClosed,
    EmptyValue,
    EncryptedDocument,
    InvalidEntry,
    UnknownDocument,
)
from .events import EventHub, EventStream
from .live.document import LiveDocument
from .live.partial import check_held
from .model.capability import Capability
from .model.entry import EMPTY_HASH, SignedEntry
from .model.keys import AuthorId, NamespaceId
from .model.policy import DownloadPolicy
from .model.put import Put
from .status import DocStatus, Synced
from .store.content_store import Content, ContentCounts, ContentState
from .store.documents import NewEntry
from .store.query import Query

if TYPE_CHECKING:
    from .docs import Docs

__all__ = ["Doc", "key_bytes"]


class Doc:
    """A replicated map from keys to contents, each entry with its author. Made by `Docs`.

    Keys are bytes, or text that is stored as UTF-8. Several authors can have entries at one key; `get` gives the
    newest. A write replaces what the same author has at *and below* its key: ``set("a")`` removes the older ``"a/b"``.
    """

    def __init__(self, docs: Docs, id: NamespaceId, rules: Rules) -> None:
        self._docs = docs
        self._capability = Capability(id)
        self._cipher: DocumentCipher | None = None
        self._events = EventHub()
        self._live: LiveDocument | None = None
        self._learn(rules)

    @property
    def id(self) -> NamespaceId:
        return self._capability.id

    @property
    def can_write(self) -> bool:
        return self._capability.can_write

    @property
    def is_encrypted(self) -> bool:
        """Whether this node has the document key. Without it, an encrypted document is one of strange keys."""
        return self._cipher is not None

    @property
    def prefix(self) -> bytes | None:
        """Of the keys that this node holds, where it holds a part of the document; None: all of it."""
        part = self._rules.prefix
        return part if part is None or self._cipher is None else self._cipher.decrypt_key(part)

    async def widen(self, *, timeout: float = 30.0) -> None:
        """Make a partial replica whole; returns when the rest is here. Nothing to do where it is.

        Raises SyncTimeout after ``timeout`` seconds: the rest is then still being fetched.
        """
        if self._rules.prefix is not None:
            self._learn(await self._docs._widen(self.id))
            if self._live is not None:
                await self.synced(timeout=timeout)

    @property
    def is_live(self) -> bool:
        """Whether it takes part in the swarm: open, and not closed since."""
        return self._live is not None

    @property
    def neighbors(self) -> list[EndpointId]:
        """The peers that we exchange live changes with at this moment."""
        return sorted(self._live.neighbors) if self._live is not None else []

    async def set(self, key: str | bytes, value: bytes, *, author: AuthorId | None = None) -> Entry:
        """Store ``value`` at ``key``. When this returns, content and entry survive a crash.

        Raises EmptyValue, BadKey, ReadOnly, UnknownAuthor, ClockBehind.
        """
        return (await self._write(await self._stage(self._raw_key(key), value), author))[0]

    async def set_value(self, key: str | bytes, value: object, *, author: AuthorId | None = None) -> Entry:
        """Store a Python value as msgpack: None, bool, int, float, str, bytes, list, dict.

        Raises NotAValue, and what `set` raises.
        """
        return await self.set(key, pack_value(value), author=author)

    async def set_hash(
        self, key: str | bytes, hash: Hash | bytes, size: int, *, author: AuthorId | None = None
    ) -> Entry:
        """Point ``key`` at a content by its hash and its size in bytes; it need not be here.

        Raises as `set`, and EncryptedDocument: there a content is encrypted for its key. Use `set_path` then.
        """
        return (await self._write(self._pointer(key, hash, size), author))[0]

    async def set_path(self, key: str | bytes, path: str | PathLike[str], *, author: AuthorId | None = None) -> Entry:
        """Store the content of a file, of whatever size. Raises UnreadableFile, and as `set`."""
        return (await self._write(await self._stage_path(self._raw_key(key), path), author))[0]

    async def delete(self, prefix: str | bytes, *, author: AuthorId | None = None) -> int:
        """Delete the author's entries whose keys start with ``prefix``, here and everywhere; how many there were.

        A tombstone stays, so that older copies cannot come back. Other authors' entries stay, too: only they can go.
        In an encrypted document a prefix that does not end in "/" deletes what is here now, path by path.
        """
        tombstones = await self._tombstones(prefix, author)
        return (await self._write_all(tombstones, author))[1] if tombstones else 0

    def batch(self, *, author: AuthorId | None = None) -> Batch:
        """Many writes in one transaction and one burst of gossip: ``async with doc.batch() as batch: ...``.

        Leaving the block raises ReadOnly, UnknownAuthor, ClockBehind; nothing is written then.
        """
        return Batch(_BatchTarget(self, author))

    async def get(self, key: str | bytes, *, author: AuthorId | None = None) -> Entry | None:
        """The newest entry at ``key``, of any author or of ``author``; None where there is none or it was deleted."""
        found = await self._docs._store.get(self.id, self._raw_key(key), None if author is None else bytes(author))
        return None if found is None else self._entry(found)

    def entries(
        self,
        *,
        prefix: str | bytes | None = None,
        key: str | bytes | None = None,
        author: AuthorId | None = None,
        sort: Literal["key", "author"] = "key",
        descending: bool = False,
        newest: bool = False,
        limit: int | None = None,
        offset: int = 0,
        tombstones: bool = False,
    ) -> Entries:
        """The entries that fit, in any combination; see `query.Query`.

        ``newest``: one for each key, the newest of all authors. In an encrypted document keys come in an order that
        is always the same but means nothing, and ``descending`` is refused. Raises BadKey, BadQuery,
        EncryptedDocument.
        """
        raw, fits = (None, self._readable) if prefix is None else self._below(key_bytes(prefix))
        if descending and self._cipher is not None:
            raise EncryptedDocument("the keys of an encrypted document are in no order: sort what you have read")
        query = Query(
            prefix=raw,
            key=None if key is None else self._raw_key(key),
            author=None if author is None else bytes(author),
            sort=sort,
            descending=descending,
            newest=newest,
            limit=limit,
            offset=offset,
            tombstones=tombstones,
        )
        return Entries(self._docs._store, self.id, query, self._entry, fits)

    def watch(self, prefix: str | bytes = b"", *, since: int | None = None) -> AsyncGenerator[WatchEvent, None]:
        """The entries below ``prefix`` as they are (`Present`), `CaughtUp`, then what changes (`Changed`), with no gap.

        However slow its reader is, it loses nothing; what is superseded before it is read is left out. Entries at
        prefixes of ``prefix`` are told as well where they change, for they remove what is below. ``since``: the cursor
        of an earlier watch of this node, to go on behind it. Ends when the document is closed.
        """
        raw, fits = self._below(key_bytes(prefix))
        return watch(self._docs._store, self.id, raw, since, self._entry, fits)

    async def export_jsonl(
        self,
        place: Source,
        *,
        prefix: str | bytes | None = None,
        author: AuthorId | None = None,
        newest: bool = False,
        tombstones: bool = False,
        contents: bool = True,
        signatures: bool = False,
        progress: Progress | None = None,
    ) -> Exported:
        """Write entries, with their contents up to 1 MiB that are here, as JSON Lines to a path or a binary file.

        ``signatures``: so that `import_jsonl` into the same document keeps them as they are. See `jsonl_lines`. Raises
        EncryptedDocument, and the `StoreError`s of files.
        """
        entries = aiter(self.entries(prefix=prefix, author=author, newest=newest, tombstones=tombstones))
        return await export_lines(
            entries,
            self._docs._blobs,
            place,
            contents=contents,
            signatures=signatures,
            progress=progress,
        )

    async def import_jsonl(
        self,
        place: Source,
        *,
        author: AuthorId | None = None,
        tombstones: bool = False,
        progress: Progress | None = None,
    ) -> Imported:
        """Take the lines of `export_jsonl`, or lines made by hand, from a path or a binary file.

        Entries of this document that are signed are stored as they were, deletions too; all others are written as
        ``author``. Those replace what this author has at and below their keys; where they are deletions they are
        skipped unless ``tombstones``. Raises BadImport with the number of the line, and what `set` raises.
        """
        return await import_lines(_ImportTarget(self, author), place, tombstones=tombstones, progress=progress)

    async def export_folder(
        self,
        folder: str | PathLike[str],
        *,
        prefix: str | bytes = b"",
        author: AuthorId | None = None,
        replace: bool = False,
        timeout: float = CONTENT_TIMEOUT,
        on_file: OnFile | None = None,
    ) -> Copied:
        """Write the newest entry of each key below ``prefix`` into a file named by the rest of its key.

        Names that lead out of the folder are left out, and so is what is there already unless ``replace``, and
        contents that are not here ``timeout`` seconds after they were asked for: see `Copied`. Raises DiskFull,
        UnreadableFile.
        """
        below = key_bytes(prefix)
        entries = aiter(self.entries(prefix=below, author=author, newest=True))
        return await export_entries(entries, below, Path(folder), replace=replace, timeout=timeout, on_file=on_file)

    async def import_folder(
        self,
        folder: str | PathLike[str],
        *,
        prefix: str | bytes = b"",
        author: AuthorId | None = None,
        on_file: OnFile | None = None,
    ) -> Copied:
        """Write every regular file of a folder, its subfolders included, at ``prefix``, its path and a NUL byte.

        Symbolic links and odd names are left out: see `Copied`. Raises UnreadableFile, and what `set` raises; the
        batches before are written then.
        """
        return await import_files(lambda: self.batch(author=author), Path(folder), key_bytes(prefix), on_file=on_file)

    async def keep_history(self, period: timedelta | None) -> None:
        """Keep what is superseded or deleted here from now on, for ``period``; off (None) unless this was called.

        This node's own choice, kept over restarts. With None, and with a shorter period, what is older is deleted.
        Raises BadPeriod.
        """
        await self._docs._history.keep(self.id, period)

    def history(self, key: str | bytes) -> AsyncIterator[Superseded]:
        """What was at ``key`` before, of all authors and tombstones included, the newest first. See `history`."""
        return self._docs._history.read(self.id, self._raw_key(key), self._entry)

    async def download_policy(self) -> DownloadPolicy:
        """Which contents this node fetches as their entries come; all, unless it was told otherwise."""
        return plain_policy(await self._docs._contents.policy(self.id), self._cipher)

    async def set_download_policy(self, policy: DownloadPolicy) -> None:
        """Change it, also of a document that is not open: this node's own choice, kept over restarts.

        ``DownloadPolicy.nothing_except(["prefix:utf8:photos/"])``, ``DownloadPolicy.everything_except([...])``. What it
        wants and is not here is fetched now; what it leaves out stays where it is here, and comes when it is read.
        Raises BadPolicy where a prefix does not end in "/" in an encrypted document.
        """
        await self._docs._contents.set_policy(self.id, stored_policy(policy, self._cipher))
        self._docs._downloads.policy_changed(self.id)

    def contents(self, state: ContentState | None = None) -> AsyncIterator[Content]:
        """What became of the contents that came from others: wanted, failed, or had, in the order of their hashes.

        One that was had is forgotten after a day; what this node wrote itself is not among them.
        """
        return plain_contents(self._docs._contents.contents(self.id, state), self._cipher)

    async def content_counts(self) -> ContentCounts:
        """How many `contents` there are of each state. Reads them all, though not their entries."""
        return await self._docs._contents.counts(self.id)

    async def synced(self, peer: EndpointId | str | None = None, *, timeout: float = 30.0) -> Synced:
        """Sync in full with ``peer``, or with whichever answers first, now and before anything else that is to be
        synced; return when a sync that began after this call is done. What the peer had then is here.

        Raises SyncTimeout, which says why; DocumentClosed where the document is not open.
        """
        if self._live is None:
            raise DocumentClosed("the document is not open: open it again")
        return await self._live.sync(EndpointId.parse(peer) if isinstance(peer, str) else peer, timeout)

    async def status(self) -> DocStatus:
        """How many entries there are, and how the document stands with each of its peers. Cheap, whatever its size."""
        summary = (await self._docs._store.summaries([self.id])).get(self.id)
        if summary is None:
            raise UnknownDocument(f"there is no document {self.id} here: join it with a ticket")
        peers = self._live.peers() if self._live is not None else ()
        return DocStatus(summary.size, summary.fingerprint.hex(), self._live is not None, peers)

    def events(self) -> EventStream:
        """What happens from now on. Ends when the document is closed."""
        docs = self._docs
        docs._beside.hear(self.id, self._events, lambda signed: Entry(signed, docs._downloads, self._cipher))
        return self._events.subscribe()

    def ticket(self, *, write: bool = False) -> DocTicket:
        """How others join through this node; with ``write`` they may change the document. Raises ReadOnly.

        It has the key of an encrypted document in it; ``ticket().iroh()`` is for who shall carry it and not read it.
        To read a *restricted* document by this, a peer needs the hook's word; `share` makes tickets that suffice.
        A partial replica names its providers beside itself: it has no more than its part to give.
        """
        capability = self._capability if write else self._capability.read_only()
        if write:
            self._capability.check_writable()
        endpoint = self._docs._endpoint
        nodes = [endpoint.addr()]
        if self._rules.prefix is not None and self._live is not None:
            nodes += [endpoint.lookup.get(peer) or EndpointAddr(peer) for peer in self._live.nearest()]
        return DocTicket(capability, tuple(nodes), key=self._rules.cipher_key, restricted=self._rules.restricted)

    # Who may read.

    async def share(
        self, reader: EndpointId | None = None, *, expires: timedelta | datetime | None = None
    ) -> DocTicket:
        """A ticket that lets read a restricted document, ``reader`` alone or whoever has the ticket, until ``expires``.

        ``ticket.grant.share.id`` is what `revoke` takes. It counts where the document is not restricted yet, too.
        Raises ReadOnly, BadShare, TooManyShares.
        """
        grant = await self._docs._access.share(self._capability, reader, expires)
        self._learn(await self._docs._rules(self.id))
        return replace(self.ticket(), grant=grant)

    async def shares(self) -> list[IssuedShare]:
        """Those that were issued on this node and have not expired, oldest first; the revoked ones, too."""
        return [IssuedShare.of(share, gone) for share, gone in await self._docs._access.shares(self.id)]

    async def revoke(self, share: IssuedShare | bytes | str) -> None:
        """From now on ``share`` (or its id) lets nobody read: here at once, on other nodes as soon as they hear of it.

        What its holder has read it keeps. Raises ReadOnly, UnknownShare, TooManyShares.
        """
        await self._docs._access.revoke(self._capability, share_id(share))
        await self._reconsider()

    async def restrict(self, restricted: bool = True) -> None:
        """Answer only to who may read, on all nodes that hear of it; or to everybody who knows the id, again.

        Raises ReadOnly.
        """
        await self._docs._access.restrict(self._capability, restricted)
        await self._reconsider()

    async def is_restricted(self) -> bool:
        return await self._docs._access.is_restricted(self.id)

    async def _reconsider(self) -> None:
        """Who may not read any more leaves the swarm; the others hear of it by syncs."""
        rules = await self._docs._rules(self.id)
        self._learn(rules)
        self._docs._gossip.reconsider(bytes(self.id))
        doc = self._docs._open.get(self.id)  # this handle may be one of `list`
        if doc is not None and doc._live is not None:
            doc._learn(rules)
            doc._live.sync_neighbors()

    def _learn(self, rules: Rules) -> None:
        """What this node may do, at the beginning and when that changes."""
        self._rules = rules
        self._capability = Capability.of(self.id, rules.secret)
        if self._cipher is None and rules.cipher_key is not None:
            self._cipher = DocumentCipher(rules.cipher_key, self.id)
            if self._live is not None:
                self._live.cipher = self._cipher

    async def close(self) -> None:
        """Leave the swarm and end the syncs and events. Everything stays here; `Docs.open` goes on.

        Nothing where this `Doc` is not the open one.
        """
        async with self._docs._opening:
            if self._docs._open.get(self.id) is self:
                del self._docs._open[self.id]
                await self._stop()

    def _raw_key(self, key: str | bytes) -> bytes:
        """As it is stored."""
        return key_bytes(key) if self._cipher is None else self._cipher.encrypt_key(key_bytes(key))

    def _below(self, prefix: bytes) -> tuple[bytes, Fits | None]:
        """What the stored keys of all entries below ``prefix`` start with, and which of those that do are meant."""
        if self._cipher is None:
            return prefix, None
        raw, _ = self._cipher.prefix_of(prefix)
        return raw, lambda entry: entry.is_readable and entry.key.startswith(prefix)

    @property
    def _readable(self) -> Fits | None:
        return None if self._cipher is None else lambda entry: entry.is_readable

    async def _stage(self, key: bytes, value: bytes) -> NewEntry:
        """A write of ``value`` to be at the raw ``key``, whose content is stored with it."""
        if not value:
            raise EmptyValue("an empty value is how a deletion is written: store at least one byte, or delete the key")
        self._docs._check_open()
        self._capability.check_writable()
        self._docs._store.check_key(key)
        if self._cipher is not None:
            value = await self._cipher.encrypt(key, value)
        blob, content = await self._docs._blobs.stage_bytes(value)
        return NewEntry(key, bytes(blob.hash), blob.size, content)

    async def _stage_path(self, key: bytes, path: str | PathLike[str]) -> NewEntry:
        self._docs._check_open()
        self._capability.check_writable()
        self._docs._store.check_key(key)
        blobs = self._docs._blobs
        if self._cipher is None:
            blob = await blobs.add_path(path, tag=False)
            if not blob.size:
                raise EmptyValue(f"{path} is empty, and an empty value is how a deletion is written")
        else:
            sealer = self._cipher.sealer(key)
            blob = await blobs.add_path(path, through=lambda pieces: sealed_pieces(sealer, pieces), tag=False)
        return NewEntry(key, bytes(blob.hash), blob.size)

    def _pointer(self, key: str | bytes, hash: Hash | bytes, size: int) -> NewEntry:
        if self._cipher is not None:
            raise EncryptedDocument(
                "in an encrypted document a content is encrypted for its key: give it with set or set_path, not by hash"
            )
        raw = key_bytes(key)
        self._docs._store.check_key(raw)
        return NewEntry(raw, checked_hash(hash, size), size)

    async def _tombstones(
        self, prefix: str | bytes, author: AuthorId | None, batched: Sequence[bytes] = ()
    ) -> list[NewEntry]:
        """What deletes everything below ``prefix``, of what is stored and of the raw keys ``batched``."""
        cipher, prefix = self._cipher, key_bytes(prefix)
        if cipher is None or cipher.prefix_of(prefix)[1] is False:
            return [NewEntry(self._raw_key(prefix), EMPTY_HASH, 0)]
        check_held(self.prefix, [prefix])  # what is found here to be deleted is not all that there is
        writer = (await self._docs._author(author)).id
        keys = [entry.key async for entry in self.entries(prefix=prefix, author=writer)]
        keys += [key for raw in batched if (key := cipher.decrypt_key(raw)) is not None]
        return [NewEntry(cipher.encrypt_key(key), EMPTY_HASH, 0) for key in whole_paths(prefix, keys)]

    async def _write(self, entry: NewEntry, author: AuthorId | None) -> tuple[Entry, int]:
        entries, removed = await self._write_all([entry], author)
        return entries[0], removed

    async def _write_all(self, entries: Sequence[NewEntry], author: AuthorId | None) -> tuple[list[Entry], int]:
        """What was written, and how many entries with content it replaced."""
        self._docs._check_open()
        check_held(self._rules.prefix, (entry.key for entry in entries))
        writer = await self._docs._author(author)
        written = await self._docs._store.write_batch(self._capability, writer, entries)
        doc = self._docs._open.get(self.id)  # this handle may be one of `list`
        if doc is not None and doc._live is not None:
            for each in written:
                doc._live.inserted(each.entry)
            named = sum(1 for entry in entries if entry.size and entry.content is None)
            self._docs._downloads.stored(self.id, named, (), b"")
        return [self._entry(each.entry) for each in written], sum(each.removed for each in written)

    async def _keep_signed(
        self, entries: Sequence[SignedEntry], contents: Sequence[bytes]
    ) -> Sequence[Put | InvalidEntry]:
        """Store entries of others that no peer sent, up to the first that is not acceptable, and contents."""
        self._docs._check_open()
        check_held(self._rules.prefix, (entry.id.key for entry in entries))
        staged = [(await self._docs._blobs.stage_bytes(content))[1] for content in contents]
        await self._docs._store.keep(staged)
        received = await self._docs._store.insert(self.id, entries, durable=True, to_first_bad=True)
        doc = self._docs._open.get(self.id)
        if doc is not None and doc._live is not None:
            for entry, outcome in zip(entries, received.outcomes, strict=False):
                if isinstance(outcome, Put) and outcome.stored:
                    doc._live.inserted(entry)
            self._docs._downloads.stored(self.id, len(received.missing), (), b"")
        return received.outcomes

    def _entry(self, signed: SignedEntry) -> Entry:
        return Entry(signed, self._docs._downloads, self._cipher)

    async def _stop(self) -> None:
        live, self._live = self._live, None
        self._docs._store.changed.end(bytes(self.id))
        if live is not None:
            await live.aclose()

    def __repr__(self) -> str:
        return f"Doc({self.id.short()})"


class _BatchTarget:
    """A document for a `Batch`."""

    def __init__(self, doc: Doc, author: AuthorId | None) -> None:
        self._doc = doc
        self._author = author

    def raw_key(self, key: str | bytes) -> bytes:
        return self._doc._raw_key(key)

    def pointer(self, key: str | bytes, hash: Hash | bytes, size: int) -> NewEntry:
        return self._doc._pointer(key, hash, size)

    async def tombstones(self, prefix: str | bytes, batched: Sequence[bytes]) -> list[NewEntry]:
        return await self._doc._tombstones(prefix, self._author, batched)

    async def stage_path(self, key: bytes, path: str | PathLike[str]) -> NewEntry:
        return await self._doc._stage_path(key, path)

    async def stage(self, key: bytes, value: bytes) -> NewEntry:
        return await self._doc._stage(key, value)

    async def keep(self, contents: Sequence[Write]) -> None:
        await self._doc._docs._store.keep(contents)

    async def write_all(self, entries: Sequence[NewEntry]) -> tuple[list[Entry], int]:
        return await self._doc._write_all(entries, self._author)


class _ImportTarget:
    """A document for an import."""

    def __init__(self, doc: Doc, author: AuthorId | None) -> None:
        self._doc = doc
        self._author = author

    @property
    def namespace(self) -> bytes:
        return bytes(self._doc.id)

    def batch(self) -> Batch:
        return self._doc.batch(author=self._author)

    async def keep(self, entries: Sequence[SignedEntry], contents: Sequence[bytes]) -> Sequence[Put | InvalidEntry]:
        return await self._doc._keep_signed(entries, contents)


def key_bytes(key: str | bytes) -> bytes:
    """As it is stored. Raises BadKey."""
    if isinstance(key, str):
        try:
            return key.encode()
        except UnicodeEncodeError:
            raise BadKey(f"the key {key!r} is not whole text: give bytes that are no UTF-8 as bytes") from None
    if isinstance(key, bytes):
        return key
    raise BadKey(f"a key is text or bytes, not {type(key).__name__}")
