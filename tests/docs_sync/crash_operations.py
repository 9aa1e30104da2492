"""What the writer that is killed does: operations that are a function of their number, so that the killer knows them.

A *lane* is one author in one document; the writer runs all lanes at once, each one operation after the other. The put
rule keeps authors apart, so that each lane has at most one operation of which the killer does not know whether it was
done.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from tidings.blobs import Hash
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.entry import EMPTY_HASH, Record, SignedEntry, sign_entry
from tidings.docs_sync.model.keys import Author, NamespaceSecret

DOCUMENTS = [NamespaceSecret(bytes([0xD0 + index]) * 32) for index in range(2)]
AUTHORS = [Author(bytes([0xA0 + index]) * 32) for index in range(3)]
CAPABILITIES = [Capability(secret.id, secret) for secret in DOCUMENTS]
WITH_HISTORY = 0  # the document that keeps what is superseded
LANES = [(document, author) for document in range(len(DOCUMENTS)) for author in range(len(AUTHORS))]

MINUTE = 60_000_000
AHEAD = 200_000_000  # microseconds that another device's clock is ahead of this one's at most
MANY = 1_050  # entries below a key that are deleted as a range

KINDS = {"set": 10, "batch": 6, "fill": 1, "delete": 3, "clear": 1, "insert": 3, "process": 3}
LOCAL = ("set", "batch", "fill", "delete", "clear")


class Number(NamedTuple):
    """Which operation of which lane in which run."""

    run: int
    lane: int
    step: int


class Item(NamedTuple):
    """A local write; no content: a deletion."""

    key: bytes
    content: bytes

    @property
    def hash(self) -> bytes:
        return bytes(Hash.of(self.content)) if self.content else EMPTY_HASH


class Operation:
    """Local ones are ``items``, written in one transaction. Others are ``received`` from another device."""

    def __init__(self, number: Number, now_us: int) -> None:
        document, author = LANES[number.lane]
        self.capability, self.author = CAPABILITIES[document], AUTHORS[author]
        self._name = b"%d/%d/%d" % number
        self._rng = rng = random.Random(self._name)
        (self.kind,) = rng.choices(list(KINDS), KINDS.values())
        self.items: list[Item] = []
        self.received: list[SignedEntry] = []
        match self.kind:
            case "set":
                self.items = [self._item(self._key(), 0)]
            case "batch":
                self.items = [Item(self._key(), b"") for _ in range(rng.randrange(4))]
                self.items += [self._item(self._key(), index) for index in range(rng.choice((1, 10, 60)))]
                rng.shuffle(self.items)
                self.items.append(self._item(self._key(), -1))
            case "fill":
                prefix = self._prefix()
                self.items = [self._item(prefix + b"%d" % index, index) for index in range(MANY + rng.randrange(200))]
            case "delete":
                self.items = [Item(self._key(), b"")]
            case "clear":
                self.items = [Item(self._prefix() if rng.random() < 0.8 else b"", b"")]
            case _:
                count = rng.choice((1, 5, 40) if self.kind == "insert" else (1, 100, 600))
                latest = now_us + rng.choice((0, 0, 0, AHEAD))
                self.received = [self._entry(latest - rng.randrange(10 * MINUTE)) for _ in range(count)]

    def signed(self, first: int) -> list[SignedEntry]:
        """The items as entries, if they were written with times from ``first`` on."""
        secret = DOCUMENTS[CAPABILITIES.index(self.capability)]
        return [
            sign_entry(secret, self.author, item.key, Record(len(item.content), item.hash, first + index))
            for index, item in enumerate(self.items)
        ]

    def _prefix(self) -> bytes:
        return self._rng.choice((b"\x00/", b"many/", b"\xff\xff"))

    def _key(self) -> bytes:
        key = self._rng.choice((b"", b"", b"a/", self._prefix())) + b"%d" % self._rng.randrange(200)
        return key[: self._rng.randrange(len(key))] if self._rng.random() < 0.05 else key

    def _item(self, key: bytes, index: int) -> Item:
        return Item(key, b"%s/%d " % (self._name, index) + bytes(self._rng.choice((0, 100, 3000)) * (index < 10)))

    def _entry(self, timestamp: int) -> SignedEntry:
        secret = DOCUMENTS[CAPABILITIES.index(self.capability)]
        hash = self._rng.choice((EMPTY_HASH, *4 * (self._rng.randbytes(32),)))
        return sign_entry(secret, self.author, self._key(), Record(int(hash != EMPTY_HASH), hash, timestamp))
