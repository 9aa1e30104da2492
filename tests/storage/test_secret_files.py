"""A secret is made once, read for ever, never replaced, never shown to others."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tidings.storage import Damaged, DiskFailed
from tidings.storage.secret_files import read_or_create_secret


def test_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "node" / "secret"
    secret = read_or_create_secret(path)
    assert len(secret) == 32
    assert path.read_bytes() == secret == read_or_create_secret(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert read_or_create_secret(tmp_path / "other") != secret


@pytest.mark.parametrize("size", [0, 31, 33, 1000])
def test_a_wrong_size_is_refused_and_kept(tmp_path: Path, size: int) -> None:
    (tmp_path / "secret").write_bytes(bytes(size))
    with pytest.raises(Damaged, match="move it away"):
        read_or_create_secret(tmp_path / "secret")
    assert (tmp_path / "secret").read_bytes() == bytes(size)


def test_wide_rights_are_taken_away_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "secret"
    secret = read_or_create_secret(path)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert read_or_create_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert "could be used by others" in caplog.text
    assert secret.hex() not in caplog.text


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir(mode=0o700)
    with pytest.raises(DiskFailed):
        read_or_create_secret(tmp_path / "secret")
