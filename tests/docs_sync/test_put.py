"""The put rule against its definition."""

from docs_model import MemoryStore, entry, merged
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.model.put import prefix_end, put

entries = st.builds(
    entry,
    key=st.binary(max_size=3).map(lambda key: bytes(b % 3 + 0xFD if b > 200 else b % 2 + 97 for b in key)),
    timestamp=st.integers(1, 6),
    content=st.sampled_from([None, 1, 2]),
    author=st.integers(0, 1),
)


def test_a_delete_holds_whatever_comes_later() -> None:
    store = MemoryStore([entry(b"foo", 5, None)])
    assert not store.put(entry(b"foo", 1))
    assert not store.put(entry(b"foobar", 4))
    assert store.put(entry(b"foobar", 6))
    assert store.put(entry(b"foobar", 1, author=1))


def test_the_empty_key_is_a_prefix_of_all() -> None:
    store = MemoryStore([entry(b"", 5)])
    assert not store.put(entry(b"a", 4))
    assert store.put(entry(b"a", 6))


def test_removed_counts_content_only() -> None:
    store = MemoryStore([entry(b"a/1", 1), entry(b"a/2", 1), entry(b"a/3", 1, None), entry(b"b", 1)])
    assert put(store, entry(b"a/", 2, None)).removed == 2
    assert put(store, entry(b"a/", 3, None)).removed == 0


def test_equal_times_are_decided_by_the_hash() -> None:
    store = MemoryStore([entry(b"a", 5, 2)])
    assert not store.put(entry(b"a", 5, 1))
    assert not store.put(entry(b"a", 5, 2))
    assert store.put(entry(b"a", 5, 3))


def test_prefix_end() -> None:
    assert prefix_end(b"ab") == b"ac"
    assert prefix_end(b"a\xff\xff") == b"b"
    assert prefix_end(b"\xff") is None
    assert prefix_end(b"") is None


@settings(max_examples=200, deadline=None)
@given(st.lists(entries, max_size=14), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(history: list, rng) -> None:
    shuffled = history[:]
    rng.shuffle(shuffled)
    expected = merged(history)
    assert set(MemoryStore(history).entries.values()) == expected
    assert set(MemoryStore(shuffled).entries.values()) == expected
