"""Content by its BLAKE3 hash: kept, served, and fetched from peers with every group verified before it is written."""

from __future__ import annotations

from .api import Blobs
from .collect import Collected
from .errors import (
    BlobDamaged,
    FileChanged,
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
    UnsupportedRequest,
)
from .hash import Hash
from .messages import ALPN
from .small import Delivery
from .store import BlobInfo, BlobReader, Progress
from .tags import Tag, Tags
from .tickets import BlobFormat, BlobTicket
from .tree import tree_form

__all__ = [
    "ALPN",
    "BlobDamaged",
    "BlobFormat",
    "BlobInfo",
    "BlobReader",
    "BlobTicket",
    "Blobs",
    "Collected",
    "Delivery",
    "FileChanged",
    "Hash",
    "HashMismatch",
    "InvalidHash",
    "NotFound",
    "NotProvided",
    "Progress",
    "ProvidersExhausted",
    "Refused",
    "Stalled",
    "Tag",
    "Tags",
    "TooLarge",
    "Truncated",
    "UnreadableFile",
    "UnsupportedRequest",
    "tree_form",
]
