"""An encrypted document: its key, and what it makes of keys and contents.

A *document key* of 32 random bytes travels in tickets of our own. With it names and contents are encrypted before they
become entries and blobs (`key_cipher`, `content_cipher`); everything else, signatures, sync, the put rule, stays as it
is. So whoever has no key, iroh peers among them, stores and passes on what it cannot read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable

from ..errors import EmptyValue, Undecipherable
from ..model.keys import NamespaceId
from .content_cipher import ContentCipher, Opener, Sealer, plain_size
from .key_cipher import KeyCipher

__all__ = ["KEY_SIZE", "DocumentCipher", "new_document_key", "opened_pieces", "sealed_pieces", "whole_paths"]

KEY_SIZE = 32
LONG = 256 << 10  # bytes of a content that is encrypted in a thread: a millisecond's work


def new_document_key() -> bytes:
    return os.urandom(KEY_SIZE)


class DocumentCipher:
    """Both ciphers of one document."""

    __slots__ = ("_contents", "_names")

    def __init__(self, key: bytes, namespace: NamespaceId) -> None:
        self._names = KeyCipher(key, namespace)
        self._contents = ContentCipher(key, namespace)

    def encrypt_key(self, key: bytes) -> bytes:
        """Raises BadKey where the result is too long."""
        return self._names.encrypt(key)

    def decrypt_key(self, key: bytes) -> bytes | None:
        """None for what no holder of the document's key wrote."""
        try:
            return self._names.decrypt(key)
        except Undecipherable:
            return None

    def prefix_of(self, prefix: bytes) -> tuple[bytes, bool]:
        """See `KeyCipher.prefix_of`."""
        return self._names.prefix_of(prefix)

    async def encrypt(self, key: bytes, content: bytes) -> bytes:
        """``key`` is the encrypted one, of the entry."""
        if len(content) <= LONG:
            return self._contents.encrypt(key, content)
        return await asyncio.to_thread(self._contents.encrypt, key, content)

    async def decrypt(self, key: bytes, data: bytes) -> bytes:
        """Raises Undecipherable."""
        if len(data) <= LONG:
            return self._contents.decrypt(key, data)
        return await asyncio.to_thread(self._contents.decrypt, key, data)

    def sealer(self, key: bytes) -> Sealer:
        """Encrypt a content piece by piece; ``key`` as for `encrypt`."""
        return self._contents.sealer(key)

    def opener(self, key: bytes) -> Opener:
        return self._contents.opener(key)

    @staticmethod
    def plain_size(size: int) -> int:
        """Bytes of the content of an entry of ``size``; ``size`` itself where that is no encrypted content's."""
        plain = plain_size(size)
        return size if plain is None else plain


async def sealed_pieces(sealer: Sealer, pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The encrypted form of a content that comes in ``pieces``. Raises EmptyValue where there are none."""
    is_empty = True
    async for piece in pieces:
        is_empty = False
        yield await asyncio.to_thread(sealer.update, piece)
    if is_empty:
        raise EmptyValue("an empty value is how a deletion is written: this file is empty")
    yield sealer.finish()


async def opened_pieces(opener: Opener, pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The content whose encrypted form comes in ``pieces``. Raises Undecipherable, at its end the latest."""
    async for piece in pieces:
        yield await asyncio.to_thread(opener.update, piece)
    yield opener.finish()


def whole_paths(prefix: bytes, keys: Iterable[bytes]) -> list[bytes]:
    """The fewest keys that can be deleted in an encrypted document, of those of ``keys`` that begin with ``prefix``."""
    found: dict[bytes, None] = {}
    for key in keys:
        if key.startswith(prefix):
            cut = key.find(b"/", len(prefix)) + 1
            found[key[:cut] if cut else key] = None
    return list(found)
