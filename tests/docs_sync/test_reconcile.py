"""Reconciliation: convergence of every mixture of peers, frame bounds, and what peers may not do."""

import functools

from docs_model import AUTHORS, NAMESPACE, NAMESPACE_ID, MemoryStore, OurPeer, RustPeer, entry, merged, run_session
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync import errors
from tidings.docs_sync.model.entry import EMPTY_HASH, EntryId, Record, sign_entry
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.model.reconcile import (
    MAX_LISTED,
    ContentStatus,
    Limits,
    RangeFingerprint,
    RangeItems,
    RangeList,
    RangeWant,
    Tally,
    Value,
    answer,
    entries_of,
    initial_message,
    limits_for,
    screen,
    take_values,
)
from tidings.docs_sync.model.validity import judge_all

keys = st.binary(max_size=3).map(lambda key: bytes(b % 3 + 97 for b in key))
entries = st.builds(
    entry, key=keys, timestamp=st.integers(1, 8), content=st.sampled_from([None, 1, 2]), author=st.integers(0, 1)
)
histories = st.lists(entries, max_size=25)
some_limits = functools.partial(
    st.builds,
    Limits,
    split=st.sampled_from([2, 3, 16]),
    base=st.sampled_from([0, 1, 4]),
    max_values=st.sampled_from([1, 2, 7, 1000]),
    max_bytes=st.sampled_from([1, 600, 1 << 20]),
    max_parts=st.sampled_from([1, 3, 4096]),
    max_bounds=st.sampled_from([1, 500, 1 << 19]),
)
limits = some_limits(listed=st.sampled_from([0, 1, 3, 300]))
limits_with_rust = some_limits()


@settings(max_examples=250, deadline=None)
@given(histories, histories, limits, limits)
def test_two_of_us_converge_in_one_session(mine: list, theirs: list, my_limits: Limits, their_limits: Limits) -> None:
    a, b = OurPeer(mine, my_limits), OurPeer(theirs, their_limits)
    run_session(a, b)
    assert a.held == b.held == merged(mine + theirs)


@settings(max_examples=250, deadline=None)
@given(histories, histories, limits_with_rust, st.booleans())
def test_we_converge_with_the_rust_rule(mine: list, theirs: list, my_limits: Limits, we_dial: bool) -> None:
    ours, rust = OurPeer(mine, my_limits), RustPeer()
    for e in sorted(theirs, key=lambda e: e.record.order):  # in the order of time its own rule holds, too
        rust._put(e)
    expected = merged([*ours.held, *rust.held])
    sides = (ours, rust) if we_dial else (rust, ours)
    run_session(*sides)
    assert ours.held == expected
    for _ in range(2):  # it can overwrite a delete with what we sent before we knew of the delete
        if rust.held != expected:
            run_session(*sides)
    assert ours.held == rust.held == expected


def test_the_swap_of_the_reference_does_not_happen() -> None:
    ours, rust = OurPeer([entry(b"foo", 2, None)]), RustPeer([entry(b"foo", 1)])
    run_session(rust, ours)
    assert ours.held == rust.held == {entry(b"foo", 2, None)}


def test_equal_sides_need_one_message() -> None:
    history = [entry(b"%d" % n, n) for n in range(1, 200)]
    assert run_session(OurPeer(history), OurPeer(history)) == 1


def test_one_difference_in_a_thousand_needs_few_messages() -> None:
    history = [entry(b"key/%05d" % n, n) for n in range(1, 1001)]
    assert run_session(OurPeer(history), OurPeer(history[:500] + history[501:])) <= 5


