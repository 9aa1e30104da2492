"""Errors of the blobs layer, by blame (see ``tidings.errors``).

UsageError    InvalidHash  UnreadableFile  FileExists
PeerError     HashMismatch  Truncated  TooLarge  NotProvided  Refused (Busy)  UnsafeName  UnsupportedRequest
NetworkError  Stalled  ProvidersExhausted
StoreError    NotFound  FileChanged  BlobDamaged  QuotaExceeded

Tickets raise ``transport.InvalidTicket``; bytes that are no message at all raise ``transport.DecodeError``.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import NetworkError, PeerError, StoreError, TidingsError, UsageError

__all__ = [
    "BlobDamaged",
    "Busy",
    "FileChanged",
    "FileExists",
    "HashMismatch",
    "InvalidHash",
    "NotFound",
    "NotProvided",
    "ProvidersExhausted",
    "QuotaExceeded",
    "Refused",
    "Stalled",
    "TooLarge",
    "Truncated",
    "UnreadableFile",
    "UnsafeName",
    "UnsupportedRequest",
]


class InvalidHash(UsageError):
    """Not a hash: 64 hexadecimal digits or 52 characters of base32 are."""


class UnreadableFile(UsageError):
    """The file to add, or to write to, cannot be used: it is not there, not a file, or not this user's."""


class FileExists(UsageError):
    """A file is in the way of one that is to be written. Nothing was written."""


class HashMismatch(PeerError):
    """The peer sent bytes that do not belong to the hash. Nothing of them was kept; ask another provider."""


class Truncated(PeerError):
    """The peer's answer ended before the blob did."""


class TooLarge(PeerError):
    """The blob is larger, by the peer's claim, than the limit of this fetch: raise ``max_size`` if you want it."""


class NotProvided(PeerError):
    """The peer does not have the blob, or not the part that was asked for."""


class Refused(PeerError):
    """The peer has rules against this request (code 1)."""


class UnsafeName(PeerError):
    """A collection has a name that is no place for a file below the chosen folder. Nothing was written."""


class Busy(Refused):
    """The peer has had too many requests (code 2): try again later."""


class UnsupportedRequest(PeerError):
    """A request of a kind that nobody has defined yet: its number is reserved."""


class Stalled(NetworkError):
    """The peer sent nothing, or next to nothing, for as long as the stall timeout."""


class ProvidersExhausted(NetworkError):
    """No provider delivered the blob. ``reasons`` maps each provider's id (text) to the error that ended its try."""

    def __init__(self, what: str, reasons: Mapping[str, TidingsError]) -> None:
        if reasons:
            tried = "; ".join(f"{provider[:10]}: {error}" for provider, error in reasons.items())
            text = f"no provider delivered {what}: {tried}"
        else:
            text = f"nobody to fetch {what} from: name at least one provider"
        super().__init__(text)
        self.reasons = dict(reasons)


class NotFound(StoreError):
    """The blob is not in this store: fetch it first."""


class QuotaExceeded(StoreError):
    """The blobs here would have more bytes than the settings allow. What was here is untouched."""


class FileChanged(StoreError):
    """The file changed while it was read. Nothing was added; add it again when nobody writes to it."""


class BlobDamaged(StoreError):
    """The file of a blob is missing or is not what was stored: fetch the blob again."""
