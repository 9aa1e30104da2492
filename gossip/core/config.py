"""The constants of both protocols (``reference/iroh-protocols.md`` 1.3), and our own bounds, each with its reason.

The defaults are iroh's, so that a mixed swarm behaves as one. Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["BroadcastConfig", "LivenessConfig", "MembershipConfig", "TopicConfig", "XBotConfig"]


@dataclass(frozen=True, slots=True)
class MembershipConfig:
    """HyParView."""

    active_capacity: int = 5  # log10(10,000) + 1: the paper's choice for 10,000 nodes
    passive_capacity: int = 30  # six times the active view: the paper's; survives 90 % of nodes failing
    active_walk: int = 6  # hops of a ForwardJoin before it becomes a neighbour
    passive_walk: int = 3  # the remaining hops at which a ForwardJoin is noted in the passive view
    shuffle_walk: int = 6
    shuffle_active: int = 3  # of each view in one Shuffle
    shuffle_passive: int = 4
    shuffle_interval: float = 60.0
    first_shuffle: float = 1.0  # after the first neighbour, where nobody else is known; doubles up to the interval
    request_timeout: float = 0.5  # a Neighbor without an answer, or four round trips; then the next candidate is asked
    max_refusals: int = 3  # candidates that refuse before asking is paced: in a full swarm nearly all of them do
    refill_pause: float = 1.0  # the first pause; doubles up to the shuffle interval
    insist_after: int = 16  # pauses, a quarter of an hour; then one is asked with high priority. Doubles each time
    handshake_memory: float = 5.0  # a Neighbor that comes this late is still the answer: above any round trip
    join_retry: float = 0.5  # first wait for an answer to Join; doubles ...
    join_retry_max: float = 30.0  # ... up to this, so that a dead bootstrap costs little
    join_attempts: int = 6  # about 15 s; then a node that has a neighbour by another way asks more and more rarely
    revive_after: float = 10.0  # from losing a neighbour to asking it again, which is how two halves find together; ...
    ask_again_max: float = 1800.0  # ... doubling up to this, as Join does: who is away for long costs little
    max_lost: int = 32  # lost neighbours that are asked again
    max_contacts: int = 64  # bootstrap peers remembered for joining again


@dataclass(frozen=True, slots=True)
class BroadcastConfig:
    """Plumtree."""

    graft_timeout: float = 0.080  # from an IHave to the Graft: the payload is usually on its way
    graft_retry: float = 0.040  # from one Graft to the next announcer
    dispatch_delay: float = 0.005  # announcements to one peer are gathered this long
    optimization_threshold: int = 3  # hops that another branch must save now before the tree is changed, ...
    optimization_gain: float = 1.0  # ... and on average over the last messages along the branch that we have, ...
    optimization_samples: int = 5  # ... of which so many are known
    payload_retention: float = 30.0  # how long a Graft can still be answered
    id_retention: float = 90.0  # how long a second copy is known as one
    evict_interval: float = 1.0
    prune_interval: float = 0.080  # copies already on their way to us need no second Prune
    max_announced: int = 116  # ids in one IHave frame: (4096 - 33 - 3) / 35
    max_missing: int = 16_384  # ids announced and awaited; about 5 MB
    max_missing_per_peer: int = 4_096  # so that one liar cannot fill the table for the others
    max_payload_bytes: int = 16 << 20  # of payloads kept for Grafts; the oldest go first
    max_ids: int = 262_144  # remembered ids: 90 s at 2,900 messages a second


@dataclass(frozen=True, slots=True)
class LivenessConfig:
    """Neighbours that die without a word, and neighbours that stop reading."""

    probe_after: float = 1.0  # without a packet from a neighbour; then it is asked to answer
    dead_after: float = 2.0  # without a packet, or four round trips, while others answer; then it is replaced
    stalled_after: float = 2.0  # without progress in what we send to one that answers; then it is disconnected


@dataclass(frozen=True, slots=True)
class XBotConfig:
    """Neighbours that are near (`xbot`). Between tidings peers alone."""

    interval: float = 10.0  # between two candidates that are measured
    unbiased: int = 1  # neighbours that are never traded, so that the swarm does not fall into islands
    gain: float = 0.8  # a candidate is nearer below this share of the other's round trip: noise trades nothing
    trade_timeout: float = 10.0  # for a trade as a whole: two dials may be in it
    answer_timeout: float = 3.0  # that a slot is kept after an agreement


@dataclass(frozen=True, slots=True)
class TopicConfig:
    membership: MembershipConfig = field(default_factory=MembershipConfig)
    broadcast: BroadcastConfig = field(default_factory=BroadcastConfig)
    liveness: LivenessConfig = field(default_factory=LivenessConfig)
    xbot: XBotConfig | None = None
