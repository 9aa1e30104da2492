"""``tidings blob`` as a user types it."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def tidings(tmp_path):
    def command(*words, check=True, node="node"):
        line = [sys.executable, "-m", "tidings", "--node", str(tmp_path / node), "--bind", "127.0.0.1:0", *words]
        return subprocess.run(line, capture_output=True, check=check, timeout=60, cwd=tmp_path)

    return command


def test_add_name_list_get_and_collect(tidings, tmp_path):
    content = os.urandom(50_000)
    (tmp_path / "file").write_bytes(content)
    hash = tidings("blob", "add", "file", "--tag", "mine").stdout.decode().strip()
    listed = json.loads(tidings("--json", "blob", "ls").stdout)
    assert listed == {"hash": hash, "size": 50_000}
    assert tidings("blob", "get", hash).stdout == content
    tidings("blob", "get", hash, "copy")
    assert (tmp_path / "copy").read_bytes() == content
    tidings("blob", "tag", "again", hash)
    assert [line.split()[1] for line in tidings("blob", "tag").stdout.decode().splitlines()] == ["again", "mine"]
    tidings("blob", "tag", "--remove", "mine")
    assert tidings("blob", "gc", "--grace", "0").stdout == b"0 blobs, 0 bytes\n"
    tidings("blob", "tag", "--remove", "again")
    assert tidings("blob", "gc", "--grace", "0").stdout == b"1 blobs, 50000 bytes\n"
    missing = tidings("blob", "get", hash, check=False)
    assert missing.returncode == 1 and b"Traceback" not in missing.stderr


@pytest.mark.parametrize("words", [("add", "nothing"), ("get", "nonsense"), ("tag", "name"), ("tag", "--remove", "x")])
def test_mistakes_are_told(tidings, words):
    done = tidings("blob", *words, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"tidings: ") and b"Traceback" not in done.stderr
