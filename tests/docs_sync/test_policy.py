"""Download policies: what they match, their bytes, their text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.errors import BadPolicy
from tidings.docs_sync.model.policy import MAX_FILTERS, DownloadPolicy, Exact, Prefix, parse_filter
from tidings.docs_sync.model.validity import MAX_KEY_SIZE
from tidings.transport.errors import DecodeError

keys = st.one_of(st.binary(max_size=8), st.text(max_size=6).map(lambda text: text.encode("utf-8", "replace")))
filters = st.one_of(keys.map(Prefix), keys.map(Exact))
policies = st.builds(DownloadPolicy, st.booleans(), st.lists(filters, max_size=5).map(tuple))


def test_the_two_rules() -> None:
    everything = DownloadPolicy()
    assert everything == DownloadPolicy.everything_except()
    assert everything.matches(b"")
    assert not DownloadPolicy.nothing_except().matches(b"a")
    some = [Prefix(b"a/"), "exact:utf8:b"]
    but, only = DownloadPolicy.everything_except(some), DownloadPolicy.nothing_except(some)
    for key, matched in [(b"a/", True), (b"a/x", True), (b"a", False), (b"b", True), (b"b/", False), (b"", False)]:
        assert only.matches(key) is matched
        assert but.matches(key) is not matched
    assert str(but) == "everything except prefix:utf8:a/, exact:utf8:b"
    assert str(DownloadPolicy.nothing_except()) == "nothing"


def test_bytes_are_those_of_the_reference() -> None:
    assert DownloadPolicy().encode() == b"\1\0"
    policy = DownloadPolicy.nothing_except([Prefix(b"ab"), Exact(b"\0")])
    assert policy.encode() == bytes.fromhex("00 02 00 02 6162 01 01 00")


@given(policies, keys)
@settings(deadline=None, max_examples=100)
def test_round_trips(policy: DownloadPolicy, key: bytes) -> None:
    assert DownloadPolicy.decode(policy.encode()) == policy
    assert [parse_filter(str(filter)) for filter in policy.filters] == list(policy.filters)
    hit = any(filter.matches(key) for filter in policy.filters)
    assert policy.matches(key) is (hit != policy.everything)


@given(st.binary(max_size=40))
@settings(deadline=None, max_examples=200)
def test_any_bytes(data: bytes) -> None:
    try:
        policy = DownloadPolicy.decode(data)
    except DecodeError:
        return
    assert DownloadPolicy.decode(policy.encode()) == policy


@given(st.one_of(st.text(max_size=30), st.text(max_size=9).map(lambda text: "exact:hex:" + text)))
@settings(deadline=None, max_examples=200)
def test_any_text(text: str) -> None:
    try:
        filter = parse_filter(text)
    except BadPolicy as error:
        assert "prefix:utf8:" in str(error)
    else:
        assert parse_filter(str(filter)) == filter


def test_limits() -> None:
    DownloadPolicy.nothing_except([Exact(b"x")] * MAX_FILTERS)
    for bad in ([Exact(b"x")] * (MAX_FILTERS + 1), [Exact(b"x" * (MAX_KEY_SIZE + 1))], ["prefix"], [Prefix("a")]):
        with pytest.raises(BadPolicy):
            DownloadPolicy.nothing_except(bad)
    with pytest.raises(DecodeError):
        DownloadPolicy.decode(b"\1\xff\x7f" + b"\0\0" * 20_000)
