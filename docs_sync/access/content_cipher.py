"""Encrypted contents: authenticated, in pieces, in constant memory.

    version 01 | salt, 32 random bytes | chunk | chunk | ... | last chunk

Each chunk is 64 KiB of the content, the last one what is left, encrypted by ChaCha20-Poly1305 (RFC 8439) and 16 bytes
longer than it was. It is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar 2015): the nonce is the chunk's
number, 11 bytes BE, and a byte that is 1 for the last chunk. So no chunk can be changed, moved, left out or added, and
none can be taken for the last one. The key is new for each content: keyed BLAKE3 of the salt and the entry's key.
With that key in it, who may write but cannot read cannot put one entry's content under another entry's key.

What is visible: the exact size. An empty content has one empty chunk; no other content ends in an empty one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ..errors import Undecipherable
from ..model.keys import NamespaceId

__all__ = ["CHUNK", "HEADER", "TAG", "ContentCipher", "Opener", "Sealer", "opened", "plain_size", "sealed"]

DERIVE = "tidings 2026-11-23 contents of an encrypted document"
VERSION = 1
SALT_SIZE = 32
HEADER = 1 + SALT_SIZE
CHUNK = 64 << 10
TAG = 16


class ContentCipher:
    """For one document. ``key`` is, in all methods, the entry's key as it is stored, encrypted itself."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes, namespace: NamespaceId) -> None:
        self._secret = blake3(secret + bytes(namespace), derive_key_context=DERIVE).digest()

    def encrypt(self, key: bytes, content: bytes) -> bytes:
        return b"".join(sealed(self.sealer(key), [content]))

    def decrypt(self, key: bytes, data: bytes) -> bytes:
        """All of it or nothing: raises Undecipherable where any byte is not what `encrypt` gave."""
        return b"".join(opened(self.opener(key), [data]))

    def sealer(self, key: bytes, *, salt: bytes | None = None) -> Sealer:
        """Encrypt a content piece by piece. ``salt`` is for vectors: never use one twice."""
        salt = os.urandom(SALT_SIZE) if salt is None else salt
        return Sealer(self._chunks(key, salt), salt)

    def opener(self, key: bytes) -> Opener:
        """Decrypt a content piece by piece."""
        return Opener(lambda salt: self._chunks(key, salt))

    def _chunks(self, key: bytes, salt: bytes) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(blake3(salt + key, key=self._secret).digest())


class Sealer:
    """`update` with pieces of any size, then `finish` once; each gives the next encrypted bytes."""

    def __init__(self, aead: ChaCha20Poly1305, salt: bytes) -> None:
        self._aead = aead
        self._held = bytearray()
        self._number = 0
        self._out = bytearray((VERSION,)) + salt

    def update(self, piece: bytes) -> bytes:
        # The last chunk is known only when nothing follows: a full one is held back until then.
        view = memoryview(piece)
        while len(self._held) + len(view) > CHUNK:
            room = CHUNK - len(self._held)
            self._held += view[:room]
            view = view[room:]
            self._seal(last=False)
        self._held += view
        return self._take()

    def finish(self) -> bytes:
        self._seal(last=True)
        return self._take()

    def _seal(self, *, last: bool) -> None:
        self._out += self._aead.encrypt(_nonce(self._number, last=last), bytes(self._held), None)
        self._held.clear()
        self._number += 1

    def _take(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out


class Opener:
    """`update` with pieces of any size, then `finish` once; each gives the next plain bytes, all of them checked.

    What `update` gave is genuine, but only `finish` says that nothing is missing. Both raise Undecipherable.
    """

    def __init__(self, chunks_of: Callable[[bytes], ChaCha20Poly1305]) -> None:
        self._chunks_of = chunks_of
        self._aead: ChaCha20Poly1305 | None = None
        self._held = bytearray()
        self._number = 0

    def update(self, piece: bytes) -> bytes:
        out = bytearray()
        view = memoryview(piece)
        while view:
            if self._aead is None:
                view = self._fill(view, HEADER)
                if len(self._held) == HEADER:
                    self._start()
                continue
            if len(self._held) == CHUNK + TAG:  # more follows: it is not the last one
                out += self._open(last=False)
            view = self._fill(view, CHUNK + TAG)
        return bytes(out)

    def finish(self) -> bytes:
        if self._aead is None:
            raise Undecipherable("an encrypted content is cut within its header")
        plain = self._open(last=True)
        if not plain and self._number > 1:
            raise Undecipherable("an encrypted content ends in an empty chunk")
        return plain

    def _fill(self, view: memoryview, size: int) -> memoryview:
        room = size - len(self._held)
        self._held += view[:room]
        return view[room:]

    def _start(self) -> None:
        if self._held[0] != VERSION:
            raise Undecipherable(
                f"a content is encrypted in version {self._held[0]}, or not at all; {VERSION} is known"
            )
        self._aead = self._chunks_of(bytes(self._held[1:]))
        self._held.clear()

    def _open(self, *, last: bool) -> bytes:
        assert self._aead is not None
        try:
            plain = self._aead.decrypt(_nonce(self._number, last=last), bytes(self._held), None)
        except (InvalidTag, ValueError) as error:
            raise Undecipherable(
                "a content was not written by who has this document's key, or was damaged or cut since"
            ) from error
        self._held.clear()
        self._number += 1
        return plain


def sealed(sealer: Sealer, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The encrypted form of a content that comes in pieces."""
    for piece in pieces:
        yield sealer.update(piece)
    yield sealer.finish()


def opened(opener: Opener, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The content of an encrypted form that comes in pieces. Raises Undecipherable, at its end the latest."""
    for piece in pieces:
        yield opener.update(piece)
    yield opener.finish()


def plain_size(size: int) -> int | None:
    """Bytes of the content whose encrypted form has ``size``; None where no content's has."""
    body = size - HEADER
    chunks = max(1, -(-body // (CHUNK + TAG)))
    plain = body - chunks * TAG
    return plain if plain > (chunks - 1) * CHUNK or (plain == 0 and chunks == 1) else None


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes((last,))
