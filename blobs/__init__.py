"""Content by its BLAKE3 hash: kept, served, and fetched from peers with every group verified before it is written."""

from __future__ import annotations

from .api import Blobs
from .collect import Collected
from .collection import Collection
from .errors import (
    BlobDamaged,
    Busy,
    FileChanged,
    FileExists,
    HashMismatch,
    InvalidHash,
    NotFound,
    NotProvided,
    ProvidersExhausted,
    QuotaExceeded,
    Refused,
    Stalled,
    TooLarge,
    Truncated,
    UnreadableFile,
    UnsafeName,
    UnsupportedRequest,
)
from .hash import Hash
from .messages import ALPN
from .meter import Measured, Meter
from .open_blob import OpenBlob
from .provider import Served
from .reader import BlobInfo, BlobReader
from .sequence import SequenceProgress
from .settings import BlobSettings, RequestEvent
from .small import Delivery
from .store import Progress
from .tags import Tag, Tags
from .tickets import BlobFormat, BlobTicket
from .tree import tree_form
from .verify import Checked

__all__ = [
    "ALPN",
    "BlobDamaged",
    "BlobFormat",
    "BlobInfo",
    "BlobReader",
    "BlobSettings",
    "BlobTicket",
    "Blobs",
    "Busy",
    "Checked",
    "Collected",
    "Collection",
    "Delivery",
    "FileChanged",
    "FileExists",
    "Hash",
    "HashMismatch",
    "InvalidHash",
    "Measured",
    "Meter",
    "NotFound",
    "NotProvided",
    "OpenBlob",
    "Progress",
    "ProvidersExhausted",
    "QuotaExceeded",
    "Refused",
    "RequestEvent",
    "SequenceProgress",
    "Served",
    "Stalled",
    "Tag",
    "Tags",
    "TooLarge",
    "Truncated",
    "UnreadableFile",
    "UnsafeName",
    "UnsupportedRequest",
    "tree_form",
]
