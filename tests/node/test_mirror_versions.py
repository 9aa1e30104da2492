"""A document as versions of paths."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.node.mirror_plan import Version
from tidings.node.mirror_versions import Versions

A, B = b"a" * 32, b"b" * 32


@dataclass(frozen=True)
class Entry:
    key: bytes
    author: bytes
    timestamp: int
    hash: bytes = b"h" * 32
    size: int = 1

    @property
    def is_tombstone(self) -> bool:
        return self.size == 0


def test_the_newest_of_each_author_in_any_order() -> None:
    versions = Versions()
    for entry in (Entry(b"f\0", A, 2), Entry(b"f\0", A, 1), Entry(b"f\0", B, 1, size=0), Entry(b"f.txt\0", A, 1)):
        versions.add(entry)
    assert versions.of("f") == [Version(A, 2, b"h" * 32, 1), Version(B, 1, None, 0)]
    assert versions.paths == ["f", "f.txt"] and versions.of("g") == []


def test_a_tombstone_over_a_prefix_counts_for_its_author_below_it() -> None:
    versions = Versions()
    assert versions.add(Entry(b"p/f\0", A, 1)) == "p/f"
    versions.add(Entry(b"p/f\0", B, 1))
    versions.add(Entry(b"p/new\0", A, 9))
    assert versions.add(Entry(b"p/", A, 5, size=0)) is None
    assert {(v.author, v.hash is None) for v in versions.of("p/f")} == {(A, True), (B, False)}
    assert [v.hash is None for v in versions.of("p/new")] == [False]
    assert [v.hash for v in versions.of("p/never")] == [None] and versions.of("q") == []


def test_unsafe_names_are_left_out() -> None:
    versions = Versions()
    assert versions.add(Entry(b"../f\0", A, 1)) is None
    assert versions.paths == [] and b"../f\0" in versions.unsafe
