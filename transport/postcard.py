"""postcard: the byte encoding under every iroh message and ticket (``reference/iroh-protocols.md`` 0.1).

Integers wider than a byte, lengths and enum discriminants are LEB128 varints; ``u8`` and ``bool`` are one byte;
structs and fixed arrays have no length; vectors, strings and byte strings carry a varint count.

A `Reader` never trusts a length: every count is checked against a limit that the caller names *and* against the
bytes that are there, so a claimed size costs nothing. Everything wrong raises `DecodeError`.
"""

from __future__ import annotations

from .errors import DecodeError

__all__ = ["U16", "U32", "U64", "Reader", "Writer", "encode_varint"]

U16 = 0xFFFF
U32 = 0xFFFF_FFFF
U64 = 0xFFFF_FFFF_FFFF_FFFF


def encode_varint(value: int) -> bytes:
    """LEB128: seven bits a byte, low group first. ``value`` is 0 to 2^64 - 1."""
    if not 0 <= value <= U64:
        raise ValueError(f"{value} does not fit an unsigned 64-bit integer")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Writer:
    """Appends encoded fields; ``finish()`` gives the bytes. Methods return the writer so that fields chain."""

    __slots__ = ("_out",)

    def __init__(self) -> None:
        self._out = bytearray()

    def u8(self, value: int) -> Writer:
        self._out.append(value)
        return self

    def flag(self, value: bool) -> Writer:
        return self.u8(1 if value else 0)

    def varint(self, value: int) -> Writer:
        self._out += encode_varint(value)
        return self

    def raw(self, data: bytes) -> Writer:
        """A fixed-size array: no length."""
        self._out += data
        return self

    def octets(self, data: bytes) -> Writer:
        """A byte string: varint length, then the bytes."""
        self._out += encode_varint(len(data))
        self._out += data
        return self

    def string(self, text: str) -> Writer:
        return self.octets(text.encode())

    def finish(self) -> bytes:
        return bytes(self._out)


class Reader:
    """Takes fields off the front of ``data``; every method raises `DecodeError` where the bytes do not fit."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self._at

    def raw(self, size: int) -> bytes:
        stop = self._at + size
        if stop > len(self._data):
            raise DecodeError(f"{size} bytes expected, {self.remaining} left")
        out = self._data[self._at : stop]
        self._at = stop
        return out

    def u8(self) -> int:
        at = self._at
        if at >= len(self._data):
            raise DecodeError("1 bytes expected, 0 left")
        self._at = at + 1
        return self._data[at]

    def flag(self) -> bool:
        value = self.u8()
        if value > 1:
            raise DecodeError(f"{value} is not a bool")
        return value == 1

    def varint(self, maximum: int = U64) -> int:
        """An unsigned integer of at most ``maximum`` (2^16 - 1, 2^32 - 1 or 2^64 - 1 by its type)."""
        byte = self.u8()
        value, shift = byte & 0x7F, 7
        while byte >= 0x80:
            if shift > 63:
                raise DecodeError("an integer is longer than ten bytes")
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
        if value > maximum:
            raise DecodeError(f"an integer is larger than {maximum}")
        return value

    def count(self, limit: int, *, each: int = 1) -> int:
        """The length of a sequence of at most ``limit`` items of at least ``each`` bytes."""
        count = self.varint()
        if count > limit:
            raise DecodeError(f"{count} items where at most {limit} are allowed")
        if count * each > self.remaining:
            raise DecodeError(f"{count} items promised, {self.remaining} bytes left")
        return count

    def octets(self, limit: int = U32) -> bytes:
        return self.raw(self.count(limit))

    def string(self, limit: int = U32) -> str:
        try:
            return self.octets(limit).decode()
        except UnicodeDecodeError as error:
            raise DecodeError("a string is not UTF-8") from error

    def variant(self, count: int) -> int:
        """An enum discriminant below ``count``."""
        value = self.varint()
        if value >= count:
            raise DecodeError(f"unknown variant {value}, {count} are known")
        return value

    def end(self) -> None:
        if self.remaining:
            raise DecodeError(f"{self.remaining} bytes left over after the message")
