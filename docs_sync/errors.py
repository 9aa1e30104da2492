"""Errors of documents, by blame (see ``tidings.errors``).

UsageError    ReadOnly  UnknownDocument  UnknownAuthor  EmptyValue  BadImport  BadKey  BadPeriod  BadPolicy  BadQuery
              BatchEnded  BatchFull  ClockBehind  DocumentClosed  NotAValue  EncryptedDocument  BadShare  UnknownShare
              TooManyShares  NotHeld  OtherPart
PeerError     InvalidEntry: WrongNamespace  BadSignature  TooFarAhead  BadEmptyEntry  KeyTooLarge  BadSize  OutsideRange
              OutsidePart  Unwelcome
              SyncRefused  SyncViolation  MessageTooLarge  NotAllowed  FalseSize  Undecipherable
NetworkError  SyncTimeout  ContentMissing
"""

from __future__ import annotations

from ..errors import NetworkError, PeerError, UsageError
from ..transport.errors import DecodeError

__all__ = [
    "BadEmptyEntry",
    "BadImport",
    "BadKey",
    "BadPeriod",
    "BadPolicy",
    "BadQuery",
    "BadShare",
    "BadSignature",
    "BadSize",
    "BatchEnded",
    "BatchFull",
    "ClockBehind",
    "ContentMissing",
    "DocumentClosed",
    "EmptyValue",
    "EncryptedDocument",
    "FalseSize",
    "InvalidEntry",
    "KeyTooLarge",
    "MessageTooLarge",
    "NotAValue",
    "NotAllowed",
    "NotHeld",
    "OtherPart",
    "OutsidePart",
    "OutsideRange",
    "ReadOnly",
    "SyncRefused",
    "SyncTimeout",
    "SyncViolation",
    "TooFarAhead",
    "TooManyShares",
    "Undecipherable",
    "UnknownAuthor",
    "UnknownDocument",
    "UnknownShare",
    "UnsafePath",
    "Unwelcome",
    "WrongNamespace",
]


class ReadOnly(UsageError):
    """The document was joined with a read ticket: ask for one with ``write=True`` to change it."""


class UnknownDocument(UsageError):
    """This node has no such document: join it with a ticket first."""


class UnknownAuthor(UsageError):
    """This node does not hold the author's secret, so it cannot write in that name."""


class EmptyValue(UsageError):
    """An empty value is how a deletion is written: use ``delete``, or store at least one byte."""


class BadImport(UsageError):
    """A line of an import is not an entry of a document. The lines before it are in; mend ``line`` and import again."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}; the lines before it were imported")
        self.line = line


class BadKey(UsageError):
    """A key is text or bytes of at most `tidings.docs_sync.model.validity.MAX_KEY_SIZE` bytes."""


class BadPeriod(UsageError):
    """History cannot be kept for this long: give a positive `timedelta`, or None to switch it off."""


class BadPolicy(UsageError):
    """Not a download policy: filters are ``prefix:utf8:photos/``, ``exact:hex:00ff``, and so on, and not too many."""


class BadQuery(UsageError):
    """No entries can be asked for like this: a limit is not negative, a cursor comes from the same document."""


class BatchEnded(UsageError):
    """The batch's block was left already: begin another one."""


class BatchFull(UsageError):
    """A batch holds `tidings.docs_sync.bulk.batch.MAX_BATCH` writes at most: leave its block and begin another one."""


class ClockBehind(UsageError):
    """This author's newest entry is too far in the future for peers: set the clock, or write as another author."""


class DocumentClosed(UsageError):
    """The document or its node was closed: open it again."""


class NotAValue(UsageError):
    """The content is not a msgpack value: read it with ``content()``, or write it with ``set_value``."""


class EncryptedDocument(UsageError):
    """The document is encrypted, and this cannot be done with what is in it; or it is not, and this needs it to be."""


class BadShare(UsageError):
    """A share with these terms cannot be made, or this one cannot be used here."""


class UnknownShare(UsageError):
    """This node did not issue the share: revoke it where it was issued."""


class TooManyShares(UsageError):
    """The document has as many shares, or revocations that have to be kept, as it can: let shares expire."""


class NotHeld(UsageError):
    """This node holds a part of the document, and the key is not in it: write below its prefix, or `Doc.widen` it."""


class OtherPart(UsageError):
    """This node holds all of the document, or the part below another prefix: `Doc.widen` it, or drop it first."""


class InvalidEntry(PeerError):
    """An entry that no peer may accept. It was dropped; everything else of the same message was kept."""


class WrongNamespace(InvalidEntry):
    """The entry belongs to another document."""


class BadSignature(InvalidEntry):
    """The author or the document did not sign the entry."""


class TooFarAhead(InvalidEntry):
    """The entry's time is more than ten minutes ahead of this machine's clock: one of the two clocks is wrong."""


class BadEmptyEntry(InvalidEntry):
    """Size 0 with a hash that is not that of nothing, or the reverse."""


class KeyTooLarge(InvalidEntry):
    """The key is longer than this node keeps."""


class BadSize(InvalidEntry):
    """The content claims 2^63 bytes or more."""


class OutsideRange(InvalidEntry):
    """The peer sent the entry for a range of ids that does not hold it."""


class Undecipherable(PeerError):
    """A key or a content that no holder of the document's key wrote, or that was changed since."""


class FalseSize(PeerError):
    """An entry's content has another size than its author signed: read it by its hash, from the blobs."""


class OutsidePart(InvalidEntry):
    """The entry is not below the prefix that is synced, nor an ancestor of it."""


class Unwelcome(InvalidEntry):
    """The access hook of this node takes no entries from the peer."""


class NotAllowed(PeerError):
    """The peer may not read the document: the access hook says so, or it has shown no share that is valid now."""


class UnsafePath(PeerError):
    """A name that this machine does not write to its disk, or that others would not write to theirs: rename it."""


class SyncRefused(PeerError):
    """The peer does not sync this document with us now; ``reason`` is its `messages.AbortReason`."""

    def __init__(self, message: str, reason: object, *, peer: object | None = None) -> None:
        super().__init__(message, peer=peer)
        self.reason = reason


class MessageTooLarge(DecodeError):
    """A peer began a sync message of ``size`` bytes, more than are taken. The next sync asks it for less at a time."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"a sync message of {size} bytes where at most {most} are allowed")
        self.size = size


class SyncViolation(PeerError):
    """The peer broke the order of the sync messages, or went on without end."""


class SyncTimeout(NetworkError):
    """Nobody synced the document in time. The node goes on trying; ``open`` the document to use what is there."""


class ContentMissing(NetworkError):
    """The entry is here but its content is not yet: wait longer, or bring a peer online that has it."""
