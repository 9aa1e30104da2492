"""An entry as a program sees it: where it stands, what it points at, and its content on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgpack  # type: ignore[import-untyped]

from ..blobs import Hash
from .access.encryption import DocumentCipher, opened_pieces
from .errors import FalseSize, NotAValue
from .model.entry import SignedEntry
from .model.keys import AuthorId, NamespaceId

__all__ = ["CONTENT_TIMEOUT", "ContentReader", "Entry", "pack_value"]

CONTENT_TIMEOUT = 30.0  # seconds that `Entry.content` waits unless told otherwise


class ContentReader(Protocol):
    async def content(self, namespace: NamespaceId, hash: Hash, size: int, timeout: float) -> bytes: ...
    async def arrival(self, namespace: NamespaceId, hash: Hash, size: int, timeout: float) -> None: ...
    def pieces(self, hash: Hash) -> AsyncIterator[bytes]: ...


class Entry:
    """One author's value at one key. Equal where the signed entry is.

    With the ``cipher`` of an encrypted document ``key``, ``size`` and ``content`` are the plain ones; ``signed`` and
    ``hash`` are what is stored and sent.
    """

    __slots__ = ("_cipher", "_plain_key", "_reader", "signed")

    def __init__(self, signed: SignedEntry, reader: ContentReader, cipher: DocumentCipher | None = None) -> None:
        self.signed = signed
        self._reader = reader
        self._cipher = cipher
        self._plain_key = signed.id.key if cipher is None else cipher.decrypt_key(signed.id.key)

    @property
    def key(self) -> bytes:
        """As it is stored where the entry is not readable."""
        return self.signed.id.key if self._plain_key is None else self._plain_key

    @property
    def is_readable(self) -> bool:
        """False where the document is encrypted and no holder of its key wrote this. Queries leave such entries out."""
        return self._plain_key is not None

    @property
    def author(self) -> AuthorId:
        return AuthorId(self.signed.id.author)

    @property
    def hash(self) -> Hash:
        return Hash(self.signed.record.hash)

    @property
    def size(self) -> int:
        """Bytes of the content, by its author's word."""
        size = self.signed.record.size
        return size if self._cipher is None or self.is_tombstone else self._cipher.plain_size(size)

    @property
    def timestamp(self) -> int:
        """Microseconds since 1970, by the author's clock."""
        return self.signed.record.timestamp

    @property
    def is_tombstone(self) -> bool:
        """Whether this deletes what the author wrote at and below the key."""
        return self.signed.record.is_tombstone

    def covers(self, other: Entry) -> bool:
        """Whether ``other`` gives way to this one: the same author's, at or below this key, as old or older."""
        mine, theirs = self.signed, other.signed
        same = mine.id[:2] == theirs.id[:2] and theirs.id.key.startswith(mine.id.key)
        return same and theirs.record.order <= mine.record.order

    def read_by(self, reader: ContentReader) -> Entry:
        """The same entry, with its content from ``reader``."""
        return Entry(self.signed, reader, self._cipher)

    async def content(self, timeout: float = CONTENT_TIMEOUT) -> bytes:
        """The bytes, fetched from whoever has them; ContentMissing after ``timeout`` seconds. b"" for a tombstone.

        Raises FalseSize, and Undecipherable where the document is encrypted and no holder of its key wrote the content
        for this key.
        """
        if self.is_tombstone:
            return b""
        namespace, size = NamespaceId(self.signed.id.namespace), self.signed.record.size
        content = await self._reader.content(namespace, self.hash, size, timeout)
        if len(content) != size:
            raise FalseSize(f"the content of {self.key!r} has not the {size} bytes that its entry claims")
        return content if self._cipher is None else await self._cipher.decrypt(self.signed.id.key, content)

    async def arrival(self, timeout: float = CONTENT_TIMEOUT) -> None:
        """Wait until the content is here, of whatever size: nothing of it is held in memory. Raises as `content`."""
        if not self.is_tombstone:
            namespace, size = NamespaceId(self.signed.id.namespace), self.signed.record.size
            await self._reader.arrival(namespace, self.hash, size, timeout)

    async def pieces(self, timeout: float = CONTENT_TIMEOUT) -> AsyncIterator[bytes]:
        """The bytes in pieces of about 1 MiB, in constant memory; nothing for a tombstone. Raises as `content`.

        Each piece is genuine, but only the end says that nothing is missing: until then it may raise Undecipherable.
        """
        if self.is_tombstone:
            return
        await self.arrival(timeout)
        pieces = self._reader.pieces(self.hash)
        if self._cipher is not None:
            pieces = opened_pieces(self._cipher.opener(self.signed.id.key), pieces)
        async for piece in pieces:
            yield piece

    async def value(self, timeout: float = CONTENT_TIMEOUT) -> Any:
        """What `Doc.set_value` stored. Raises NotAValue, and as `content`."""
        content = await self.content(timeout)
        try:
            return msgpack.unpackb(content)
        except (ValueError, msgpack.UnpackException) as error:
            raise NotAValue(f"the content of {self.key!r} is not a msgpack value: read it with content()") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self.signed == other.signed

    def __hash__(self) -> int:
        return hash(self.signed)

    def __repr__(self) -> str:
        return f"Entry({self.key!r} by {self.author.short()}, {self.size} bytes {self.hash.short()})"


def pack_value(value: object) -> bytes:
    """Raises NotAValue for what msgpack cannot carry."""
    try:
        return bytes(msgpack.packb(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise NotAValue(f"msgpack cannot carry this value: {error}") from error
