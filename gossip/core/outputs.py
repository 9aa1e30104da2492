"""What the cores of a topic want done: the other half of their verbs. Peers are 32 raw bytes."""

from __future__ import annotations

from dataclasses import dataclass

from .log import Entry
from .log_messages import LogMessage
from .messages import Message
from .order import Gap
from .swap_messages import SwapMessage

__all__ = [
    "Deliver",
    "Down",
    "Fault",
    "Learned",
    "Measure",
    "Missing",
    "Output",
    "Ready",
    "Send",
    "SendLog",
    "SendSwap",
    "Up",
]


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


@dataclass(slots=True)
class SendLog:
    """Send ``message`` to ``peer`` over the protocol of logs, dialling it where there is no connection."""

    peer: bytes
    message: LogMessage


@dataclass(slots=True)
class Ready:
    """A message for the application, of a topic that keeps a log, in its author's order unless it is ``late``."""

    entry: Entry
    peer: bytes
    round: int | None
    late: bool


@dataclass(slots=True)
class Missing:
    """Messages of an author were given up."""

    gap: Gap


@dataclass(slots=True)
class Measure:
    """Find out how far ``peer`` is, and say so: `XBot.measured`."""

    peer: bytes


@dataclass(slots=True)
class SendSwap:
    """Send ``message`` to ``peer`` over the protocol of logs."""

    peer: bytes
    message: SwapMessage


@dataclass(slots=True)
class Fault:
    """``peer`` did what no honest peer does; ``what``, in a word."""

    peer: bytes
    what: str


Output = Send | Up | Down | Deliver | Fault | Learned | Measure | SendLog | SendSwap | Ready | Missing
