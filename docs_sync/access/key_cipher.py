"""Encrypted keys that keep their paths: what the put rule and prefix queries need of an order that means nothing.

A key is cut behind each "/" into components: "photos/2026/a" is "photos/", "2026/", "a". Each becomes

    length u16 BE | synthetic IV, 16 bytes | the component, encrypted

by AES-SIV (RFC 5297, AES-256), whose associated data is the IV of the component above. The cipher is deterministic: an
entry has to be found again, and replaced by a later one, by its key alone. AES-SIV is the standard cipher that loses
nothing by that but equality, and it authenticates: no key can be made or moved elsewhere without the secret.

What follows:

- ``encrypt(a)`` is a byte prefix of ``encrypt(b)`` exactly where the components of a are the first ones of b. Deleting
  "photos/" deletes what is below, as in any document. But a write at "a" neither replaces "ab" nor "a/b", for "a" and
  "a/" are two different components.
- A prefix that ends in "/" (or is empty) can be looked up; for another one look up the boundary above and filter what
  is found after decryption (`prefix_of`).
- A component takes 18 bytes more, and `MAX_KEY_SIZE` counts after encryption.
- Visible to who has no key: which entries have the same path and which are below which, how many components a path has
  and the length of each. A component of the same text below another one looks different.
"""

from __future__ import annotations

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from ..errors import BadKey, Undecipherable
from ..model.keys import NamespaceId
from ..model.validity import MAX_KEY_SIZE

__all__ = ["OVERHEAD", "KeyCipher"]

DERIVE = "tidings 2026-11-23 names in an encrypted document"
IV_SIZE = 16
OVERHEAD = 2 + IV_SIZE
"""Bytes that each component grows by."""


class KeyCipher:
    """For one document: the same secret gives other ciphertexts in another one."""

    __slots__ = ("_siv",)

    def __init__(self, secret: bytes, namespace: NamespaceId) -> None:
        self._siv = AESSIV(blake3(secret + bytes(namespace), derive_key_context=DERIVE).digest(length=64))

    def encrypt(self, key: bytes) -> bytes:
        """Raises BadKey where the result would be too long."""
        out, above = bytearray(), b""
        for component in _components(key):
            if len(out) + OVERHEAD + len(component) > MAX_KEY_SIZE:
                raise BadKey(
                    f"a key of {len(key)} bytes is too long for an encrypted document: each part up to a '/' takes "
                    f"{OVERHEAD} bytes more, and {MAX_KEY_SIZE} are all there is"
                )
            sealed = self._siv.encrypt(component, [above])
            out += len(component).to_bytes(2, "big") + sealed
            above = sealed[:IV_SIZE]
        return bytes(out)

    def decrypt(self, key: bytes) -> bytes:
        """Raises Undecipherable for what `encrypt` does not give."""
        out, above, at = bytearray(), b"", 0
        try:
            while at < len(key):
                start, end = at + 2, at + OVERHEAD + int.from_bytes(key[at : at + 2], "big")
                if end > len(key):
                    raise Undecipherable("an encrypted key is cut")
                component = self._siv.decrypt(key[start:end], [above])
                if at and not out.endswith(b"/"):
                    raise Undecipherable("an encrypted key goes on behind its end")
                if b"/" in component[:-1] or not component:
                    raise Undecipherable("a component of an encrypted key is not one")
                out += component
                above, at = key[start : start + IV_SIZE], end
        except (InvalidTag, ValueError) as error:
            raise Undecipherable("a key was not encrypted with this document's key") from error
        return bytes(out)

    def prefix_of(self, prefix: bytes) -> tuple[bytes, bool]:
        """What the encrypted forms of all keys below ``prefix`` start with, and whether others do, too."""
        boundary = prefix[: prefix.rfind(b"/") + 1]
        return self.encrypt(boundary), boundary != prefix


def _components(key: bytes) -> list[bytes]:
    parts = key.split(b"/")
    components = [part + b"/" for part in parts[:-1]]
    return [*components, parts[-1]] if parts[-1] else components
