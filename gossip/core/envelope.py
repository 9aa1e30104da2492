"""A message that says who wrote it: author, place in the author's order, time, signature, around the content.

It travels as the content of an ordinary gossip message, so that iroh peers pass it on like any other:
``MAGIC | signature (64) | msgpack [author, session, number, time, gap, kind, body]``, the signature being Ed25519 over
``MAGIC | topic | the msgpack``.

A *session* is one stay of an author in the topic, named by the microsecond of its beginning; in it messages are
numbered from 1 without a gap. ``gap`` is how long before this message the author sent the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import msgpack  # type: ignore[import-untyped]

from ...transport.errors import DecodeError, InvalidKey
from ...transport.keys import EndpointId, SecretKey
from .codec import MAX_CONTENT

__all__ = ["MAGIC", "MAX_BODY", "Envelope", "Kind"]

MAGIC = b"\xd1tidings\x01"
SIGNATURE = 64
U64 = 1 << 64
MAX_BODY = MAX_CONTENT - len(MAGIC) - SIGNATURE - (1 + 34 + 9 + 9 + 9 + 9 + 1 + 3)  # each field at its longest


class Kind(IntEnum):
    """What the body is."""

    CONTENT = 0
    CARRIED = 1  # what the carrier made of a content that is too large for a message


@dataclass(frozen=True, slots=True)
class Envelope:
    """``time`` in microseconds of Unix time by the author's clock; ``gap`` in microseconds, 0 for the first."""

    author: bytes
    session: int
    number: int
    time: int
    gap: int
    kind: Kind
    body: bytes

    def seal(self, secret: SecretKey, topic: bytes) -> bytes:
        """The bytes that travel. The caller keeps ``body`` within `MAX_BODY`."""
        fields = [self.author, self.session, self.number, self.time, self.gap, int(self.kind), self.body]
        packed: bytes = msgpack.packb(fields)
        return MAGIC + secret.sign(MAGIC + topic + packed) + packed

    @classmethod
    def open(cls, content: bytes, topic: bytes | None) -> Envelope | None:
        """None: no envelope, but the plain content of a program that signs nothing. DecodeError: a forged one.

        ``topic`` None: the signature is not checked, where it was before.
        """
        if not content.startswith(MAGIC):
            return None
        start = len(MAGIC) + SIGNATURE
        signature, packed = content[len(MAGIC) : start], content[start:]
        try:
            fields = msgpack.unpackb(packed, max_array_len=7, max_map_len=0)
        except (ValueError, msgpack.UnpackException) as error:
            raise DecodeError(f"a signed message that is no msgpack: {error}") from None
        match fields:
            case [bytes(author), int(session), int(number), int(time), int(gap), 0 | 1 as kind, bytes(body)] if (
                len(author) == 32 and all(0 <= each < U64 for each in (session, time, gap)) and 1 <= number < U64
            ):
                envelope = cls(author, session, number, time, gap, Kind(kind), body)
            case _:
                raise DecodeError("a signed message of another shape")
        if topic is not None:
            try:
                genuine = EndpointId(author).verify(MAGIC + topic + packed, signature)
            except InvalidKey:
                genuine = False
            if not genuine:
                raise DecodeError("a signed message with a wrong signature")
        return envelope
