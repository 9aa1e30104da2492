"""A swarm per topic: HyParView chooses neighbours, Plumtree carries messages; iroh's wire (``/iroh-gossip/1``)."""

from .api import Gossip, Topic, topic_id
from .carrier import MAX_NAME, Carrier
from .core.codec import MAX_CONTENT
from .core.config import BroadcastConfig, LivenessConfig, MembershipConfig, TopicConfig, XBotConfig
from .core.envelope import MAX_BODY
from .core.log import LogConfig
from .errors import InvalidTopic, JoinTimeout, MessageTooLarge, SubscriberTooSlow, TopicClosed
from .net.door import Admit
from .net.log_driver import LOG_ALPN
from .net.peer_set import ALPN
from .sent import Sent
from .subscription import Event, Lagged, Missed, NeighborDown, NeighborUp, Received, WhenFull

__all__ = [
    "ALPN",
    "LOG_ALPN",
    "MAX_BODY",
    "MAX_CONTENT",
    "MAX_NAME",
    "Admit",
    "BroadcastConfig",
    "Carrier",
    "Event",
    "Gossip",
    "InvalidTopic",
    "JoinTimeout",
    "Lagged",
    "LivenessConfig",
    "LogConfig",
    "MembershipConfig",
    "MessageTooLarge",
    "Missed",
    "NeighborDown",
    "NeighborUp",
    "Received",
    "Sent",
    "SubscriberTooSlow",
    "Topic",
    "TopicClosed",
    "TopicConfig",
    "WhenFull",
    "XBotConfig",
    "topic_id",
]