def test_lists_need_few_messages_whatever_differs() -> None:
    history = [entry(b"key/%05d" % n, n) for n in range(1, 3001)]
    for step in (1000, 100, 10):
        mine, theirs = history[: len(history) // 2], history[len(history) // 2 :]
        a = OurPeer([*mine, *theirs[::step]], limits_for(0.1, 3000, lists=True))
        b = OurPeer([*mine[::2], *theirs], limits_for(0.1, 3000, lists=True))
        b.limits = a.limits
        sent = []
        assert run_session(a, b, lambda message: sent.append(len(entries_of(message)))) <= 7  # noqa: B023
        assert a.held == b.held == set(history)
        differing = len(history) - len(mine[::2]) - len(theirs[::step])
        assert differing <= sum(sent) <= 1.02 * differing  # hardly anything that the other has


def test_entries_with_equal_short_fingerprints_are_left_to_the_second_check() -> None:
    one = MemoryStore([entry(b"a", 1), entry(b"b", 1)])
    other = MemoryStore([entry(b"c", 1), entry(b"d", 1)])
    for store in (one, other):
        store.listing = lambda range_, store=store: [(bytes(v.entry.id), bytes(32)) for v in store.walk(range_)]
    limits = Limits(base=0, listed=9)
    message = answer(other, initial_message(one), limits)
    assert [type(part) for part in message] == [RangeList]
    assert answer(one, message, limits) == []


def test_lists_are_answered_within_bounds() -> None:
    store = MemoryStore([entry(b"key/%05d" % n, n) for n in range(100)])
    whole = IdRange(bytes(64), bytes(64))
    shorts = b"".join(fingerprint[:8] for _, fingerprint in store.listing(whole))
    limits = Limits(max_values=10)
    for part in (RangeList(whole, b""), RangeWant(whole, shorts)):
        items, rest = answer(store, [part], limits)
        assert len(items.values) == 10 and isinstance(rest, RangeFingerprint), part
    assert answer(store, [RangeList(whole, shorts), RangeWant(whole, b"\0" * 80)], limits) == []
    (want,) = answer(MemoryStore(), [RangeList(whole, shorts)], limits)
    assert isinstance(want, RangeWant) and sorted(want.shorts) == sorted(shorts)
    huge = [RangeWant(whole, shorts)] * (MAX_LISTED // 200 + 100)
    parts = answer(store, huge, Limits())
    assert sum(isinstance(part, RangeItems) for part in parts) <= MAX_LISTED // 200
    assert isinstance(parts[-1], RangeFingerprint)


def test_messages_are_bounded() -> None:
    limits = Limits(max_values=50)
    sizes = []

    def note(message: list) -> None:
        sizes.append(sum(len(part.values) for part in message if isinstance(part, RangeItems)))

    history = [entry(b"key/%05d" % n, n) for n in range(1, 601)]
    empty = OurPeer(limits=limits)
    run_session(empty, OurPeer(history, limits), note)
    assert len(empty.held) == 600
    assert max(sizes) <= 50
    sizes.clear()
    rust = RustPeer()
    run_session(rust, OurPeer(history, limits), note)
    assert len(rust.held) == 600
    assert max(sizes) <= 50


def test_a_range_into_another_namespace_shows_only_ours() -> None:
    store = MemoryStore([entry(b"a", 1), entry(b"b", 2)])
    low, high = bytes(64), b"\xff" * 64
    for range_, count in [
        (IdRange(low, high), 2),
        (IdRange(high, low), 0),
        (IdRange(low, low), 2),
        (IdRange(low, bytes(63) + b"\1"), 0),
        (IdRange(high, high + b"a"), 0),
        (IdRange(high + b"a", high), 2),
    ]:
        parts = answer(store, [RangeItems(range_, [], False)], Limits())
        assert sum(len(part.values) for part in parts) == count
        assert all(v.entry.id.namespace == NAMESPACE_ID for part in parts for v in part.values)


def test_empty_document() -> None:
    (part,) = initial_message(MemoryStore())
    assert part == RangeFingerprint(IdRange(bytes(64), bytes(64)), EMPTY_HASH)


def test_fingerprint_of_a_range() -> None:
    (part,) = initial_message(MemoryStore([entry(b"wire-format-test", 1_700_000_000_000_000, None)]))
    assert part.fingerprint.hex() == "2d70753f09c0231692888772de0e777e971f4b046cf1b6b45b4d5a4aa647489e"


def test_what_nobody_may_accept_is_dropped_alone() -> None:
    now = 1_700_000_000_000_000
    record = Record(5, b"\x07" * 32, now)

    def signed(key: bytes, **changes: int) -> Value:
        return Value(sign_entry(NAMESPACE, AUTHORS[0], key, record._replace(**changes)), ContentStatus.MISSING)

    good = signed(b"good")
    stranger = Value(good.entry._replace(id=EntryId(bytes(32), *good.entry.id[1:])), ContentStatus.COMPLETE)
    forged = Value(good.entry._replace(author_signature=bytes(64)), ContentStatus.COMPLETE)
    ahead = signed(b"ahead", timestamp=now + 660_000_000)
    whole = IdRange(bytes(64), bytes(64))
    elsewhere = RangeItems(IdRange(bytes(64), bytes(65)), [good], True)
    message = [RangeItems(whole, [stranger, forged, good, ahead], True), elsewhere]
    result = screen(message, judge_all(entries_of(message), NAMESPACE_ID, now))
    assert [type(error) for error in result.rejected] == [
        errors.WrongNamespace,
        errors.BadSignature,
        errors.TooFarAhead,
        errors.OutsideRange,
    ]
    store, tally = MemoryStore(), Tally()
    tally.note(take_values(store.put_all, result.message).stored)
    assert set(store.entries.values()) == {good.entry}
    assert tally.heads == {bytes(AUTHORS[0].id): now}


@settings(max_examples=150, deadline=None)
@given(histories, keys, keys)
def test_ranges_hold_what_they_contain(history: list, x: bytes, y: bytes) -> None:
    store = MemoryStore(history)
    bounds = [NAMESPACE_ID + bytes(AUTHORS[1].id) + key for key in (x, y)]
    range_ = IdRange(*bounds)
    walked = [bytes(value.entry.id) for value in store.walk(range_)]
    assert set(walked) == {id for id in store.entries if range_.contains(id)}
    assert walked == sorted(walked, key=lambda each: (each < range_.x, each))
