"""What a scan sees, what it leaves out, and what it does not take for deleted."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from tidings.node.mirror_scan import FolderGone, prepare_folder, scan_folder

OLD = time.time_ns() - 10**10


def put(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(OLD, OLD))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare_folder(tmp_path / "folder", known=False)
    return tmp_path / "folder"


def test_regular_files_at_any_depth(folder: Path) -> None:
    put(folder / "a", b"123")
    put(folder / "b/c/d", b"")
    scan = scan_folder(folder)
    assert {path: local.size for path, local in scan.files.items()} == {"a": 3, "b/c/d": 0}
    assert all(local.mtime_ns == OLD and local.hash is None for local in scan.files.values())
    assert not scan.skipped and not scan.hides("a")


def test_control_folder_and_temporary_files_are_not_seen(folder: Path) -> None:
    put(folder / ".tidings/x")
    put(folder / "d/.tidings-tmp-12")
    put(folder / "..tidings-tmp-12.ff.part")
    scan = scan_folder(folder)
    assert not scan.files and not scan.skipped
    prepare_folder(folder, known=True)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [".tidings", ".tidings/x", "d"]


def test_links_pipes_and_sockets_are_skipped_with_a_sentence(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "outside/secret")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "socket"))
        scan = scan_folder(folder)
    assert not scan.files
    assert set(scan.skipped) == {"link", "dangling", "pipe", "socket"}
    assert "symbolic link" in scan.skipped["link"]
    assert scan.hides("link") and scan.hides("link/secret") and not scan.hides("linked")


def test_odd_names_are_skipped_with_a_sentence(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff\xfe")).touch()
    put(folder / "back\\slash")
    put(folder / "new\nline")
    scan = scan_folder(folder)
    assert set(scan.files) == {"new\nline"}
    assert len(scan.skipped) == 2 and any("UTF-8" in why for why in scan.skipped.values())
    for path, why in scan.skipped.items():
        assert (path + why).encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unlistable_directory_hides_what_is_below(folder: Path) -> None:
    put(folder / "closed/a")
    (folder / "closed").chmod(0)
    scan = scan_folder(folder)
    (folder / "closed").chmod(0o700)
    assert scan.hides("closed/a") and "cannot be listed" in scan.skipped["closed"]


def test_a_directory_that_cannot_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "closed/a")
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    scan = scan_folder(folder)
    assert scan.hides("closed/a") and not scan.hides("a") and "cannot be listed" in scan.skipped["closed"]


def test_a_file_written_just_now_is_left_for_the_next_round(folder: Path) -> None:
    (folder / "young").write_bytes(b"x")
    assert scan_folder(folder).hides("young")


def test_another_folder_in_its_place_is_refused(folder: Path) -> None:
    (folder / ".tidings").rmdir()
    prepare_folder(folder, known=True)
    with pytest.raises(FolderGone, match="nothing was deleted"):
        scan_folder(folder)
    folder.rmdir()
    with pytest.raises(FolderGone):
        scan_folder(folder)
