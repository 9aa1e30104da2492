"""Collections: names for the blobs of a hash sequence, as iroh has them (reference 3.5).

The sequence's first blob holds the names: 13 bytes ``CollectionV0.``, then a postcard list of texts. The others follow
in the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import UsageError
from ..transport.errors import DecodeError
from ..transport.postcard import Reader, Writer
from .hash import HASH_SIZE, Hash

__all__ = ["MAX_ENTRIES", "MAX_NAMES", "Collection", "split_sequence"]

_HEADER = b"CollectionV0."
MAX_ENTRIES = 1 << 20  # of one collection: 32 MiB of hashes
MAX_NAMES = 64 << 20  # bytes of all its names
MAX_NAME = 4096  # bytes of one name


@dataclass(frozen=True, slots=True)
class Collection:
    """(name, hash) of each of its blobs. Names are any texts: see `folders.safe_path` before using one as a path."""

    entries: tuple[tuple[str, Hash], ...]

    def __iter__(self) -> Iterator[tuple[str, Hash]]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def encode_names(self) -> bytes:
        """The first blob of the sequence."""
        out = Writer().raw(_HEADER).varint(len(self.entries))
        for name, _ in self.entries:
            out.string(name)
        return out.finish()

    def encode_sequence(self, names: Hash) -> bytes:
        """The sequence itself; ``names``: of its first blob."""
        return b"".join(map(bytes, (names, *(hash for _, hash in self.entries))))

    @classmethod
    def decode(cls, names: bytes, sequence: bytes) -> Collection:
        """`DecodeError`: a sequence of hashes it may be, but no collection."""
        hashes = split_sequence(sequence)
        reader = Reader(names)
        if reader.remaining < len(_HEADER) or reader.raw(len(_HEADER)) != _HEADER:
            raise DecodeError("this sequence of blobs is no collection: it has no names")
        texts = [reader.string(MAX_NAME) for _ in range(reader.count(MAX_ENTRIES))]
        reader.end()
        if len(texts) + 1 != len(hashes):
            raise DecodeError(f"a collection of {len(hashes) - 1} blobs has {len(texts)} names")
        return cls(tuple(zip(texts, hashes[1:], strict=True)))

    @classmethod
    def of(cls, entries: Iterable[tuple[str, Hash]]) -> Collection:
        """`UsageError` for too many, or names that are too long or no text."""
        found = tuple(entries)
        if len(found) > MAX_ENTRIES:
            raise UsageError(f"a collection has at most {MAX_ENTRIES} entries: make several")
        for name, _ in found:
            try:
                size = len(name.encode())
            except UnicodeEncodeError:
                raise UsageError(f"the name {name!r} is no Unicode text: rename the file") from None
            if size > MAX_NAME:
                raise UsageError(f"a name of {size} bytes: {MAX_NAME} are allowed")
        return cls(found)


def split_sequence(sequence: bytes) -> list[Hash]:
    """The hashes of a sequence. `DecodeError`."""
    if len(sequence) % HASH_SIZE or not sequence:
        raise DecodeError(f"{len(sequence)} bytes are no sequence of hashes")
    return [Hash(sequence[at : at + HASH_SIZE]) for at in range(0, len(sequence), HASH_SIZE)]
