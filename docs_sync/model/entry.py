"""Entries: what a document is made of (``reference/iroh-protocols.md`` 2.1, 2.5).

An entry is an id (namespace, author, key) and a record (size, hash and time of a blob), signed by the author and by
the namespace. The value itself is a blob and never travels here.

- Ids are ordered by their bytes: namespace, author, key. Records are ordered by (timestamp, hash); size plays no part.
- Both keys sign ``namespace | author | key | size u64 BE | hash | timestamp u64 BE``.
- The fingerprint, which reconciliation adds up by XOR, is BLAKE3 of ``id | timestamp u64 BE | hash``.
- A *tombstone* has size 0 and the hash of nothing: everything older of its author below its key is deleted.

The core keeps ids as plain bytes: a first sync makes a hundred thousand of these, and named tuples are the cheapest.
"""

from __future__ import annotations

from typing import NamedTuple

from blake3 import blake3

from ...transport.errors import DecodeError
from ...transport.postcard import Reader, Writer
from .keys import Author, NamespaceSecret

__all__ = ["EMPTY_HASH", "MIN_ID_SIZE", "EntryId", "Record", "SignedEntry", "fingerprint_of", "sign_entry"]

EMPTY_HASH = blake3(b"").digest()
MIN_ID_SIZE = 64
MAX_ID_SIZE = MIN_ID_SIZE + 0xFFFF  # on the wire; what is kept is up to `validity.MAX_KEY_SIZE`


class EntryId(NamedTuple):
    """Where an entry stands: 32 bytes, 32 bytes, any bytes."""

    namespace: bytes
    author: bytes
    key: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> EntryId:
        if len(data) < MIN_ID_SIZE:
            raise DecodeError(f"an entry's id has {len(data)} bytes, at least {MIN_ID_SIZE} are needed")
        return cls(data[:32], data[32:64], data[64:])

    def __bytes__(self) -> bytes:
        return self.namespace + self.author + self.key


class Record(NamedTuple):
    """What stands there: the blob's size in bytes, its BLAKE3 hash, and when it was written in microseconds."""

    size: int
    hash: bytes
    timestamp: int

    @property
    def order(self) -> tuple[int, bytes]:
        """The larger wins where two records meet at one id."""
        return self.timestamp, self.hash

    @property
    def is_tombstone(self) -> bool:
        return self.size == 0 and self.hash == EMPTY_HASH


class SignedEntry(NamedTuple):
    """An entry as it is stored and sent."""

    id: EntryId
    record: Record
    author_signature: bytes
    namespace_signature: bytes

    def signed_bytes(self) -> bytes:
        return _signed_bytes(self.id, self.record)

    def write(self, out: Writer) -> None:
        out.raw(self.author_signature).raw(self.namespace_signature).octets(bytes(self.id))
        out.varint(self.record.size).raw(self.record.hash).varint(self.record.timestamp)

    @classmethod
    def read(cls, data: Reader) -> SignedEntry:
        """DecodeError for anything that is not one; what it says is for `validity` to judge."""
        author_signature, namespace_signature = data.raw(64), data.raw(64)
        id = EntryId.from_bytes(data.octets(MAX_ID_SIZE))
        return cls(id, Record(data.varint(), data.raw(32), data.varint()), author_signature, namespace_signature)


def fingerprint_of(id: EntryId, record: Record) -> bytes:
    """32 bytes; neither the size nor the signatures are part of it."""
    return blake3(bytes(id) + record.timestamp.to_bytes(8, "big") + record.hash).digest()


def sign_entry(namespace: NamespaceSecret, author: Author, key: bytes, record: Record) -> SignedEntry:
    id = EntryId(bytes(namespace.public), bytes(author.public), key)
    message = _signed_bytes(id, record)
    return SignedEntry(id, record, author.sign(message), namespace.sign(message))


def _signed_bytes(id: EntryId, record: Record) -> bytes:
    return bytes(id) + record.size.to_bytes(8, "big") + record.hash + record.timestamp.to_bytes(8, "big")
