"""Errors of the gossip layer, by blame (see ``tidings.errors``).

UsageError    InvalidTopic  MessageTooLarge  SubscriberTooSlow  TopicClosed
NetworkError  JoinTimeout

What a peer does wrong never reaches the caller of a topic: it costs that peer its connection and is logged.
"""

from __future__ import annotations

from ..errors import NetworkError, UsageError

__all__ = ["InvalidTopic", "JoinTimeout", "MessageTooLarge", "SubscriberTooSlow", "TopicClosed"]


class InvalidTopic(UsageError):
    """A topic is named by 32 bytes, or by a text that is hashed."""


class MessageTooLarge(UsageError):
    """More than one gossip message holds: put the content in a blob and broadcast its hash or ticket."""


class SubscriberTooSlow(UsageError):
    """A subscription that is to fail rather than lose events was not read fast enough."""


class TopicClosed(UsageError):
    """The topic handle, or the whole of gossip, was closed; subscribe again."""


class JoinTimeout(NetworkError):
    """Nobody of the topic answered in time: are the bootstrap peers running, reachable and subscribed to it?"""
