"""The rule by which a way to a peer is chosen."""

from hypothesis import given
from hypothesis import strategies as st
from tidings.transport import IpAddr, RelayUrl
from tidings.transport.paths.choice import IPV6_BIAS, MARGIN, Way, choose

RELAY, OTHER_RELAY = RelayUrl("https://a.example/"), RelayUrl("https://b.example/")
FOUR, FOUR_TOO, SIX = IpAddr.parse("192.0.2.1:1"), IpAddr.parse("192.0.2.2:1"), IpAddr.parse("[2001:db8::1]:1")
ADDRS = [RELAY, OTHER_RELAY, FOUR, FOUR_TOO, SIX]

times = st.floats(0.0001, 2.0)
ways = st.dictionaries(st.sampled_from(ADDRS), times, max_size=5).map(
    lambda found: [Way(addr, rtt) for addr, rtt in found.items()]
)
used = st.none() | st.sampled_from(ADDRS)


def chosen(current, **rtts):
    names = {"relay": RELAY, "other": OTHER_RELAY, "four": FOUR, "four_too": FOUR_TOO, "six": SIX}
    return choose([Way(names[name], rtt) for name, rtt in rtts.items()], current).way.addr


def test_examples():
    assert choose([], RELAY) is None
    assert chosen(None, relay=0.01) == RELAY
    assert chosen(RELAY, relay=0.01, four=0.5) == FOUR  # at once, however long it takes
    assert chosen(FOUR, relay=0.01) == RELAY  # it works no more
    assert chosen(FOUR, four=0.02, four_too=0.0151) == FOUR
    assert chosen(FOUR, four=0.02, four_too=0.0149) == FOUR_TOO
    assert chosen(None, four=0.02, six=0.022) == SIX
    assert chosen(FOUR, four=0.02, six=0.0179) == SIX
    assert chosen(SIX, four=0.0131, six=0.02) == SIX
    assert chosen(RELAY, relay=0.05, other=0.04) == OTHER_RELAY


@given(ways, used)
def test_direct_goes_before_relayed(found, current):
    choice = choose(found, current)
    assert (choice is None) == (not found)
    if choice is not None:
        assert choice.way in found and choice.why
        assert choice.way.is_relayed == all(way.is_relayed for way in found)


@given(ways, used)
def test_a_choice_stands_until_something_changes(found, current):
    choice = choose(found, current)
    if choice is not None:
        assert choose(found, choice.way.addr).way == choice.way


@given(ways, used, st.lists(st.floats(-0.99 * MARGIN / 2, 0.99 * MARGIN / 2), min_size=5, max_size=5))
def test_noise_below_half_the_margin_changes_no_best_choice(found, current, noise):
    best = choose(found, None)
    if best is not None:
        noisy = [Way(way.addr, way.rtt + more) for way, more in zip(found, noise, strict=False)]
        assert choose(noisy, best.way.addr).way.addr == best.way.addr


@given(ways, used)
def test_what_is_chosen_is_never_far_from_the_best(found, current):
    choice = choose(found, current)
    if choice is not None:
        alike = [way.rtt for way in found if way.is_relayed == choice.way.is_relayed]
        assert choice.way.rtt <= min(alike) + MARGIN + IPV6_BIAS
