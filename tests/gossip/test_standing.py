"""Points of peers: they add up, halve, and put out for longer and longer."""

from tidings.gossip.net.standing import BANNED_FOR, HALF_LIFE, LIMIT, MAX_PEERS, Standing

A, B = b"a" * 32, b"b" * 32


def test_points_add_up_and_are_forgotten() -> None:
    standing = Standing()
    assert not standing.fault(A, 50, 0.0)
    assert standing.points(0.0) == {A: 50}
    assert standing.points(HALF_LIFE) == {A: 25}
    assert not standing.fault(A, 50, HALF_LIFE)
    assert standing.points(100 * HALF_LIFE) == {}


def test_who_has_too_many_is_out_for_a_while_and_longer_the_next_time() -> None:
    standing = Standing()
    assert standing.fault(A, LIMIT, 0.0)
    assert standing.is_out(A, BANNED_FOR - 1) and not standing.is_out(B, 0.0)
    assert not standing.fault(A, LIMIT, 1.0), "it is out already"
    assert not standing.is_out(A, BANNED_FOR)
    assert standing.fault(A, LIMIT, BANNED_FOR)
    assert standing.is_out(A, 3 * BANNED_FOR - 1) and not standing.is_out(A, 3 * BANNED_FOR)


def test_the_table_is_bounded() -> None:
    standing = Standing()
    for number in range(MAX_PEERS + 10):
        standing.fault(number.to_bytes(32, "big"), 50, 0.0)
    assert len(standing.points(0.0)) == MAX_PEERS
