"""Text forms of bytes: base32 as iroh writes it (lower case, no padding) and z-base-32 (DNS names, pkarr)."""

from __future__ import annotations

import base64

__all__ = ["decode_base32", "decode_z32", "encode_base32", "encode_z32"]

_RFC4648 = "abcdefghijklmnopqrstuvwxyz234567"
_Z32 = "ybndrfg8ejkmcpqxot1uwisza345h769"
_TO_Z32 = str.maketrans(_RFC4648, _Z32)
_FROM_Z32 = str.maketrans(_Z32, _RFC4648)


def encode_base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def decode_base32(text: str) -> bytes:
    """Case does not matter; ValueError where a character, the length or the unused last bits are wrong."""
    if not text.isascii():
        raise ValueError("base32 text is ASCII")
    data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    if encode_base32(data) != text.lower():
        raise ValueError("base32 text has stray bits at its end")
    return data


def encode_z32(data: bytes) -> str:
    return encode_base32(data).translate(_TO_Z32)


def decode_z32(text: str) -> bytes:
    if any(c not in _Z32 for c in text):
        raise ValueError("not z-base-32 text")
    return decode_base32(text.translate(_FROM_Z32))
