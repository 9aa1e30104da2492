"""The part of a document below a prefix: what belongs to it.

Beside the entries whose keys start with the prefix these are its *ancestors*, entries at proper prefixes of it: by the
put rule a tombstone at ``pho`` deletes what is below ``photos/``, so nobody can hold a part rightly without them.
"""

from __future__ import annotations

__all__ = ["holds", "in_part"]


def in_part(key: bytes, prefix: bytes) -> bool:
    """Whether an entry belongs to the part: below the prefix, or an ancestor of it."""
    return key.startswith(prefix) or prefix.startswith(key)


def holds(held: bytes | None, prefix: bytes | None) -> bool:
    """Whether who has the part below ``held`` has all of the one below ``prefix``; None is the whole document."""
    return held is None or (prefix is not None and prefix.startswith(held))
