"""What a node may do with a document (``reference/iroh-protocols.md`` 2.4).

The id alone lets read; the namespace's secret lets write as well. On the wire ``00`` and the secret, or ``01`` and the
id. It cannot be taken back from whoever has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ...transport.errors import DecodeError
from ...transport.postcard import Reader, Writer
from ..errors import ReadOnly
from .keys import NamespaceId, NamespaceSecret

__all__ = ["Capability"]


@dataclass(frozen=True, slots=True)
class Capability:
    id: NamespaceId
    secret: NamespaceSecret | None = None

    @classmethod
    def of(cls, id: NamespaceId, secret: bytes | None) -> Self:
        return cls(id, None if secret is None else NamespaceSecret(secret))

    @property
    def can_write(self) -> bool:
        return self.secret is not None

    def check_writable(self) -> NamespaceSecret:
        """The secret; raises ReadOnly where only reading is allowed."""
        if self.secret is None:
            raise ReadOnly(f"document {self.id.short()} can only be read here: join it with a write ticket")
        return self.secret

    def read_only(self) -> Capability:
        return Capability(self.id)

    def write(self, out: Writer) -> None:
        if self.secret is None:
            out.u8(1).raw(bytes(self.id))
        else:
            out.u8(0).octets(self.secret.to_bytes())

    @classmethod
    def read(cls, data: Reader) -> Self:
        if data.variant(2) == 1:
            return cls(NamespaceId(data.raw(32)))
        seed = data.octets(32)
        if len(seed) != 32:
            raise DecodeError(f"a secret of {len(seed)} bytes where 32 are needed")
        secret = NamespaceSecret(seed)
        return cls(secret.id, secret)
