"""Whom a partial replica follows."""

from random import Random

from tidings.docs_sync.live.providers import LASTED, MAX_FOLLOWED, Providers


def test_no_more_than_enough_are_followed() -> None:
    providers = Providers(Random(1))
    for peer in (b"a", b"b", b"c"):
        providers.add(peer, 0.0)
    taken = [providers.take(1.0) for _ in range(3)]
    assert sorted(taken[:MAX_FOLLOWED]) == [b"a", b"b"]
    assert taken[2] is None
    assert providers.next_due() is None
    providers.ended(b"a", 0.0, 2.0)
    assert providers.take(2.0) == b"c"
    assert providers.take(1000.0) is None


def test_who_fails_waits_longer_and_longer() -> None:
    providers = Providers(Random(1))
    providers.add(b"a", 0.0)
    now, delays = 0.0, []
    for _ in range(12):
        assert providers.take(now) == b"a"
        providers.ended(b"a", 0.0, now)
        assert providers.take(now) is None
        due = providers.next_due()
        assert due is not None
        delays.append(due - now)
        now = due
    assert 0.5 <= delays[0] <= 1.5
    assert all(30 <= delay <= 90 for delay in delays[-3:])
    assert providers.take(now) == b"a"
    providers.ended(b"a", LASTED, now)
    assert providers.next_due() <= now + 1.5


def test_a_reason_to_try_again() -> None:
    providers = Providers(Random(1))
    assert providers.next_due() is None
    providers.add(b"a", 0.0)
    assert providers.take(0.0) == b"a"
    providers.ended(b"a", 0.0, 0.0)
    providers.add(b"a", 0.1)
    assert providers.take(0.1) == b"a"
    providers.add(b"a", 0.2)
    assert providers.take(0.2) is None  # it runs
