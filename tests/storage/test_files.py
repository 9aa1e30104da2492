"""Durable files: whole or absent, private, and one holder of a lock."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
from tidings.storage import DiskFailed, DiskFull, Locked, NotWritable
from tidings.storage.errors import from_os_error
from tidings.storage.files import FileLock, make_private, make_private_dir, new_file, rename_new, write_durably


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for data in (b"one", b"", b"three" * 100_000):
        write_durably(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_durably(tmp_path / "file", b"old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="free some space"):
        write_durably(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_new_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with new_file(target) as file:
        file.write(b"ne")
        assert target.read_bytes() == b"old"
        file.write(b"w")
    assert target.read_bytes() == b"new"
    with pytest.raises(RuntimeError), new_file(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]  # noqa: PTH208


@pytest.mark.parametrize("has_links", [True, False])
def test_a_rename_that_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "taken").write_bytes(b"mine")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            rename_new(fd, "a", fd, "taken")
        rename_new(fd, "a", fd, "b")
    finally:
        os.close(fd)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b": b"a", "taken": b"mine"}


def test_a_missing_directory_is_an_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(DiskFailed, match="nowhere/file"):
        write_durably(tmp_path / "nowhere" / "file", b"")


def test_private_directories_and_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_private_dir(tmp_path / "a" / "b")
    make_private_dir(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    file = tmp_path / "file"
    file.touch(0o600)
    with caplog.at_level(logging.WARNING):
        make_private(file)
        assert not caplog.records
        file.chmod(0o664)
        make_private(file)
        assert file.stat().st_mode & 0o777 == 0o600
        assert "0664" in caplog.text or "664" in caplog.text


def test_one_holder_of_a_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock", tmp_path / "thing")
    with pytest.raises(Locked, match=r"thing is in use by this process"):
        FileLock(tmp_path / "lock", tmp_path / "thing")
    lock.release()
    FileLock(tmp_path / "lock", tmp_path / "thing").release()


def test_each_cause_has_its_error() -> None:
    path = Path("x")
    assert isinstance(from_os_error(OSError(errno.EDQUOT, ""), path), DiskFull)
    assert isinstance(from_os_error(OSError(errno.EROFS, ""), path), NotWritable)
    assert isinstance(from_os_error(OSError(errno.EIO, ""), path), DiskFailed)
