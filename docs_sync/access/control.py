"""Who may read a document, and from whom entries are taken: asked before anything is answered.

Two things decide, in this order:

1. The program's *hook* ``(peer, document, "read" or "write")``: False refuses, True allows, None leaves it to what
   follows. One that raises, or is slower than `HOOK_TIMEOUT`, refuses this request; nothing else suffers.
2. Where the document is *restricted*, the peer must show that it holds the document's secret or a valid share
   (`shares.Presentation`). What it showed is remembered: gossip has no room for it, so a peer gets into the swarm of a
   restricted document after a sync of ours (``tidings/docs/1``), where both sides show theirs. A document that is not
   restricted is open to whoever knows its id, as iroh's are.

"read": the peer is answered, told of changes, and may be in the swarm. "write": entries that come from it are taken.
Entries carry their author's and the document's signatures whoever delivers them, and readers pass on what others
wrote; so without a hook entries are taken from all who may read. A hook that refuses "write" drops whatever *comes
from* that peer, its own or not.

A sync over ``tidings/docs/1`` goes like this on both sides: take the other's `AccessControl.take_revocations`, then ask
`allows` "read" with what it showed, and only then send an entry or a fingerprint. So the dialler, too, waits for the
answer to its prologue, with `presentation` and `revocations` of the acceptor in it, where the document is restricted.
Over ``/iroh-sync/1`` nothing can be shown: who is not allowed by the hook gets nothing of a restricted document, and
is not dialled for it.

Every path that serves a document asks `AccessControl.allows`. What was shown, and what the database says, is looked at
again each time, or within `SHARED_RULES_FOR` seconds where other processes write to it; what runs on (gossip, pushed
changes) asks again every `RECHECK` seconds.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Self, TypeVar

from blake3 import blake3

from ...transport import EndpointId
from ...transport.errors import DecodeError
from ..errors import BadShare, TooManyShares, UnknownDocument, UnknownShare
from ..model.capability import Capability
from ..model.keys import NamespaceId, NamespaceSecret
from .share_store import MAX_REVOCATIONS, Rules, ShareStore
from .shares import (
    MAX_STATEMENT,
    Grant,
    Presentation,
    Restriction,
    Revocation,
    Share,
    decode_statement,
    present_secret,
)

__all__ = ["RECHECK", "Access", "AccessControl", "IssuedShare", "Kind", "expiry_us", "share_id"]

logger = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")
Kind = Literal["read", "write"]
Access = Callable[[EndpointId, NamespaceId, Kind], bool | Awaitable[bool | None] | None]
"""The program's say: True, False, or None for no opinion. It runs on the event loop and must not block it."""

HOOK_TIMEOUT = 5.0  # seconds for the hook; the peer waits meanwhile, 10 s at most before it gives up
HOOK_MEMORY = 1.0  # seconds that an answer counts for entries by gossip, which are many
RULES_FOR = 600.0  # seconds that what was read of the database counts, which this process alone changes
SHARED_RULES_FOR = 5.0  # where other processes change it, too
RECHECK = 10.0
"""Seconds after which whatever runs on is asked about again."""

MARK = "tidings 2026-11-23 statements about who may read a document"
MAX_KNOWN = 16_384  # rules, presentations and answers remembered, of each: a few MB
MAX_AHEAD_US = 600_000_000  # a restriction from further ahead could not be undone by a right clock


