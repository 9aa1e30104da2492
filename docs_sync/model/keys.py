"""The two kinds of key of a document (``reference/iroh-protocols.md`` 2.1).

A *namespace* key is the document: its public half names it and lets read, its secret half lets write. An *author* key
says who wrote. Both sign every entry. As text both are 64 hexadecimal digits and nothing else.
"""

from __future__ import annotations

from typing import Self

from ...transport.errors import InvalidKey
from ...transport.keys import PublicKey, SecretKey

__all__ = ["Author", "AuthorId", "NamespaceId", "NamespaceSecret"]


class _HexKey(PublicKey):
    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From 64 hexadecimal digits; the base32 form of endpoint ids is not one of these."""
        if len(text) != 64:
            raise InvalidKey(f"{text[:70]!r} is not an id of a document or an author: 64 hexadecimal digits are")
        return super().parse(text)


class NamespaceId(_HexKey):
    """The document's name, its gossip topic and the right to read it."""

    __slots__ = ()


class AuthorId(_HexKey):
    """Who wrote an entry."""

    __slots__ = ()


class Author(SecretKey):
    """The right to write in one author's name."""

    __slots__ = ()

    @property
    def id(self) -> AuthorId:
        return AuthorId(bytes(self.public))

    def __repr__(self) -> str:
        return f"Author({self.public.short()})"


class NamespaceSecret(SecretKey):
    """The right to write to one document."""

    __slots__ = ()

    @property
    def id(self) -> NamespaceId:
        return NamespaceId(bytes(self.public))

    def __repr__(self) -> str:
        return f"NamespaceSecret({self.public.short()})"
