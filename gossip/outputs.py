"""What the cores of a topic want done: the other half of their verbs. Peers are 32 raw bytes."""

from __future__ import annotations

from dataclasses import dataclass

from .messages import Message

__all__ = ["Deliver", "Down", "Learned", "Output", "Send", "Up"]


@dataclass(slots=True)
class Send:
    """Send ``message`` to ``peer``, dialling it where there is no connection."""

    peer: bytes
    message: Message


@dataclass(slots=True)
class Up:
    """``peer`` entered the active view."""

    peer: bytes


@dataclass(slots=True)
class Down:
    """``peer`` left the active view."""

    peer: bytes


@dataclass(slots=True)
class Deliver:
    """A new payload for the application. ``peer`` is the last hop, not the author; ``round`` as in `Payload`."""

    peer: bytes
    content: bytes
    round: int | None


@dataclass(slots=True)
class Learned:
    """Somebody says that ``peer`` can be reached as ``data`` (`codec.decode_addresses`) says. Unproven."""

    peer: bytes
    data: bytes


Output = Send | Up | Down | Deliver | Learned