class AccessControl:
    """For all documents of a node, which is ``me``. ``clock`` gives microseconds since 1970."""

    def __init__(
        self,
        store: ShareStore,
        me: EndpointId,
        hook: Access | None = None,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._store = store
        self._me = me
        self._hook = hook
        self._clock = clock
        self._rules_for = SHARED_RULES_FOR if store.is_shared else RULES_FOR
        self._rules: OrderedDict[NamespaceId, tuple[Rules, float]] = OrderedDict()
        self._shown: OrderedDict[tuple[NamespaceId, EndpointId], Presentation] = OrderedDict()
        self._changes = 0
        self._answers: OrderedDict[tuple[EndpointId, NamespaceId, Kind], tuple[bool, float]] = OrderedDict()

    # Asked by whatever serves.

    async def allows(self, peer: EndpointId, namespace: NamespaceId, kind: Kind, share: bytes | None = None) -> bool:
        """Whether ``peer`` may; ``share`` is what it showed just now, if anything. False for an unknown document."""
        rules = await self.rules(namespace)
        if rules is None:
            return False
        answer = None if self._hook is None else await self._ask(self._hook, peer, namespace, kind)
        if share is not None:
            self._note(peer, namespace, rules, share)
        if answer is not None:
            return answer
        return not rules.restricted or self._has_shown(peer, namespace, rules)

    async def takes(self, peer: EndpointId, namespace: NamespaceId) -> bool:
        """`allows` "write" for an entry by gossip: an answer counts for `HOOK_MEMORY` seconds."""
        key: tuple[EndpointId, NamespaceId, Kind] = (peer, namespace, "write")
        known = self._answers.get(key)
        if known is not None and known[1] > _now():
            return known[0]
        answer = await self.allows(peer, namespace, "write")
        _remember(self._answers, key, (answer, _now() + HOOK_MEMORY))
        return answer

    async def admits(self, peer: EndpointId, topic: bytes) -> bool:
        """Whether ``peer`` may be in the swarm of ``topic``; for `Gossip`. Only documents of this node are judged."""
        namespace = NamespaceId(topic)
        return await self.rules(namespace) is None or await self.allows(peer, namespace, "read")

    def can_change(self, namespace: NamespaceId) -> bool:
        """Whether who may read now might not read later: then what runs on has to be looked at again."""
        known = self._rules.get(namespace)
        return self._hook is not None or known is None or known[0].restricted or known[1] <= _now()

    async def is_restricted(self, namespace: NamespaceId) -> bool:
        rules = await self.rules(namespace)
        return rules is not None and rules.restricted

    # Exchanged with tidings peers at the beginning of each sync.

    async def presentation(self, namespace: NamespaceId) -> bytes | None:
        """What this node shows to be let in, or None. It is shown where the document is open, too: the peer may know
        already that it is not any more."""
        rules = await self.rules(namespace)
        if rules is None:
            return None
        if rules.secret is not None:
            return present_secret(NamespaceSecret(rules.secret), self._me)
        return None if rules.grant is None else rules.grant.present(namespace, self._me)

    async def revocations(self, namespace: NamespaceId) -> list[bytes]:
        """The signed statements that other nodes have to know: `MAX_REVOCATIONS` and one at most, of 100 bytes."""
        rules = await self.rules(namespace)
        return [] if rules is None else list(rules.notices)

    async def marked(self, namespace: NamespaceId, fingerprint: bytes) -> bytes:
        """A fingerprint of the entries, with that of the statements in it: digests of two nodes differ where one knows
        a statement that the other does not, so it finds its way where the entries are the same."""
        rules = await self.rules(namespace)
        if rules is None or not rules.notices:
            return fingerprint
        return blake3(b"".join([fingerprint, *sorted(rules.notices)]), derive_key_context=MARK).digest()

    async def take_revocations(self, namespace: NamespaceId, statements: Sequence[bytes]) -> None:
        """Keep what of ``statements`` the document's secret signed, up to the first that it did not: nobody who keeps
        to the protocol has one, so the rest is not worth the checking."""
        rules = await self.rules(namespace)
        if rules is None:
            return
        revocations = []
        known = set(rules.notices)
        for data in [data for data in statements[: MAX_REVOCATIONS + 1] if data not in known]:
            try:
                statement = decode_statement(data) if len(data) <= MAX_STATEMENT else None
            except DecodeError:
                statement = None
            if isinstance(statement, Revocation) and statement.is_over(self._clock()):
                continue
            if isinstance(statement, Share) or statement is None or not statement.is_genuine(namespace):
                logger.warning("a statement about document %s is not genuine: dropped", namespace.short())
                break
            if isinstance(statement, Revocation):
                revocations.append(statement)
            elif statement.issued_us <= self._clock() + MAX_AHEAD_US:
                await self._changing(namespace, self._store.restrict(namespace, statement))
        if revocations:
            try:
                await self._changing(namespace, self._store.add_revocations(namespace, revocations, self._clock()))
            except TooManyShares as error:
                logger.warning("revocations of document %s from a peer: %s", namespace.short(), error)

    # What the program does.

    async def share(
        self, capability: Capability, reader: EndpointId | None, expires: timedelta | datetime | None
    ) -> Grant:
        """Raises ReadOnly, BadShare, TooManyShares."""
        now = self._clock()
        not_after_us = expiry_us(expires, now)
        if not_after_us is not None and not_after_us <= now:
            raise BadShare("a share that has expired already lets nobody read")
        grant = Share.issue(capability.check_writable(), reader, now, not_after_us)
        await self._store.add_share(capability.id, grant.share)
        return grant

    async def shares(self, namespace: NamespaceId) -> list[tuple[Share, Revocation | None]]:
        """Issued here and not expired, oldest first."""
        return await self._store.issued(namespace, self._clock())

    async def revoke(self, capability: Capability, share_id: bytes) -> None:
        """Raises ReadOnly, UnknownShare, TooManyShares."""
        secret = capability.check_writable()
        known = next((share for share, _ in await self.shares(capability.id) if share.id == share_id), None)
        if known is None:
            raise UnknownShare(
                f"no share {share_id.hex()[:12]!r} was issued here, or it has expired: shares() lists them"
            )
        now = self._clock()
        revocation = Revocation.issue(secret, share_id, now, known.not_after_us)
        await self._changing(capability.id, self._store.add_revocations(capability.id, [revocation], now))

    async def restrict(self, capability: Capability, restricted: bool) -> None:
        """Raises ReadOnly."""
        secret = capability.check_writable()
        self.forget(capability.id)
        rules = await self.rules(capability.id)
        known = [] if rules is None else [decode_statement(notice) for notice in rules.notices]
        last = max((each.issued_us for each in known if isinstance(each, Restriction)), default=0)
        # Later than the one before, whatever the clock says: the latest counts.
        restriction = Restriction.issue(secret, restricted, max(self._clock(), last + 1))
        await self._changing(capability.id, self._store.restrict(capability.id, restriction))

    async def adopt(
        self, namespace: NamespaceId, *, restricted: bool, cipher_key: bytes | None, grant: Grant | None
    ) -> None:
        """Keep what came with a ticket."""
        adopted = self._store.adopt(namespace, restricted=restricted, cipher_key=cipher_key, grant=grant)
        await self._changing(namespace, adopted)

    async def _changing(self, namespace: NamespaceId, work: Awaitable[object]) -> None:
        """Whatever becomes of ``work``, the next answer follows the database."""
        try:
            await work
        finally:
            self.forget(namespace)

    async def cipher_key(self, namespace: NamespaceId) -> bytes | None:
        """The 32 bytes that the document is encrypted with, where this node has them. Raises UnknownDocument."""
        rules = await self.rules(namespace)
        if rules is None:
            raise UnknownDocument(f"there is no document {namespace} here: join it with a ticket")
        return rules.cipher_key

    def forget(self, namespace: NamespaceId) -> None:
        """Look at the database again before the next answer."""
        self._changes += 1
        self._rules.pop(namespace, None)
        for key in [key for key in self._answers if key[1] == namespace]:
            del self._answers[key]

    async def all_rules(self) -> dict[NamespaceId, Rules]:
        """Of every document of this node, the oldest first, in one look at the database."""
        changes = self._changes
        found = await self._store.all_rules(self._clock())
        if changes == self._changes:
            for namespace, rules in found.items():
                _remember(self._rules, namespace, (rules, _now() + self._rules_for))
        return found

    async def rules(self, namespace: NamespaceId) -> Rules | None:
        known = self._rules.get(namespace)
        if known is not None and known[1] > _now():
            return known[0]
        changes = self._changes
        rules = await self._store.rules(namespace, self._clock())
        if rules is not None and changes == self._changes:  # else what was read may be older than the change
            _remember(self._rules, namespace, (rules, _now() + self._rules_for))
        return rules

    async def _ask(self, hook: Access, peer: EndpointId, namespace: NamespaceId, kind: Kind) -> bool | None:
        try:
            async with asyncio.timeout(HOOK_TIMEOUT):
                answer = hook(peer, namespace, kind)
                return await answer if inspect.isawaitable(answer) else answer
        except TimeoutError:
            logger.warning("the access hook took more than %g s: %s refused", HOOK_TIMEOUT, peer.short())
        except Exception:
            logger.exception("the access hook failed: %s refused", peer.short())
        return False

    def _note(self, peer: EndpointId, namespace: NamespaceId, rules: Rules, share: bytes) -> None:
        """Remember what the peer showed if it is good, also where nobody has to show anything yet."""
        try:
            shown = Presentation.decode(share)
        except DecodeError as error:
            logger.info("%s showed what is no share of %s: %s", peer.short(), namespace.short(), error)
        else:
            if shown.admits(namespace, peer, self._clock(), rules.revoked):
                _remember(self._shown, (namespace, peer), shown)

    def _has_shown(self, peer: EndpointId, namespace: NamespaceId, rules: Rules) -> bool:
        shown = self._shown.get((namespace, peer))
        if shown is None:
            return False
        if shown.admits(namespace, peer, self._clock(), rules.revoked):
            return True
        del self._shown[namespace, peer]
        return False


@dataclass(frozen=True, slots=True)
class IssuedShare:
    """A share as a program sees it."""

    id: bytes
    """16 bytes."""
    reader: EndpointId | None
    """None: whoever has the ticket."""
    issued: datetime
    expires: datetime | None
    revoked: bool

    @classmethod
    def of(cls, share: Share, revocation: Revocation | None) -> Self:
        reader = None if share.is_bearer else share.holder
        expires = None if share.not_after_us is None else _datetime(share.not_after_us)
        return cls(share.id, reader, _datetime(share.issued_us), expires, revocation is not None)


def share_id(share: IssuedShare | bytes | str) -> bytes:
    """Raises UnknownShare for text that is no id."""
    if isinstance(share, IssuedShare):
        return share.id
    try:
        return bytes.fromhex(share) if isinstance(share, str) else share
    except ValueError:
        raise UnknownShare(f"{share!r} is no id of a share, which has 32 hex digits: shares() lists them") from None


def _datetime(time_us: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time_us)


def expiry_us(expires: timedelta | datetime | None, now_us: int) -> int | None:
    """Microseconds since 1970. Raises BadShare for a time of day without its time zone."""
    if isinstance(expires, timedelta):
        return now_us + expires // timedelta(microseconds=1)
    if expires is None:
        return None
    if expires.tzinfo is None:
        raise BadShare("a time at which a share ends needs a time zone: datetime.now(UTC) + timedelta(days=7)")
    return (expires - datetime.fromtimestamp(0, expires.tzinfo)) // timedelta(microseconds=1)


def _remember(table: OrderedDict[K, V], key: K, value: V) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > MAX_KNOWN:
        table.popitem(last=False)


def _now() -> float:
    return asyncio.get_running_loop().time()
