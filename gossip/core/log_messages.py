"""What two logs of a topic say to each other (``tidings/gossip-log/1``): msgpack arrays, one in each frame.

```
[0, log, high]                                 Summary   my log is named so, and has come to this index
[1, after, age]                                Ask       what have you got behind that index, not older than that?
[2, log, after, [[id, age], ...], upto, more]  Have      this, from there and so far
[3, [id, ...]]                                 Want      give me these
[4, [[content, age], ...], [id, ...]]          Give      here they are; these are gone
```
An id is the first 16 bytes of the BLAKE3 hash of a content; an age, in milliseconds, is how long ago it was new in the
swarm as far as the sender knows: no two clocks are ever compared. Kinds 5 to 10 are of `swap_messages`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]

from ...transport.errors import DecodeError
from .codec import MAX_CONTENT
from .swap_messages import Optimize, OptimizeReply, Replace, ReplaceReply, SwapMessage, Switch, SwitchReply

__all__ = [
    "ID",
    "MAX_FRAME",
    "MAX_GIVEN",
    "MAX_LISTED",
    "MAX_WANTED",
    "Ask",
    "Give",
    "Have",
    "LogMessage",
    "Summary",
    "Want",
    "decode_log",
    "encode_log",
]

ID = 16
MAX_LISTED = 1024  # in one Have
MAX_WANTED = 64  # in one Want
MAX_GIVEN = 64 << 10  # bytes of content in one Give, where it has more than one
MAX_FRAME = MAX_GIVEN + MAX_CONTENT + MAX_WANTED * 32
MAX_AGE = 1 << 42  # milliseconds: a century


@dataclass(frozen=True, slots=True)
class Summary:
    log: bytes
    high: int


@dataclass(frozen=True, slots=True)
class Ask:
    after: int
    age: int


@dataclass(frozen=True, slots=True)
class Have:
    log: bytes
    after: int
    listed: tuple[tuple[bytes, int], ...]
    upto: int
    more: bool


@dataclass(frozen=True, slots=True)
class Want:
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Give:
    contents: tuple[tuple[bytes, int], ...]
    gone: tuple[bytes, ...]


LogMessage = Summary | Ask | Have | Want | Give


def encode_log(message: LogMessage | SwapMessage) -> bytes:
    match message:
        case Summary(log, high):
            fields: list[object] = [0, log, high]
        case Ask(after, age):
            fields = [1, after, age]
        case Have(log, after, listed, upto, more):
            fields = [2, log, after, listed, upto, more]
        case Want(ids):
            fields = [3, ids]
        case Give(contents, gone):
            fields = [4, contents, gone]
        case Optimize(old):
            fields = [5, old]
        case Replace(initiator, old):
            fields = [6, initiator, old]
        case Switch(initiator):
            fields = [7, initiator]
        case OptimizeReply(agreed):
            fields = [8, agreed]
        case ReplaceReply(agreed):
            fields = [9, agreed]
        case SwitchReply(agreed):
            fields = [10, agreed]
    packed: bytes = msgpack.packb(fields)
    return packed


def decode_log(data: bytes) -> LogMessage | SwapMessage:
    """One message within the limits above; DecodeError for anything else."""
    try:
        fields = msgpack.unpackb(data, use_list=False, max_array_len=MAX_LISTED, max_map_len=0, max_str_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise DecodeError(f"a log message that is no msgpack: {error}") from None
    match fields:
        case (0, log, high) if _is_name(log) and _is_count(high):
            return Summary(log, high)
        case (1, after, age) if _is_count(after) and _is_age(age):
            return Ask(after, age)
        case (2, log, after, tuple(listed), upto, bool(more)) if (
            _is_name(log)
            and _is_count(after)
            and _is_count(upto)
            and all(_is_aged(each) and len(each[0]) == ID for each in listed)
        ):
            return Have(log, after, listed, upto, more)
        case (3, tuple(ids)) if 0 < len(ids) <= MAX_WANTED and all(map(_is_id, ids)):
            return Want(ids)
        case (4, tuple(contents), tuple(gone)) if (
            len(contents) + len(gone) <= MAX_WANTED
            and all(_is_aged(each) and len(each[0]) <= MAX_CONTENT for each in contents)
            and all(map(_is_id, gone))
        ):
            return Give(contents, gone)
        case (5, old) if _is_peer(old):
            return Optimize(old)
        case (6, initiator, old) if _is_peer(initiator) and _is_peer(old):
            return Replace(initiator, old)
        case (7, initiator) if _is_peer(initiator):
            return Switch(initiator)
        case (8, bool(agreed)):
            return OptimizeReply(agreed)
        case (9, bool(agreed)):
            return ReplaceReply(agreed)
        case (10, bool(agreed)):
            return SwitchReply(agreed)
    raise DecodeError("a log message of another shape")


def _is_name(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == 8


def _is_peer(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == 32


def _is_id(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == ID


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_age(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_AGE


def _is_aged(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], bytes) and _is_age(value[1])
