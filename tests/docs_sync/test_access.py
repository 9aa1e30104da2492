"""Who may read, and from whom entries are taken: the rules, the hook, and what nodes make of them."""

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from docs_net import contents, eventually, node
from tidings.docs_sync import access, api, errors, share_store
from tidings.docs_sync.access import AccessControl, expiry_us
from tidings.docs_sync.capability import Capability
from tidings.docs_sync.keys import NamespaceSecret
from tidings.docs_sync.messages import Init, encode_sync
from tidings.docs_sync.native import Links
from tidings.docs_sync.native_messages import (
    Digest,
    DigestRequest,
    FollowRequest,
    SyncRequest,
    TellRequest,
    encode_request,
)
from tidings.docs_sync.ranges import IdRange
from tidings.docs_sync.reconcile import ContentStatus, RangeFingerprint, Value
from tidings.docs_sync.share_store import ShareStore
from tidings.docs_sync.shares import Restriction, Revocation, Share, present_secret
from tidings.docs_sync.store import DocsStore
from tidings.docs_sync.sync import ALPN
from tidings.storage import Database
from tidings.transport import Endpoint, frame
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
    assert await bob.presentation(SECRET.id) == grant.present(SECRET.id, BOB)
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


def test_times_of_expiry() -> None:
    assert expiry_us(None, NOW) is None
    assert expiry_us(timedelta(seconds=2), NOW) == NOW + 2_000_000
    assert expiry_us(datetime(1970, 1, 1, 0, 0, 3, 5, UTC), NOW) == 3_000_005
    assert expiry_us(datetime(1970, 1, 1, 1, 0, 0, 0, UTC).astimezone(), NOW) == 3_600_000_000
    with pytest.raises(errors.BadShare, match="time zone"):
        expiry_us(datetime(2030, 1, 1), NOW)


# Nodes.


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(api, "RECHECK", 0.2)
    monkeypatch.setattr(access, "RECHECK", 0.2)
    monkeypatch.setattr(access, "HOOK_MEMORY", 0.0)


async def test_knowing_the_id_is_not_enough(tmp_path):
    """Neither a sync nor the swarm gives anything of a restricted document to who has shown nothing."""
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        assert await doc.is_restricted()
        await doc.set("k", b"v")
        with pytest.raises(errors.SyncTimeout):
            await b.docs.join(doc.ticket().iroh(), timeout=2)
        theirs = await b.docs.open(doc.id)
        await doc.set("k2", b"v")
        await asyncio.sleep(0.5)
        assert await theirs.entries().count() == 0
        assert doc.neighbors == [] and theirs.neighbors == []


