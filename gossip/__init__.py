"""A swarm per topic: HyParView chooses neighbours, Plumtree carries messages; iroh's wire (``/iroh-gossip/1``)."""

from .api import Gossip, Topic, topic_id
from .codec import MAX_CONTENT
from .config import BroadcastConfig, MembershipConfig, TopicConfig
from .driver import ALPN, Admit
from .errors import InvalidTopic, JoinTimeout, MessageTooLarge, TopicClosed
from .subscription import Event, Lagged, NeighborDown, NeighborUp, Received

__all__ = [
    "ALPN",
    "MAX_CONTENT",
    "Admit",
    "BroadcastConfig",
    "Event",
    "Gossip",
    "InvalidTopic",
    "JoinTimeout",
    "Lagged",
    "MembershipConfig",
    "MessageTooLarge",
    "NeighborDown",
    "NeighborUp",
    "Received",
    "Topic",
    "TopicClosed",
    "TopicConfig",
    "topic_id",
]
