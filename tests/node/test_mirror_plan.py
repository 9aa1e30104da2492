"""The rules of a mirrored folder, alone and between nodes that are apart."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.node.mirror_plan import (
    Fetch,
    Local,
    Publish,
    Read,
    Record,
    Remove,
    Rescue,
    Revive,
    SetAside,
    Synced,
    Version,
    Wait,
    Withdraw,
    conflict_path,
    decide,
)

ME, YOU = b"m" * 32, b"y" * 32
NOW = 1_000_000
A, B, C = b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32


def step(here: bytes | None, was: bytes | None, *versions: Version, mtime_us: int = 50, seen: int = 10) -> object:
    local = None if here is None else Local(1, mtime_us * 1000, here)
    synced = Synced(was, 1, 50_000, {YOU: seen}) if was else None
    return decide("f", local, synced, versions, ME, NOW)


def yours(hash: bytes | None, timestamp: int = 10) -> Version:
    return Version(YOU, timestamp, hash, 1 if hash else 0)


def mine(hash: bytes | None, timestamp: int = 20) -> Version:
    return Version(ME, timestamp, hash, 1 if hash else 0)


class TestRules:
    def test_nothing_to_do(self) -> None:
        assert step(None, None) is None
        assert step(A, A, yours(A)) is None
        assert step(None, None, yours(None, 10)) == Record(Synced(None, 0, 0, {YOU: 10}))

    def test_an_unread_file_is_read(self) -> None:
        assert decide("f", Local(1, 1), None, [], ME, NOW) == Read()

    def test_new_here(self) -> None:
        assert isinstance(step(A, None), Publish)
        assert isinstance(step(A, None, yours(None)), Publish)

    def test_new_there(self) -> None:
        assert isinstance(step(None, None, yours(A)), Fetch)

    def test_edited_on_one_side(self) -> None:
        assert isinstance(step(B, A, yours(A)), Publish)
        assert isinstance(step(A, A, yours(B, 11)), Fetch)

    def test_deleted_on_one_side(self) -> None:
        assert isinstance(step(None, A, yours(A)), Withdraw)
        assert isinstance(step(A, A, yours(None, 11)), Remove)

    def test_an_edit_beats_a_deletion(self) -> None:
        assert isinstance(step(B, A, yours(None, 11)), Publish)
        assert isinstance(step(None, A, yours(B, 11)), Fetch)

    def test_gone_on_both(self) -> None:
        assert isinstance(step(None, A, yours(None, 11)), Record)
        assert isinstance(step(None, A), Record | Withdraw)

    def test_entries_without_a_tombstone_are_lost_and_not_deleted(self) -> None:
        assert isinstance(step(A, A), Publish)

    def test_both_edited_the_newer_wins(self) -> None:
        assert isinstance(step(B, A, yours(C, 100), mtime_us=99), SetAside)
        published = step(B, A, yours(C, 100), mtime_us=101)
        assert isinstance(published, Publish)
        # The loser has not been taken into account, and is brought back in the next step.
        rescue = decide("f", Local(1, 101_000, B), published.synced, [yours(C, 100), mine(B, 102)], ME, NOW)
        assert isinstance(rescue, Rescue) and rescue.version.hash == C

    def test_first_contact_keeps_both(self) -> None:
        assert isinstance(step(B, None, yours(C, 100), mtime_us=99), SetAside)
        assert isinstance(step(B, None, yours(B, 100)), Record)

    def test_an_older_version_that_comes_late_is_rescued_once(self) -> None:
        late = step(B, B, mine(B, 20), yours(C, 15))
        assert isinstance(late, Rescue)
        assert decide("f", Local(1, 50_000, B), late.synced, [mine(B, 20), yours(C, 15)], ME, NOW) is None
        assert step(B, B, mine(B, 20), yours(C, 10)) is None  # known when ours was written

    def test_an_edit_that_comes_after_our_deletion_is_revived(self) -> None:
        assert isinstance(step(None, A, mine(None, 20), yours(C, 15)), Record)
        gone = Synced(None, 0, 0, {YOU: 10})
        revived = decide("f", None, gone, [mine(None, 20), yours(C, 15)], ME, NOW)
        assert isinstance(revived, Revive)
        assert isinstance(decide("f", None, revived.synced, [mine(C, 21), yours(C, 15)], ME, NOW), Fetch)

    def test_what_would_lose_to_a_clock_ahead_waits(self) -> None:
        assert step(B, A, yours(A, NOW + 5)) == Wait(NOW + 6)
        assert step(None, A, yours(A, NOW + 5)) == Wait(NOW + 6)


class TestConflictPath:
    @pytest.mark.parametrize(
        ("path", "beside"),
        [
            ("a.txt", "a (conflict 1970-01-01 000001 aaaa).txt"),
            ("d/e/a", "d/e/a (conflict 1970-01-01 000001 aaaa)"),
            (".hidden", ".hidden (conflict 1970-01-01 000001 aaaa)"),
            ("d.x/a.tar.gz", "d.x/a.tar (conflict 1970-01-01 000001 aaaa).gz"),
        ],
    )
    def test_names(self, path: str, beside: str) -> None:
        assert conflict_path(path, 1_500_000, A) == beside

    @given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1), st.integers(-(2**63), 2**64))
    @settings(deadline=None, max_examples=100)
    def test_always_a_name(self, name: str, time_us: int) -> None:
        name = name.encode()[:255].decode(errors="ignore") or "x"
        beside = conflict_path(f"d/{name}", time_us, A)
        assert beside.startswith("d/") and "(conflict " in beside
        assert 0 < len(beside[2:].encode()) <= 255


class Peer:
    """A folder, a replica of the document, a clock that may be wrong."""

    def __init__(self, number: int, skew: int) -> None:
        self.me = bytes([number]) * 32
        self.skew = skew
        self.files: dict[str, Local] = {}
        self.synced: dict[str, Synced] = {}
        self.last: tuple[str, Synced | None] | None = None  # the last step's path and what was recorded before it
        self.versions: dict[tuple[str, bytes], Version] = {}

    def put(self, path: str, version: Version) -> None:
        old = self.versions.get((path, version.author))
        if old is None or old.order < version.order:
            self.versions[path, version.author] = version

    def write_entry(self, path: str, hash: bytes | None, now: int) -> None:
        last = max((v.timestamp for (_, author), v in self.versions.items() if author == self.me), default=-1)
        self.put(path, Version(self.me, max(now + self.skew, last + 1), hash, 1 if hash else 0))

    def settle(self, now: int, rng: random.Random, steps: int = 100) -> bool:
        """Take up to ``steps`` steps of the mirror; whether any was taken."""
        busy = False
        for _ in range(steps):
            paths = sorted({*self.files, *self.synced, *(path for path, _ in self.versions)})
            rng.shuffle(paths)
            if not any(self.step(path, now) for path in paths):
                return busy
            busy = True
        assert steps < 100, "the mirror never rests"
        return busy

    def crash(self) -> None:
        """The last step was taken, and its record lost."""
        if self.last is not None:
            path, synced = self.last
            self.synced.pop(path, None)
            if synced is not None:
                self.synced[path] = synced

    def step(self, path: str, now: int) -> bool:
        versions = [version for (at, _), version in self.versions.items() if at == path]
        local = self.files.get(path)
        action = decide(path, local, self.synced.get(path), versions, self.me, now + self.skew)
        match action:
            case None | Wait():
                return False
        self.last = path, self.synced.get(path)
        match action:
            case Publish(hash, _, synced):
                self.write_entry(path, hash, now)
                self.synced[path] = synced
            case Withdraw(synced):
                self.write_entry(path, None, now)
                self.synced[path] = synced
            case Fetch(version, synced):
                mtime = version.timestamp * 1000
                self.files[path] = Local(1, mtime, version.hash)
                self.synced[path] = Synced(synced.hash, 1, mtime, synced.seen)
            case Remove(synced):
                del self.files[path]
                self.synced[path] = synced
            case SetAside(beside):
                assert local is not None
                if beside in self.files:
                    beside += " again"
                self.files[beside] = self.files.pop(path)
            case Rescue(version, beside, synced):
                self.files.setdefault(beside, Local(1, version.timestamp * 1000, version.hash))
                self.synced[path] = synced
            case Revive(version, synced):
                self.write_entry(path, version.hash, now)
                self.synced[path] = synced
            case Record(synced):
                self.synced[path] = synced
            case Read():
                raise AssertionError("every hash is known here")
        return True


def sync(one: Peer, other: Peer) -> None:
    for (path, _), version in [*one.versions.items()]:
        other.put(path, version)
    for (path, _), version in [*other.versions.items()]:
        one.put(path, version)


peer = st.integers(0, 2)
events = st.lists(
    st.one_of(
        st.tuples(st.just("write"), peer, st.sampled_from("ab")),
        st.tuples(st.just("delete"), peer, st.sampled_from("ab")),
        st.tuples(st.just("mirror"), peer, st.integers(1, 4)),
        st.tuples(st.just("sync"), peer, peer),
        st.tuples(st.just("crash"), peer, st.just(0)),
    ),
    max_size=30,
)


def run(history: Sequence[tuple[str, int, object]], skews: Sequence[int], seed: int) -> None:
    rng = random.Random(seed)
    peers = [Peer(number, skew) for number, skew in enumerate(skews)]
    now, count = 10_000, 0
    alive: set[bytes] = set()
    for kind, number, detail in history:
        now += rng.choice((1, 1, 50))
        peer = peers[number % len(peers)]
        if kind in ("write", "delete"):
            old = peer.files.pop(str(detail), None)
            if old is not None and old.hash is not None:
                alive.discard(old.hash)  # by a user who had it in hand
            mine = peer.versions.get((str(detail), peer.me))
            if mine is not None and mine.hash is not None:
                # A document keeps one version per author: who edits a path again, on top of a winner that came
                # meanwhile, replaces the loser; the winner's node cannot rescue it unless it has done so already.
                alive.discard(mine.hash)
            if kind == "write":
                count += 1
                hash = count.to_bytes(2, "big") + bytes(30)
                alive.add(hash)
                peer.files[str(detail)] = Local(1, (now + peer.skew) * 1000, hash)
        elif kind == "mirror":
            assert isinstance(detail, int)
            peer.settle(now, rng, steps=detail)
        elif kind == "crash":
            peer.crash()
            peer.settle(now, rng)  # before the network is back
        else:
            assert isinstance(detail, int)
            sync(peer, peers[detail % len(peers)])
    for _ in range(60):
        now += 1_000
        busy = [peer.settle(now, rng) for peer in peers]
        for one in peers:
            for other in peers:
                sync(one, other)
        if not any(busy) and not any(peer.settle(now, rng) for peer in peers):
            break
    else:
        raise AssertionError("the peers never rest")
    contents = [{path: local.hash for path, local in peer.files.items()} for peer in peers]
    assert all(content == contents[0] for content in contents)
    lost = alive - {hash for hash in contents[0].values() if hash}
    assert not lost


@given(events, st.lists(st.integers(-200, 200), min_size=2, max_size=3), st.integers(0, 99))
@settings(deadline=None, max_examples=200)
def test_peers_converge_and_lose_nothing(history: list[tuple[str, int, object]], skews: list[int], seed: int) -> None:
    run(history, skews, seed)


def test_a_deletion_that_all_have_seen_stays() -> None:
    rng = random.Random(1)
    one, other = Peer(1, 0), Peer(2, 0)
    one.files["a"] = Local(1, 1000, A)
    one.settle(10, rng)
    sync(one, other)
    other.settle(20, rng)
    assert other.files["a"].hash == A
    del other.files["a"]
    other.settle(30, rng)
    sync(one, other)
    one.settle(40, rng)
    sync(one, other)
    other.settle(50, rng)
    assert not one.files and not other.files
