"""The second check of a sync between tidings peers, without I/O.

Fingerprints of ranges are XORs, and whoever writes entries can choose 257 of them so that some cancel out
(``reference/iroh-protocols.md`` 6.2): two peers then differ and say "equal" for ever. So once the first pass agrees, a
*window* of consecutive ids is compared by other fingerprints: the keyed BLAKE3 of the fingerprints of its entries, in
ascending order and one behind the other, under a key of this session. Two sets that agree in it would be a collision of
BLAKE3. The reconciliation is the same one, over `KeyedRange`; what differs is found, sent and put.

A window has at most `WINDOW` entries and costs one pass over them. A document with no more is checked whole by every
sync. In a larger one the window begins at a random entry: nobody can know where it is safe, and once a window holds a
single one of the entries that cancel out, they are found to differ, are repaired, and do not hide the others any more.
Windows lie between ids, not entries: together they leave no gap that only the other side has entries in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Protocol

from blake3 import blake3

from .entry import EMPTY_HASH
from .ranges import IdRange
from .reconcile import EMPTY_ID, Part, RangeFingerprint, RangeStore, Summary, Value

__all__ = ["WINDOW", "CheckTooLarge", "KeyedRange", "KeyedSource", "derive_key", "first_check", "random_window"]

WINDOW = 2048  # entries, about 2 ms to check
MAX_HASHED = 4 * WINDOW  # entries hashed for one message: the window, its parts, and some that came meanwhile
CONTEXT = "tidings/docs/1 second check"


class KeyedSource(RangeStore, Protocol):
    """A range store that knows the fingerprints of single entries."""

    def fingerprints(self, range: IdRange) -> Iterator[bytes]: ...


class CheckTooLarge(Exception):
    """A message asks for keyed fingerprints of more entries than an honest one would."""


def derive_key(namespace: bytes, dialler_nonce: bytes, acceptor_nonce: bytes) -> bytes:
    """32 bytes that neither side could choose alone."""
    return blake3(namespace + dialler_nonce + acceptor_nonce, derive_key_context=CONTEXT).digest()


def first_check(store: KeyedSource, key: bytes, rng: Random) -> list[Part]:
    """The message that begins the check: a window that we choose, and our fingerprint of it."""
    window = random_window(store, rng)
    return [RangeFingerprint(window, KeyedRange(store, key).summary(window).fingerprint)]


def random_window(store: RangeStore, rng: Random) -> IdRange:
    """As far as `WINDOW` entries from a random one on, wrapping; the whole document where it has no more."""
    whole = IdRange(EMPTY_ID, EMPTY_ID)
    size = store.summary(whole).size
    if size <= WINDOW:
        return whole
    (x,) = store.ids_at(whole, [rng.randrange(size)])
    (y,) = store.ids_at(IdRange(x, x), [WINDOW])
    return IdRange(x, y)


class KeyedRange:
    """A `RangeStore` whose fingerprints are keyed. Good for one message: it hashes `MAX_HASHED` entries, no more."""

    def __init__(self, store: KeyedSource, key: bytes) -> None:
        self._store = store
        self._key = key
        self._hashed = 0

    @property
    def namespace(self) -> bytes:
        return self._store.namespace

    def first_id(self) -> bytes | None:
        return self._store.first_id()

    def summary(self, range: IdRange) -> Summary:
        """Raises CheckTooLarge."""
        size = self._store.summary(range).size
        self._hashed += size
        if self._hashed > MAX_HASHED:
            raise CheckTooLarge
        if not size:
            return Summary(0, EMPTY_HASH)
        fingerprints = sorted(self._store.fingerprints(range))
        return Summary(size, blake3(b"".join(fingerprints), key=self._key).digest())

    def ids_at(self, range: IdRange, positions: Sequence[int]) -> list[bytes]:
        return self._store.ids_at(range, positions)

    def cuts(self, range: IdRange, ways: int, fewest: int) -> list[bytes]:
        return self._store.cuts(range, ways, fewest)

    def walk(self, range: IdRange) -> Iterator[Value]:
        return self._store.walk(range)

    def listing(self, range: IdRange) -> list[tuple[bytes, bytes]]:
        return self._store.listing(range)

    def values_of(self, ids: Sequence[bytes]) -> list[Value]:
        return self._store.values_of(ids)
