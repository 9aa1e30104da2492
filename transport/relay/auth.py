"""How a client proves its key to a relay: by signing what the relay drew (``reference/iroh-transport.md`` 2c, B).

iroh's other way, a header that spares the round trip, needs keying material of the TLS session, which Python's ``ssl``
does not give. Relays fall back to this one.
"""

from __future__ import annotations

import os

from blake3 import blake3

from ..keys import SecretKey
from .frames import CHALLENGE_SIZE, Challenge, ClientAuth

__all__ = ["draw", "is_proof", "prove"]

CONTEXT = "iroh-relay handshake v1 challenge signature"


def draw() -> Challenge:
    return Challenge(os.urandom(CHALLENGE_SIZE))


def prove(secret: SecretKey, challenge: Challenge) -> ClientAuth:
    return ClientAuth(secret.public, secret.sign(_signed(challenge)))


def is_proof(auth: ClientAuth, challenge: Challenge) -> bool:
    """Whether the holder of ``auth.id`` answered just this challenge."""
    return auth.id.verify(_signed(challenge), auth.signature)


def _signed(challenge: Challenge) -> bytes:
    """Derived, so that no relay can have a key sign anything that means something elsewhere."""
    return blake3(challenge.challenge, derive_key_context=CONTEXT).digest()
