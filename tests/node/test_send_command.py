"""``tidings send`` and ``tidings receive`` as users type them, between two processes."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest


@pytest.fixture
def command(tmp_path):
    def line(node, *words):
        return [sys.executable, "-m", "tidings", "--node", str(tmp_path / node), "--bind", "127.0.0.1:0", *words]

    return line


@pytest.fixture
def run(command, tmp_path):
    def run(node, *words, check=True):
        return subprocess.run(command(node, *words), capture_output=True, check=check, timeout=60, cwd=tmp_path)

    return run


@pytest.fixture
def sent(command, tmp_path):
    """Serves a path while the block lasts; gives the first line of its JSON, and ends it by Ctrl-C."""

    @contextmanager
    def sent(path):
        line = command("sender", "--json", "send", path)
        with subprocess.Popen(line, stdout=subprocess.PIPE, cwd=tmp_path) as process:
            try:
                told = json.loads(process.stdout.readline())
                assert json.loads(process.stdout.readline())["event"] == "serving"
                yield told
                process.send_signal(signal.SIGINT)
                rest = [json.loads(line) for line in process.stdout]
                assert rest[-1]["event"] == "served"
                assert process.wait(30) == 0
            finally:
                process.kill()

    return sent


@pytest.fixture
def folder(tmp_path):
    """Small files, empty ones, large ones, and folders in folders."""
    contents = {"a.txt": b"a", "deep/er/b.bin": os.urandom(3_000_000), "deep/empty": b"", "ünïcode": os.urandom(16_384)}
    for name, content in contents.items():
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return contents


def read(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_sent_and_received(sent, run, folder, tmp_path):
    with sent("album") as told:
        assert told["files"] == 4
        done = json.loads(run("receiver", "--json", "receive", told["ticket"], "in").stdout.splitlines()[-1])
        assert done["files"] == 4
        assert read(tmp_path / "in/album") == folder
        again = run("receiver", "receive", told["ticket"], "in")  # what is there already is left alone
        assert b"4 files" in again.stdout


def test_a_file_is_sent_and_received(sent, run, tmp_path):
    content = os.urandom(100_000)
    (tmp_path / "film.mkv").write_bytes(content)
    with sent("film.mkv") as told:
        run("receiver", "receive", told["ticket"], "in")
    assert (tmp_path / "in/film.mkv").read_bytes() == content


def test_what_is_there_is_overwritten_only_when_told(sent, run, folder, tmp_path):
    mine = tmp_path / "in/album/a.txt"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with sent("album") as told:
        refused = run("receiver", "receive", told["ticket"], "in", check=False)
        assert refused.returncode == 1 and b"--overwrite" in refused.stderr and b"Traceback" not in refused.stderr
        assert read(tmp_path / "in/album") == {"a.txt": b"mine"}
        run("receiver", "receive", told["ticket"], "in", "--overwrite")
        assert read(tmp_path / "in/album") == folder


def test_mistakes_are_told(run, tmp_path):
    for words in (("send", "nothing"), ("receive", "nonsense"), ("send", "/")):
        done = run("node", *words, check=False)
        assert done.returncode in (1, 2)
        assert done.stderr and b"Traceback" not in done.stderr


def test_verify_finds_what_the_disk_has_changed_and_export_writes(run, tmp_path):
    content = os.urandom(200_000)
    (tmp_path / "file").write_bytes(content)
    hash = run("node", "blob", "add", "file").stdout.decode().strip()
    run("node", "blob", "export", hash, "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert run("node", "blob", "export", hash, "copy", check=False).returncode == 1
    run("node", "blob", "export", hash, "copy", "--overwrite")
    assert b"1 blobs" in run("node", "blob", "verify").stdout
    (stored,) = (tmp_path / "node/blobs/data").rglob("*.data")
    with stored.open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    verified = run("node", "--json", "blob", "verify", check=False)
    assert verified.returncode == 1
    assert json.loads(verified.stdout) == {"hash": hash, "size": 200_000, "bad": 16_384}
