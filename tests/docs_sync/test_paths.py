"""Names from the document are checked before they touch a disk."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.errors import UnsafePath
from tidings.docs_sync.model.paths import is_temporary, key_to_path, path_to_key


@pytest.mark.parametrize("path", ["a", "a/b.txt", "ü/é", ".hidden", "a b/c..d", "con", "..."])
def test_good_names_come_back(path: str) -> None:
    assert key_to_path(path_to_key(path)) == path


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"a",
        b"\0",
        b"/etc/passwd\0",
        b"../a\0",
        b"a/../../b\0",
        b"a/./b\0",
        b"a//b\0",
        b"a/\0",
        b"a\0b\0",
        b"a\0\0",
        b"C:\0",
        b"C:/windows\0",
        b"a\\b\0",
        b"\xff\xfe\0",
        b".tidings/x\0",
        b"a/.tidings-tmp-1\0",
        b"x" * 256 + b"\0",
        b"x/" * 2100 + b"y\0",
    ],
)
def test_bad_names_are_refused(key: bytes) -> None:
    with pytest.raises(UnsafePath):
        key_to_path(key)


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda key: key + b"\0"))
@settings(deadline=None, max_examples=300)
def test_any_key_is_a_safe_path_or_refused(key: bytes) -> None:
    try:
        path = key_to_path(key)
    except UnsafePath:
        return
    assert path_to_key(path) == key
    pure = PurePosixPath(path)
    assert not pure.is_absolute() and ".." not in pure.parts and str(pure) == path


def test_no_key_is_a_prefix_of_another() -> None:
    keys = [path_to_key(path) for path in ("a", "a.txt", "a/b", "a/b/c", "ab")]
    assert not any(one != other and other.startswith(one) for one in keys for other in keys)


def test_temporary_files_of_both_makers() -> None:
    assert is_temporary(".tidings-tmp-1234") and is_temporary("..tidings-tmp-1234.ab.part")
    assert not is_temporary(".tidings.txt")
