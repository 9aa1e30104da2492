"""What belongs to a part of a document."""

from hypothesis import given
from hypothesis import strategies as st
from tidings.docs_sync.model.part import holds, in_part


def test_a_part_and_its_ancestors() -> None:
    there = (b"", b"ph", b"photos/", b"photos/1", b"photos/1/2")
    assert all(in_part(key, b"photos/") for key in there)
    assert not any(in_part(key, b"photos/") for key in (b"photos0", b"phone", b"q", b"photo/1"))


@given(st.binary(max_size=4), st.binary(max_size=4), st.binary(max_size=4))
def test_who_holds_a_part_holds_what_is_in_a_smaller_one(prefix: bytes, more: bytes, key: bytes) -> None:
    assert holds(prefix, prefix + more)
    assert holds(None, prefix)
    assert holds(None, None)
    assert not holds(prefix, None)
    if in_part(key, prefix + more):
        assert in_part(key, prefix)
