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
from .open_blob import OpenBlob
from .provider import Served
from .sequence import SequenceProgress
from .small import Delivery
from .store import BlobInfo, BlobReader, Progress
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
    "NotFound",
    "NotProvided",
    "OpenBlob",
    "Progress",
    "ProvidersExhausted",
    "Refused",
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