async def test_opened_to_everybody_again(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        await doc.set("k", b"v")
        await doc.restrict(False)
        assert not doc.ticket().restricted
        theirs = await b.docs.join(doc.ticket().iroh())
        assert await contents(theirs) == {b"k": b"v"}


async def test_restricted_from_now_on(tmp_path, quick):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create()
        theirs = await b.docs.join(doc.ticket().iroh())

        async def met():
            return doc.neighbors == [b.id]

        await eventually(met)
        await doc.restrict()

        async def parted():
            return doc.neighbors == []

        await eventually(parted)
        await doc.set("k", b"v")
        await asyncio.sleep(0.5)
        assert await theirs.entries().count() == 0


async def test_what_a_program_sees_of_its_shares(tmp_path):
    async with node(tmp_path / "a") as a:
        doc = await a.docs.create(restricted=True, encrypted=True)
        week = await doc.share(ALICE, expires=timedelta(days=7))
        for_ever = await doc.share()
        assert week.restricted and week.key == doc.ticket().key and not week.capability.can_write
        first, second = await doc.shares()
        assert (first.reader, second.reader, second.expires) == (ALICE, None, None)
        assert first.expires - first.issued == timedelta(days=7) and first.issued.tzinfo is UTC
        await doc.revoke(first)
        await doc.revoke(second.id.hex())
        assert [share.revoked for share in await doc.shares()] == [True, True]
        assert first.id == week.grant.share.id and second.id == for_ever.grant.share.id
        for wrong in ("no id", b"short", "00" * 16):
            with pytest.raises(errors.UnknownShare):
                await doc.revoke(wrong)
        words = repr(for_ever) + repr(await doc.shares()) + repr(await a.docs._access.rules(doc.id))
        assert for_ever.grant.bearer.to_bytes().hex() not in words and for_ever.key.hex() not in words


async def test_a_document_that_is_listed_and_open(tmp_path, quick):
    """What is done by one handle counts for the other."""
    async with node(tmp_path / "a") as a:
        doc = await a.docs.create()
        assert [each async for each in a.docs.list()] == [doc]
        await doc.close()
        (listed,) = [each async for each in a.docs.list()]
        doc = await a.docs.open(doc.id)
        await listed.restrict()
        assert doc.ticket().restricted and listed.ticket().restricted
        await doc.restrict(False)
        assert not (await listed.share()).restricted


async def test_a_ticket_for_another_node(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        with pytest.raises(errors.BadShare, match="another node"):
            await b.docs.join(await doc.share(ALICE))
        assert [each async for each in b.docs.list()] == []


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_the_hook_of_a_node(tmp_path, kind):
    """Refused "read" nothing goes there, refused "write" nothing is taken from there; others are not affected."""
    refused = set()

    def hook(peer, document, asked):
        return not (asked == kind and peer in refused)

    async with (
        node(tmp_path / "a", access=hook) as a,
        node(tmp_path / "b") as b,
        node(tmp_path / "c") as c,
    ):
        refused.add(b.id)
        doc = await a.docs.create()
        await doc.set("from a", b"1")
        joining = b.docs.join(doc.ticket(write=True), timeout=2)
        if kind == "read":
            with pytest.raises(errors.SyncTimeout):
                await joining
            theirs = await b.docs.open(doc.id)
            assert await theirs.entries().count() == 0
            assert doc.neighbors == []
        else:
            theirs = await joining
            assert await contents(theirs) == {b"from a": b"1"}
            await theirs.set("from b", b"2")
            await asyncio.sleep(1)
            assert await doc.get("from b") is None
        welcome = await c.docs.join(doc.ticket(write=True))
        await welcome.set("from c", b"3")

        async def came():
            return await doc.get("from c") is not None

        await eventually(came)


async def test_entries_that_only_an_unwelcome_peer_delivered_come_by_another_way(tmp_path):
    """Gossip delivers each entry once. What others wrote is not lost because it came by the wrong hands."""
    refused = set()
    async with (
        node(tmp_path / "a", access=lambda peer, document, kind: kind == "read" or peer not in refused) as a,
        node(tmp_path / "b") as b,
        node(tmp_path / "c") as c,
    ):
        refused.add(b.id)
        doc = await a.docs.create()
        await b.docs.join(doc.ticket())
        welcome = await c.docs.join(doc.ticket(write=True))

        async def met():
            return len(doc.neighbors) == len(welcome.neighbors) == 2

        await eventually(met)
        for n in range(20):
            await welcome.set(f"k{n}", b"v")

        async def came():
            return await doc.entries().count() == 20

        await eventually(came)


# Shares between nodes.


async def test_a_share_lets_in_whom_it_is_for(tmp_path, quick):
    """By sync, by gossip, and both ways; and the ticket of another is of no use."""
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        doc = await a.docs.create(restricted=True, encrypted=True)
        await doc.set("k", b"v")
        ticket = await doc.share(b.id, expires=timedelta(days=1))
        theirs = await b.docs.join(str(ticket))
        assert await contents(theirs) == {b"k": b"v"} and await theirs.is_restricted()

        async def met():
            return doc.neighbors == [b.id] and theirs.neighbors == [a.id]

        await eventually(met)
        await doc.set("live", b"v2")

        async def came():
            return await theirs.get("live") is not None

        await eventually(came)
        with pytest.raises(errors.BadShare):
            await c.docs.join(str(ticket))
        with pytest.raises(errors.SyncTimeout):
            await c.docs.join(replace(ticket, grant=None), timeout=1.5)
        stolen = await c.docs.open(doc.id)
        assert await stolen.entries().count() == 0 and stolen.neighbors == []


async def test_a_reader_serves_other_readers_and_nobody_else(tmp_path):
    """The one who issued the shares is gone: those who hold one go on among themselves."""
    async with node(tmp_path / "b") as b, node(tmp_path / "c") as c, node(tmp_path / "d") as d:
        async with node(tmp_path / "a") as a:
            doc = await a.docs.create(restricted=True)
            await doc.set("k", b"v")
            ticket = await doc.share()
            await b.docs.join(ticket)
            assert await contents(await b.docs.open(doc.id)) == {b"k": b"v"}
        here = b.endpoint.addr()
        theirs = await c.docs.join(ticket.at(here))
        assert await contents(theirs) == {b"k": b"v"}
        with pytest.raises(errors.SyncTimeout):
            await d.docs.join(ticket.at(here).iroh(), timeout=1.5)
        assert await (await d.docs.open(doc.id)).entries().count() == 0


async def test_a_writer_needs_no_share(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        await doc.set("k", b"v")
        theirs = await b.docs.join(doc.ticket(write=True))
        await theirs.set("from b", b"2")

        async def came():
            return await doc.get("from b") is not None

        await eventually(came)


async def test_a_revoked_share_lets_in_nobody_any_more(tmp_path, quick):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        await doc.set("before", b"v")
        ticket = await doc.share()
        theirs = await b.docs.join(ticket)

        async def met():
            return doc.neighbors == [b.id]

        await eventually(met)
        await doc.revoke(ticket.grant.share.id)

        async def parted():
            return doc.neighbors == []

        await eventually(parted)
        await doc.set("after", b"v")
        theirs._live.want(a.id, "again")
        await asyncio.sleep(1)
        assert await contents(theirs) == {b"before": b"v"}, "what it has it keeps, and gets no more"
        again = await b.docs.join(await doc.share(b.id))
        assert again is theirs and await theirs.get("after") is not None


async def test_a_share_that_expires_lets_in_nobody_any_more(tmp_path, quick):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        theirs = await b.docs.join(await doc.share(b.id, expires=timedelta(seconds=3)))

        async def met():
            return doc.neighbors == [b.id]

        await eventually(met)

        async def parted():
            return doc.neighbors == [] and await doc.shares() == []

        await eventually(parted)
        await doc.set("after", b"v")
        await asyncio.sleep(0.5)
        assert await theirs.get("after") is None


async def test_a_revocation_travels_over_a_third_node(tmp_path, quick):
    """A revokes while C, who serves B, is away; C hears of it when it is back, from A, and B gets nothing of C."""
    async with node(tmp_path / "a") as a, node(tmp_path / "c") as c, node(tmp_path / "b") as b:
        doc = await a.docs.create(restricted=True)
        await doc.set("k", b"v")
        for_b = await doc.share(b.id)
        middle = await c.docs.join(await doc.share(c.id))
        theirs = await b.docs.join(for_b.at(c.endpoint.addr()))
        assert await contents(theirs) == {b"k": b"v"}

        async def met():
            return b.id in middle.neighbors and a.id in middle.neighbors

        await eventually(met)
        await doc.revoke(for_b.grant.share.id)

        async def parted():
            return b.id not in middle.neighbors and b.id not in doc.neighbors

        await eventually(parted)
        await doc.set("after", b"v")

        async def came():
            return await middle.get("after") is not None

        await eventually(came)
        theirs._live.want(c.id, "again")
        await asyncio.sleep(1)
        assert await theirs.get("after") is None


async def test_after_a_restart_everything_is_as_it_was(tmp_path):
    async with node(tmp_path / "a", in_memory=False) as a:
        doc = await a.docs.create(restricted=True)
        await doc.set("k", b"v")
        ticket = await doc.share()
        gone = await doc.share()
        await doc.revoke(gone.grant.share.id)
        async with node(tmp_path / "b", in_memory=False) as b:
            await b.docs.join(ticket)
    async with node(tmp_path / "a", in_memory=False) as a, node(tmp_path / "b", in_memory=False) as b:
        doc = await a.docs.open(doc.id)
        assert await doc.is_restricted() and [share.revoked for share in await doc.shares()] == [False, True]
        await doc.set("k2", b"v")
        theirs = await b.docs.open(doc.id)
        b.endpoint.lookup.add(a.endpoint.addr())
        await theirs._live.join([a.id])

        async def came():
            return await theirs.get("k2") is not None

        await eventually(came)


async def test_a_part_of_an_encrypted_document_for_who_has_a_share(tmp_path, quick):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c:
        doc = await a.docs.create(restricted=True, encrypted=True)
        await doc.set("in/1", b"1")
        await doc.set("out/1", b"2")
        ticket = await doc.share(b.id)
        theirs = await b.docs.join(ticket, prefix="in/")
        assert await contents(theirs) == {b"in/1": b"1"}
        await doc.set("in/2", b"3")

        async def came():
            return await theirs.get("in/2") is not None

        await eventually(came)
        with pytest.raises(errors.SyncTimeout):
            await c.docs.join(replace(ticket, grant=None), prefix="in/", timeout=1.5)
        assert await (await c.docs.open(doc.id)).entries().count() == 0
        await doc.revoke(ticket.grant.share.id)
        await asyncio.sleep(0.5)
        await doc.set("in/3", b"4")
        await asyncio.sleep(0.5)
        assert await theirs.get("in/3") is None


async def test_a_stranger_cannot_tell_a_restricted_document_from_none(tmp_path):
    """Every request of both protocols, by hand: the answer is byte for byte the one for a document nobody has."""
    async with node(tmp_path / "a") as a, Endpoint.bind(bind=["127.0.0.1:0"]) as stranger:
        doc = await a.docs.create(restricted=True)
        entry = (await doc.set("k", b"v")).signed
        shown = Share.issue(OTHER, stranger.id, 1, None).present(OTHER.id, stranger.id)

        async def answer(alpn, payload):
            connection = await stranger.connect(a.endpoint.addr(), alpn)
            async with asyncio.timeout(10):
                stream = await connection.open_bi()
                await stream.send.write(frame(payload))
                await stream.send.finish()
                data = await stream.recv.read_to_end(1 << 16)
            connection.close()
            return data

        def requests(id):
            whole = RangeFingerprint(IdRange(bytes(64), bytes(64)), bytes(32))
            yield ALPN, encode_sync(Init(id, [whole]))
            for request in (
                SyncRequest(id, bytes(32)),
                DigestRequest([Digest(id, bytes(32), 0)]),
                FollowRequest(id, b"k"),
                TellRequest(id, [Value(entry, ContentStatus.COMPLETE)]),
            ):
                yield Links.ALPN, encode_request(request)
            yield Links.ALPN, encode_request(FollowRequest(id, b"k", shown))

        for (alpn, mine), (_, nobodys) in zip(requests(bytes(doc.id)), requests(bytes(OTHER.id)), strict=True):
            got = await answer(alpn, mine)
            assert got and got == await answer(alpn, nobodys), mine
        assert await doc.entries().count() == 1
