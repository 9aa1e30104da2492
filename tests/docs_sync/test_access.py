"""Who may read, and from whom entries are taken: the rules, statements of others, and the hook."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from tidings.docs_sync import errors
from tidings.docs_sync.access import control as access
from tidings.docs_sync.access import share_store
from tidings.docs_sync.access.control import AccessControl, expiry_us
from tidings.docs_sync.access.share_store import ShareStore
from tidings.docs_sync.access.shares import Restriction, Revocation, Share, present_secret
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.keys import NamespaceSecret
from tidings.docs_sync.store.documents import DocsStore
from tidings.storage import Database
from tidings.transport.keys import SecretKey

SECRET = NamespaceSecret(b"\xb2" * 32)
OTHER = NamespaceSecret(b"\xb3" * 32)
WRITE, READ = Capability(SECRET.id, SECRET), Capability(SECRET.id)
ME, ALICE, BOB = (SecretKey(bytes([n]) * 32).public for n in (9, 1, 2))
NOW = 1_000_000_000_000


class Clock:
    now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def database():
    database = await Database.open(None)
    yield database
    await database.aclose()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def control(database, clock):
    """A node that may write the document."""
    return await a_node(database, clock, WRITE)


async def a_node(database, clock, capability, hook=None, *, id=ME):
    store = DocsStore(database)
    await store.add_namespace(capability)
    await store.aclose()
    return AccessControl(ShareStore(database), id, hook, clock=clock)


async def reader(clock, id, grant=None, *, restricted=False):
    """A node that may read it, with a database of its own."""
    control = await a_node(await Database.open(None), clock, READ, id=id)
    await control.adopt(SECRET.id, restricted=restricted, cipher_key=None, grant=grant)
    return control


async def closed(*controls):
    for control in controls:
        await control._store._database.aclose()


async def test_open_to_all_until_it_is_restricted(control):
    assert await control.allows(ALICE, SECRET.id, "read") and await control.allows(ALICE, SECRET.id, "write")
    assert not await control.allows(ALICE, OTHER.id, "read"), "there is no such document here"
    await control.restrict(WRITE, True)
    assert not await control.allows(ALICE, SECRET.id, "read") and not await control.allows(ALICE, SECRET.id, "write")
    assert not await control.allows(ALICE, SECRET.id, "read", b"what is no share")
    assert not await control.allows(ALICE, SECRET.id, "read", present_secret(OTHER, ALICE))
    assert not await control.allows(ALICE, SECRET.id, "read", present_secret(SECRET, BOB))
    assert await control.allows(ALICE, SECRET.id, "read", present_secret(SECRET, ALICE))
    assert await control.allows(ALICE, SECRET.id, "write"), "what was shown is remembered"
    assert not await control.allows(BOB, SECRET.id, "read")
    await control.restrict(WRITE, False)
    assert await control.allows(BOB, SECRET.id, "read")


async def test_a_share_until_its_time_or_its_revocation(control, clock):
    await control.restrict(WRITE, True)
    grant = await control.share(WRITE, ALICE, timedelta(microseconds=100))
    shown = grant.present(SECRET.id, ALICE)
    assert not await control.allows(BOB, SECRET.id, "read", shown)
    assert await control.allows(ALICE, SECRET.id, "read", shown)
    clock.now = NOW + 100
    assert not await control.allows(ALICE, SECRET.id, "read")
    assert await control.shares(SECRET.id) == [], "it has expired"
    bearer = await control.share(WRITE, None, None)
    for who in (ALICE, BOB):
        assert await control.allows(who, SECRET.id, "read", bearer.present(SECRET.id, who))
    await control.revoke(WRITE, bearer.share.id)
    for who in (ALICE, BOB):
        assert not await control.allows(who, SECRET.id, "read")
        assert not await control.allows(who, SECRET.id, "read", bearer.present(SECRET.id, who))
    (issued,) = await control.shares(SECRET.id)
    assert issued[0] == bearer.share and issued[1] is not None
    await control.revoke(WRITE, bearer.share.id)  # again: nothing more happens
    assert len(await control.revocations(SECRET.id)) == 2


async def test_who_may_do_it(control):
    for doing in (control.share(READ, None, None), control.revoke(READ, bytes(16)), control.restrict(READ, True)):
        with pytest.raises(errors.ReadOnly):
            await doing
    with pytest.raises(errors.UnknownShare, match=r"shares\(\)"):
        await control.revoke(WRITE, bytes(16))
    with pytest.raises(errors.BadShare):
        await control.share(WRITE, None, timedelta(0))
    with pytest.raises(errors.UnknownDocument):
        await control.cipher_key(OTHER.id)


async def test_statements_travel_over_a_third_node(control, clock):
    """The one who revoked and the one who answers never meet."""
    await control.restrict(WRITE, True)
    grant = await control.share(WRITE, ALICE, None)
    middle, far = await reader(clock, BOB), await reader(clock, ME)
    shown = grant.present(SECRET.id, ALICE)
    assert await far.allows(ALICE, SECRET.id, "read", shown), "it does not know of anything yet"
    await control.revoke(WRITE, grant.share.id)
    assert await control.marked(SECRET.id, bytes(32)) != await middle.marked(SECRET.id, bytes(32)) == bytes(32)
    await middle.take_revocations(SECRET.id, await control.revocations(SECRET.id))
    await far.take_revocations(SECRET.id, await middle.revocations(SECRET.id))
    assert await far.is_restricted(SECRET.id)
    assert not await far.allows(ALICE, SECRET.id, "read", shown)
    assert len({await each.marked(SECRET.id, bytes(32)) for each in (control, middle, far)}) == 1
    await closed(middle, far)


async def test_an_older_restriction_does_not_undo_a_later_one(control, clock):
    far = await reader(clock, BOB)
    old = await control.revocations(SECRET.id)
    await control.restrict(WRITE, False)
    opened = await control.revocations(SECRET.id)
    clock.now += 1
    await control.restrict(WRITE, True)
    for statements in (await control.revocations(SECRET.id), opened, old):
        await far.take_revocations(SECRET.id, statements)
    assert await far.is_restricted(SECRET.id)
    await closed(far)


async def test_hostile_statements_change_nothing(control, clock, caplog):
    far = await reader(clock, BOB, restricted=True)
    share = Share.issue(SECRET, ALICE, NOW, None).share
    forged = [
        Restriction.issue(OTHER, False, NOW).encode(),
        Revocation.issue(OTHER, share.id, NOW, None).encode(),
        share.encode(),
        b"",
        bytes(500),
        Restriction.issue(SECRET, False, NOW + access.MAX_AHEAD_US + 1).encode(),
        Restriction.issue(SECRET, False, NOW).encode()[:-1],
    ]
    caplog.set_level(logging.CRITICAL)
    for each in forged:
        await far.take_revocations(SECRET.id, [each])
    await far.take_revocations(SECRET.id, [*forged, Restriction.issue(SECRET, False, NOW).encode()])
    assert await far.is_restricted(SECRET.id)
    assert await far.revocations(SECRET.id) == []
    assert await far.allows(ALICE, SECRET.id, "read", Share.issue(SECRET, ALICE, NOW, None).present(SECRET.id, ALICE))
    await far.take_revocations(OTHER.id, forged)  # of a document that is not here
    await closed(far)


async def test_more_revocations_than_there_is_room_for(control, clock, monkeypatch, caplog):
    monkeypatch.setattr(share_store, "MAX_REVOCATIONS", 3)
    caplog.set_level(logging.ERROR)
    far = await reader(clock, BOB)
    many = [Revocation.issue(SECRET, bytes([n]) * 16, NOW, NOW + 10).encode() for n in range(1, 5)]
    await far.take_revocations(SECRET.id, many)
    assert len(await far.revocations(SECRET.id)) == 3
    clock.now = NOW + 10  # their shares have expired: they make room
    await far.take_revocations(SECRET.id, [Revocation.issue(SECRET, bytes(15) + b"\5", NOW, None).encode()])
    assert len(await far.revocations(SECRET.id)) == 1
    for _ in range(2):
        grant = await control.share(WRITE, None, None)
        await control.revoke(WRITE, grant.share.id)
    third, fourth = [await control.share(WRITE, None, None) for _ in range(2)]
    await control.revoke(WRITE, third.share.id)
    with pytest.raises(errors.TooManyShares):
        await control.revoke(WRITE, fourth.share.id)
    monkeypatch.setattr(share_store, "MAX_SHARES", 4)
    with pytest.raises(errors.TooManyShares, match="expire"):
        await control.share(WRITE, None, None)
    await closed(far)


async def test_what_a_node_shows(control, clock):
    assert await control.presentation(OTHER.id) is None
    assert await control.presentation(SECRET.id) == present_secret(SECRET, ME)
    grant = await control.share(WRITE, BOB, None)
    bob, stranger = await reader(clock, BOB, grant), await reader(clock, ALICE, grant)
    older = Share.issue(SECRET, BOB, NOW - 1, None)
    await bob.adopt(SECRET.id, restricted=True, cipher_key=b"k" * 32, grant=older)
    assert await bob.presentation(SECRET.id) == grant.present(SECRET.id, BOB), "an old ticket takes nothing away"
    await bob.adopt(SECRET.id, restricted=False, cipher_key=b"x" * 32, grant=None)
    assert await bob.cipher_key(SECRET.id) == b"k" * 32 and await bob.is_restricted(SECRET.id)
    assert await stranger.presentation(SECRET.id) is None
    await closed(bob, stranger)


@pytest.mark.parametrize(("answer", "expected"), [(True, True), (False, False), (None, False)])
async def test_the_hook_goes_before_shares(database, clock, answer, expected):
    asked = []

    async def hook(peer, document, kind):
        asked.append((peer, document, kind))
        return answer

    control = await a_node(database, clock, WRITE, hook)
    await control.restrict(WRITE, True)
    assert await control.allows(ALICE, SECRET.id, "read") is expected
    assert await control.allows(ALICE, SECRET.id, "read", present_secret(SECRET, ALICE)) is (answer is not False)
    assert asked == [(ALICE, SECRET.id, "read")] * 2
    assert await control.admits(ALICE, bytes(SECRET.id)) is (answer is not False)
    assert await control.admits(ALICE, bytes(OTHER.id)), "other topics are not its business"


async def test_a_hook_that_raises_or_is_slow_refuses(database, clock, monkeypatch, caplog):
    monkeypatch.setattr(access, "HOOK_TIMEOUT", 0.02)
    caplog.set_level(logging.CRITICAL)

    async def hook(peer, document, kind):
        if kind == "read":
            raise RuntimeError("a fault of the program's")
        await asyncio.sleep(60)

    control = await a_node(database, clock, WRITE, hook)
    assert not await control.allows(ALICE, SECRET.id, "read")
    assert not await control.allows(ALICE, SECRET.id, "write")


async def test_entries_by_gossip_do_not_ask_each_time(database, clock):
    asked = 0

    def hook(peer, document, kind):
        nonlocal asked
        asked += 1
        return True

    control = await a_node(database, clock, WRITE, hook)
    for _ in range(100):
        assert await control.takes(ALICE, SECRET.id)
    assert asked == 1
    control.forget(SECRET.id)
    assert await control.takes(ALICE, SECRET.id) and asked == 2


async def test_what_is_remembered_is_bounded(control, monkeypatch):
    monkeypatch.setattr(access, "MAX_KNOWN", 3)
    await control.restrict(WRITE, True)
    peers = [SecretKey(bytes([n]) * 32).public for n in range(10, 16)]
    for peer in peers:
        assert await control.allows(peer, SECRET.id, "read", present_secret(SECRET, peer))
    assert [await control.allows(peer, SECRET.id, "read") for peer in peers] == [False] * 3 + [True] * 3


async def test_two_processes_of_one_database(postgres_url, clock, monkeypatch):
    """What one does counts for the other by and by; both revoke at once."""
    monkeypatch.setattr(access, "SHARED_RULES_FOR", 0.0)
    databases = [await Database.open(postgres_url) for _ in range(2)]
    one, other = [await a_node(each, clock, WRITE) for each in databases]
    await one.restrict(WRITE, True)
    assert await other.is_restricted(SECRET.id)
    grants = [await one.share(WRITE, None, None) for _ in range(5)]
    shown = [grant.present(SECRET.id, ALICE) for grant in grants]
    assert await other.allows(ALICE, SECRET.id, "read", shown[0])
    await asyncio.gather(*(each.revoke(WRITE, grant.share.id) for grant in grants for each in (one, other)))
    await asyncio.gather(*(each.restrict(WRITE, True) for each in (one, other)))
    for each in (one, other):
        assert not await each.allows(ALICE, SECRET.id, "read", shown[0])
        assert [gone is not None for _, gone in await each.shares(SECRET.id)] == [True] * 5
    await closed(one, other)


def test_times_of_expiry() -> None:
    assert expiry_us(None, NOW) is None
    assert expiry_us(timedelta(seconds=2), NOW) == NOW + 2_000_000
    assert expiry_us(datetime(1970, 1, 1, 0, 0, 3, 5, UTC), NOW) == 3_000_005
    assert expiry_us(datetime(1970, 1, 1, 1, 0, 0, 0, UTC).astimezone(), NOW) == 3_600_000_000
    with pytest.raises(errors.BadShare, match="time zone"):
        expiry_us(datetime(2030, 1, 1), NOW)
