"""Changes to the folder: never over what was not looked at, never through a link."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidings.node.mirror_files import Changed, is_as_seen, move_aside, parent_of, put_in_place, remove_file
from tidings.node.mirror_plan import Local


def seen(path: Path) -> Local:
    status = path.stat()
    return Local(status.st_size, status.st_mtime_ns)


def place(folder: Path, path: str, data: bytes, expected: Local | None) -> Local:
    temporary = parent_of(folder, path) / ".tidings-tmp-1"
    temporary.write_bytes(data)
    try:
        return put_in_place(folder, path, temporary, expected, 5_000_000_000)
    finally:
        temporary.unlink(missing_ok=True)


def test_a_new_file_and_its_directories(tmp_path: Path) -> None:
    assert place(tmp_path, "d/e/f", b"123", None) == Local(3, 5_000_000_000)
    assert (tmp_path / "d/e/f").read_bytes() == b"123"
    assert [path.name for path in (tmp_path / "d/e").iterdir()] == ["f"]


def test_replacing_keeps_the_mode(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(0o750)
    place(tmp_path, "f", b"new", seen(tmp_path / "f"))
    assert (tmp_path / "f").read_bytes() == b"new"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o750


def test_what_was_not_looked_at_stays(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"theirs")
    other = Local(1, 1)
    for expected in (None, other):
        with pytest.raises(Changed):
            place(tmp_path, "f", b"new", expected)
        assert not is_as_seen(tmp_path, "f", expected)
    with pytest.raises(Changed):
        remove_file(tmp_path, "f", other)
    with pytest.raises(Changed):
        move_aside(tmp_path, "f", "g", other)
    with pytest.raises(Changed):
        remove_file(tmp_path, "gone", other)
    assert (tmp_path / "f").read_bytes() == b"theirs"


def test_no_link_is_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    outside.mkdir()
    folder.mkdir()
    (outside / "f").write_bytes(b"x")
    (folder / "link").symlink_to(outside)
    (folder / "file").symlink_to(outside / "f")
    with pytest.raises(OSError):
        place(folder, "link/new", b"y", None)
    with pytest.raises(OSError):
        remove_file(folder, "link/f", seen(outside / "f"))
    with pytest.raises(Changed):
        place(folder, "file", b"y", seen(outside / "f"))
    assert [path.name for path in outside.iterdir()] == ["f"]
    assert (outside / "f").read_bytes() == b"x"


def test_empty_directories_go_with_the_last_file(tmp_path: Path) -> None:
    place(tmp_path, "a/b/c", b"x", None)
    place(tmp_path, "a/d", b"x", None)
    remove_file(tmp_path, "a/b/c", seen(tmp_path / "a/b/c"))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["d"]
    remove_file(tmp_path, "a/d", seen(tmp_path / "a/d"))
    assert not list(tmp_path.iterdir())


def test_an_empty_directory_gives_way_and_a_full_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    place(tmp_path, "d", b"x", None)
    assert (tmp_path / "d").read_bytes() == b"x"
    place(tmp_path, "e/f", b"x", None)
    with pytest.raises(IsADirectoryError):
        place(tmp_path, "e", b"x", None)
    with pytest.raises(NotADirectoryError):
        place(tmp_path, "d/f", b"x", None)


def test_moving_aside_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "n (conflict x).txt").write_bytes(b"first")
    (tmp_path / "n.txt").write_bytes(b"second")
    beside = move_aside(tmp_path, "n.txt", "n (conflict x).txt", seen(tmp_path / "n.txt"))
    assert (tmp_path / beside).read_bytes() == b"second"
    assert (tmp_path / "n (conflict x).txt").read_bytes() == b"first"
    assert not (tmp_path / "n.txt").exists()
