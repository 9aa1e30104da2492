"""What we sign in one topic: a session begins with the topic and numbers our messages from 1."""

from __future__ import annotations

import time

from ...transport.keys import SecretKey
from .envelope import Envelope, Kind

__all__ = ["Voice"]


class Voice:
    def __init__(self, topic: bytes) -> None:
        self._topic = topic
        self._session = self._last = time.time_ns() // 1000
        self._number = 0

    def sign(self, secret: SecretKey, body: bytes, kind: Kind = Kind.CONTENT) -> bytes:
        """The next message. Clocks that go back make no gap negative."""
        now = max(time.time_ns() // 1000, self._last)
        gap, self._last = now - self._last if self._number else 0, now
        self._number += 1
        author = bytes(secret.public)
        return Envelope(author, self._session, self._number, now, gap, kind, body).seal(secret, self._topic)
