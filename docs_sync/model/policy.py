"""Which contents of a document are fetched without being asked for (``reference/iroh-protocols.md`` 2.8).

A `DownloadPolicy` is one of two rules with filters over keys: nothing but what a filter matches, or everything but
that. Entries always sync; a content that the policy leaves out is still fetched when a program reads it.

Bytes, which are postcard as the reference keeps them: rule (``00`` nothing except, ``01`` everything except), count,
and for each filter its kind (``00`` prefix, ``01`` exact) and bytes. Text of a filter: ``prefix:utf8:photos/``,
``exact:hex:00ff``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from ...transport.postcard import Reader, Writer
from ..errors import BadPolicy
from .validity import MAX_KEY_SIZE

__all__ = ["MAX_FILTERS", "DownloadPolicy", "Exact", "Filter", "Prefix", "parse_filter"]

MAX_FILTERS = 256  # each entry that arrives is held against all of them


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys that start with ``key``."""

    key: bytes

    def matches(self, key: bytes) -> bool:
        return key.startswith(self.key)

    def __str__(self) -> str:
        return f"prefix:{_text(self.key)}"


@dataclass(frozen=True, slots=True)
class Exact:
    """This key alone."""

    key: bytes

    def matches(self, key: bytes) -> bool:
        return key == self.key

    def __str__(self) -> str:
        return f"exact:{_text(self.key)}"


Filter: TypeAlias = Prefix | Exact
_KINDS: tuple[type[Prefix], type[Exact]] = (Prefix, Exact)


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """``everything``: contents are fetched unless a filter matches their key; else only those that one matches."""

    everything: bool = True
    filters: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        if len(self.filters) > MAX_FILTERS:
            raise BadPolicy(
                f"a policy has at most {MAX_FILTERS} filters, not {len(self.filters)}: use shorter prefixes"
            )
        for filter in self.filters:
            if not isinstance(filter, Prefix | Exact) or not isinstance(filter.key, bytes):
                raise BadPolicy(f"{filter!r} is no filter: use Prefix(b'...') or Exact(b'...')")
            if len(filter.key) > MAX_KEY_SIZE:
                raise BadPolicy(f"a filter has {len(filter.key)} bytes, but keys have at most {MAX_KEY_SIZE}")

    @classmethod
    def nothing_except(cls, filters: Iterable[Filter | str] = ()) -> DownloadPolicy:
        """Fetch only what a filter matches. Filters may be given as text. Raises BadPolicy."""
        return cls(False, _filters(filters))

    @classmethod
    def everything_except(cls, filters: Iterable[Filter | str] = ()) -> DownloadPolicy:
        """Fetch all but what a filter matches. Raises BadPolicy."""
        return cls(True, _filters(filters))

    def matches(self, key: bytes) -> bool:
        """Whether the content of an entry at ``key`` is fetched."""
        return any(filter.matches(key) for filter in self.filters) is not self.everything

    def encode(self) -> bytes:
        out = Writer()
        out.varint(int(self.everything)).varint(len(self.filters))
        for filter in self.filters:
            out.varint(_KINDS.index(type(filter))).octets(filter.key)
        return out.finish()

    @classmethod
    @lru_cache(maxsize=256)
    def decode(cls, data: bytes) -> DownloadPolicy:
        """Raises DecodeError."""
        source = Reader(data)
        everything = bool(source.variant(2))
        count = source.count(MAX_FILTERS, each=2)
        filters = tuple(_KINDS[source.variant(2)](source.octets(MAX_KEY_SIZE)) for _ in range(count))
        source.end()
        return cls(everything, filters)

    def __str__(self) -> str:
        rule = "everything" if self.everything else "nothing"
        return f"{rule} except {', '.join(map(str, self.filters))}" if self.filters else rule


def parse_filter(text: str) -> Filter:
    """``prefix:utf8:abc``, ``exact:hex:00ff``. Raises BadPolicy."""
    kind, _, rest = text.partition(":")
    coding, colon, value = rest.partition(":")
    kinds: dict[str, type[Prefix] | type[Exact]] = {"prefix": Prefix, "exact": Exact}
    made = kinds.get(kind)
    if made is not None and colon:
        try:
            if coding == "utf8":
                return made(value.encode())
            if coding == "hex":
                return made(bytes.fromhex(value))
        except ValueError:
            pass
    raise BadPolicy(f"{text!r} is no filter: write prefix:utf8:photos/ or exact:hex:00ff")


def _filters(filters: Iterable[Filter | str]) -> tuple[Filter, ...]:
    return tuple(parse_filter(filter) if isinstance(filter, str) else filter for filter in filters)


def _text(key: bytes) -> str:
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return f"hex:{key.hex()}"
    return f"utf8:{text}" if text.isprintable() else f"hex:{key.hex()}"
