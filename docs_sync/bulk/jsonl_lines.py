"""One entry as one line of JSON: what `jsonl` writes and reads. (``docs/documents.md`` has the format for its readers.)

Each line stands for itself: lines of several files may be joined, filtered and sorted by other programs.

    {"key": "a", "author": "6d08...", "timestamp": 1795391095911102, "size": 5, "hash": "ea8f...", "text": "hello"}

- the key is ``key``, or ``key_hex`` where it is not UTF-8;
- the content is ``text``, or ``base64`` where it is not UTF-8 or text would be twice as long; ``hash`` and ``size``
  alone name a content that is not in the file; ``"deleted": true`` is a tombstone;
- ``document``, ``author_signature`` and ``document_signature``, where they are there, prove the entry.

Whoever writes lines by hand needs a key and a content. What a line says beyond this is ignored.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from dataclasses import dataclass

from blake3 import blake3

from ..model.entry import EMPTY_HASH, EntryId, Record, SignedEntry
from ..model.validity import MAX_KEY_SIZE, MAX_STORED

__all__ = ["INLINE", "MAX_LINE", "BadLine", "Line", "decode_line", "encode_line"]

INLINE = 1 << 20  # bytes of a content that is in its line; larger ones are named
MAX_LINE = 4 * INLINE  # bytes that are read of one: what is written is at most 2 MiB and a key, longer where indented


class BadLine(ValueError):
    """Why this is not an entry."""


@dataclass(frozen=True, slots=True)
class Line:
    """``hash`` and ``size`` are those of the content as stored; a tombstone has the hash and the size of nothing.

    ``content``: where the line has it. ``proof``: the document's id, the author's and the document's signature.
    """

    key: bytes
    hash: bytes
    size: int
    content: bytes | None = None
    author: bytes | None = None
    timestamp: int | None = None
    proof: tuple[bytes, bytes, bytes] | None = None

    @property
    def is_tombstone(self) -> bool:
        return self.hash == EMPTY_HASH

    def signed(self, document: bytes) -> SignedEntry | None:
        """The entry as its author signed it, where it is one of ``document``; whether that is true is not checked."""
        if self.proof is None or self.proof[0] != document or self.author is None or self.timestamp is None:
            return None
        id = EntryId(document, self.author, self.key)
        return SignedEntry(id, Record(self.size, self.hash, self.timestamp), *self.proof[1:])


def encode_line(line: Line) -> bytes:
    """With the newline at its end."""
    fields: dict[str, object] = {}
    try:
        fields["key"] = line.key.decode()
    except UnicodeDecodeError:
        fields["key_hex"] = line.key.hex()
    if line.author is not None:
        fields["author"] = line.author.hex()
    if line.timestamp is not None:
        fields["timestamp"] = line.timestamp
    if line.is_tombstone:
        fields["deleted"] = True
    else:
        fields |= {"size": line.size, "hash": line.hash.hex()}
    if line.proof is not None:
        document, *signatures = line.proof
        author_signature, document_signature = (b64encode(each).decode() for each in signatures)
        fields |= {"document": document.hex(), "author_signature": author_signature}
        fields["document_signature"] = document_signature
    head = json.dumps(fields, ensure_ascii=False)
    if line.content is None or line.is_tombstone:
        return head.encode() + b"\n"
    return b"".join((head[:-1].encode(), b", ", *_content(line.content), b"}\n"))


def _content(content: bytes) -> tuple[bytes, bytes]:
    try:
        text = json.dumps(content.decode(), ensure_ascii=False).encode()
    except UnicodeDecodeError:
        pass
    else:
        if len(text) <= 2 * len(content) + 2:
            return b'"text": ', text
    return b'"base64": ', b'"' + b64encode(content) + b'"'


def decode_line(data: bytes) -> Line:
    """Raises BadLine for anything that is not one."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"this is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise BadLine("this is JSON, but not an object")
    key, content = _key(fields), _inline(fields)
    author = _octets(fields, "author", 32)
    timestamp = _integer(fields, "timestamp")
    hash, size = _octets(fields, "hash", 32), _integer(fields, "size")
    proof = None
    if "document" in fields:
        document, by_author = _octets(fields, "document", 32), _octets(fields, "author_signature", 64)
        by_document = _octets(fields, "document_signature", 64)
        if None in (document, by_author, by_document, author, timestamp):
            raise BadLine("an entry with a document needs author, timestamp and both signatures")
        proof = (document or b"", by_author or b"", by_document or b"")
    deleted = fields.get("deleted", False)
    if not isinstance(deleted, bool):
        raise BadLine("deleted is true or false")
    if deleted:
        if content is not None or hash not in (None, EMPTY_HASH) or size not in (None, 0):
            raise BadLine("an entry is deleted or has a content, not both")
        hash, size = EMPTY_HASH, 0
    elif content is not None:
        digest = blake3(content).digest()
        if hash not in (None, digest) or size not in (None, len(content)):
            raise BadLine("the content is not what hash and size say")
        hash, size = digest, len(content)
    if hash is None or size is None:
        raise BadLine("there is no content: give text, base64, hash and size, or deleted")
    if (size == 0 or hash == EMPTY_HASH) and not deleted:
        raise BadLine('an empty content cannot be stored: "deleted": true is how a deletion is written')
    return Line(key, hash, size, content, author, timestamp, proof)


def _key(fields: dict[str, object]) -> bytes:
    if ("key" in fields) == ("key_hex" in fields):
        raise BadLine("an entry has a key, or a key_hex where it is not UTF-8")
    text = _text(fields, "key")
    raw = text if text is not None else _octets(fields, "key_hex", None)
    assert raw is not None
    if len(raw) > MAX_KEY_SIZE:
        raise BadLine(f"the key has {len(raw)} bytes, at most {MAX_KEY_SIZE} are kept")
    return raw


def _inline(fields: dict[str, object]) -> bytes | None:
    if "text" in fields and "base64" in fields:
        raise BadLine("the content is given twice: as text and as base64")
    if "base64" not in fields:
        return _text(fields, "text")
    return _octets(fields, "base64", None)


def _text(fields: dict[str, object], name: str) -> bytes | None:
    if name not in fields:
        return None
    value = fields[name]
    if not isinstance(value, str):
        raise BadLine(f"{name} is not text")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise BadLine(f"{name} is not whole text: it has half of a character") from None


def _octets(fields: dict[str, object], name: str, size: int | None) -> bytes | None:
    """From hexadecimal digits, or from base64 where signatures and contents are."""
    if name not in fields:
        return None
    value = fields[name]
    if not isinstance(value, str):
        raise BadLine(f"{name} is not text")
    in_base64 = name == "base64" or name.endswith("_signature")
    try:
        raw = b64decode(value, validate=True) if in_base64 else binascii.unhexlify(value)
    except ValueError as error:
        raise BadLine(f"{name} is not {'base64' if in_base64 else 'hexadecimal'} ({error})") from error
    if size is not None and len(raw) != size:
        raise BadLine(f"{name} has {len(raw)} bytes of {size}")
    return raw


def _integer(fields: dict[str, object], name: str) -> int | None:
    if name not in fields:
        return None
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_STORED:
        raise BadLine(f"{name} is not a number from 0 to {MAX_STORED}")
    return value
