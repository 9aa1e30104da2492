"""What makes an entry acceptable, each rule once (``reference/iroh-protocols.md`` 2.2).

The same rules hold for an entry from gossip, from a sync and, signatures aside, from ourselves: the reference checks
some of them on some of these ways only. A clock that runs ahead would win every conflict for ever, hence ten minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...transport.keys import PublicKey
from ..errors import BadEmptyEntry, BadSignature, BadSize, InvalidEntry, KeyTooLarge, TooFarAhead, WrongNamespace
from .entry import EMPTY_HASH, EntryId, Record, SignedEntry

__all__ = ["MAX_AHEAD_US", "MAX_KEY_SIZE", "MAX_STORED", "check_entry", "judge_all", "verify_all"]

MAX_AHEAD_US = 600_000_000
"""How far ahead of our clock an entry may be, in microseconds: ten minutes."""

MAX_KEY_SIZE = 4096
"""Bytes of a key. The longest path of Linux; gossip carries 3.8 kB, and the put rule looks up every prefix."""

MAX_STORED = 2**63 - 1
"""The largest integer of the database; the wire has 64 bits without a sign."""


def check_entry(id: EntryId, record: Record, namespace: bytes, now_us: int) -> InvalidEntry | None:
    """What is wrong with the entry, signatures aside, or None."""
    if id.namespace != namespace:
        return WrongNamespace("the entry is of another document")
    if len(id.key) > MAX_KEY_SIZE:
        return KeyTooLarge(f"a key has {len(id.key)} bytes, at most {MAX_KEY_SIZE} are kept")
    if record.timestamp > min(now_us + MAX_AHEAD_US, MAX_STORED):
        return TooFarAhead(f"an entry is {(record.timestamp - now_us) / 1e6:.0f} s ahead of this clock")
    if record.size > MAX_STORED:
        return BadSize(f"an entry claims a content of {record.size} bytes")
    if (record.size == 0) != (record.hash == EMPTY_HASH):
        return BadEmptyEntry("an entry's size and hash do not agree on whether it is empty")
    return None


def verify_all(entries: Sequence[SignedEntry]) -> list[bool]:
    """Whether both signatures of each entry hold. About 0.3 ms an entry, most of it without the interpreter
    lock: for threads, never for the event loop."""
    keys: dict[bytes, PublicKey] = {}
    verdicts = []
    for entry in entries:
        message = entry.signed_bytes()
        namespace = keys.setdefault(entry.id.namespace, PublicKey(entry.id.namespace))
        author = keys.setdefault(entry.id.author, PublicKey(entry.id.author))
        verdicts.append(
            author.verify(message, entry.author_signature) and namespace.verify(message, entry.namespace_signature)
        )
    return verdicts


def judge_all(entries: Sequence[SignedEntry], namespace: bytes, now_us: int) -> list[InvalidEntry | None]:
    """For each entry what is wrong with it, or None; the cheap rules first. For threads, like `verify_all`."""
    verdicts = [check_entry(entry.id, entry.record, namespace, now_us) for entry in entries]
    plausible = [index for index, verdict in enumerate(verdicts) if verdict is None]
    for index, genuine in zip(plausible, verify_all([entries[index] for index in plausible]), strict=True):
        if not genuine:
            verdicts[index] = BadSignature("an entry's signature does not hold")
    return verdicts
