"""HyParView: who is my neighbour (Leitao, Pereira, Rodrigues, DSN 2007; ``reference/iroh-protocols.md`` 1.4).

A node keeps a small *active view*, its neighbours, meant to be symmetric, and a larger *passive view* of candidates
that replace lost neighbours and are refreshed by shuffles along random walks.

Invariants: a node is never in its own views; active and passive are disjoint and within their capacities; a peer that
is asked to be a neighbour (*pending*) holds a slot until it answers, refuses, is lost, or its time is up; addresses
are kept only for peers in a view, pending, or lost.

Where this differs from iroh's 0.101, on the same wire:

- The Neighbor with which a joiner answers ours is *expected* for a while, not for ever: iroh keeps such peers pending,
  and so stops looking for neighbours too early.
- Who was just refused or evicted evicts nobody: answers that cross a Disconnect would else end a neighbour each, whose
  own answers cross the next Disconnect, and where messages are slow or come twice a swarm would never be at rest.
- All free slots are asked for at once. Who refuses is not asked again before the next shuffle, and after a few
  refusals asking is paced: a swarm whose views are full would else be busy with refusing.
- Join is repeated until it is answered, and a node that lost everybody joins its contacts again.
- A node that has room for neighbours and knows nobody to ask shuffles within a second, not within a minute: in a
  swarm of three to six, walks often end where they began.
- An answer to a request is awaited longer where the neighbours that we have are far.
- A neighbour whose connection broke is asked again, so that the halves of a healed partition find together.
  Neither is given up: who has neighbours meanwhile asks more and more rarely, down to twice an hour.
- A hop count from the wire is cut to our own walk lengths: nobody can make a message walk for ever.

Views are dicts, whose order is that of insertion: a run with the same seed and messages is the same run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from .config import MembershipConfig
from .messages import (
    Disconnect,
    ForwardJoin,
    Join,
    MembershipMessage,
    Neighbor,
    PeerInfo,
    Priority,
    Shuffle,
    ShuffleReply,
)
from .outputs import Down, Learned, Output, Send, Up
from .timers import Timers

__all__ = ["HyParView"]

MAX_DATA = 1024  # bytes of PeerData that we keep of one peer: a relay and dozens of addresses
KEPT_CONTACTS = 8  # of an earlier run, or that failed us, and are asked again for as long as we are alone
MAX_PENDING = 30  # peers asked at once: a liar who forwards invented joins makes us dial no more than these
MAX_EXPECTED = 128  # answers awaited before old ones are swept out
TELL_INTERVAL = 1.0  # seconds: what was on its way before our Disconnect needs no second one
MAX_ROUND_TRIP = 2.0  # seconds: who answers slowly on purpose makes us wait no longer
REQUEST_ROUND_TRIPS = 4  # a dial, the request, and its answer, with one to spare
DATA_BUDGET = 3000  # bytes of PeerData in one Shuffle: with its ids it must fit a frame


@dataclass(slots=True)
class _Contact:
    """A peer to join through. ``asking``: a Join is out or about to be; ``attempts`` were made since it began."""

    asking: bool = False
    attempts: int = 0
    settled: bool = False
    """It answered: asked again only by a node that is alone."""


class HyParView:
    __slots__ = (
        "_asked",
        "_config",
        "_contacts",
        "_declined",
        "_expected",
        "_kept_slots",
        "_lost",
        "_me",
        "_out",
        "_parted",
        "_patience",
        "_pause",
        "_pauses",
        "_pausing",
        "_peer_data",
        "_pending",
        "_refusals",
        "_refuser",
        "_rng",
        "_round_trips",
        "_shuffle_wait",
        "_shuffling",
        "_timers",
        "_told",
        "active",
        "data",
        "passive",
    )

    def __init__(self, me: bytes, config: MembershipConfig, rng: Random, timers: Timers, out: list[Output]) -> None:
        self._me = me
        self._config = config
        self._rng = rng
        self._timers = timers
        self._out = out
        self.data = b""
        """What we say of our own addresses; set it whenever they change."""
        self.active: dict[bytes, None] = {}
        self.passive: dict[bytes, None] = {}
        self._pending: dict[bytes, int] = {}  # -> number of the request, so that an old timer does not end a new one
        self._asked = 0
        self._expected: dict[bytes, float] = {}  # -> until when a Neighbor from it is an answer
        self._parted: dict[bytes, float] = {}  # refused or evicted -> until when its next Neighbor evicts nobody
        self._told: dict[bytes, float] = {}  # not a neighbour, and was told so -> until when it is not told again
        self._declined: dict[bytes, None] = {}
        self._refusals = 0  # in a row
        self._refuser: bytes | None = None  # the last
        self._pause = config.refill_pause
        self._pausing = False
        self._pauses = 0  # without a change of the active view
        self._patience = config.insist_after
        self._contacts: dict[bytes, _Contact] = {}
        self._lost: dict[bytes, int] = {}  # neighbours whose connection broke -> how often they were asked since
        self._kept_slots: dict[bytes, int] = {}  # free slots that are promised -> number of the promise
        self._peer_data: dict[bytes, bytes] = {}
        self._round_trips: dict[bytes, float] = {}  # of neighbours
        self._shuffling = False
        self._shuffle_wait = config.shuffle_interval

    def wants(self, peer: bytes) -> bool:
        """Whether a connection to ``peer`` is of use: a neighbour, or one that we wait for."""
        contact = self._contacts.get(peer)
        asking = contact is not None and contact.asking
        return peer in self.active or peer in self._pending or peer in self._kept_slots or asking

    def known(self, most: int) -> list[tuple[bytes, bytes]]:
        """Peers to come back through, neighbours first: the id of each and what is known of its addresses."""
        return [(peer, self._peer_data.get(peer, b"")) for peer in (*self.active, *self.passive)][:most]

    def note_round_trip(self, peer: bytes, seconds: float) -> None:
        """What was measured of the way to a neighbour: where ways are long, answers are awaited longer."""
        if peer in self.active:
            self._round_trips[peer] = min(seconds, MAX_ROUND_TRIP)

    # The application's side

    def recall(self, peers: Iterable[tuple[bytes, bytes]], now: float) -> None:
        """Come back through ``peers``, as `known` gave them in an earlier run."""
        for peer, data in peers:
            if self._add_passive(peer):
                self._learn(peer, data)
                self._keep_contact(peer)
        self._refill(now)

    def join(self, peer: bytes, now: float) -> None:
        """Enter the swarm through ``peer``, asking again until it answers. Nothing happens for a neighbour."""
        if peer == self._me or peer in self.active:
            return
        self._contacts.pop(peer, None)
        while len(self._contacts) >= self._config.max_contacts:
            del self._contacts[next(iter(self._contacts))]
        contact = self._contacts[peer] = _Contact()  # a new one: an earlier timer finds it is not its own
        self._ask(now, peer, contact)

    def leave(self) -> None:
        """Tell everybody who knows us here, and forget all."""
        for peer in list(self.active):
            del self.active[peer]
            self._part(peer, alive=False)
            self._out.append(Down(peer))
        for peer in self._pending:
            self._out.append(Send(peer, Disconnect(alive=False)))
        for peer, contact in self._contacts.items():
            if contact.asking and peer not in self._pending:
                self._out.append(Send(peer, Disconnect(alive=False)))
        for table in (
            self.passive,
            self._pending,
            self._expected,
            self._parted,
            self._declined,
            self._contacts,
            self._lost,
            self._kept_slots,
            self._peer_data,
            self._round_trips,
        ):
            table.clear()

    # The network's side

    def receive(self, peer: bytes, message: MembershipMessage, now: float) -> None:
        match message:
            case Join(data):
                self._on_join(peer, data, now)
            case ForwardJoin():
                self._on_forward_join(peer, message, now)
            case Neighbor(priority, data):
                self._on_neighbor(peer, priority, data, now)
            case Shuffle():
                self._on_shuffle(peer, message, now)
            case ShuffleReply(nodes):
                self._note(nodes)
                self._refill(now)
            case Disconnect(alive):
                self._on_disconnect(peer, alive, now)

    def heard_from(self, peer: bytes, now: float) -> None:
        """``peer`` treats us as a neighbour. Where it is not one of ours it is told so, and both views agree again."""
        if not self.wants(peer) and self._told.get(peer, 0.0) <= now:
            _remember(self._told, peer, now + TELL_INTERVAL, now)
            self._out.append(Send(peer, Disconnect(alive=True)))

    def peer_disconnected(self, peer: bytes, alive: bool, now: float) -> None:
        """The last connection to ``peer`` ended, or it could not be dialled.

        ``alive``: the connection ended in good order, so the peer may be asked again.
        """
        self._expected.pop(peer, None)
        self._parted.pop(peer, None)
        was_pending = self._pending.pop(peer, None) is not None
        was_active = self._drop_active(peer)
        if alive and was_active:
            self._add_passive(peer)
        elif was_pending or not alive:
            if was_active:
                self._patience = self._config.insist_after
                self._add_lost(peer, now)
            self.passive.pop(peer, None)
            self._forget(peer)
            if was_active:
                self._keep_contact(peer)
        if was_active or was_pending:
            self._refill(now, but=peer)

    def _on_join(self, peer: bytes, data: bytes | None, now: float) -> None:
        self._parted.pop(peer, None)
        others = [other for other in self.active if other != peer]
        self._learn(peer, data)
        self._add_active(peer, now)
        self._expect(peer, now)
        self._out.append(Send(peer, Neighbor(Priority.HIGH, self.data)))
        info = PeerInfo(peer, self._peer_data.get(peer))
        for other in others:
            if other in self.active:
                self._out.append(Send(other, ForwardJoin(info, self._config.active_walk)))

    def _on_forward_join(self, sender: bytes, message: ForwardJoin, now: float) -> None:
        joiner, ttl = message.peer.id, min(message.ttl, self._config.active_walk)
        if joiner == self._me:
            return
        if joiner in self.active:
            # It may have forgotten us: both sides settle it with one more handshake.
            self._learn(joiner, message.peer.data)
            self._expect(joiner, now)
            self._out.append(Send(joiner, Neighbor(Priority.HIGH, self.data)))
            return
        if ttl == 0 or len(self.active) <= 1:
            # Unlike in the paper the joiner gets its slot when it answers: who cannot be reached never holds one.
            if len(self._pending) < MAX_PENDING:
                self._request(joiner, Priority.HIGH, now)
                self._learn(joiner, message.peer.data)
            return
        if ttl == self._config.passive_walk:
            self._add_passive(joiner)
            self._learn(joiner, message.peer.data)
        if joiner not in self._pending:
            target = self._pick([peer for peer in self.active if peer != sender])
            if target is not None:
                self._out.append(Send(target, ForwardJoin(message.peer, ttl - 1)))

    def _on_neighbor(self, peer: bytes, priority: Priority, data: bytes | None, now: float) -> None:
        parted = self._parted.pop(peer, 0.0) > now
        if parted and self.active:
            priority = Priority.LOW
        expected = self._expected.pop(peer, 0.0) > now
        # Nothing is expected of a stranger: its answer that comes too late is answered like a request, or else a
        # request of its own, taken for that answer, would leave us its neighbour and it not ours.
        answer = self._pending.pop(peer, None) is not None or (expected and peer in self.active)
        self._settle(peer)
        self._learn(peer, data)
        if peer in self.active:
            if not answer:
                # Expecting one more here is what ends two nodes answering each other for ever.
                self._expect(peer, now)
                self._out.append(Send(peer, Neighbor(priority, self.data)))
        elif priority is Priority.HIGH or peer in self._kept_slots or not self.is_full:
            self._add_active(peer, now)
            if not answer:
                self._out.append(Send(peer, Neighbor(priority, self.data)))
        else:
            self._turn_away(peer, now, again=parted)
            self._forget(peer)

    def _on_shuffle(self, sender: bytes, message: Shuffle, now: float) -> None:
        if message.origin == self._me:
            return
        ttl = min(message.ttl, self._config.shuffle_walk)
        if ttl > 0 and len(self.active) > 1:
            target = self._pick([peer for peer in self.active if peer not in (message.origin, sender)])
            if target is not None:
                self._out.append(Send(target, Shuffle(message.origin, message.nodes, ttl - 1)))
                return
        most = 1 + self._config.shuffle_active + self._config.shuffle_passive
        sample = self._sample(min(len(message.nodes), most), but=message.origin)
        self._note(message.nodes)
        self._out.append(Send(message.origin, ShuffleReply(self._infos(sample))))
        self._refill(now)

    def _on_disconnect(self, peer: bytes, alive: bool, now: float) -> None:
        self._expected.pop(peer, None)
        was_pending = self._pending.pop(peer, None) is not None
        was_active = self._drop_active(peer)
        if not alive:
            self.passive.pop(peer, None)
            self._lost.pop(peer, None)
        elif was_active or was_pending:
            self._add_passive(peer)
            if was_pending:
                self._declined[peer] = None
                self._refusals += 1
                self._refuser = peer
        self._forget(peer)
        if was_active or was_pending:
            self._refill(now, but=peer)

    # Joining

    def _ask(self, now: float, peer: bytes, contact: _Contact) -> None:
        """Send Join, and look again later. Also the timer's action."""
        if contact.settled or self._contacts.get(peer) is not contact:
            return
        config = self._config
        contact.asking = not self.active or contact.attempts < config.join_attempts
        longest = config.join_retry_max if contact.asking else config.ask_again_max
        wait = min(config.join_retry * 2 ** min(contact.attempts, 16), longest)
        contact.attempts += 1
        self._parted.pop(peer, None)
        self._out.append(Send(peer, Join(self.data)))
        self._timers.arm(now + wait * self._rng.uniform(0.8, 1.2), self._ask, peer, contact)

    def _rejoin(self, now: float) -> None:
        """Nobody is left: begin again with every contact."""
        for peer in [peer for peer, contact in self._contacts.items() if not contact.asking]:
            contact = self._contacts[peer] = _Contact(asking=True)
            self._timers.arm(now + self._config.join_retry * self._rng.random(), self._ask, peer, contact)

    def _keep_contact(self, peer: bytes) -> None:
        """While we are alone it may be we that cannot be heard: some of those who fail are asked again."""
        if not self.active and len(self._contacts) < KEPT_CONTACTS:
            self._contacts.setdefault(peer, _Contact(settled=True))

    def _settle(self, peer: bytes) -> None:
        contact = self._contacts.get(peer)
        if contact is not None:
            contact.asking, contact.settled = False, True

    def _add_lost(self, peer: bytes, now: float) -> None:
        """Have it asked again; the one that was asked most often makes room."""
        if len(self._lost) >= self._config.max_lost:
            hopeless = max(self._lost, key=self._lost.__getitem__)
            del self._lost[hopeless]
            self._forget(hopeless)
        self._lost[peer] = 0
        self._revive_later(peer, now)

    def _revive_later(self, peer: bytes, now: float) -> None:
        attempts = self._lost[peer]
        wait = min(self._config.revive_after * 2 ** min(attempts, 16), self._config.ask_again_max)
        self._timers.arm(now + wait * self._rng.uniform(0.8, 1.2), self._revive, peer, attempts)

    def _revive(self, now: float, peer: bytes, attempts: int) -> None:
        """A neighbour that was lost may be back, and with it the half of the swarm that we were cut off from.

        High priority is never refused. By low priority only passive views would mix, and both halves stay full.
        """
        if self._lost.get(peer) != attempts:
            return
        self._lost[peer] += 1
        if peer not in self._pending:
            self._request(peer, Priority.HIGH, now)
        self._revive_later(peer, now)

    # The active view

    def _add_active(self, peer: bytes, now: float) -> None:
        if peer in self.active:
            return
        if len(self.active) >= self._config.active_capacity:
            evicted = self._pick(list(self.active))
            assert evicted is not None
            self._drop_active(evicted)
            self._turn_away(evicted, now)
        self.passive.pop(peer, None)
        self._declined.pop(peer, None)
        self._pending.pop(peer, None)
        self._lost.pop(peer, None)
        self._kept_slots.pop(peer, None)
        self.active[peer] = None
        self._begin_refill()
        self._settle(peer)
        self._out.append(Up(peer))
        if not self._shuffling:
            self._shuffling = True
            self._timers.arm(now + self._config.first_shuffle * self._rng.uniform(0.5, 1.0), self._first_shuffle)

    def _drop_active(self, peer: bytes) -> bool:
        if peer not in self.active:
            return False
        del self.active[peer]
        self._expected.pop(peer, None)
        self._round_trips.pop(peer, None)
        self._begin_refill()
        self._out.append(Down(peer))
        return True

    def _turn_away(self, peer: bytes, now: float, *, again: bool = False) -> None:
        """Refuse or evict ``peer``. ``again``: it was not heard just for that, so the next time it is."""
        self._part(peer, alive=True)
        self._add_passive(peer)
        if not again:
            _remember(self._parted, peer, now + self._config.handshake_memory, now)

    def _part(self, peer: bytes, *, alive: bool) -> None:
        """Take leave of ``peer``, with enough candidates that it is not stranded."""
        sample = self._sample(self._config.shuffle_active + self._config.shuffle_passive, but=peer)
        self._out.append(Send(peer, ShuffleReply(self._infos(sample))))
        self._out.append(Send(peer, Disconnect(alive)))

    def _request(self, peer: bytes, priority: Priority, now: float) -> None:
        self._asked += 1
        self._pending[peer] = self._asked
        self._parted.pop(peer, None)
        self._expect(peer, now)
        self._out.append(Send(peer, Neighbor(priority, self.data)))
        farthest = max(self._round_trips.values(), default=0.0)
        patience = max(self._config.request_timeout, REQUEST_ROUND_TRIPS * farthest)
        self._timers.arm(now + patience, self._request_expired, peer, self._asked)

    def _expect(self, peer: bytes, now: float) -> None:
        """Read the next Neighbor from ``peer`` as an answer, if it comes in time."""
        _remember(self._expected, peer, now + self._config.handshake_memory, now)

    def _request_expired(self, now: float, peer: bytes, asked: int) -> None:
        if self._pending.get(peer) == asked:
            del self._pending[peer]
            self.passive.pop(peer, None)
            self._forget(peer)
            self._keep_contact(peer)
            self._refill(now)

    def _refill(self, now: float, but: bytes | None = None) -> None:
        """Ask a candidate for every slot that is neither filled nor asked for."""
        free = self._free_slots
        if free <= 0 and self.active:
            return
        candidates = [
            peer for peer in self.passive if peer != but and peer not in self._pending and peer not in self._declined
        ]
        if self.active and self._refusals >= self._config.max_refusals:
            if free > 0 and candidates and not self._pausing:
                self._pausing = True
                self._timers.arm(now + self._pause * self._rng.uniform(0.5, 1.5), self._end_pause)
            return
        if not candidates and not self.active and not self._pending:
            # A refusal was for want of a slot; High, which a lonely node asks with, is always accepted.
            candidates = list(self.passive)
        if free > 0:
            priority = Priority.LOW if self.active else Priority.HIGH
            for peer in self._rng.sample(candidates, min(free, len(candidates))):
                self._request(peer, priority, now)
        if not self.active and not self._pending:
            self._rejoin(now)

    @property
    def _free_slots(self) -> int:
        """Neither filled, nor asked for, nor promised."""
        return self._config.active_capacity - len(self.active) - len(self._pending) - len(self._kept_slots)

    def _begin_refill(self) -> None:
        """The active view changed: candidates are asked at once again."""
        self._refusals = self._pauses = 0
        self._pause = self._config.refill_pause

    def _end_pause(self, now: float) -> None:
        self._pausing = False
        self._refusals = min(self._refusals, self._config.max_refusals - 1)
        self._pause = min(2 * self._pause, self._config.shuffle_interval)
        self._pauses += 1
        if self._pauses >= self._patience:
            self._insist(now)
        self._refill(now)

    def _insist(self, now: float) -> None:
        """All who refuse may be a swarm without us, whose views are full: only High priority joins it to ours.

        Where they are our own swarm, somebody else is short of a neighbour afterwards: so the next time is far off.
        """
        peer = self._refuser
        if peer in self.passive and peer not in self._pending and self._free_slots > 0:
            self._pauses, self._patience = 0, 2 * self._patience
            self._request(peer, Priority.HIGH, now)

    # Trading neighbours

    @property
    def is_full(self) -> bool:
        return len(self.active) + len(self._kept_slots) >= self._config.active_capacity

    @property
    def keeps_slots(self) -> bool:
        return bool(self._kept_slots)

    def keep_slot(self, peer: bytes, until: float) -> None:
        """The next slot that comes free is for ``peer``, if it comes in time."""
        self._asked += 1
        self._kept_slots[peer] = self._asked
        self._timers.arm(until, self._slot_expired, peer, self._asked)

    def free_slot(self, peer: bytes, now: float) -> None:
        """It is for anybody."""
        if self._kept_slots.pop(peer, None) is not None:
            self._refill(now)

    def let_go(self, peer: bytes) -> None:
        """No neighbour any more; a slot was kept for who comes instead."""
        if self._drop_active(peer):
            self._out.append(Send(peer, Disconnect(alive=True)))
            self._add_passive(peer)

    def link(self, peer: bytes, now: float) -> None:
        """Have ``peer``, which has agreed, as a neighbour."""
        self._kept_slots.pop(peer, None)
        if peer not in self.active and peer not in self._pending:
            self._request(peer, Priority.HIGH, now)

    def _slot_expired(self, now: float, peer: bytes, promise: int) -> None:
        if self._kept_slots.get(peer) == promise:
            self.free_slot(peer, now)

    # The passive view

    def _first_shuffle(self, now: float) -> None:
        """After the first neighbour: at once for a node that knows nobody else to ask, and again after longer waits."""
        hungry = self._free_slots > 0 and not self.passive
        self._shuffle_wait = self._config.first_shuffle if hungry else self._config.shuffle_interval
        if hungry:
            self._shuffle(now)
        else:
            self._timers.arm(now + self._shuffle_wait * self._rng.uniform(0.5, 1.0), self._shuffle)

    def _shuffle(self, now: float) -> None:
        self._declined.clear()
        target = self._pick(list(self.active))
        if target is None:
            self._shuffling = False
            return
        config = self._config
        sample = self._take(self.active, config.shuffle_active) + self._take(self.passive, config.shuffle_passive)
        nodes = (*self._infos(sample), PeerInfo(self._me, self.data))
        self._out.append(Send(target, Shuffle(self._me, nodes, config.shuffle_walk)))
        self._refill(now)
        self._shuffle_wait = min(2 * self._shuffle_wait, config.shuffle_interval)
        self._timers.arm(now + self._shuffle_wait, self._shuffle)

    def _add_passive(self, peer: bytes) -> bool:
        """Whether ``peer`` is in the passive view now; the oldest knowledge that chance picks makes room."""
        if peer == self._me or peer in self.active:
            return False
        if peer not in self.passive:
            if len(self.passive) >= self._config.passive_capacity:
                victim = self._pick(list(self.passive))
                assert victim is not None
                del self.passive[victim]
                self._forget(victim)
            self.passive[peer] = None
        return True

    def _note(self, nodes: tuple[PeerInfo, ...]) -> None:
        for node in nodes[: self._config.passive_capacity]:
            if self._add_passive(node.id):
                self._learn(node.id, node.data)

    def _learn(self, peer: bytes, data: bytes | None) -> None:
        if data and len(data) <= MAX_DATA and self._peer_data.get(peer) != data:
            self._peer_data[peer] = data
            self._out.append(Learned(peer, data))

    def _forget(self, peer: bytes) -> None:
        """Drop what is known of a peer that is in no view any more."""
        if not (peer in self.active or peer in self.passive or peer in self._pending or peer in self._lost):
            self._peer_data.pop(peer, None)

    # Chance

    def _pick(self, peers: list[bytes]) -> bytes | None:
        return peers[int(self._rng.random() * len(peers))] if peers else None

    def _take(self, view: dict[bytes, None], count: int, but: bytes | None = None) -> list[bytes]:
        peers = [peer for peer in view if peer != but]
        return self._rng.sample(peers, min(count, len(peers)))

    def _sample(self, count: int, but: bytes | None = None) -> list[bytes]:
        """``count`` known peers, of the passive view first."""
        peers = self._take(self.passive, count, but)
        return peers + self._take(self.active, count - len(peers), but)

    def _infos(self, peers: list[bytes]) -> tuple[PeerInfo, ...]:
        infos, budget = [], DATA_BUDGET
        for peer in peers:
            data = self._peer_data.get(peer)
            if data is not None:
                budget -= len(data)
            infos.append(PeerInfo(peer, data if budget >= 0 else None))
        return tuple(infos)


def _remember(table: dict[bytes, float], peer: bytes, until: float, now: float) -> None:
    """Until when something holds of ``peer``; what is over, and the oldest, make room."""
    table.pop(peer, None)
    if len(table) >= MAX_EXPECTED:
        for other in [other for other, end in table.items() if end <= now] or [next(iter(table))]:
            del table[other]
    table[peer] = until
