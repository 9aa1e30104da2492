"""A blob's name: the BLAKE3 hash of its bytes, the same that ``b3sum`` prints."""

from __future__ import annotations

from functools import total_ordering
from typing import ClassVar

import blake3

from ..transport.text import decode_base32, encode_base32
from .errors import InvalidHash

__all__ = ["HASH_SIZE", "Hash"]

HASH_SIZE = 32


@total_ordering
class Hash:
    """32 bytes, ordered and hashed by those bytes. ``str()`` is 64 hexadecimal digits."""

    __slots__ = ("_bytes",)

    EMPTY: ClassVar[Hash]

    def __init__(self, data: bytes) -> None:
        if len(data) != HASH_SIZE:
            raise InvalidHash(f"a hash is {HASH_SIZE} bytes, not {len(data)}")
        self._bytes = bytes(data)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Hash:
        """The hash of ``data``."""
        return cls(blake3.blake3(data).digest())

    @classmethod
    def parse(cls, text: str) -> Hash:
        """From 64 hexadecimal digits or 52 characters of base32, in any case."""
        try:
            if len(text) == 64 and not any(c.isspace() for c in text):
                return cls(bytes.fromhex(text))
            if len(text) == 52:
                return cls(decode_base32(text))
        except ValueError:
            pass
        raise InvalidHash(f"{text[:70]!r} is not a hash: 64 hexadecimal digits or 52 characters of base32 are")

    def __bytes__(self) -> bytes:
        return self._bytes

    def __str__(self) -> str:
        return self._bytes.hex()

    def __repr__(self) -> str:
        return f"Hash({self.short()})"

    def short(self) -> str:
        """The first ten hex digits, for people."""
        return self._bytes[:5].hex()

    def base32(self) -> str:
        return encode_base32(self._bytes)

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hash) and self._bytes == other._bytes

    def __lt__(self, other: Hash) -> bool:
        return self._bytes < other._bytes


Hash.EMPTY = Hash.of(b"")
