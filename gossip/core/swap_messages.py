"""What X-BOT's nodes say to each other, over the protocol of logs: see `xbot` for who i, o, c and d are.

```
[5, o]      Optimize        i to c        [8, agreed]   OptimizeReply   c to i
[6, i, o]   Replace         c to d        [9, agreed]   ReplaceReply    d to c
[7, i]      Switch          d to o        [10, agreed]  SwitchReply     o to d
```
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Optimize", "OptimizeReply", "Replace", "ReplaceReply", "SwapMessage", "Switch", "SwitchReply"]


@dataclass(frozen=True, slots=True)
class Optimize:
    old: bytes


@dataclass(frozen=True, slots=True)
class Replace:
    initiator: bytes
    old: bytes


@dataclass(frozen=True, slots=True)
class Switch:
    initiator: bytes


@dataclass(frozen=True, slots=True)
class OptimizeReply:
    agreed: bool


@dataclass(frozen=True, slots=True)
class ReplaceReply:
    agreed: bool


@dataclass(frozen=True, slots=True)
class SwitchReply:
    agreed: bool


SwapMessage = Optimize | Replace | Switch | OptimizeReply | ReplaceReply | SwitchReply
